"""How much memory can be had without pushing out what others hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class _Version:
    """Where a version of control groups keeps its figures."""

    limit: str
    used: str
    cached: tuple[str, ...]
    """Lines of memory.stat: pages of files, which go when memory is needed."""


_TWO = _Version("memory.max", "memory.current", ("inactive_file", "active_file"))
_ONE = _Version(
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)


def available(proc: Path = _PROC, groups: Path = _GROUPS) -> int:
    """Bytes of memory that this process can still have: of the machine, and of its groups.

    A group with too little ends its processes, also where the machine has plenty: a container.

    Args:
        proc: The file system proc(5).
        groups: Where control groups are mounted: cgroups(7).

    Returns:
        0 where the system does not say.
    """
    return max(0, min((_of_machine(proc), *_of_groups(proc, groups))))


def _of_machine(proc: Path) -> int:
    return _lines(proc / "meminfo").get("MemAvailable:", 0) * 1024


def _of_groups(proc: Path, groups: Path) -> Iterator[int]:
    for line in _text(proc / "self" / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            yield from _up(groups, path, _TWO)
            yield from _up(groups / "unified", path, _TWO)
        elif "memory" in controllers.split(","):
            yield from _up(groups / "memory", path, _ONE)


def _up(root: Path, path: str, version: _Version) -> Iterator[int]:
    """What each group on a path has left; in a container the path may be the host's."""
    parts = [part for part in path.split("/") if part not in {"", ".."}]
    for count in range(len(parts), -1, -1):
        group = root.joinpath(*parts[:count])
        limit, used = _text(group / version.limit).strip(), _text(group / version.used).strip()
        if limit.isdigit() and used.isdigit():
            stat = _lines(group / "memory.stat")
            yield int(limit) - int(used) + sum(stat.get(name, 0) for name in version.cached)


def _lines(path: Path) -> dict[str, int]:
    """First word → number of each line."""
    words = [line.split() for line in _text(path).splitlines()]
    return {pair[0]: int(pair[1]) for pair in words if len(pair) > 1 and pair[1].isdigit()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
