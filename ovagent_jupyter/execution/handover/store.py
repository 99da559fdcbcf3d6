"""Everything that was saved, by content: what is there already is not written again."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover.blob import ALONE, SMALL, Blob
from ovagent_jupyter.execution.handover.codec import Encoded
from ovagent_jupyter.execution.handover.contents import Contents
from ovagent_jupyter.execution.handover.left_behind import LeftBehind
from ovagent_jupyter.execution.handover.maps import Maps
from ovagent_jupyter.execution.handover.objects import open_object
from ovagent_jupyter.execution.handover.packing import Freight, encode_slots
from ovagent_jupyter.execution.handover.saved import Saved, SavedSlot
from ovagent_jupyter.execution.handover.sealed import Segment
from ovagent_jupyter.execution.handover.segment import Buffer, layout
from ovagent_jupyter.execution.handover.slots import Path as SlotPath
from ovagent_jupyter.execution.handover.texts import Texts, keep, key_of

_LARGE = 64 << 20
"""Bytes that a segment holds at most, unless one buffer is larger: it goes with the last of them,
so little should be held by little."""
_SHARES = 16
"""Of what is written together, a segment may hold this part: segments stay few."""


@dataclass(frozen=True, slots=True)
class StoreSize:
    """How much a store holds, in bytes."""

    memory: int
    disk: int


@dataclass(frozen=True, slots=True)
class _Packed:
    """One object on its way into the store."""

    name: str
    kind: str
    encoded: Mapping[SlotPath, Encoded | None]
    """The form of each part; None for texts that are known."""
    known: Mapping[SlotPath, SavedSlot]
    """Texts that were saved before."""
    texts: Mapping[SlotPath, Texts | None]
    """For each part that was not."""
    opaque: Mapping[SlotPath, object]
    order: tuple[SlotPath, ...]
    left: tuple[LeftBehind, ...]


class Store:
    """Objects as they were, in segments that nobody can change.

    A segment lives as long as somebody holds a ``Saved`` or an array that lies on it.

    Args:
        disk: Where a file without a name goes when memory is short; the system's place by default.
    """

    def __init__(self, disk: Path | None = None) -> None:
        self.maps = Maps()
        """Where arrays of this process lie on segments."""
        self.disk = disk or Path(tempfile.gettempdir())
        """Where a file goes when memory is short."""
        self.written = 0
        """Bytes that were written in all."""
        self._contents = Contents()
        self._blobs: WeakValueDictionary[tuple[int, int, int], Blob] = WeakValueDictionary()
        self._texts: WeakValueDictionary[Hashable, SavedSlot] = WeakValueDictionary()
        self._segments: WeakValueDictionary[int, Segment] = WeakValueDictionary()
        # Protects what is known: two threads that save at a time would write the same bytes twice.
        self._saving = threading.Lock()

    @property
    def size(self) -> StoreSize:
        """Bytes of all segments that somebody still holds."""
        # At once: another thread may save meanwhile.
        found = (reference() for reference in self._segments.valuerefs())
        alive = [segment for segment in found if segment is not None]
        memory = sum(segment.size for segment in alive if segment.in_memory)
        return StoreSize(memory, sum(segment.size for segment in alive) - memory)

    def save(self, objects: Mapping[str, object]) -> dict[str, Saved]:
        """Keep objects as they are now; only content that is not there yet is written.

        What has no form in which it could be kept is held by reference and named in
        ``left_behind``.

        Args:
            objects: Name → object.

        Raises:
            HandoverError: There is room neither in memory nor on disk.
        """
        with self._saving:
            packed = [self._pack(name, value) for name, value in objects.items()]
            intake = _Intake(self)
            rows = [
                {path: intake.take_all(form.buffers) for path, form in each.encoded.items() if form}
                for each in packed
            ]
            written = self._write(intake.pending)
            return {
                each.name: self._saved(each, row, written)
                for each, row in zip(packed, rows, strict=True)
            }

    def _pack(self, name: str, value: object) -> _Packed:
        known: dict[SlotPath, SavedSlot] = {}

        def stands(path: SlotPath, item: object) -> bool:
            slot = self._texts.get(key_of(item))
            if slot is not None:
                known[path] = slot
            return slot is not None

        return _pack(name, value, known, stands)

    def _saved(
        self,
        packed: _Packed,
        row: Mapping[SlotPath, Sequence[Blob | bytes | int]],
        written: Sequence[Blob],
    ) -> Saved:
        slots: dict[SlotPath, SavedSlot] = {}
        for path, form in packed.encoded.items():
            if form is None:
                slots[path] = packed.known[path]
                continue
            blobs = tuple(written[each] if isinstance(each, int) else each for each in row[path])
            texts = packed.texts.get(path)
            slots[path] = SavedSlot(form.node, blobs, form.pickled, texts)
            if texts is not None:
                self._texts[texts.key] = slots[path]
        return Saved(
            packed.name,
            packed.kind,
            slots,
            self.maps,
            self._contents,
            packed.opaque,
            packed.left,
            packed.order,
        )

    def take_in(self, segment: Segment) -> None:
        """Count a segment that came from elsewhere, such as from the child."""
        self._segments[id(segment)] = segment

    def known(self, data: Buffer) -> Blob | None:
        """The blob of these bytes if there is one: by where they lie, else by their content."""
        place = self.maps.untouched(data)
        return self._blob(*place, data.nbytes) if place else self._contents.find(data)

    def alike(self, data: Buffer) -> tuple[int, bytes]:
        """What contents that are the same have in common; cheap to tell."""
        return self._contents.start(data)

    def digest(self, data: Buffer) -> bytes:
        """What different contents do not have in common."""
        return self._contents.digest(data)

    def _blob(self, segment: Segment, offset: int, size: int) -> Blob:
        key = (id(segment), offset, size)
        blob = self._blobs.get(key)
        if blob is None:
            blob = self._blobs[key] = Blob(segment, offset, size)
            self._contents.add(blob)
        return blob

    def _write(self, pending: Sequence[Buffer]) -> list[Blob]:
        """Write buffers to new segments; their blobs, in the same order."""
        total = sum(buffer.nbytes for buffer in pending)
        blobs: dict[int, Blob] = {}
        for group in _groups([buffer.nbytes for buffer in pending]):
            blobs |= zip(group, self._write_one([pending[n] for n in group], total), strict=True)
        return [blobs[number] for number in range(len(pending))]

    def _write_one(self, buffers: Sequence[Buffer], total: int) -> Iterable[Blob]:
        try:
            segment = Segment.of({}, buffers, self.disk)
        except OSError as error:
            raise HandoverError(
                "The data cannot be handed to the child.",
                why=f"{error.strerror or error} ({total / 1e9:.2f} GB are needed)",
                next_step="Free memory or disk space, or hand over fewer objects (-i name,name).",
            ) from error
        self.take_in(segment)
        self.written += segment.size
        places = layout(buffers)
        start = segment.size - sum(places[-1])
        return [self._blob(segment, start + offset, size) for offset, size in places]


def _groups(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Which buffers share a segment, by their numbers; small ones are with their like."""
    most = max(_LARGE, sum(sizes) // _SHARES)
    small = [number for number, size in enumerate(sizes) if size < ALONE]
    if small:
        yield small
    group: list[int] = []
    for number, size in enumerate(sizes):
        if size < ALONE:
            continue
        if group and sum(sizes[n] for n in group) + size > most:
            yield group
            group = []
        group.append(number)
    if group:
        yield group


class _Intake:
    """Sorts the buffers of one save: small ones, known ones, and those to be written.

    Args:
        store: Knows which are known.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.pending: list[Buffer] = []
        self._alike: dict[tuple[int, bytes], list[int]] = {}
        self._digests: dict[int, bytes] = {}

    def take_all(self, buffers: Iterable[Buffer]) -> list[Blob | bytes | int]:
        """For each buffer: its blob, its bytes, or its number among those to be written."""
        return [self._take(buffer) for buffer in buffers]

    def _take(self, buffer: Buffer) -> Blob | bytes | int:
        if buffer.nbytes < SMALL:
            return bytes(buffer)
        return self._store.known(buffer) or self._number(buffer)

    def _number(self, buffer: Buffer) -> int:
        alike = self._alike.setdefault(self._store.alike(buffer), [])
        digest = self._store.digest(buffer) if alike else b""
        for number in alike:
            if number not in self._digests:
                self._digests[number] = self._store.digest(self.pending[number])
            if self._digests[number] == digest:
                return number
        self.pending.append(buffer)
        alike.append(len(self.pending) - 1)
        return alike[-1]


def _pack(
    name: str,
    value: object,
    known: Mapping[SlotPath, SavedSlot],
    stands: Callable[[SlotPath, object], bool],
) -> _Packed:
    freight = Freight()
    try:
        tree = open_object(value)
        present = dict(tree.slots)
        encoded = encode_slots(name, tree, freight, stands=stands)
        for form in encoded.values():
            if form is not None:
                freight.load(form)
        texts = {path: keep(tree.slots[path]) for path, form in encoded.items() if form}
    except Exception as error:  # noqa: BLE001 - a broken object of the user may raise anything
        notice = LeftBehind(name, _told(error))
        return _Packed(name, "value", {}, {}, {}, {(): value}, ((),), (notice,))
    left = tuple(freight.left)
    opaque = {
        # A column is the table's own memory: which objects were in it must not change with it.
        path: item.copy() if isinstance(item, np.ndarray) else item
        for path, item in present.items()
        if tree.slots.get(path, freight) is not item
    }
    order = tuple(present) if opaque else ()
    return _Packed(name, tree.kind, encoded, known, texts, opaque, order, left)


def _told(error: Exception) -> str:
    if isinstance(error, HandoverError):
        return error.why or error.what
    return f"{type(error).__name__}: {error}"
