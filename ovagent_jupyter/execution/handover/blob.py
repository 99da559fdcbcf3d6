"""A run of bytes that nobody can change, and which sizes are kept and mapped in which way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from ovagent_jupyter.execution.handover.sealed import Segment
from ovagent_jupyter.execution.handover.segment import Buffer

SMALL = 1 << 16
"""Bytes from which on a buffer has a place in a segment; smaller ones are kept as they are."""
ALONE = 1 << 20
"""Bytes from which on an array has a map of its own, and can be replaced by another."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Blob:
    """A run of bytes in a segment; nobody can change it."""

    segment: Segment
    offset: int
    """From the start of the segment."""
    size: int

    def read(self) -> Buffer:
        """The bytes, to be read only."""
        return memoryview(cast(Any, self.segment.read(self.offset, self.size)))
