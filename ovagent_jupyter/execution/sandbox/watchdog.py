"""Looks at what a tree of processes uses, and says when it is more than it may.

Polled by the supervisor, so cheap modules only. Limits of single processes are in ``rlimits.py``:
they do not cover a tree, and the one on processes does not hold for root.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence

from ovagent_jupyter.execution.sandbox.disk_use import DEEPEST, FolderUse, OpenFileUse
from ovagent_jupyter.execution.sandbox.memory_use import MemoryUse
from ovagent_jupyter.execution.sandbox.process_tree import HAS_PROC, TICKS, Process, Tree

PAUSE = 0.1
SHORT_PAUSE = 0.03
LONG_PAUSE = 0.25
"""Seconds until the next look: as a rule, when a cap is near, and when nothing has run."""
NEAR = 0.7
"""Share of a cap that is near it."""
BUDGET = 0.004
"""Seconds of one look that go to folders, and as many to open files."""
LEAST_FILES = 10_000
BYTES_PER_FILE = 16 * 1024
"""A file without content takes space as well; so many bytes of the cap allow one more."""
RESERVE = 256 << 20
"""Bytes of free space under which a disk is full."""
ASKING_PAUSE = 1.0
"""The same where a look takes a program."""

Breach = tuple[str, float, float]
"""Name of the limit, what is allowed, what was used."""


class Watchdog:
    """Compares what lives below the supervisor with its caps.

    Args:
        limits: The caps: ``memory`` and ``disk`` in bytes, ``cpu_time`` in seconds (0: no cap) and
            the number of ``processes``.
        supervisor_pid: The process below which the guests live.
        exclude: Trusted processes among those below; they are there when the guests live in
            namespaces of their own, which the supervisor shares but for the pid and mount ones.
        directories: What the guests can write to and is theirs.
    """

    def __init__(
        self,
        limits: Mapping[str, float],
        supervisor_pid: int,
        exclude: Collection[int] = (),
        directories: Sequence[str] = (),
    ) -> None:
        self._limits = dict(limits)
        self._tree = Tree(supervisor_pid, exclude)
        self._folders = FolderUse(directories)
        self._open = OpenFileUse(self._folders.devices)
        self._memory = MemoryUse(limits["memory"], apart=bool(exclude))
        self._cpu = CpuUse()
        self._room = limits["disk"]
        self._files = self._names = max(LEAST_FILES, int(limits["disk"]) // BYTES_PER_FILE)
        self.pause = PAUSE
        """Seconds until the next look should be taken."""

    def look(self, now: float) -> Breach | None:
        """The first cap that is exceeded, or None.

        Args:
            now: The monotonic time.
        """
        guests = self._tree.look()
        spent = self._cpu.look(guests, self._tree.excluded())
        self.pause = PAUSE if self._cpu.rose else LONG_PAUSE
        if not HAS_PROC:
            self.pause = ASKING_PAUSE
        return (
            self._over("processes", len(guests))
            or self._over("cpu_time", spent)
            or self._look_at_memory(guests, now)
            or self._look_at_disk(now)
        )

    def _look_at_memory(self, guests: Mapping[int, Process], now: float) -> Breach | None:
        self._open.look(guests, now, BUDGET)
        return self._over("memory", self._memory.look(guests.values(), self._open.memory, now))

    def _look_at_disk(self, now: float) -> Breach | None:
        folders = self._folders
        written = folders.look(now, BUDGET, self._room, self._names)
        used = written.bytes + self._open.disk
        self._room = max(0, self._limits["disk"] - used)
        self._names = max(0, self._files - written.entries)
        breach = self._over("disk", used)
        if breach is not None:
            return breach
        if written.entries > self._files:
            return "files", self._files, written.entries
        if written.depth > DEEPEST:
            return "directory_depth", DEEPEST, written.depth
        # A descriptor on its way through a socket is seen nowhere; a full disk is.
        free = folders.free()
        taken = folders.free_at_first - free
        if free < RESERVE and taken > self._limits["disk"]:
            return "disk", self._limits["disk"], taken
        return None

    def _over(self, name: str, used: float) -> Breach | None:
        cap = self._limits[name]
        if not cap:
            return None
        if used > cap:
            return name, cap, used
        if used > cap * NEAR and HAS_PROC:
            self.pause = SHORT_PAUSE
        return None


class CpuUse:
    """CPU seconds of a tree over its life, those of processes that have ended included."""

    def __init__(self) -> None:
        self._last = 0
        self._lost = 0
        self.rose = True
        """Whether there was any since the look before."""
        self._reaped = _reaped_here()

    def look(self, guests: Mapping[int, Process], trusted: Collection[Process]) -> float:
        """The seconds so far.

        Args:
            guests: The processes.
            trusted: Processes between them and this one, whose own time does not count.
        """
        present = sum(each.cpu + each.ended_cpu for each in guests.values())
        present += sum(each.ended_cpu for each in trusted) + _reaped_here() - self._reaped
        # A parent that waits for a child is given its time; where none waits, the time is gone
        # from the system's sums, but it was used.
        self._lost += max(0, self._last - present)
        self.rose = present != self._last
        self._last = present
        return (present + self._lost) / TICKS


def _reaped_here() -> int:
    """Clock ticks of processes that this one has waited for."""
    times = os.times()
    return round((times.children_user + times.children_system) * TICKS)
