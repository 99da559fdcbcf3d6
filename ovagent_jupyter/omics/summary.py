"""The state card as text in a bounded number of characters, without what may tell who is who."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ovagent_jupyter.omics.state import Column, DataState, XState

MAX_LENGTH = 4_000
"""Characters of one summary."""
MAX_LEVELS = 30
"""A column with more levels has none of them named."""
MIN_ROWS = 10
"""Rows that a level stands for: on average in its column, and each one that is named."""
MAX_NAME = 40
"""Characters of one name."""

_SHARES = {"obs": 0.5, "var": 0.15, "layers": 0.08, "obsm": 0.06, "obsp": 0.05, "uns": 0.06}
"""Parts of the length that the lines may take; the rest is for the first line and the notes."""
_MAX_EVIDENCE = 120
"""Characters of what is said on how the content of X was told."""
_MAX_LISTED = 600
"""Characters of the levels of one column."""
_PEOPLE = re.compile(
    r"patient|donor|subject|participant|individual|person|proband|volunteer|birth|mail|phone"
    r"|address|surname|(first|last|full|family|given)[ _.-]?name"
    r"|^names?$|(?<![a-z])(dob|mrn|ssn|nhs|postcode|zip)(?![a-z])"
)
"""Names of columns whose levels may be people, also where each has many cells."""

_Item = tuple[str, str]
"""What is said of a slot: whole, and in short where there is no room."""


def summarize(state: DataState, length: int = MAX_LENGTH) -> str:
    """The state card in a few lines, for a person or a model.

    The first line is size and content of X; each further line is one kind of slot. Levels of a
    column are named only where they are few and each stands for many rows, and never those of
    a column whose name speaks of people; no other values are in it.

    Args:
        state: The state card.
        length: Characters that it may take; beyond them slots are counted, not named.
    """
    room = {title: int(share * length) for title, share in _SHARES.items()}
    lines = [
        f"{cut_name(state.name)}: {state.n_obs:,} cells x {state.n_vars:,} genes"
        f"{f' ({state.species})' if state.species else ''} · X holds {_matrix(state.x)}"
    ]
    if state.raw is not None:
        lines.append(f"raw: {state.raw.kind}")
    layers = (f"{cut_name(key)} ({held.kind})" for key, held in state.layers.items())
    obsm = (f"{cut_name(key)} ({_dims(shape)})" for key, shape in state.obsm.items())
    lines += _line("layers", _plain(layers), room["layers"])
    lines += _line("obs", _columns(state.obs.values()), room["obs"])
    lines += _line("var", _columns(state.var.values()), room["var"])
    lines += _line("obsm", _plain(obsm), room["obsm"])
    lines += _line("obsp", _plain(map(cut_name, state.obsp)), room["obsp"])
    lines += _line("uns", _plain(map(cut_name, sorted(state.uns))), room["uns"])
    lines += [f"note: {note}" for note in _notes(state)]
    return _cut_text("\n".join(lines), length)


def listed(names: Iterable[str], length: int) -> str:
    """Names one after the other; those for which there is no room are counted."""
    return _fitted(_plain(names), length)


def cut_name(name: object) -> str:
    """A name on one line, cut when it is long."""
    return _cut_text(" ".join(str(name).split()), MAX_NAME)


def _matrix(x: XState) -> str:
    sure = "" if x.confidence >= 0.9 else f", {x.confidence:.0%} sure"  # noqa: PLR2004
    return f"{x.kind}{sure} ({_cut_text(x.evidence.rstrip('.'), _MAX_EVIDENCE)})"


def _dims(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape[1:]) or "1"


def _columns(columns: Iterable[Column]) -> list[_Item]:
    """What is said of columns: those that group cells first, for questions are about them."""
    return [_column(column) for column in sorted(columns, key=_rank)]


def _rank(column: Column) -> int:
    if column.kind in ("categorical", "string"):
        return 0 if _may_be_named(column) else 2
    return {"bool": 1, "int": 3}.get(column.kind, 4)


def _column(column: Column) -> _Item:
    name = cut_name(column.name)
    if column.kind == "bool" and "True" in column.levels and column.sizes:
        true = column.sizes[column.levels.index("True")]
        return f"{name} (bool, True in {true:,})", f"{name} (bool)"
    if column.kind == "int" and column.n_unique is not None:
        return f"{name} (int, {column.n_unique:,} different)", f"{name} (int)"
    if column.kind not in ("categorical", "string"):
        return (f"{name} ({column.kind})",) * 2
    short = _counted(column)
    if _may_be_named(column):
        return f"{name} ({short}: {_levels(column)})", f"{name} ({short})"
    return f"{name} ({short}{_range(column)})", f"{name} ({short})"


def _may_be_named(column: Column) -> bool:
    """Whether levels are groups of many rows, and no people as far as the name tells."""
    few = 0 < len(column.levels) <= MAX_LEVELS and (column.n_unique or 0) <= MAX_LEVELS
    return few and _many_rows(column) and not _about_people(column.name)


def _many_rows(column: Column) -> bool:
    return bool(column.sizes) and sum(column.sizes) >= MIN_ROWS * len(column.levels)


def _about_people(name: str) -> bool:
    return _PEOPLE.search(name.lower()) is not None


def _counted(column: Column) -> str:
    if column.n_unique is None:
        return "text"
    if column.n_unique > MAX_LEVELS or not _many_rows(column):
        return f"{column.n_unique:,} different texts"
    text = "text, " if column.kind == "string" else ""
    return f"{text}{column.n_unique} level{'s' if column.n_unique > 1 else ''}"


def _levels(column: Column) -> str:
    """Levels with their rows; of a sample without, for there are more rows than were counted."""
    held = list(zip(column.levels, column.sizes, strict=True))
    exact = column.n_unique is not None
    # clusters are; such a number says nothing of the few cells that it may have
    numbered = set(column.levels) == {str(number) for number in range(len(held))}
    common = [
        f"{cut_name(level)}: {size:,}" if exact else cut_name(level)
        for level, size in held
        if size >= MIN_ROWS or numbered
    ]
    said = _fitted(_plain(common), _MAX_LISTED, ", ")
    if not exact:
        return f"{said}, perhaps others"
    rare = len(held) - len(common)
    return f"{said}, and {rare} of fewer than {MIN_ROWS} rows each" if rare else said


def _range(column: Column) -> str:
    """The sizes of levels that are not named, where they are few."""
    if column.n_unique is None:
        return ", not named"
    if column.n_unique > MAX_LEVELS or not _many_rows(column):
        return ""
    return f" of {min(column.sizes):,} to {max(column.sizes):,} rows, not named"


def _plain(items: Iterable[str]) -> list[_Item]:
    return [(item, item) for item in items]


def _line(title: str, items: list[_Item], room: int) -> list[str]:
    return [f"{title}: {_fitted(items, room)}"] if items else []


def _fitted(items: list[_Item], room: int, between: str = " · ") -> str:
    """As many items as there is room for; none takes more than half of what is left for others."""
    shown: list[str] = []
    for whole, short in items:
        said = whole if 2 * len(whole) <= room else short
        if len(said) > room:
            break
        shown.append(said)
        room -= len(said) + len(between)
    if len(shown) < len(items):
        shown.append(f"and {len(items) - len(shown):,} more")
    return between.join(shown)


def _cut_text(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _notes(state: DataState) -> list[str]:
    notes = []
    if not state.unique_var_names:
        notes.append("gene names are not unique")
    if not state.unique_obs_names:
        notes.append("cell names are not unique")
    if state.has_nan:
        notes.append("X has NaN or infinite values")
    return notes
