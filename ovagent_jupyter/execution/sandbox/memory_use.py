"""Memory of a tree of processes: each page counted once, and what is in no process's sum.

Imported by the supervisor: cheap modules only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection

from ovagent_jupyter.execution.sandbox.process_tree import (
    HAS_PROC,
    PAGE,
    Process,
    process_of,
    read_bytes,
)

KIB = 1024
EXACT_REST = 0.3
"""Seconds between two exact looks; each holds up the processes that it looks at."""
EXACT_RESTS = 10
"""How many times as long as an exact look took there is none."""
SHARED_MEMORY = "/dev/shm"


class MemoryUse:
    """Bytes that a tree of processes uses.

    What processes have in memory, shared pages in each, is a bound that costs nothing. Only when it
    is above the cap, the shared pages are divided among those who share them.

    Args:
        cap: Bytes above which the sum must be exact.
        apart: The tree has shared memory of its own: an ipc namespace, which this process is in
            too, and another ``/dev/shm``.
    """

    def __init__(self, cap: float, *, apart: bool) -> None:
        self._cap = cap
        self._apart = apart
        self._swap = _kib_of(_read("/proc/meminfo"), b"SwapTotal:") > 0
        self._exact = self._bound = 0
        self._next = 0.0

    def look(self, guests: Collection[Process], held_open: int, now: float) -> int:
        """The bytes in use; a bound of them while that is below the cap.

        Args:
            guests: The processes.
            held_open: Bytes of memory that is held by a descriptor.
            now: The monotonic time.
        """
        held = held_open
        if self._apart:
            held += _own_shared_memory(guests) + _segments()
        bound = held + sum(each.resident for each in guests) * PAGE
        if self._swap:
            bound += sum(_swapped(each.pid) for each in guests)
        if bound <= self._cap:
            self._exact = self._bound = 0
            return bound
        known = self._bound > 0 and now < self._next
        if known and bound - self._bound <= self._cap - self._exact:
            return self._exact
        began = time.monotonic()
        self._exact, self._bound = self._measured(guests, held), bound
        took = time.monotonic() - began
        self._next = now + took + max(EXACT_REST, EXACT_RESTS * took)
        return self._exact

    def _measured(self, guests: Collection[Process], held: int) -> int:
        private = shared = 0
        for each in guests:
            own, also = _shares(each)
            private += own
            shared += also
        # What is mapped is in what is held, but for shared memory that never had a file.
        most = private + shared + held
        if most <= self._cap:
            return most
        least = private + max(shared, held)
        if least > self._cap:
            return least
        return min(most, private + held + sum(_shared_without_file(each.pid) for each in guests))


def _shares(process: Process) -> tuple[int, int]:
    """Bytes of a process, shared pages divided: what is its own or a file's, and shared memory."""
    text = _read(f"/proc/{process.pid}/smaps_rollup")
    if not text:
        # Ended, or it cannot be seen: then the bound is what it gets.
        ended = HAS_PROC and process_of(process.pid) is None
        return (0 if ended else process.resident * PAGE), 0
    shared = _kib_of(text, b"Pss_Shmem:")
    return (_kib_of(text, b"Pss:") + _kib_of(text, b"SwapPss:") - shared) * KIB, shared * KIB


def _shared_without_file(pid: int) -> int:
    """Bytes of a process's share in memory mapped with MAP_SHARED and MAP_ANONYMOUS."""
    total = 0
    inside = False
    for line in _read(f"/proc/{pid}/smaps").splitlines():
        if line[:1].islower() or line[:1].isdigit():
            inside = line.endswith(b"/dev/zero (deleted)")
        elif inside and line.startswith(b"Pss:"):
            total += int(line.split()[1])
    return total * KIB


def _own_shared_memory(guests: Collection[Process]) -> int:
    """Bytes in the /dev/shm that the guests see, when it is not ours."""
    try:
        ours = os.stat(SHARED_MEMORY).st_dev
    except OSError:
        ours = -1
    for each in guests:
        place = f"/proc/{each.pid}/root{SHARED_MEMORY}"
        try:
            if os.stat(place).st_dev == ours:
                return 0
            about = os.statvfs(place)
        except OSError:
            continue
        return (about.f_blocks - about.f_bfree) * about.f_frsize
    return 0


def _segments() -> int:
    """Bytes of System V shared memory in the ipc namespace of this process: proc(5)."""
    total = 0
    for line in _read("/proc/sysvipc/shm").splitlines()[1:]:
        columns = line.split()
        total += int(columns[14]) + int(columns[15])
    return total


def _swapped(pid: int) -> int:
    return _kib_of(_read(f"/proc/{pid}/status"), b"VmSwap:") * KIB


def _kib_of(text: bytes, name: bytes) -> int:
    """The number after a name at the start of a line; 0 when it is not there."""
    place = text.find(b"\n" + name)
    if place < 0:
        if not text.startswith(name):
            return 0
        place = -1
    return int(text[place + 1 + len(name) :].split(None, 1)[0])


def _read(path: str) -> bytes:
    try:
        return read_bytes(path)
    except OSError:
        return b""
