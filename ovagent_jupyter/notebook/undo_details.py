"""What one step changed, slot by slot: what was there before and after, as far as a line tells."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from ovagent_jupyter.notebook.undo_steps import Moment, UndoStep

if TYPE_CHECKING:
    from ovagent_jupyter.execution.handover.saved import Saved
    from ovagent_jupyter.execution.handover.slots import Path

COLUMNS = ("variable", "slot", "change", "before", "after")
_WORDS = {"added": "new", "removed": "gone"}
_LEVELS_SHOWN = 4
_MATRICES = ("X", "layers", "raw")
_Held = dict[str, tuple["Path", Any]]
"""Slot as it is shown → the first path that belongs to it, and what is there."""


def rows_of(step: UndoStep) -> tuple[tuple[str, ...], ...]:
    """One row for each slot that differs, in the order in which the turn told them."""
    told = {diff.name: diff for diff in step.diff}
    rows: list[tuple[str, ...]] = []
    for name, after in step.after.items():
        before, diff = step.before.get(name), told.get(name)
        held = _slots(before), _slots(after)
        changes = (
            [(label, _kind_of(label, *held)) for label in _differing(before, after)]
            if diff is None
            else [(slot.path, slot.kind) for slot in diff.slots]
        )
        for label, kind in changes:
            sides = (_described(label, slots) for slots in held)
            rows.append((name, label or "all of it", _WORDS.get(kind, kind), *sides))
    return tuple(rows)


def _slots(moment: Moment | None) -> _Held:
    """The parts of an object as it was."""
    if moment is None:
        return {}
    from ovagent_jupyter.execution.handover.diff import label_of
    from ovagent_jupyter.execution.handover.objects import open_object

    value = moment.as_it_was()
    held: _Held = {"": ((), value)}
    for path, item in open_object(value).slots.items():
        label = label_of(path)
        if label not in held or path[-2:] == ("raw", "X"):
            held[label] = path, item
    return held


def _differing(before: Moment | None, after: Moment | None) -> Iterable[str]:
    """For a step that is no turn: the slots whose saved content is not the same."""
    from ovagent_jupyter.execution.handover.diff import label_of

    new, old = (moment.saved if moment is not None else None for moment in (after, before))
    if new is None or old is None:
        return ("",)
    paths = {**new.slots, **old.slots}
    labels = [label_of(p) for p in paths if _content(new, p) != _content(old, p)]
    held = {**new.opaque, **old.opaque}
    labels += [label_of(path) for path in held if new.opaque.get(path) is not old.opaque.get(path)]
    return dict.fromkeys(labels)


def _content(saved: Saved, path: Path) -> object:
    """What tells a slot from any other: the same bytes are the same blob in one store."""
    slot = saved.slots.get(path)
    return None if slot is None else (slot.node, slot.blobs)


def _kind_of(label: str, before: _Held, after: _Held) -> Literal["added", "changed", "removed"]:
    if label in before and label in after:
        return "changed"
    return "added" if label in after else "removed"


def _described(label: str, held: _Held) -> str:
    """What a slot holds, in a few words; empty when it is not there."""
    from ovagent_jupyter.execution.handover.diff import describe, form_of, shape_of
    from ovagent_jupyter.execution.handover.slots import BRANCH, inside

    if label not in held:
        return ""
    path, value = held[label]
    if value is BRANCH:
        return "dictionary"
    if path[-1:] and path[-1] in ("obs_names", "var_names", "index"):
        return f"{len(value):,}"
    categories = getattr(value, "categories", None)
    if categories is not None:
        return f"category, {len(categories)} levels: {_levels(list(categories))}"
    matrix = inside(path)[:1]
    if matrix and matrix[0] in _MATRICES:
        return ", ".join(filter(None, (form_of(value), shape_of(value), _kind(value))))
    if getattr(value, "ndim", 0) == 1:
        return str(getattr(value, "dtype", "")) or describe(value)
    return describe(value)


def _levels(categories: list[object]) -> str:
    shown = ", ".join(map(str, categories[:_LEVELS_SHOWN]))
    return f"{shown} …" if len(categories) > _LEVELS_SHOWN else shown


def _kind(matrix: object) -> str:
    """What a matrix holds, such as counts or lognorm."""
    from ovagent_jupyter.omics.xstate import detect

    return str(detect(matrix).kind) if hasattr(matrix, "shape") else ""
