"""The file that carries objects: a JSON header, then raw buffers on page boundaries."""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ovagent_jupyter.execution.handover.fields import Node, as_list, malformed, whole

Bytes = NDArray[np.uint8]
Buffer = memoryview
"""Contiguous bytes; keeps alive what it shows."""

_MAGIC = b"OVAHAND1"
_PREFIX = struct.Struct("<8sQ")
_PAGE = mmap.ALLOCATIONGRANULARITY
LINE = 64
"""Where a buffer may begin: at a multiple of it."""
_SMALL = 1 << 16
_ONE_WRITE = 1 << 30
ROWS_CAP = 1 << 26
"""Rows of indexes without a buffer of their own, beyond one for each byte of the file."""
HEADER_CAP = 64 << 20
"""Largest header that a parent reads: JSON takes twenty times its length in memory."""


class Source(Protocol):
    """Where a decoder takes buffers from."""

    def take(self, index: int) -> Bytes:
        """The bytes of a buffer: writable, and no other array's."""
        ...

    def claim(self, rows: int) -> None:
        """Take note of an index that is told by its ends, without a buffer."""
        ...


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


def layout(buffers: Sequence[Buffer]) -> list[list[int]]:
    """Offset and size of each buffer, from the start of the data.

    Large buffers start on a page so that they can be mapped; small ones share pages.
    """
    places: list[list[int]] = []
    end = 0
    for buffer in buffers:
        size = buffer.nbytes
        start = _up(end, _PAGE if size >= _SMALL else LINE)
        places.append([start, size])
        end = start + size
    return places


def write(descriptor: int, header: dict[str, Node], buffers: Sequence[Buffer]) -> int:
    """Write header and buffers to an empty file; returns the file's size.

    ``write(2)`` into fresh pages costs less than filling a fresh map of them.
    """
    places = layout(buffers)
    head = dumps({**header, "buffers": places})
    start = _up(_PREFIX.size + len(head), _PAGE)
    _write_at(descriptor, memoryview(_PREFIX.pack(_MAGIC, len(head)) + head), 0)
    for buffer, (offset, _) in zip(buffers, places, strict=True):
        _write_at(descriptor, buffer, start + offset)
    size = start + (sum(places[-1]) if places else 0)
    os.ftruncate(descriptor, size)
    return size


def _write_at(descriptor: int, data: Buffer, offset: int) -> None:
    done = 0
    while done < data.nbytes:
        done += os.pwrite(descriptor, data[done : done + _ONE_WRITE], offset + done)


def dumps(node: Node) -> bytes:
    """A node as JSON; NaN and infinities have their own nodes and are refused here."""
    return json.dumps(node, separators=(",", ":"), allow_nan=False).encode("ascii")


def _no_constant(name: str) -> None:
    raise malformed(f"the header holds {name}")


def read_header(descriptor: int, size: int, cap: int) -> tuple[dict[str, Node], int]:
    """The header of an open file and where its data starts.

    Args:
        descriptor: The file, open for reading.
        size: The file's size as the system told it.
        cap: Largest header to accept, in bytes.
    """
    magic, length = _PREFIX.unpack(read_at(descriptor, 0, _PREFIX.size, size).tobytes())
    if magic != _MAGIC or length > min(cap, size - _PREFIX.size):
        raise malformed("it does not begin like a hand-over, or its header is too long")
    head = read_at(descriptor, _PREFIX.size, length, size).tobytes()
    header = json.loads(head, parse_constant=_no_constant)
    if not isinstance(header, dict):
        raise malformed("the header is not a table")
    return header, _up(_PREFIX.size + length, _PAGE)


def read_at(descriptor: int, offset: int, length: int, size: int) -> Bytes:
    """A private copy of a part of a file, complete or not at all."""
    if offset + length > size:
        raise malformed("it claims more bytes than there are")
    data = np.empty(length, np.uint8)
    view = memoryview(cast(Any, data))
    done = 0
    while done < length:
        got = os.preadv(descriptor, [view[done : done + _ONE_WRITE]], offset + done)
        if got == 0:
            raise malformed("it became shorter while it was read")
        done += got
    return data


def places(header: dict[str, Node], start: int, size: int) -> list[tuple[int, int]]:
    """The checked buffer table: each (offset, size) lies inside the file, none overlap."""
    table: list[tuple[int, int]] = []
    end = start
    for pair in as_list(header.get("buffers")):
        offset, length = (whole(number) for number in _pair(pair))
        if start + offset < end or start + offset + length > size:
            raise malformed("a buffer lies outside of the file or on another")
        end = start + offset + length
        table.append((start + offset, length))
    return table


def _pair(value: Node) -> list[Node]:
    pair = as_list(value)
    if len(pair) != len(("offset", "size")):
        raise malformed("a buffer's place is not a pair")
    return pair


class Claims:
    """Rows of indexes without a buffer, told by a sender whom nobody vouches for.

    A few bytes can tell of 2^61 rows, and pandas writes all of them out when it likes.

    Args:
        size: Bytes of all that was sent.
    """

    def __init__(self, size: int) -> None:
        self._left = size + ROWS_CAP

    def add(self, rows: int) -> None:
        """Take note of so many rows.

        Raises:
            HandoverError: There are more than there can be.
        """
        self._left -= rows
        if self._left < 0:
            raise malformed("its indexes claim more rows than there can be")


class FileSource:
    """Buffers of a file that somebody else may change: each is copied once, when it is taken.

    Args:
        descriptor: The file, open for reading.
        table: Where each buffer lies.
        size: The file's size.
    """

    def __init__(self, descriptor: int, table: Sequence[tuple[int, int]], size: int) -> None:
        self._descriptor = descriptor
        self._table = table
        self._size = size
        self._taken: set[int] = set()
        self._claims = Claims(size)

    def take(self, index: int) -> Bytes:
        """A private copy; a buffer is given out once, so no two arrays can share it."""
        if not 0 <= index < len(self._table) or index in self._taken:
            raise malformed("a buffer does not exist or is used twice")
        self._taken.add(index)
        offset, length = self._table[index]
        return read_at(self._descriptor, offset, length, self._size)

    def claim(self, rows: int) -> None:
        """Take note of an index that is told by its ends, without a buffer."""
        self._claims.add(rows)


class MemorySource:
    """Buffers that were just encoded in this process; each is copied when it is taken.

    Args:
        buffers: The encoder's buffers.
    """

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        self._buffers = buffers

    def take(self, index: int) -> Bytes:
        """A private copy."""
        if not 0 <= index < len(self._buffers):
            raise malformed("a buffer does not exist")
        return np.frombuffer(self._buffers[index], np.uint8).copy()

    def claim(self, rows: int) -> None:
        """What this process or the parent wrote is believed."""
