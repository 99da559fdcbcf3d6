"""What was handed over with what the child changed: a new object, the old stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ovagent_jupyter.execution.handover.aligned import (
    Positions,
    axes_of,
    for_sure,
    independent,
    positions,
    take,
)
from ovagent_jupyter.execution.handover.fields import malformed
from ovagent_jupyter.execution.handover.kept import Kept
from ovagent_jupyter.execution.handover.left_behind import LeftBehind, dotted
from ovagent_jupyter.execution.handover.objects import assemble
from ovagent_jupyter.execution.handover.packing import KEPT, NEW, frame_places
from ovagent_jupyter.execution.handover.slots import BRANCH, Path, Slots, Tree


@dataclass(frozen=True, slots=True)
class Entry:
    """One slot as the child lists it."""

    path: Path
    state: str
    """``packing.KEPT``, ``NEW`` or ``STAYED``."""
    value: object = None
    """For a new one."""


@dataclass(frozen=True, slots=True)
class Delta:
    """One object as the child lists it against what it was sent."""

    name: str
    kind: str
    entries: Sequence[Entry]
    gone: frozenset[Path]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The new object and what is needed to tell how it differs."""

    value: object
    slots: Slots
    moved: dict[Path, Positions | None]
    """Axes that changed: where each entry was before."""
    left: tuple[LeftBehind, ...]


_WAS_NOT_SENT: Final = "it was not sent to the child, and what it belongs to changed there"


def rebuild(delta: Delta, own: Kept) -> Rebuilt:
    """Build the new object: what was handed over, with what the child changed.

    What the parent never sent is kept, where it still fits.

    Args:
        delta: What the child lists.
        own: The object as it was handed over.

    Raises:
        HandoverError: The list does not fit the object, or makes none.
    """
    if delta.kind != own.kind:
        raise malformed("changes were sent for an object of another kind")
    listed = _listed(delta, own)
    order = _order(list(listed), [path for path in own if path not in delta.gone])
    fresh = {e.path: e.value for e in delta.entries if e.state == NEW}
    moved = positions(own, fresh, [place.index for place in frame_places(own.paths)])
    sure = for_sure(own, fresh, moved)
    merged: Slots = {}
    left: list[LeftBehind] = []
    for path in order:
        if path in fresh:
            merged[path] = fresh[path]
            continue
        value = _keep(path, own, merged, sure, known=listed.get(path) == KEPT)
        if value is None and own[path] is not None:
            left.append(LeftBehind(dotted(delta.name, path), _WAS_NOT_SENT))
        else:
            merged[path] = value
    tree = Tree(own.kind, merged)
    _relabel(tree, own)
    return Rebuilt(assemble(tree), merged, moved, tuple(left))


def _listed(delta: Delta, own: Kept) -> dict[Path, str]:
    """The state of each slot that the child lists and that can be had."""
    listed: dict[Path, str] = {}
    for entry in delta.entries:
        if entry.path in listed:
            raise malformed("a slot is listed twice")
        if entry.state == KEPT and entry.path not in own:
            raise malformed("the child keeps a slot that it was not sent")
        if entry.state == NEW or entry.path in own:
            listed[entry.path] = entry.state
    return listed


def _order(listed: list[Path], own: list[Path]) -> list[Path]:
    """The child's order, with each slot that only the parent has behind its predecessor."""
    known = set(listed)
    followers: dict[Path | None, list[Path]] = {}
    anchor: Path | None = None
    for path in own:
        if path in known:
            anchor = path
        else:
            followers.setdefault(anchor, []).append(path)
    order = list(followers.get(None, ()))
    for path in listed:
        order += [path, *followers.get(path, ())]
    return order


def _keep(
    path: Path, own: Kept, merged: Slots, moved: dict[Path, Positions | None], *, known: bool
) -> object | None:
    if not known and (path[:1] in (("uns",), ("raw",)) or not axes_of(path)):
        above = path[:-1]
        while above and above not in merged and above[0] == "raw":
            above = above[:-1]
        if above and merged.get(above) is not BRANCH:
            return None
    value = own[path]
    if value is BRANCH:
        return value
    kept = value if known else take(value, path, moved)
    # What was kept by reference is still the user's own.
    return independent(kept) if kept is value and own.is_shared(path) else kept


def _relabel(tree: Tree, own: Kept) -> None:
    places = frame_places(tree)
    if not places:
        return
    from ovagent_jupyter.execution.handover.frames import as_index
    from ovagent_jupyter.execution.handover.table import relabel

    for place in places:
        others = [as_index(own[place.columns])] if place.columns in own else []
        relabel(tree.slots, place, *others)
