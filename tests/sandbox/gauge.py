"""Measures what a child uses, from outside, while it tries to use up the machine."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from pathlib import Path

import psutil

from tests.sandbox.processes import Processes

PAUSE = 0.08


class Gauge:
    """The most that was used at a time: processes, threads, bytes of memory and of disk.

    Args:
        processes: Those of the child.
        base: Where its folders lie.
    """

    def __init__(self, processes: Processes, base: Path) -> None:
        self._processes = processes
        self._base = base
        self._stopped = threading.Event()
        self._shared_before = _shared_memory()
        self.peak = dict.fromkeys(
            ("processes", "threads", "memory", "shared", "disk", "files", "descriptors", "cpu"), 0.0
        )
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Gauge:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(PAUSE):
            self._look()

    def _look(self) -> None:
        tree = self._processes.all()
        now = dict.fromkeys(self.peak, 0.0)
        now["processes"] = len(psutil.Process().children(recursive=True)) - len(
            self._processes.ours
        )
        unlinked: dict[tuple[int, int], int] = {}
        for process in tree:
            with contextlib.suppress(psutil.Error, OSError):
                now["threads"] += process.num_threads()
                times = process.cpu_times()
                now["cpu"] += times.user + times.system
                now["memory"] += _own_memory(process.pid)
                now["descriptors"] += _descriptors(process.pid, unlinked)
        size, files = _folder_use(self._base / "tmp")
        now["disk"] = size + sum(unlinked.values())
        now["files"] = files
        now["shared"] = max(0, _shared_memory() - self._shared_before)
        for name, value in now.items():
            self.peak[name] = max(self.peak[name], value)


def _own_memory(pid: int) -> int:
    """Bytes that would be free if the process ended, and its share of the rest: proc(5)."""
    text = Path("/proc", str(pid), "smaps_rollup").read_text()
    line = next(line for line in text.splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) * 1024


def _descriptors(pid: int, unlinked: dict[tuple[int, int], int]) -> int:
    """How many a process has; adds the files among them that no directory shows."""
    folder = Path("/proc", str(pid), "fd")
    names = os.listdir(folder)
    for name in names[:3000]:
        with contextlib.suppress(OSError):
            about = (folder / name).stat()
            if stat.S_ISREG(about.st_mode) and about.st_nlink == 0:
                path = os.readlink(folder / name)
                if not path.startswith(("/memfd:", "/dev/shm", "/SYSV")):
                    unlinked[about.st_dev, about.st_ino] = about.st_blocks * 512
    return len(names)


def _folder_use(folder: Path) -> tuple[int, int]:
    """Bytes and files below a folder."""
    size = files = 0
    for place, _, names in os.walk(folder):
        files += len(names)
        for name in names[:20_000]:
            with contextlib.suppress(OSError):
                size += Path(place, name).lstat().st_blocks * 512
    return size, files


def _shared_memory() -> int:
    """Bytes of shared memory and in-memory files of the machine: also what nobody has mapped."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Shmem:"):
            return int(line.split()[1]) * 1024
    return 0
