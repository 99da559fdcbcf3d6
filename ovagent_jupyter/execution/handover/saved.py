"""An object as it was at a moment: typed slots whose bytes lie where nobody can change them."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import is_

import numpy as np

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover.blob import ALONE, Blob
from ovagent_jupyter.execution.handover.codec import Decoder, Encoded, same_bytes
from ovagent_jupyter.execution.handover.contents import Contents
from ovagent_jupyter.execution.handover.fields import Node, malformed
from ovagent_jupyter.execution.handover.left_behind import LeftBehind
from ovagent_jupyter.execution.handover.maps import Maps
from ovagent_jupyter.execution.handover.objects import assemble, kind_of, open_object
from ovagent_jupyter.execution.handover.sealed import Segment
from ovagent_jupyter.execution.handover.segment import Buffer, Bytes, dumps
from ovagent_jupyter.execution.handover.slots import Path, Tree, decode_slot, encode_slot
from ovagent_jupyter.execution.handover.texts import Texts, key_of

_MOST_ALONE = 64
"""Maps of one object for single arrays: each takes a descriptor, and often there are 1,024."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class SavedSlot:
    """One part of an object in its travelling form."""

    node: Node
    blobs: tuple[Blob | bytes, ...]
    """Its buffers, by the numbers in the node; small ones are here themselves."""
    pickled: bool = False
    texts: Texts | None = None
    """The value itself where it is many texts, which are slow to take apart."""

    def same(self, encoded: Encoded, maps: Maps, contents: Contents) -> bool:
        """Whether a value in its travelling form is this one; untouched maps are not read."""
        return (
            len(encoded.buffers) == len(self.blobs)
            and all(map(_may_be, self.blobs, encoded.buffers))
            and dumps(encoded.node) == dumps(self.node)
            and all(
                _is(blob, buffer, maps, contents)
                for blob, buffer in zip(self.blobs, encoded.buffers, strict=True)
            )
        )


def _same_objects(one: object, other: object) -> bool:
    """Whether two values held by reference are one, or columns of the very same objects."""
    if type(one) is np.ndarray and type(other) is np.ndarray and one.dtype == other.dtype == object:
        return one.shape == other.shape and all(map(is_, one.ravel(), other.ravel()))
    return one is other


def _may_be(blob: Blob | bytes, buffer: Buffer) -> bool:
    return (len(blob) if isinstance(blob, bytes) else blob.size) == buffer.nbytes


def _is(blob: Blob | bytes, buffer: Buffer, maps: Maps, contents: Contents) -> bool:
    if isinstance(blob, bytes):
        return same_bytes(memoryview(blob), buffer)
    if maps.untouched(buffer) == (blob.segment, blob.offset):
        return True
    return contents.same(blob, buffer)


class Ground:
    """Private maps for the arrays of one object; no two arrays get the same bytes of one map.

    Args:
        maps: Remembers where they lie.
    """

    def __init__(self, maps: Maps) -> None:
        self._maps = maps
        self._taken: dict[Segment, list[tuple[Bytes, list[tuple[int, int]]]]] = {}
        self._alone = 0

    def take(self, blob: Blob | bytes) -> Bytes:
        """The bytes: writable, and no other array's."""
        if isinstance(blob, bytes):
            return np.frombuffer(blob, np.uint8).copy()
        if blob.size >= ALONE and self._alone < _MOST_ALONE:
            self._alone += 1
            return self._maps.fresh(blob.segment, blob.offset, blob.size)
        start, end = blob.offset, blob.offset + blob.size
        laid = self._taken.setdefault(blob.segment, [])
        for data, ranges in laid:
            if _insert(ranges, start, end):
                return data[start:end]
        data = self._maps.fresh(blob.segment)
        laid.append((data, [(start, end)]))
        return data[start:end]


def _insert(ranges: list[tuple[int, int]], start: int, end: int) -> bool:
    """Add a range to those of a map, in order; False when it lies on one of them."""
    place = bisect(ranges, (start, end))
    if (place and ranges[place - 1][1] > start) or (place < len(ranges) and ranges[place][0] < end):
        return False
    ranges.insert(place, (start, end))
    return True


class BlobSource:
    """The buffers of one slot, for a decoder.

    Args:
        blobs: The buffers.
        ground: Where they are laid out.
    """

    def __init__(self, blobs: Sequence[Blob | bytes], ground: Ground) -> None:
        self._blobs = blobs
        self._ground = ground

    def take(self, index: int) -> Bytes:
        """The bytes of a buffer."""
        if not 0 <= index < len(self._blobs):
            raise malformed("a buffer does not exist")
        return self._ground.take(self._blobs[index])

    def claim(self, rows: int) -> None:
        """What this process or the parent wrote is believed."""


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """One object as it was at a moment."""

    name: str
    """The variable."""
    kind: str
    """See ``Tree.kind``."""
    slots: Mapping[Path, SavedSlot]
    """The parts that have a typed form or can be pickled, in order."""
    maps: Maps = field(repr=False)
    """Where arrays of this process lie on segments."""
    contents: Contents = field(repr=False)
    """What the blobs of its store hold."""
    opaque: Mapping[Path, object] = field(default_factory=dict, repr=False)
    """Parts that have neither, held by reference; labels of tables that lost columns for that."""
    left_behind: tuple[LeftBehind, ...] = ()
    """What is opaque and why."""
    order: tuple[Path, ...] = ()
    """All paths in order, when some are opaque."""

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """All runs of bytes that belong to it."""
        held = (blob for slot in self.slots.values() for blob in slot.blobs)
        return tuple(blob for blob in held if isinstance(blob, Blob))

    def ground(self) -> Ground:
        """Where the arrays of one object that is rebuilt from it are laid out."""
        return Ground(self.maps)

    def value(self, path: Path, ground: Ground) -> object:
        """One part, rebuilt: it shares no memory with any other; an opaque one as it is.

        Args:
            path: Which part.
            ground: Where its arrays go.

        Raises:
            HandoverError: It was pickled and cannot be unpickled.
        """
        if path in self.opaque:
            return self.opaque[path]
        slot = self.slots[path]
        texts = slot.texts.again() if slot.texts is not None else None
        if texts is not None:
            return texts
        # A pickle in here is this process's own, in memory that nobody else can write to.
        source = BlobSource(slot.blobs, ground)
        decoder = Decoder(source, allow_pickle=slot.pickled, trusted=True)
        try:
            return decode_slot(decoder, slot.node)
        except HandoverError:
            raise
        except Exception as error:
            raise malformed(f"{path!r}: {type(error).__name__}: {error}") from error

    def tree(self) -> Tree:
        """Its parts, rebuilt; raises as ``value``."""
        ground = self.ground()
        return Tree(
            self.kind, {path: self.value(path, ground) for path in self.order or self.slots}
        )

    def restore(self) -> object:
        """The object again: the same bytes, on fresh private maps.

        Raises:
            HandoverError: It cannot be rebuilt.
        """
        return assemble(self.tree())

    def differs(self, value: object) -> bool:
        """Whether an object is no longer what was saved; arrays on clean maps are not read."""
        if self.kind != kind_of(value) and () not in self.opaque:
            return True
        if () in self.opaque:
            return value is not self.opaque[()]
        try:
            present = open_object(value).slots
        except Exception:  # noqa: BLE001 - a broken object of the user may raise anything
            return True
        return list(present) != list(self.order or self.slots) or any(
            self.changed(path, item) for path, item in present.items()
        )

    def changed(self, path: Path, value: object) -> bool:
        """Whether a part is no longer what was saved."""
        if path in self.opaque:
            return not _same_objects(value, self.opaque[path])
        slot = self.slots.get(path)
        if slot is None:
            return True
        if slot.texts is not None and slot.texts.key == key_of(value):
            return False
        try:
            encoded = encode_slot(value, allow_pickle=slot.pickled)
        except HandoverError:
            return True
        return not slot.same(encoded, self.maps, self.contents)
