"""Memory that nobody can change any more: written once, sealed, mapped privately by each reader."""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from ovagent_jupyter.execution.handover.fields import Node
from ovagent_jupyter.execution.handover.room import available
from ovagent_jupyter.execution.handover.segment import Buffer, Bytes, write
from ovagent_jupyter.execution.lending import LENT

SEALED = hasattr(os, "memfd_create")
"""Whether the system has memory that can be sealed; macOS has not."""
_SPARE = 256 << 20
"""Bytes of memory to leave to others; a segment that needs them goes to disk."""


class Segment:
    """A run of bytes that stays as it is, known by an open descriptor.

    The memory is freed when the last descriptor and the last map of it are gone.

    Args:
        descriptor: The open file; it is owned, and closed with the segment.
        size: Bytes.
        in_memory: Whether it takes up memory, not disk.
    """

    def __init__(self, descriptor: int, size: int, *, in_memory: bool) -> None:
        self.descriptor = descriptor
        self.size = size
        self.in_memory = in_memory
        self._finalizer: weakref.finalize[..., Segment] = weakref.finalize(
            self, os.close, descriptor
        )

    def lend(self) -> None:
        """Mark memory that others are given as ours: it counts for them when we let it go."""
        if not (self.in_memory and SEALED and self._finalizer.alive):
            return
        with suppress(OSError):  # in a kernel that is confined itself, it counts for all
            os.fchmod(self.descriptor, _MODE | LENT)
            self._finalizer.detach()
            self._finalizer = weakref.finalize(self, _take_back, self.descriptor, os.getpid())
            # At the end of this process nobody counts any more.
            self._finalizer.atexit = False

    @classmethod
    def of(
        cls,
        header: dict[str, Node],
        buffers: Sequence[Buffer],
        disk: Path,
        room: int | None = None,
    ) -> Segment:
        """Write a header and buffers to new sealed memory, or to disk when memory is short.

        Args:
            header: See ``segment.write``.
            buffers: What follows it.
            disk: A directory for a file without a name.
            room: Bytes of memory that may be taken; None for what the system has.

        Raises:
            OSError: There is room in neither.
        """
        needed = sum(buffer.nbytes for buffer in buffers)
        allowed = room is None or needed < room
        if SEALED and allowed and needed + _SPARE < available():
            try:
                return cls._in_memory(header, buffers)
            except OSError:
                pass  # a limit of its own group: the disk may have room
        return cls._on_disk(header, buffers, disk)

    @classmethod
    def _in_memory(cls, header: dict[str, Node], buffers: Sequence[Buffer]) -> Segment:
        descriptor = os.memfd_create("ovagent", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            size = write(descriptor, header, buffers)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS | fcntl.F_SEAL_SEAL)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor, size, in_memory=True)

    @classmethod
    def _on_disk(cls, header: dict[str, Node], buffers: Sequence[Buffer], disk: Path) -> Segment:
        with tempfile.NamedTemporaryFile(dir=disk, buffering=0) as file:
            size = write(file.fileno(), header, buffers)
            # Who gets this file can read it; it has no name by which it could be opened again.
            return cls(os.open(file.name, os.O_RDONLY | os.O_CLOEXEC), size, in_memory=False)

    def map(self, offset: int = 0, size: int | None = None) -> Bytes:
        """A new private map: writable, and what is written to it stays in it.

        Args:
            offset: Where the bytes begin.
            size: How many; None for all that follow.
        """
        return self._mapped(offset, size, mmap.PROT_READ | mmap.PROT_WRITE)

    def read(self, offset: int = 0, size: int | None = None) -> Bytes:
        """The bytes, to be read only: a map that counts as nobody's memory."""
        return self._mapped(offset, size, mmap.PROT_READ)

    def _mapped(self, offset: int, size: int | None, protection: int) -> Bytes:
        size = self.size - offset if size is None else size
        if size == 0:
            return np.empty(0, np.uint8)
        skipped = offset % mmap.ALLOCATIONGRANULARITY
        pages = mmap.mmap(
            self.descriptor,
            skipped + size,
            flags=mmap.MAP_PRIVATE,
            prot=protection,
            offset=offset - skipped,
        )
        return np.frombuffer(pages, np.uint8, size, skipped)

    def close(self) -> None:
        """Close the descriptor; maps stay. Safe to call twice."""
        self._finalizer()


_MODE = 0o600


def _take_back(fd: int, owner: int) -> None:
    # A fork lets go of its own descriptor, and the memory is still ours.
    if os.getpid() == owner:
        with suppress(OSError):
            os.fchmod(fd, _MODE)
    os.close(fd)


_SEALS = (
    fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
    if hasattr(fcntl, "F_SEAL_WRITE")
    else 0
)


def is_sealed(descriptor: int) -> bool:
    """Whether nobody can change the bytes of an open file, nor its length.

    Args:
        descriptor: Somebody else's file.
    """
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) if SEALED else 0
        # Huge pages are short: a write to a private map of them can end the process.
        plain = os.fstatvfs(descriptor).f_bsize == mmap.PAGESIZE
    except OSError:
        return False  # no memory, or none that can be sealed
    return seals & _SEALS == _SEALS != 0 and plain
