"""The message to the child: what was saved, by where it lies in segments the child has or gets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ovagent_jupyter.execution.handover.blob import Blob
from ovagent_jupyter.execution.handover.fields import Node
from ovagent_jupyter.execution.handover.saved import Saved
from ovagent_jupyter.execution.handover.sealed import Segment
from ovagent_jupyter.execution.handover.segment import Buffer
from ovagent_jupyter.execution.handover.slots import path_node


@dataclass(frozen=True, slots=True)
class Message:
    """Objects on their way to the child."""

    header: Segment
    """What lies where, with the small buffers; made for this message."""
    new: tuple[Segment, ...]
    """Segments that the child does not have yet."""
    held: Mapping[Segment, int]
    """All segments that the child has once it took this message, with the numbers it knows."""
    blobs: tuple[Blob, ...]
    """What was sent, in the order of the header's table."""

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The open files to send, in the order in which the child expects them."""
        return tuple(segment.descriptor for segment in (self.header, *self.new))


def compose(saved: Iterable[Saved], held: Mapping[Segment, int], disk: Path) -> Message:
    """Make the message that hands over what was saved; no large buffer is read or written.

    Args:
        saved: The objects.
        held: Segments that the child has, with the numbers it knows.
        disk: Where the header goes when memory is short.

    Raises:
        OSError: There is room in neither.
    """
    objects = list(saved)
    table = _Table(held)
    for blob in dict.fromkeys(blob for each in objects for blob in each.blobs):
        table.add(blob)
    header: dict[str, Node] = {
        "objects": [_object_node(each, table) for each in objects],
        "segments": list(table.segments.values()),
        "new": [table.segments[segment] for segment in table.new],
        "blobs": [[table.segments[b.segment], b.offset, b.size] for b in table.blobs],
    }
    segment = Segment.of(header, table.inline, disk)
    for each in (segment, *table.new):
        each.lend()
    return Message(segment, tuple(table.new), table.segments, tuple(table.blobs))


@dataclass(slots=True)
class _Table:
    """The buffers of a message by their numbers: first what lies in segments, then the small."""

    held: Mapping[Segment, int]
    segments: dict[Segment, int] = field(default_factory=dict)
    new: list[Segment] = field(default_factory=list)
    blobs: dict[Blob, int] = field(default_factory=dict)
    inline: list[Buffer] = field(default_factory=list)

    def add(self, blob: Blob) -> None:
        """Take a run of bytes in; all of them come before the first small buffer."""
        self.blobs[blob] = len(self.blobs)
        segment = blob.segment
        if segment in self.segments:
            return
        number = self.held.get(segment)
        if number is None:
            number = max((-1, *self.held.values(), *self.segments.values())) + 1
            self.new.append(segment)
        self.segments[segment] = number

    def number(self, blob: Blob | bytes) -> int:
        """The number of a buffer."""
        if isinstance(blob, Blob):
            return self.blobs[blob]
        self.inline.append(memoryview(blob))
        return len(self.blobs) + len(self.inline) - 1


def _object_node(saved: Saved, table: _Table) -> Node:
    slots = [
        [path_node(path), slot.node, [table.number(blob) for blob in slot.blobs], slot.pickled]
        for path, slot in saved.slots.items()
    ]
    return [saved.name, saved.kind, slots]
