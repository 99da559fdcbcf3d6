"""How an object differs from what was sent, told slot by slot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover.aligned import take
from ovagent_jupyter.execution.handover.codec import same
from ovagent_jupyter.execution.handover.objects import kind_of
from ovagent_jupyter.execution.handover.packing import NEW
from ovagent_jupyter.execution.handover.rebuild import Delta, Rebuilt
from ovagent_jupyter.execution.handover.report import (
    ARROW,
    COUNTED,
    MINUS,
    TIMES,
    ObjectDiff,
    SlotChange,
    shown,
)
from ovagent_jupyter.execution.handover.slots import BRANCH, Path, Slots, Tree, encode_slot

_Kind = Literal["added", "changed", "removed"]
_LABELS = ("columns", "obs_columns", "var_columns")
_WITH_SHAPE = ("obsm", "varm", "obsp", "varp")


def diff_delta(delta: Delta, own: Tree, rebuilt: Rebuilt) -> ObjectDiff:
    """How a rebuilt object differs from the parent's."""
    kinds: dict[str, set[_Kind]] = {}
    paths: dict[str, Path] = {}
    for entry in delta.entries:
        if entry.state == NEW and _differs(entry.path, own.slots, rebuilt):
            _note(kinds, paths, entry.path, "changed" if entry.path in own.slots else "added")
    for path in delta.gone:
        if path in own.slots and path not in rebuilt.slots:
            _note(kinds, paths, path, "removed")
    changes = [
        _change(label, paths[label], found, own.slots, rebuilt) for label, found in kinds.items()
    ]
    changes.sort(key=lambda change: change.path not in COUNTED)
    slots = tuple(changes) or _only_order(delta)
    return ObjectDiff(delta.name, "changed", slots)


def _note(kinds: dict[str, set[_Kind]], paths: dict[str, Path], path: Path, kind: _Kind) -> None:
    label = label_of(path)
    kinds.setdefault(label, set()).add(kind)
    paths.setdefault(label, path)


def _only_order(delta: Delta) -> tuple[SlotChange, ...]:
    for entry in delta.entries:
        if entry.state == NEW and entry.path and entry.path[-1] in _LABELS:
            where = label_of(entry.path).replace("_columns", "")
            return (SlotChange(where, "changed", "columns in another order"),)
    return (SlotChange("", "changed", "in another order"),)


def label_of(path: Path) -> str:
    """A slot as it is shown: entries of a nested dictionary under their first key."""
    inside = path[2:] if path[:1] == ("mod",) and len(path) > len(("mod", "name")) else path
    lead = path[: len(path) - len(inside)]
    if inside[:1] == ("raw",):
        inside = inside[:1]
    elif inside[:1] == ("column",):
        inside = inside[1:2]
    elif len(inside) > 1:
        inside = inside[:2]
    return "/".join(shown(str(step), 60) for step in (*lead, *inside))


def _differs(path: Path, own: Slots, rebuilt: Rebuilt) -> bool:
    """Whether a slot differs by more than the cells and genes that went."""
    if path[-1:] and path[-1] in _LABELS:
        return False
    if path not in own:
        return True
    before, after = own[path], rebuilt.slots[path]
    if not rebuilt.moved or before is BRANCH or after is BRANCH:
        return True
    try:
        expected = take(before, path, rebuilt.moved)
        return expected is None or not same(encode_slot(expected), encode_slot(after))
    except (HandoverError, ValueError, TypeError, IndexError):
        return True


def _change(label: str, path: Path, found: set[_Kind], own: Slots, rebuilt: Rebuilt) -> SlotChange:
    name = path[-1] if path else ""
    before, after = own.get(path), rebuilt.slots.get(path)
    if name in COUNTED and path[:1] != ("raw",) and path in rebuilt.slots:
        return SlotChange(label, "changed", _count(str(name), path, before, after, rebuilt))
    kind = next(iter(found)) if len(found) == 1 else "changed"
    if len(path) > 1 and path[0] == "uns" and kind != "changed":
        top = path[:2]
        kind = {True: kind, False: "changed"}[(top in own) != (top in rebuilt.slots)]
    if path[0:1] == ("raw",):
        kind = "changed" if ("raw",) in own and ("raw",) in rebuilt.slots else kind
        before, after = own.get(("raw", "X")), rebuilt.slots.get(("raw", "X"))
    return SlotChange(label, kind, "" if kind == "removed" else _slot_note(path, before, after))


def _count(name: str, path: Path, before: Any, after: Any, rebuilt: Rebuilt) -> str:
    things = COUNTED[name]
    change = len(after) - len(before)
    if change:
        things = things if abs(change) > 1 else things[:-1]
        return f"{'+' if change > 0 else MINUS}{abs(change)} {things}"
    return f"{things} {'renamed' if rebuilt.moved.get(path) is None else 'reordered'}"


def _slot_note(path: Path, before: object, after: object) -> str:
    inside = path[2:] if path[:1] == ("mod",) else path
    group = inside[0] if inside else ""
    if group in ("obs", "var", "column"):
        categories = getattr(after, "categories", None)
        return "" if categories is None else _plural(len(categories), "level")
    if group in _WITH_SHAPE:
        return shape_of(after)
    if not inside:
        was, now = describe(before), describe(after)
        return f"{was} {ARROW} {now}" if was != now else ""
    if group in ("X", "layers", "raw"):
        was, now = form_of(before), form_of(after)
        note = now if before is None or was == now else f"{was} {ARROW} {now}"
        if group == "raw":
            return f"{shape_of(after)} {note}"
        return "" if was == now else note
    return ""


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def shape_of(value: object) -> str:
    """``700 × 50``; empty for what has no shape."""
    extents = getattr(value, "shape", None)
    return f" {TIMES} ".join(map(str, extents)) if isinstance(extents, tuple) else ""


def form_of(value: object) -> str:
    """How a matrix is stored: ``csr float32``, ``dense float64``; a short name of others."""
    if value is None:
        return "nothing"
    dtype = getattr(value, "dtype", None)
    if dtype is None or not hasattr(value, "shape"):
        return describe(value)
    return f"{getattr(value, 'format', 'dense')} {dtype}"


def describe(value: object) -> str:
    """What a new object is, in a few words: ``DataFrame 20 × 5``."""
    name = {"anndata": "AnnData", "mudata": "MuData", "dataframe": "DataFrame"}.get(kind_of(value))
    name = name or type(value).__name__
    extents = shape_of(value)
    if extents and name not in ("AnnData", "MuData", "DataFrame", "Series"):
        kind = getattr(value, "format", "array")
        return f"{kind} {extents} {getattr(value, 'dtype', '')}".strip()
    if not extents and isinstance(value, list | tuple | set | dict | frozenset):
        return f"{name} of {len(value)}"
    if isinstance(value, bool | int | float):
        return f"{name} {value}"
    return f"{name} {extents}".strip()


def diff_whole(name: str, value: object, sent: Mapping[str, object]) -> ObjectDiff:
    """How a new object, or one that took an old one's name, is told."""
    if name not in sent:
        return ObjectDiff(name, "added", (SlotChange("", "added", shown(describe(value))),))
    note = f"{describe(sent[name])} {ARROW} {describe(value)}"
    return ObjectDiff(name, "changed", (SlotChange("", "changed", shown(note)),))
