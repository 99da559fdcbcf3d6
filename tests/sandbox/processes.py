"""What the processes of a child have, as seen from outside."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections import Counter
from pathlib import Path

import psutil

_LIBC = ctypes.CDLL(None, use_errno=True)
_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2)."""


def adopt_orphans() -> None:
    """Become the parent of every process below us whose own parent ends."""
    _LIBC.prctl(_SUBREAPER, 1, 0, 0, 0)


class Processes:
    """The processes below this one, without those of the witness."""

    def __init__(self) -> None:
        self.ours: set[int] = set()
        self._before: Counter[str] = Counter()

    def all(self) -> list[psutil.Process]:
        """Those that run; a dead one that nobody has reaped does not count."""
        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.pid not in self.ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def mark(self) -> None:
        """Remember what they have."""
        self._before = self._links()

    def gained(self, pattern: str) -> str:
        """A descriptor of that kind that they did not have at the mark."""
        fresh = self._links() - self._before
        got = [link for link in fresh if pattern in link]
        return f"the child holds {got[0]}" if got else ""

    def named(self, tag: str) -> list[psutil.Process]:
        """Those with the word in their name or arguments."""
        found = []
        for process in self.all():
            with contextlib.suppress(psutil.Error):
                if tag[:15] in process.name() or any(tag in part for part in process.cmdline()):
                    found.append(process)
        return found

    def space_of(self, process: psutil.Process, kind: str) -> str:
        """The namespace of a process: user, mnt, net."""
        try:
            return os.readlink(f"/proc/{process.pid}/ns/{kind}")
        except OSError:
            return ""

    def end(self) -> int:
        """Kill what is left, and say how many there were."""
        left = self.all()
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(left, timeout=5)
        return len(left)

    def _links(self) -> Counter[str]:
        links: Counter[str] = Counter()
        for process in self.all():
            with contextlib.suppress(OSError):
                for entry in Path("/proc", str(process.pid), "fd").iterdir():
                    with contextlib.suppress(OSError):
                        links[_described(process.pid, entry)] += 1
        return links


def _described(pid: int, entry: Path) -> str:
    """What a descriptor leads to, and for a socket its family and type."""
    link = os.readlink(entry)
    if link.startswith("socket:"):
        return _socket(pid, int(entry.name)) or link
    flags = (
        (Path("/proc", str(pid), "fdinfo", entry.name)).read_text().split("flags:")[1].split()[0]
    )
    return f"{link} for {('reading', 'writing', 'both')[int(flags, 8) & 3]}"


def _socket(pid: int, number: int) -> str:
    """Family and type of another process's socket, through a copy of it."""
    handle = _LIBC.syscall(434, pid, 0)  # pidfd_open
    if handle < 0:
        return ""
    copy = _LIBC.syscall(438, handle, number, 0)  # pidfd_getfd
    os.close(handle)
    if copy < 0:
        return ""
    import socket

    with socket.socket(fileno=copy) as taken:
        return f"socket of family {taken.family.value} type {taken.type.value}"
