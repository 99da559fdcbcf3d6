"""What can be left behind, counted."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ovagent_jupyter.execution.sandbox.process_tree import Tree, process_of
from tests.soak.crashes import SEGMENT

PATIENCE = 10.0
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class Counts:
    """How many there are of each."""

    processes: int
    """Below this one; with ``adopt_orphans`` also those whose parents have gone."""
    descriptors: int
    threads: int
    files: int
    """In the folders for the children's files and sockets."""
    segments: int
    """System V shared memory of the size that a crash makes."""
    groups: int
    """Control groups of supervisors that are gone."""

    names: tuple[str, ...] = ()
    """The processes, for a reader."""

    def table(self, later: Counts) -> str:
        """Both counts, as lines to read."""
        before, after = asdict(self), asdict(later)
        rows = [f"{name:12} {before[name]:8} {after[name]:8}" for name in _COUNTED]
        return "\n".join([f"{'':12} {'before':>8} {'after':>8}", *rows, *later.names])


_COUNTED = tuple(field.name for field in fields(Counts) if field.name != "names")


def adopt_orphans() -> None:
    """Become the parent of processes below this one whose parents end."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def count(*folders: Path) -> Counts:
    """Count now."""
    gc.collect()
    below = Tree(os.getpid()).look().values()
    return Counts(
        processes=len(below),
        names=tuple(f"{each.pid} {each.state} {_command(each.pid)}" for each in below),
        descriptors=_entries(Path("/proc/self/fd")),
        # The loop's own pool grows to its bound as it is used, and stays.
        threads=sum(not each.name.startswith("asyncio_") for each in threading.enumerate()),
        files=sum(1 for folder in folders for _ in folder.rglob("*")),
        segments=sum(1 for size in _segment_sizes() if size == SEGMENT),
        groups=sum(1 for _ in _abandoned_groups()),
    )


async def count_settled(before: Counts, *folders: Path) -> Counts:
    """Count again, until it is no more than before; what takes a moment to go gets one."""
    deadline = time.monotonic() + PATIENCE
    while True:
        now = count(*folders)
        if not more(before, now) or time.monotonic() > deadline:
            return now
        await asyncio.sleep(0.1)


def more(before: Counts, after: Counts) -> list[str]:
    """The names of what there is more of."""
    then, now = asdict(before), asdict(after)
    return [name for name in _COUNTED if now[name] > then[name]]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").replace("\0", " ")
    except OSError:
        return "gone"


def _entries(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())


def _segment_sizes() -> Iterator[int]:
    for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]:
        yield int(line.split()[3])


def _abandoned_groups() -> Iterator[Path]:
    for group in Path("/sys/fs/cgroup").glob("*/ovagent-*"):
        pid, _, started = group.name.split("-", 2)[2].partition("-")
        maker = process_of(int(pid))
        if maker is None or maker.started != int(started):
            yield group
