"""What a hand-over says about itself: what went, what stayed behind, what changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ovagent_jupyter.execution.handover.left_behind import LeftBehind

if TYPE_CHECKING:
    from ovagent_jupyter.execution.handover.saved import Saved

MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
ARROW = "\N{RIGHTWARDS ARROW}"
_SIGNS = {"added": "+", "changed": "~", "removed": MINUS}
_NAMED_ONE_BY_ONE = 3
"""Slots of one place that a summary names; of more it gives the number and the first."""
_PLACES = ("obs_names", "var_names", "index", "X", "raw")
"""What a summary begins with: it matters most."""


@dataclass(frozen=True, slots=True)
class HandoverReport:
    """What was handed to the child."""

    names: tuple[str, ...]
    left_behind: tuple[LeftBehind, ...] = ()
    size: int = 0
    """Bytes newly written."""
    on_disk: int = 0
    """Bytes of what was handed over that lie on disk, because memory was short."""
    saved: Mapping[str, Saved] = field(default_factory=dict, repr=False)
    """Each object as it was handed over."""


@dataclass(frozen=True, slots=True)
class SlotChange:
    """One part of an object that is not as it was."""

    path: str
    """``obs/leiden``; empty for the object as a whole."""
    kind: Literal["added", "changed", "removed"]
    note: str = ""
    """``8 levels``, ``700 × 50``, ``−37 cells``."""

    def __str__(self) -> str:
        if self.path in COUNTED and self.note:
            return self.note
        if not self.path:
            return self.note or self.kind
        if self.path == "X" and ARROW in self.note:
            return f"{_SIGNS[self.kind]}X {self.note}"
        return f"{_SIGNS[self.kind]}{self.path}" + (f" ({self.note})" if self.note else "")


COUNTED = {"obs_names": "cells", "var_names": "genes", "index": "rows", "rows": "rows"}
"""Slots whose change is told as a number of things."""


@dataclass(frozen=True, slots=True)
class ObjectDiff:
    """How one variable differs from what was handed over."""

    name: str
    kind: Literal["added", "changed", "unchanged", "removed"]
    slots: tuple[SlotChange, ...] = ()

    def summary(self) -> str:
        """All of it in one line: ``adata: −37 cells, +obs/leiden (8 levels), ~X``."""
        if self.kind == "unchanged":
            return f"{self.name}: unchanged"
        if self.kind == "removed":
            return f"{self.name}: deleted by the code; yours is kept"
        parts = _grouped(self.slots)
        lead = "new, " if self.kind == "added" else ""
        return f"{self.name}: {lead}{', '.join(parts) or self.kind}"

    def lines(self) -> list[str]:
        """One line for the object and one for each slot that differs."""
        if not self.slots:
            return [self.summary()]
        return [f"{self.name}: {self.kind}", *(f"  {slot}" for slot in self.slots)]


@dataclass(frozen=True, slots=True)
class Changes:
    """What came back from the child."""

    objects: Mapping[str, object] = field(default_factory=dict)
    """New objects to bind: what changed, rebuilt, and new variables. The old ones are untouched."""
    diffs: tuple[ObjectDiff, ...] = ()
    left_behind: tuple[LeftBehind, ...] = ()
    changed_meanwhile: tuple[str, ...] = ()
    """Objects of the user that are no longer what was handed over."""

    def summary(self) -> str:
        """One line for each object that differs."""
        return "\n".join(d.summary() for d in self.diffs if d.kind != "unchanged")


def _grouped(slots: Iterable[SlotChange]) -> list[str]:
    """Changes as a reader scans them: what matters most first, many of one place as one."""
    groups: dict[tuple[str, str], list[SlotChange]] = {}
    for slot in slots:
        groups.setdefault((slot.path.partition("/")[0], slot.kind), []).append(slot)
    order = {place: rank for rank, place in enumerate(_PLACES)}
    ranked = sorted(groups.items(), key=lambda item: order.get(item[0][0], len(order)))
    return [part for (place, kind), held in ranked for part in _shortened(place, kind, held)]


def _shortened(place: str, kind: str, slots: list[SlotChange]) -> list[str]:
    if len(slots) <= _NAMED_ONE_BY_ONE:
        return [str(slot) for slot in slots]
    first = ", ".join(slot.path.partition("/")[2] for slot in slots[:_NAMED_ONE_BY_ONE])
    return [f"{_SIGNS[kind]}{len(slots)} {place} ({first}, …)"]
