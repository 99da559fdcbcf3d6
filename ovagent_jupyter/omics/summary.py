"""The state card as text in a bounded number of characters."""

from __future__ import annotations

from collections.abc import Iterable

from ovagent_jupyter.omics.state import Column, DataState, XState

MAX_ITEMS = 12
"""Names listed of one slot; the rest is counted."""
MAX_LEVELS = 6
"""Levels listed of one column."""
MAX_NAME = 40
"""Characters of one name."""


def summarize(state: DataState) -> str:
    """The state card in a few lines, for a person or a model.

    The first line is size and content of X; each further line is one kind of slot.
    """
    lines = [
        f"{state.name}: {state.n_obs:,} cells x {state.n_vars:,} genes"
        f"{f' ({state.species})' if state.species else ''} · X holds {_matrix(state.x)}"
    ]
    if state.raw is not None:
        lines.append(f"raw: {state.raw.kind}")
    lines += _line("layers", (f"{_cut(k)} ({v.kind})" for k, v in state.layers.items()))
    lines += _line("obs", (_column(column) for column in state.obs.values()))
    lines += _line("var", (_column(column) for column in state.var.values()))
    lines += _line("obsm", (f"{_cut(key)} ({_dims(s)})" for key, s in state.obsm.items()))
    lines += _line("obsp", map(_cut, state.obsp))
    lines += _line("uns", map(_cut, sorted(state.uns)))
    lines += [f"note: {note}" for note in _notes(state)]
    return "\n".join(lines)


def _matrix(x: XState) -> str:
    sure = "" if x.confidence >= 0.9 else f", {x.confidence:.0%} sure"  # noqa: PLR2004
    return f"{x.kind}{sure} ({x.evidence.rstrip('.')})"


def _dims(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape[1:]) or "1"


def _column(column: Column) -> str:
    name = _cut(column.name)
    if column.levels and column.kind != "bool":
        shown = ", ".join(_cut(level) for level in column.levels[:MAX_LEVELS])
        more = ", …" if len(column.levels) > MAX_LEVELS else ""
        count = f"{column.n_unique:,} levels: " if column.n_unique is not None else ""
        return f"{name} ({count}{shown}{more})"
    return f"{name} ({column.kind})"


def _line(title: str, items: Iterable[str]) -> list[str]:
    listed = list(items)
    if not listed:
        return []
    shown = " · ".join(listed[:MAX_ITEMS])
    more = f" · and {len(listed) - MAX_ITEMS} more" if len(listed) > MAX_ITEMS else ""
    return [f"{title}: {shown}{more}"]


def _cut(name: str) -> str:
    clean = " ".join(str(name).split())
    return clean if len(clean) <= MAX_NAME else f"{clean[: MAX_NAME - 1]}…"


def _notes(state: DataState) -> list[str]:
    notes = []
    if not state.unique_var_names:
        notes.append("gene names are not unique")
    if not state.unique_obs_names:
        notes.append("cell names are not unique")
    if state.has_nan:
        notes.append("X has NaN or infinite values")
    return notes
