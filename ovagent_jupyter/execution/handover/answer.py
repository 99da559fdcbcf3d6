"""What the child sent: buffers of memory that nobody can change any more, or copies of a file's."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ovagent_jupyter.execution.handover.blob import ALONE, SMALL, Blob
from ovagent_jupyter.execution.handover.fields import Node, as_list, malformed, whole
from ovagent_jupyter.execution.handover.references import MOST_TIMES
from ovagent_jupyter.execution.handover.saved import Ground
from ovagent_jupyter.execution.handover.sealed import Segment, is_sealed
from ovagent_jupyter.execution.handover.segment import (
    HEADER_CAP,
    LINE,
    Bytes,
    Claims,
    FileSource,
    Source,
    places,
    read_at,
    read_header,
)

if TYPE_CHECKING:
    from ovagent_jupyter.execution.handover.store import Store

_BLOCK = 512
"""Unit of ``st_blocks``: stat(2)."""
_SLACK = 1 << 20
"""Bytes by which the system may be late to count the memory of a file."""
_SHARE = 16
"""A buffer smaller than this part of an answer is copied, so that it does not hold all of it."""


class Answer:
    """The header of one answer, and its buffers, each given out once.

    Args:
        header: The header.
        own: The buffers that came with it.
        given: The buffers that are told as what was sent: index → blob.
        ground: Where those are laid out.
    """

    def __init__(
        self, header: Mapping[str, Node], own: Source, given: Mapping[int, Blob], ground: Ground
    ) -> None:
        self.header = header
        self._own = own
        self._given = given
        self._ground = ground
        self._taken: set[int] = set()

    @classmethod
    @contextmanager
    def opened(
        cls, descriptor: int, store: Store, blobs: Sequence[Blob], size_cap: int
    ) -> Iterator[Answer]:
        """Read the header of an open file that the child sent.

        Args:
            descriptor: The file; it is owned, and closed.
            store: Remembers where its buffers lie.
            blobs: What was sent, by the numbers that the child knows.
            size_cap: Largest file to read, in bytes.

        Raises:
            HandoverError: It is not what a child of ours sends.
        """
        try:
            sealed = is_sealed(descriptor)
            size = _size_of(os.fstat(descriptor), size_cap, sealed=sealed)
            header, start = read_header(descriptor, size, HEADER_CAP)
            table = places(header, start, size)
            own: Source = FileSource(descriptor, table, size)
            if sealed:
                segment = Segment(os.dup(descriptor), size, in_memory=True)
                own = _SealedSource(segment, table, store)
            yield cls(header, own, _given(header, blobs, table), Ground(store.maps))
        finally:
            os.close(descriptor)

    def take(self, index: int) -> Bytes:
        """The bytes of a buffer, for one array; private, and checked by nobody yet."""
        if index in self._given:
            if index in self._taken:
                raise malformed("a buffer is used twice")
            self._taken.add(index)
            return self._ground.take(self._given[index])
        return self._own.take(index)

    def claim(self, rows: int) -> None:
        """Take note of an index that is told by its ends, without a buffer."""
        self._own.claim(rows)


class _SealedSource:
    """Buffers in sealed memory: arrays are laid on a private map, nothing is copied.

    Args:
        segment: The memory.
        table: Where each buffer lies.
        store: Remembers where the map lies.
    """

    def __init__(self, segment: Segment, table: Sequence[tuple[int, int]], store: Store) -> None:
        self._segment = segment
        self._table = table
        self._store = store
        self._claims = Claims(segment.size)
        self._taken: set[int] = set()
        self._map: Bytes | None = None

    def take(self, index: int) -> Bytes:
        """The bytes of a buffer; it is given out once, so no two arrays can share it."""
        if not 0 <= index < len(self._table) or index in self._taken:
            raise malformed("a buffer does not exist or is used twice")
        self._taken.add(index)
        offset, size = self._table[index]
        if offset % LINE:
            raise malformed("a buffer begins where none can begin")
        if size < SMALL or size * _SHARE < self._segment.size:
            return read_at(self._segment.descriptor, offset, size, self._segment.size)
        self._store.take_in(self._segment)
        if size >= ALONE:
            return self._store.maps.fresh(self._segment, offset, size)
        if self._map is None:
            self._map = self._store.maps.fresh(self._segment)
        return self._map[offset : offset + size]

    def claim(self, rows: int) -> None:
        """Take note of an index that is told by its ends, without a buffer."""
        self._claims.add(rows)


def _size_of(about: os.stat_result, cap: int, *, sealed: bool) -> int:
    if not stat.S_ISREG(about.st_mode) or about.st_nlink:
        raise malformed("the results are not a file of their own")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if about.st_size > min(cap, memory * 3 // 4):
        raise malformed(f"the results claim {about.st_size / 1e9:.1f} GB")
    # What is a hole in memory is filled when it is read, and it is we who would pay for it.
    if sealed and about.st_blocks * _BLOCK < about.st_size - _SLACK:
        raise malformed("the results claim bytes that are not there")
    return about.st_size


def _given(
    header: Mapping[str, Node], blobs: Sequence[Blob], table: Sequence[tuple[int, int]]
) -> dict[int, Blob]:
    """The buffers that are told by the number of a blob: an empty one stands in their place."""
    given: dict[int, Blob] = {}
    for pair in as_list(header.get("blobs")):
        match pair:
            case [index, number]:
                position = whole(index, 0, len(table) - 1)
                if position in given or table[position][1]:
                    raise malformed("a buffer is told twice")
                given[position] = blobs[whole(number, 0, len(blobs) - 1)]
            case _:
                raise malformed("a buffer that was sent is not told by two numbers")
    # Each time is another map here.
    if max(Counter(map(id, given.values())).values(), default=0) > MOST_TIMES:
        raise malformed("a buffer that was sent is used too often")
    return given
