"""How an object differs from what was sent, told slot by slot."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, cast

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover.aligned import take
from ovagent_jupyter.execution.handover.codec import same
from ovagent_jupyter.execution.handover.kept import Kept
from ovagent_jupyter.execution.handover.left_behind import shown
from ovagent_jupyter.execution.handover.objects import kind_of
from ovagent_jupyter.execution.handover.packing import NEW, frame_places
from ovagent_jupyter.execution.handover.rebuild import Delta, Rebuilt
from ovagent_jupyter.execution.handover.report import (
    ARROW,
    COUNTED,
    MINUS,
    TIMES,
    ObjectDiff,
    SlotChange,
)
from ovagent_jupyter.execution.handover.saved import Saved
from ovagent_jupyter.execution.handover.slots import (
    BRANCH,
    ROWS,
    WITHOUT_INDEX,
    Path,
    Tree,
    encode_slot,
    inside,
)

_Kind = Literal["added", "changed", "removed"]
_WITH_SHAPE = ("obsm", "varm", "obsp", "varp", "images", "labels", "shapes")
_NAMED = ("Series", "RecordBatch", "GeoDataFrame", "DataArray")
"""Classes with a shape that are told by their name."""


def diff_delta(delta: Delta, own: Kept, rebuilt: Rebuilt) -> ObjectDiff:
    """How a rebuilt object differs from what was handed over."""
    kinds: dict[str, set[_Kind]] = {}
    paths: dict[str, Path] = {}
    frames = [*frame_places(own.paths), *frame_places(Tree(own.kind, rebuilt.slots))]
    labels = {place.columns for place in frames}
    counted = {ROWS} if own.kind in WITHOUT_INDEX else {place.index for place in frames}
    counted -= {path for path in counted if "raw" in path[:-1]}  # told as one thing
    came = {e.path for e in delta.entries if e.state == NEW and e.path not in own}
    went = {path for path in delta.gone if path in own and path not in rebuilt.slots}
    for entry in delta.entries:
        if entry.path in labels or _is_part_of_one(entry.path, came):
            continue
        if entry.state == NEW and _differs(entry.path, own, rebuilt):
            _note(kinds, paths, entry.path, "changed" if entry.path in own else "added")
    for path in delta.gone & went:
        if not _is_part_of_one(path, went):
            _note(kinds, paths, path, "removed")
    changes = [
        _counting(label, paths[label], own, rebuilt)
        if paths[label] in counted and paths[label] in rebuilt.slots
        else _change(label, paths[label], found, own, rebuilt)
        for label, found in kinds.items()
    ]
    changes.sort(key=lambda change: change.path not in COUNTED)
    slots = tuple(changes) or _only_order(delta, labels)
    return ObjectDiff(delta.name, "changed", slots)


def _is_part_of_one(path: Path, wholes: Collection[Path]) -> bool:
    """Whether a slot belongs to a modality or a table that came or went as a whole."""
    return inside(path) != path and path[:2] in wholes


def _note(kinds: dict[str, set[_Kind]], paths: dict[str, Path], path: Path, kind: _Kind) -> None:
    label = label_of(path)
    kinds.setdefault(label, set()).add(kind)
    paths.setdefault(label, path)


def _only_order(delta: Delta, labels: Collection[Path]) -> tuple[SlotChange, ...]:
    for entry in delta.entries:
        if entry.state == NEW and entry.path in labels:
            where = label_of(entry.path).replace("_columns", "")
            return (SlotChange(where, "changed", "columns in another order"),)
    return (SlotChange("", "changed", "in another order"),)


def label_of(path: Path) -> str:
    """A slot as it is shown: entries of a nested dictionary under their first key."""
    within = inside(path)
    lead = path[: len(path) - len(within)]
    if within[:1] == ("raw",):
        within = within[:1]
    elif within[:1] == ("column",):
        within = within[1:2]
    elif len(within) > 1:
        within = within[:2]
    return "/".join(shown(str(step), 60) for step in (*lead, *within))


def _differs(path: Path, own: Kept, rebuilt: Rebuilt) -> bool:
    """Whether a slot differs by more than the cells and genes that went."""
    if path not in own or not rebuilt.moved:
        return True
    before, after = own[path], rebuilt.slots[path]
    if before is BRANCH or after is BRANCH:
        return True
    try:
        expected = take(before, path, rebuilt.moved)
        return expected is None or not same(encode_slot(expected), encode_slot(after))
    except (HandoverError, ValueError, TypeError, IndexError):
        return True


def _change(label: str, path: Path, found: set[_Kind], own: Kept, rebuilt: Rebuilt) -> SlotChange:
    kind = next(iter(found)) if len(found) == 1 else "changed"
    if len(path) > 1 and path[0] == "uns" and kind != "changed":
        top = path[:2]
        kind = {True: kind, False: "changed"}[(top in own) != (top in rebuilt.slots)]
    if path[0:1] == ("raw",):
        kind = "changed" if ("raw",) in own and ("raw",) in rebuilt.slots else kind
        path = ("raw", "X")
    if kind == "removed":
        return SlotChange(label, kind)
    return SlotChange(label, kind, _slot_note(path, own, rebuilt.slots.get(path)))


def _counting(label: str, path: Path, own: Kept, rebuilt: Rebuilt) -> SlotChange:
    """How the cells, genes or rows changed."""
    things = COUNTED[str(path[-1])]
    change = len(cast(Any, rebuilt.slots[path])) - len(cast(Any, own[path]))
    if change:
        things = things if abs(change) > 1 else things[:-1]
        return SlotChange(label, "changed", f"{'+' if change > 0 else MINUS}{abs(change)} {things}")
    how = "renamed" if rebuilt.moved.get(path) is None else "reordered"
    return SlotChange(label, "changed", f"{things} {how}")


def _slot_note(path: Path, own: Kept, after: object) -> str:
    within = inside(path)
    group = within[0] if within else ""
    if group in ("obs", "var", "column"):
        categories = getattr(after, "categories", None)
        return "" if categories is None else _plural(len(categories), "level")
    if group in _WITH_SHAPE:
        return shape_of(after)
    before = own.get(path)
    if not within:
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
    kind = kind_of(value)
    name = {"anndata": "AnnData", "mudata": "MuData", "dataframe": "DataFrame"}.get(kind)
    name = name or type(value).__name__
    extents = shape_of(value)
    if extents and kind in ("value", "dict") and name not in _NAMED:
        form = getattr(value, "format", "array")
        return f"{form} {extents} {getattr(value, 'dtype', '')}".strip()
    if not extents and isinstance(value, list | tuple | set | dict | frozenset):
        return f"{name} of {len(value)}"
    if isinstance(value, bool | int | float):
        return f"{name} {value}"
    return f"{name} {extents}".strip()


def diff_whole(name: str, value: object, sent: Mapping[str, Saved]) -> ObjectDiff:
    """How a new object, or one that took an old one's name, is told."""
    if name not in sent:
        return ObjectDiff(name, "added", (SlotChange("", "added", shown(describe(value))),))
    try:
        before = describe(sent[name].restore())
    except HandoverError:
        before = sent[name].kind
    note = f"{before} {ARROW} {describe(value)}"
    return ObjectDiff(name, "changed", (SlotChange("", "changed", shown(note)),))
