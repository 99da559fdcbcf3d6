"""Where private maps of segments lie in this process: memory that is known without reading it."""

from __future__ import annotations

import itertools
import weakref
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ovagent_jupyter.execution.handover.pages import is_clean
from ovagent_jupyter.execution.handover.sealed import Segment
from ovagent_jupyter.execution.handover.segment import Buffer, Bytes


class Maps:
    """The private maps of this process; each is forgotten when the last array on it is gone."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._placed: dict[int, tuple[int, int, Segment, int]] = {}

    def fresh(self, segment: Segment, offset: int = 0, size: int | None = None) -> Bytes:
        """A new private map of a segment or a part of it."""
        data = segment.map(offset, size)
        self.note(data, segment, offset)
        return data

    def note(self, data: Bytes, segment: Segment, offset: int = 0) -> None:
        """Remember that an array shows a segment's bytes from an offset on, on a map of its own."""
        if not data.nbytes:
            return
        number = next(self._numbers)
        start = address_of(data)
        self._placed[number] = (start, start + data.nbytes, segment, offset)
        weakref.finalize(_map_below(data), self._placed.pop, number, None)

    def place(self, data: Buffer | NDArray[Any]) -> tuple[Segment, int] | None:
        """The segment and offset that a map shows at these bytes, written to since or not."""
        start = address_of(data)
        return self._at(start, start + data.nbytes)

    def untouched(self, data: Buffer | NDArray[Any]) -> tuple[Segment, int] | None:
        """The segment and offset whose bytes these are for sure, told without reading them."""
        found = self.place(data)
        return found if found is not None and is_clean(address_of(data), data.nbytes) else None

    def _at(self, start: int, end: int) -> tuple[Segment, int] | None:
        # The newest first: an address can be given out again a moment before its old map's end
        # is told. A copy, because that may be told while we look.
        for begin, until, segment, offset in reversed(self._placed.copy().values()):
            if begin <= start and end <= until:
                return segment, offset + start - begin
        return None


def address_of(data: Buffer | NDArray[Any]) -> int:
    """Where contiguous bytes are in this process's memory."""
    flat = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
    return int(flat.__array_interface__["data"][0])


def _map_below(data: Bytes) -> object:
    below: Any = data
    while isinstance(below, np.ndarray):
        below = below.base
    return cast(object, below.obj)
