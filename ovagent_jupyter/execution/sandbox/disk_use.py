"""What a child has written: what lies in its folders, and files without a name.

Imported by the supervisor: cheap modules only.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Collection, Generator, Sequence

from ovagent_jupyter.execution.lending import LENT
from ovagent_jupyter.execution.sandbox.process_tree import read_bytes
from ovagent_jupyter.execution.sandbox.rounds import Rounds

BLOCK = 512
"""Unit of ``st_blocks``: stat(2)."""
BATCH = 64
"""Entries between two looks at the clock."""
DEEPEST = 128
"""Directories inside each other; each takes a descriptor while it is looked through."""
CLOCK_SLACK = 1.0
"""Seconds by which the clock of a file system may be behind."""
FOLDERS_REST = 1.0
OPEN_REST = 0.05
"""Seconds between two looks; files without a name can be memory, which fills faster."""
MAPS_EVERY = 20
"""Of so many looks at what is open, one looks at what is mapped and not open."""
OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

OpenDirectory = tuple[int, "os._ScandirIterator[str]"]  # type: ignore[name-defined,unused-ignore]


class Written:
    """What lies in some folders."""

    __slots__ = ("bytes", "depth", "entries")

    def __init__(self) -> None:
        self.bytes = 0
        """Space taken on the file systems."""
        self.entries = 0
        self.depth = 0
        """How deep it goes, as far as we do."""


class FolderUse:
    """Adds up what was written below some directories since this was made.

    A file counts with the space it takes if it was changed since, once if it has several names; no
    link is followed.

    Args:
        directories: Where to look.
    """

    def __init__(self, directories: Sequence[str]) -> None:
        self._directories = tuple(directories)
        self._since = time.time() - CLOCK_SLACK
        self._made = time.monotonic()
        self._whole = Written()
        self._present = Written()
        self._rounds = Rounds(self._walk, FOLDERS_REST)
        self._one_each = _one_each_device(directories)
        self._free_at_last, self._names_at_last = self._free()
        self.free_at_first = self._free_at_last

    @property
    def devices(self) -> frozenset[int]:
        """The file systems on which the directories lie."""
        return frozenset(self._one_each)

    def look(self, now: float, budget: float, room: float, names: float) -> Written:
        """Look on for a while; the last complete sums, or the present ones where they are higher.

        Ten times the budget is used when the file systems have lost more since the last complete
        look than what is left of the caps, whoever took it.

        Args:
            now: The monotonic time.
            budget: Seconds of CPU that this may take, about.
            room: Bytes that may still be written.
            names: Entries that may still be made.
        """
        free, free_names = self._free()
        taken, taken_names = self._free_at_last - free, self._names_at_last - free_names
        hurry = taken > room or taken_names > names
        self._rounds.go_on(now, budget * 10 if hurry else budget, hurry=hurry)
        higher = Written()
        higher.bytes = max(self._whole.bytes, self._present.bytes)
        higher.entries = max(self._whole.entries, self._present.entries)
        higher.depth = max(self._whole.depth, self._present.depth)
        return higher

    def free(self) -> int:
        """Bytes free on the file systems of the directories."""
        return self._free()[0]

    def _free(self) -> tuple[int, int]:
        """Bytes, and numbers of files, that are free."""
        free = names = 0
        for directory in self._one_each.values():
            try:
                about = os.statvfs(directory)
            except OSError:
                continue
            free += about.f_bavail * about.f_frsize
            names += about.f_favail
        return free, names

    def _walk(self) -> Generator[None]:
        # A clock that is set back must not make new files old.
        lived = time.monotonic() - self._made
        since = min(self._since, time.time() - lived - CLOCK_SLACK)
        free, names = self._free()
        sums = self._present = Written()
        seen: set[tuple[int, int]] = set()
        stack: list[OpenDirectory] = []
        try:
            for directory in self._directories:
                _enter(stack, directory, None)
                while stack:
                    sums.depth = max(sums.depth, len(stack))
                    descriptor, entries = stack[-1]
                    for entry in entries:
                        sums.entries += 1
                        if sums.entries % BATCH == 0:
                            yield
                        if _add(entry, since, seen, sums) and len(stack) <= DEEPEST:
                            _enter(stack, entry.name, descriptor)
                            break
                    else:
                        _leave(stack)
        finally:
            while stack:
                _leave(stack)
        self._whole, self._free_at_last, self._names_at_last = sums, free, names


class OpenFileUse:
    """Adds up files that have no name any more, or never had one, and live while they are open.

    Args:
        devices: File systems whose files count as disk.
    """

    def __init__(self, devices: Collection[int]) -> None:
        self._devices = frozenset(devices)
        self._memory_device = _memory_device()
        self._pids: list[int] = []
        self._round = 0
        self._mapped = 0
        self._rounds = Rounds(self._walk, OPEN_REST)
        self.disk = 0
        """Bytes on disk."""
        self.memory = 0
        """Bytes in memory: memfd_create(2)."""

    def look(self, pids: Collection[int], now: float, budget: float) -> None:
        """Look on for a while."""
        self._pids = list(pids)
        self._rounds.go_on(now, budget)

    def _lent(self, about: os.stat_result) -> bool:
        return about.st_dev == self._memory_device and bool(about.st_mode & LENT)

    def _walk(self) -> Generator[None]:
        seen: dict[tuple[int, int], int] = {}
        pids, self._round = self._pids, self._round + 1
        count = 0
        for pid in pids:
            for about in _open_files(pid):
                count += 1
                if count % BATCH == 0:
                    yield
                if about.st_nlink == 0 and stat.S_ISREG(about.st_mode) and not self._lent(about):
                    seen[about.st_dev, about.st_ino] = about.st_blocks * BLOCK
        if self._round % MAPS_EVERY == 0:
            self._mapped = 0
            for pid in pids:
                yield
                for device, inode, length in _mapped_files(pid):
                    if device in self._devices and (device, inode) not in seen:
                        self._mapped += length
        self.disk = self._mapped + sum(v for k, v in seen.items() if k[0] in self._devices)
        self.memory = sum(v for k, v in seen.items() if k[0] == self._memory_device)


def _add(entry: os.DirEntry[str], since: float, seen: set[tuple[int, int]], sums: Written) -> bool:
    """Add one entry to the sums; True when it is a directory to look into."""
    try:
        about = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    directory = stat.S_ISDIR(about.st_mode)
    if about.st_nlink > 1 and not directory:
        name = (about.st_dev, about.st_ino)
        if name in seen:
            return False
        seen.add(name)
    if about.st_ctime >= since:
        sums.bytes += about.st_blocks * BLOCK
    return directory


def _enter(stack: list[OpenDirectory], name: str, parent: int | None) -> None:
    """Open a directory, also one whose owner took the right from itself."""
    for attempt in (0, 1):
        try:
            descriptor = os.open(name, OPEN, dir_fd=parent)
        except PermissionError:
            if attempt == 0:
                _open_up(name, parent)
            continue
        except OSError:
            return
        try:
            stack.append((descriptor, os.scandir(descriptor)))
        except OSError:
            os.close(descriptor)
        return


def _leave(stack: list[OpenDirectory]) -> None:
    descriptor, entries = stack.pop()
    entries.close()
    os.close(descriptor)


def _open_up(name: str, parent: int | None) -> None:
    """Give this user the rights to a directory of its own."""
    try:
        descriptor = os.open(name, getattr(os, "O_PATH", 0) | OPEN, dir_fd=parent)
    except OSError:
        return
    try:
        # By its descriptor: the name may be a link to something else by now.
        os.chmod(f"/proc/self/fd/{descriptor}", 0o700)
    except OSError:
        return
    finally:
        os.close(descriptor)


def _one_each_device(directories: Sequence[str]) -> dict[int, str]:
    found: dict[int, str] = {}
    for directory in directories:
        try:
            found.setdefault(os.stat(directory).st_dev, directory)
        except OSError:
            continue
    return found


def _memory_device() -> int:
    """The file system that the system keeps for memory with a descriptor."""
    if sys.platform != "linux":
        return -1
    try:
        descriptor = os.memfd_create("device")
    except OSError:
        return -1
    try:
        return os.fstat(descriptor).st_dev
    finally:
        os.close(descriptor)


def _open_files(pid: int) -> Generator[os.stat_result]:
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for name in names:
        try:
            yield os.stat(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue


def _mapped_files(pid: int) -> Generator[tuple[int, int, int]]:
    """Device, inode and length of each map of a file that has no name any more: proc(5)."""
    try:
        lines = read_bytes(f"/proc/{pid}/maps").splitlines()
    except OSError:
        return
    for line in lines:
        if line.endswith(b" (deleted)"):
            span, _, _, device, inode, _ = line.split(maxsplit=5)
            first, _, last = span.partition(b"-")
            major, _, minor = device.partition(b":")
            number = os.makedev(int(major, 16), int(minor, 16))
            yield number, int(inode), int(last, 16) - int(first, 16)
