"""The processes below one process: who they are, what they have used, and their end.

Read from /proc, whose files proc(5) describes; macOS has none, there ps(1) is asked. Imported by
the supervisor: cheap modules only.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Collection, Iterable, Iterator

FREEZE = 1.0
"""Seconds given to stopping all before all are killed."""
CLEAR = 5.0
"""Seconds after which processes that do not end, because they hang in the system, are left."""
PAUSE = 0.002
SURE = 2
"""Looks that find nobody: one alone can miss a process that is just being handed over."""
MANY = 20_000
"""Processes after which the rest is not looked at; every cap is far below."""
DEAD = frozenset("ZXx")
"""States of a process that has ended; Z waits for its parent to take note."""
STOPPED = frozenset("Tt") | DEAD
CHUNK = 1 << 16
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
HAS_PROC = os.path.exists("/proc/self/stat")
PS = ["/bin/ps", "-axo", "pid=,ppid=,pgid=,stat=,rss=,time="]


class Process:
    """One process at the moment of the look."""

    __slots__ = (
        "cpu",
        "ended_cpu",
        "group",
        "parent",
        "pid",
        "resident",
        "started",
        "state",
        "threads",
    )

    def __init__(
        self,
        pid: int,
        state: str,
        parent: int,
        group: int,
        *,
        cpu: int,
        ended_cpu: int = 0,
        threads: int = 1,
        started: int = 0,
        resident: int,
    ) -> None:
        self.pid = pid
        self.state = state
        self.parent = parent
        self.group = group
        self.cpu = cpu
        """Clock ticks of its own."""
        self.ended_cpu = ended_cpu
        """Clock ticks of children that have ended and been waited for, and of theirs."""
        self.threads = threads
        self.started = started
        """Clock ticks after the start of the machine; with the number it names a process."""
        self.resident = resident
        """Pages in memory, shared ones included."""

    @property
    def dead(self) -> bool:
        """Whether it has ended and only its parent has not taken note."""
        return self.state in DEAD


def read_bytes(path: str) -> bytes:
    """The whole content of a small file of /proc.

    Raises:
        OSError: It cannot be read; the process may have ended.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(descriptor, CHUNK):
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        os.close(descriptor)


def process_of(pid: int) -> Process | None:
    """A process, or None when there is none of that number."""
    try:
        # The name of the program, in parentheses, can hold anything, parentheses too.
        fields = read_bytes(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        return Process(
            pid,
            fields[0].decode("ascii", "replace"),
            int(fields[1]),
            int(fields[2]),
            cpu=int(fields[11]) + int(fields[12]),
            ended_cpu=int(fields[13]) + int(fields[14]),
            threads=int(fields[17]),
            started=int(fields[19]),
            resident=int(fields[21]),
        )
    except (OSError, ValueError, IndexError):
        return None


def all_processes() -> Iterator[Process]:
    """Every process of the machine that this one may see."""
    if not HAS_PROC:
        yield from _told_by_ps()
        return
    for name in os.listdir("/proc"):
        process = process_of(int(name)) if name.isdecimal() else None
        if process is not None:
            yield process


def _told_by_ps() -> Iterator[Process]:
    reading, writing = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, writing, 1), (os.POSIX_SPAWN_CLOSE, reading)]
    teller = os.posix_spawn(PS[0], PS, {"LC_ALL": "C"}, file_actions=actions)
    os.close(writing)
    with open(reading, "rb") as told:
        lines = told.read().splitlines()
    os.waitpid(teller, 0)
    for line in lines:
        pid, parent, group, state, resident, cpu = line.split()
        if int(pid) != teller:
            yield Process(
                int(pid),
                state[:1].decode("ascii"),
                int(parent),
                int(group),
                cpu=round(_seconds(cpu) * TICKS),
                resident=int(resident) * 1024 // PAGE,
            )


def _seconds(text: bytes) -> float:
    """Seconds of ``[[days-]hours:]minutes:seconds``."""
    days, _, rest = text.rpartition(b"-")
    total = float(days or 0) * 24
    for part in rest.split(b":"):
        total = total * 60 + float(part)
    return total


class Tree:
    """All that lives below one process, with what was handed over to it as its reaper.

    Args:
        root: Number of the process; it is not part of the tree itself.
        exclude: Numbers of processes below it that are not counted; what they start is.
    """

    def __init__(self, root: int, exclude: Collection[int] = ()) -> None:
        self._root = root
        self._exclude = frozenset(exclude)
        # Only a kernel built with CONFIG_PROC_CHILDREN tells the children of a process.
        self._listed = os.path.exists(f"/proc/{root}/task/{root}/children")

    def look(self) -> dict[int, Process]:
        """The processes of the tree by number, those that are dead but not buried included."""
        found = self._by_lists() if self._listed else self._by_parents()
        return {pid: each for pid, each in found.items() if pid not in self._exclude}

    def excluded(self) -> list[Process]:
        """Those of the excluded processes that there are."""
        return [each for each in map(process_of, self._exclude) if each is not None]

    def _by_lists(self) -> dict[int, Process]:
        found: dict[int, Process] = {}
        ahead = list(_children(self._root, 1))
        while ahead and len(found) < MANY:
            pid = ahead.pop()
            process = process_of(pid) if pid not in found else None
            if process is not None:
                found[pid] = process
                ahead.extend(_children(pid, process.threads))
        return found

    def _by_parents(self) -> dict[int, Process]:
        """The same without the lists: every process of the machine is asked for its parent."""
        below: dict[int, list[Process]] = {}
        for process in all_processes():
            below.setdefault(process.parent, []).append(process)
        found: dict[int, Process] = {}
        ahead = below.get(self._root, [])
        while ahead and len(found) < MANY:
            process = ahead.pop()
            if process.pid not in found:
                found[process.pid] = process
                ahead.extend(below.get(process.pid, []))
        return found


def _children(pid: int, threads: int) -> Iterator[int]:
    """Numbers of the children of a process: each of its threads has its own."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task") if threads > 1 else [str(pid)]
    except OSError:
        return
    for task in tasks:
        try:
            text = read_bytes(f"/proc/{pid}/task/{task}/children")
        except OSError:
            continue
        yield from map(int, text.split())


def kill_tree(supervisor_pid: int, exclude: Collection[int] = (), seconds: float = CLEAR) -> bool:
    """End all processes below one, also while they make new ones.

    All are stopped first, until none runs that could start another; then all are killed, until none
    is left. Where the supervisor is this process, it also takes note of each end.

    Args:
        supervisor_pid: The process below which nothing is to live.
        exclude: Numbers of processes to leave alone; what they started is ended.
        seconds: How long to try.

    Returns:
        Whether nothing is left.
    """
    tree = Tree(supervisor_pid, exclude)
    spared = {os.getpgrp()} | {each.group for each in tree.excluded()}
    began = time.monotonic()
    known: set[tuple[int, int]] = set()
    while time.monotonic() < began + min(FREEZE, seconds):
        found = tree.look().values()
        awake = [each for each in found if each.state not in STOPPED]
        fresh = {(each.pid, each.started) for each in found} - known
        if not awake or not fresh:
            break
        known |= fresh
        _signal_all(awake, signal.SIGSTOP, spared)
    ours = supervisor_pid == os.getpid()
    empty = 0
    while empty < SURE:
        if ours:
            _bury()
        left = list(tree.look().values())
        living = [each for each in left if not each.dead]
        empty = 0 if living or (ours and left) else empty + 1
        if time.monotonic() > began + seconds:
            return False
        _signal_all(living, signal.SIGKILL, spared)
        time.sleep(PAUSE)
    return True


def _signal_all(processes: Iterable[Process], number: int, spared: Collection[int]) -> None:
    """Send a signal to processes, and first to their groups: no fork escapes in between."""
    processes = list(processes)
    for group in {each.group for each in processes} - set(spared) - {0, 1}:
        try:
            os.killpg(group, number)
        except OSError:
            continue
    for each in processes:
        _signal(each, number)


def _signal(process: Process, number: int) -> None:
    """Send a signal to exactly this process: its number may be another's by now."""
    if process.pid <= 1 or process.pid == os.getpid():
        return
    descriptor = -1
    try:
        if sys.platform == "linux":
            descriptor = os.pidfd_open(process.pid)
    except OSError as error:
        if error.errno == errno.ESRCH:
            return  # else: before Linux 5.3, or no descriptor is free
    try:
        now = process_of(process.pid)
        if HAS_PROC and (now is None or now.started != process.started):
            return
        if sys.platform == "linux" and descriptor >= 0:
            signal.pidfd_send_signal(descriptor, number)
        else:
            os.kill(process.pid, number)
    except OSError:
        return
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _bury() -> None:
    """Take note of the end of children of this process, so that their numbers are free."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
