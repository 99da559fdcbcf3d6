"""The way back: what the child sent is checked and built; nothing in it is executed."""

from __future__ import annotations

import keyword
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover.answer import Answer
from ovagent_jupyter.execution.handover.blob import Blob
from ovagent_jupyter.execution.handover.codec import Decoder
from ovagent_jupyter.execution.handover.diff import diff_delta, diff_whole
from ovagent_jupyter.execution.handover.fields import (
    Node,
    as_list,
    items,
    malformed,
    table,
    text,
    whole,
)
from ovagent_jupyter.execution.handover.kept import Kept
from ovagent_jupyter.execution.handover.left_behind import LeftBehind, shown
from ovagent_jupyter.execution.handover.objects import assemble
from ovagent_jupyter.execution.handover.packing import NEW
from ovagent_jupyter.execution.handover.rebuild import Delta, Entry, rebuild
from ovagent_jupyter.execution.handover.report import Changes, ObjectDiff
from ovagent_jupyter.execution.handover.saved import Saved
from ovagent_jupyter.execution.handover.slots import Slots, Tree, decode_slot, read_path

if TYPE_CHECKING:
    from ovagent_jupyter.execution.handover.store import Store

SIZE_CAP = 32 << 30
"""Largest answer that is read, in bytes; never more than three quarters of the memory."""
_MOST_NAMES = 1000
_MOST_NOTICES = 1000
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Handed:
    """What an answer is read against: what was handed over, and where it lies."""

    saved: Mapping[str, Saved] = field(default_factory=dict)
    """The objects as they were."""
    blobs: Sequence[Blob] = ()
    """What was sent of them, by the numbers that the child knows."""
    live: Mapping[str, object] = field(default_factory=dict)
    """The user's own objects, which may have changed meanwhile."""


def read_changes(
    answer: int,
    handed: Handed,
    store: Store,
    *,
    outputs: Collection[str] | None = None,
    size_cap: int = SIZE_CAP,
) -> Changes:
    """What the child sent back, against what was handed over.

    A kept part of an object is what was handed over, also where the user has changed the object
    since: the result of a turn is what the code was given, plus what it did.

    Everything in the answer is untrusted: it lies where nobody can change it, or it is copied,
    before it is checked; and it is used only when all of it holds together.

    Args:
        answer: The open file that the child sent; it is owned, and closed.
        handed: What was handed over; it is not changed.
        store: Knows afterwards where the arrays of the new objects lie.
        outputs: Names that may be new; None allows any public name.
        size_cap: Largest answer to read, in bytes.

    Raises:
        HandoverError: It is malformed; nothing of it was used.
    """
    try:
        with Answer.opened(answer, store, handed.blobs, size_cap) as source:
            reading = _Reading(source, handed, outputs)
            reading.read_all(source.header)
    except HandoverError:
        raise
    except Exception as error:
        raise malformed(shown(f"{type(error).__name__}: {error}")) from error
    meanwhile = tuple(
        name
        for name in reading.objects
        if name in handed.live and handed.saved[name].differs(handed.live[name])
    )
    return Changes(reading.objects, tuple(reading.diffs), tuple(reading.left), meanwhile)


class _Reading:
    """The objects of one answer, read one after the other.

    Args:
        source: Gives buffers that nobody else can write to.
        handed: What the child was given.
        outputs: Names that may be new.
    """

    def __init__(self, source: Answer, handed: Handed, outputs: Collection[str] | None) -> None:
        self._source = source
        self._handed = handed
        self._outputs = outputs
        self._seen: set[str] = set()
        self.objects: dict[str, object] = {}
        self.diffs: list[ObjectDiff] = []
        self.left: list[LeftBehind] = []

    def read_all(self, header: Mapping[str, Node]) -> None:
        """Take in all objects of a header, and what it says of others."""
        nodes = items(header, "objects")
        if len(nodes) > _MOST_NAMES:
            raise malformed("there are too many objects")
        for node in nodes:
            self._read(table(node))
        self._notices(items(header, "left"))

    def _read(self, node: Mapping[str, Node]) -> None:
        name, state = text(node, "name"), text(node, "state")
        self._check_name(name, new=state == "whole")
        if state == "same":
            self.diffs.append(ObjectDiff(name, "unchanged"))
        elif state == "removed":
            self.diffs.append(ObjectDiff(name, "removed"))
        elif state == "delta":
            self._delta(name, node)
        elif state == "whole":
            self._whole(name, node)
        elif state != "stays":
            raise malformed("an object is in an unknown state")

    def _check_name(self, name: str, *, new: bool) -> None:
        if name in self._seen:
            raise malformed("an object is listed twice")
        self._seen.add(name)
        if name in self._handed.saved:
            return
        allowed = self._outputs is None or name in self._outputs
        public = name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("_")
        if not (allowed and public and len(name) <= _LONGEST_NAME) and new:
            raise malformed("an object has a name that was not asked for")

    def _entries(self, node: Mapping[str, Node]) -> list[Entry]:
        return [self._entry(as_list(entry)) for entry in items(node, "slots")]

    def _entry(self, entry: list[Node]) -> Entry:
        match entry:
            case [path, "k" | "s" as state]:
                return Entry(read_path(path), state)
            case [path, "n", node, first, count, False]:
                decoder = Decoder(self._source, first=whole(first), count=whole(count))
                return Entry(read_path(path), NEW, decode_slot(decoder, node))
            case _:
                raise malformed("a slot is in an unknown state, or pickled")

    def _delta(self, name: str, node: Mapping[str, Node]) -> None:
        saved = self._handed.saved.get(name)
        if saved is None:
            raise malformed("changes were sent for an object that the child was not sent")
        gone = frozenset(read_path(path) for path in items(node, "gone"))
        delta = Delta(name, text(node, "kind"), self._entries(node), gone)
        own = Kept(saved, self._handed.live.get(name))
        rebuilt = rebuild(delta, own)
        self.objects[name] = rebuilt.value
        self.left.extend(rebuilt.left)
        self.diffs.append(diff_delta(delta, own, rebuilt))

    def _whole(self, name: str, node: Mapping[str, Node]) -> None:
        slots: Slots = {}
        for entry in self._entries(node):
            if entry.path in slots or entry.state != NEW:
                raise malformed("a slot of a new object is listed twice or not there")
            slots[entry.path] = entry.value
        value = assemble(Tree(text(node, "kind"), slots))
        self.objects[name] = value
        self.diffs.append(diff_whole(name, value, self._handed.saved))

    def _notices(self, nodes: list[Node]) -> None:
        for node in nodes[:_MOST_NOTICES]:
            match node:
                case [str() as path, str() as reason]:
                    self.left.append(LeftBehind(shown(path), shown(reason)))
                case _:
                    raise malformed("a notice is not two texts")
