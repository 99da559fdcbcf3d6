"""SandboxSpec: what is granted to the child beyond its own folders, and its caps."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from pathlib import Path

from ovagent_jupyter.config.grants import check_path, parse_paths, within
from ovagent_jupyter.config.hosts import HostList, parse_hosts, why_inside
from ovagent_jupyter.config.values import (
    GIB,
    MIB,
    count,
    require_bool,
    seconds,
    set_field,
    size,
)
from ovagent_jupyter.errors import ConfigError

LEAST_MEMORY = 512 * MIB
"""Measured: 270 MiB to import scanpy, 430 MiB for neighbours and UMAP on 300 cells."""
LEAST_CPU_TIME = 10.0
"""Measured: more than 3 s to start and import scanpy; the first UMAP compiles for 20 s more."""
LEAST_PROCESSES = 4
"""Measured: one, and a second while the cores are counted; a shell and its command are two."""
LEAST_FILE_SIZE = 16 * MIB
"""Compiled code, figures and the hand-over of small data are files too."""
LEAST_DISK = 64 * MIB
"""The same, all of them."""
DEFAULT_DISK = 20 * GIB
SHARE_OF_MEMORY = 0.8
"""Of what the machine has, where nothing is said; the rest is the notebook's."""
TOO_LITTLE = "That caps below what Python needs."


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """What the child may use beyond its own folders, and how much.

    Sizes may be given as text (``"8G"``), paths as text; links are followed at once.

    Raises:
        ConfigError: A value cannot be used, or caps below what Python needs.
    """

    read: tuple[Path, ...] = ()
    """Files or folders that the code may read."""
    write: tuple[Path, ...] = ()
    """Files or folders that the code may read and change."""
    network: tuple[str, ...] = ()
    """Hosts it may reach: ``"host"`` (ports 80 and 443), ``"host:port"``, ``"*.host"``."""
    memory: int | None = None
    """Bytes of memory of all its processes; None is 80 % of what the machine has."""
    cpu_time: float | None = None
    """Seconds of CPU of all its processes, over the life of a child; None is no cap."""
    processes: int = 256
    """Processes at one time."""
    file_size: int | None = None
    """Bytes of one file; None is the same as ``disk``."""
    disk: int = DEFAULT_DISK
    """Bytes in its own folders."""
    force: bool = False
    """Accept grants that are refused otherwise, such as your whole home."""

    def __post_init__(self) -> None:
        write = _outermost(parse_paths("write", self.write))
        read = parse_paths("read", self.read)
        # What the code may change it could turn into a link; no other grant may depend on it.
        set_field(self, "write", write)
        set_field(self, "read", tuple(path for path in read if not within(path, write)))
        set_field(self, "network", parse_hosts(self.network))
        if self.memory is not None:
            set_field(self, "memory", size("memory", self.memory, LEAST_MEMORY, TOO_LITTLE))
        if self.cpu_time is not None:
            spent = seconds("cpu_time", self.cpu_time, LEAST_CPU_TIME, TOO_LITTLE)
            set_field(self, "cpu_time", spent)
        set_field(
            self, "processes", count("processes", self.processes, LEAST_PROCESSES, TOO_LITTLE)
        )
        if self.file_size is not None:
            largest = size("file_size", self.file_size, LEAST_FILE_SIZE, TOO_LITTLE)
            set_field(self, "file_size", largest)
        set_field(self, "disk", size("disk", self.disk, LEAST_DISK, TOO_LITTLE))
        require_bool("force", self.force)

    def tightened(self, other: SandboxSpec) -> SandboxSpec:
        """The stricter of both, field by field: it allows only what both allow."""
        readable, also = (*self.read, *self.write), (*other.read, *other.write)
        write = _paths_in_both(self.write, other.write)
        read = _paths_in_both(readable, also)
        return replace(
            self,
            read=read,
            write=write,
            network=_hosts_in_both(self.network, other.network),
            memory=min(self.memory, other.memory, key=_or_share),
            cpu_time=min(self.cpu_time, other.cpu_time, key=_or_endless),
            processes=min(self.processes, other.processes),
            file_size=min(self.file_size or self.disk, other.file_size or other.disk),
            disk=min(self.disk, other.disk),
            force=self.force and other.force,
        )

    def loosens(self, base: SandboxSpec) -> tuple[str, ...]:
        """The names of the fields in which this one gives more than ``base``."""
        return tuple(
            field.name for field in fields(SandboxSpec) if self._gives_more(field.name, base)
        )

    def check(self, home: Path, ours: Collection[Path] = ()) -> None:
        """Refuse grants that give away more than data, unless ``force`` is set.

        Call it before each start: what a path leads to may change.

        Args:
            home: The user's home directory.
            ours: Where our own files lie.

        Raises:
            ConfigError: A path does not exist (never forced), or a grant is refused.
        """
        for path in self.read:
            check_path("read", path, home, ours, force=self.force)
        for path in self.write:
            check_path("write", path, home, ours, force=self.force)
        for host in () if self.force else self.network:
            if reason := why_inside(host):
                raise ConfigError(
                    f"network is not granted for {host!r}.",
                    why=f"{reason} What answers there trusts whoever can reach it.",
                    next_step="Leave it out; or, if you must, also set sandbox_force.",
                )

    def _gives_more(self, name: str, base: SandboxSpec) -> bool:
        mine, its = getattr(self, name), getattr(base, name)
        match name:
            case "read":
                return not all(within(path, (*base.read, *base.write)) for path in mine)
            case "write":
                return not all(within(path, its) for path in mine)
            case "network":
                return not HostList(its).covers(HostList(mine))
            case "file_size":
                return bool((mine or self.disk) > (its or base.disk))
            case "force":
                return bool(mine and not its)
            case "memory":
                return _or_share(mine) > _or_share(its)
            case _:
                return _or_endless(mine) > _or_endless(its)


def _outermost(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    return tuple(path for path in paths if not any(each in path.parents for each in paths))


def _paths_in_both(one: tuple[Path, ...], two: tuple[Path, ...]) -> tuple[Path, ...]:
    kept = [path for path in one if within(path, two)]
    kept += [path for path in two if within(path, one)]
    return tuple(dict.fromkeys(kept))


def _hosts_in_both(one: tuple[str, ...], two: tuple[str, ...]) -> tuple[str, ...]:
    kept = [host for host in one if HostList(two).covers(HostList([host]))]
    kept += [host for host in two if HostList(one).covers(HostList([host]))]
    return tuple(dict.fromkeys(kept))


def _or_share(memory: int | None) -> float:
    """The cap, or what a child gets without one, as far as that can be known here."""
    if memory is not None:
        return memory
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * SHARE_OF_MEMORY
    except (OSError, ValueError):
        return math.inf


def _or_endless(value: float | None) -> float:
    return math.inf if value is None else value
