"""Limits that the system keeps for each process, and how much memory the machine has.

Computed in the parent. The watchdog comes first in every case that it sees in time; these are what
holds in between: getrlimit(2).
"""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path

from ovagent_jupyter.execution.sandbox.cgroup import LEAST_TASKS, tasks_for

UNLIMITED = -1
OPEN_FILES = (4096, 4096)
"""More than what parallel code opens; a table of them for each process costs the system memory."""
MEMORY_SLACK = 1.25
"""The system counts what is asked for, we what is used."""
MEMORY_START = 512 << 20
MEMORY_PER_CORE = 64 << 20
"""Stacks and buffers of a pool of threads, asked for and mostly not used."""
WATCHED = 1 << 30
"""Bytes above the cap, more than is written between two looks of the watchdog."""
CPU_GRACE = 5
"""Seconds after the watchdog's cap at which the system ends a process by itself."""
QUEUED_SIGNALS = 4096
DEFAULT_MEMORY = 4 << 30
"""Where the system does not say how much it has."""

Limit = tuple[int, int, int]
"""Number of the resource, soft limit, hard limit."""


def rlimits_for(limits: Mapping[str, float]) -> list[Limit]:
    """The limits of each process of a child, ``-1`` where there is none.

    Args:
        limits: The caps: bytes of ``memory``, ``disk`` and ``file_size``, seconds of ``cpu_time``
            (0: no cap), number of ``processes``.
    """
    return [
        (number, soft, hard)
        for name, soft, hard in _wanted(limits)
        if (number := getattr(resource, name, None)) is not None
    ]


def _wanted(limits: Mapping[str, float]) -> Iterator[tuple[str, int, int]]:
    yield "RLIMIT_CORE", 0, 0
    yield "RLIMIT_NOFILE", *OPEN_FILES
    # A process that goes over it gets SIGXFSZ, which Python ignores: the write fails with EFBIG.
    largest = int(limits["file_size"])
    if largest >= limits["disk"]:
        # No cap of its own: then the watchdog shall end it, and say what was used of the disk.
        largest += WATCHED
    yield "RLIMIT_FSIZE", largest, largest
    if limits["cpu_time"]:
        most = math.ceil(limits["cpu_time"]) + CPU_GRACE
        yield "RLIMIT_CPU", most, most + CPU_GRACE
    tasks = _tasks_of_the_machine() + tasks_for(limits)
    yield "RLIMIT_NPROC", tasks, tasks
    cores = os.cpu_count() or 1
    data = int(limits["memory"] * MEMORY_SLACK) + MEMORY_START + cores * MEMORY_PER_CORE
    yield "RLIMIT_DATA", data, data
    yield "RLIMIT_MSGQUEUE", 0, 0
    yield "RLIMIT_RTPRIO", 0, 0
    yield "RLIMIT_SIGPENDING", QUEUED_SIGNALS, QUEUED_SIGNALS


def _tasks_of_the_machine() -> int:
    """No fewer tasks than this user has now: outside of a user namespace those count too.

    The exact number would take a look at every process; proc(5), /proc/loadavg, fourth field.
    """
    try:
        return int(_text("/proc/loadavg").split()[3].split("/")[1])
    except (OSError, IndexError, ValueError):
        return LEAST_TASKS


def machine_memory() -> int:
    """Bytes of memory that this process may use: what the machine has, or its group's limit."""
    amounts = [_installed(), *_group_limits()]
    return min(amount for amount in amounts if amount > 0)


def _installed() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return DEFAULT_MEMORY


def _group_limits() -> Iterator[int]:
    """Limits of the control groups this process is in, and of those around them: cgroups(7)."""
    try:
        lines = _text("/proc/self/cgroup").splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            yield from _limits_up("/sys/fs/cgroup", path, "memory.max")
            yield from _limits_up("/sys/fs/cgroup/unified", path, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _limits_up("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes")


def _limits_up(root: str, path: str, name: str) -> Iterator[int]:
    # In a container the path may be the host's; then the root shows this process's own group.
    parts = [part for part in path.split("/") if part not in {"", ".."}]
    for count in range(len(parts), -1, -1):
        place = "/".join([root, *parts[:count], name])
        try:
            yield int(_text(place))
        except (OSError, ValueError):
            continue  # not there, or "max"


def _text(path: str) -> str:
    return Path(path).read_text(encoding="ascii", errors="replace")
