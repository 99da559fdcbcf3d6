"""The plan of one confined child: what is put on it, and what is told to the supervisor."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ovagent_jupyter.config.sandbox import SHARE_OF_MEMORY, SandboxSpec
from ovagent_jupyter.execution.executor import Isolation
from ovagent_jupyter.execution.sandbox import landlock
from ovagent_jupyter.execution.sandbox.confine import ENFORCED, UNGRANTED
from ovagent_jupyter.execution.sandbox.grants import Grants, grants_for
from ovagent_jupyter.execution.sandbox.rlimits import machine_memory, rlimits_for

if TYPE_CHECKING:
    from ovagent_jupyter.execution.environment import ChildDirectories

REQUIRED: Mapping[Isolation, tuple[str, ...]] = {
    Isolation.NAMESPACES: (
        "namespaces",
        "files",
        "network",
        "seccomp",
        "no_new_privs",
        "capabilities",
    ),
    Isolation.CONFINED: (
        "landlock",
        "files",
        "network",
        "seccomp",
        "no_new_privs",
        "capabilities",
    ),
    Isolation.PROCESS: (),
}
"""What the self-test of a level must find enforced on Linux."""

ON_MACOS: Mapping[Isolation, tuple[str, ...]] = {
    Isolation.NAMESPACES: ("namespaces",),
    Isolation.CONFINED: ("files", "network"),
    Isolation.PROCESS: (),
}
"""The same there, where Seatbelt alone confines."""


@dataclass(frozen=True, slots=True)
class Layers:
    """The mechanisms that a child is confined by."""

    namespaces: bool
    """Namespaces and a root directory of its own."""
    landlock: int
    """The newest ABI of Landlock to use; 0 is none."""
    seccomp: bool
    """The filter of system calls."""

    @classmethod
    def of(cls, level: Isolation) -> Layers:
        """All that a level has on this machine."""
        if sys.platform != "linux":
            return cls(level is Isolation.NAMESPACES, 0, False)
        confined = level >= Isolation.CONFINED
        present = min(landlock.abi(), landlock.NEWEST) if confined else 0
        return cls(level is Isolation.NAMESPACES, present, confined)

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return self.namespaces or self.landlock > 0 or self.seccomp


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """All that the supervisor needs to know of one child.

    The parts are plain, because the supervisor reads them as JSON with the standard library only.
    """

    layers: Layers
    spec: SandboxSpec
    grants: Grants
    directories: ChildDirectories
    environment: Mapping[str, str]
    command: tuple[str, ...]
    """Empty to try the confinement and start nothing."""
    keep: tuple[int, ...] = ()
    """Descriptors that the child inherits."""

    required: tuple[str, ...] = ()
    """What the self-test must find enforced, or the command is not started."""
    seatbelt: str = ""
    """The profile of macOS; empty elsewhere."""

    def as_plan(self) -> dict[str, object]:
        """The plan as the supervisor reads it."""
        root = self.directories.root
        limits = self._limits()
        base = root / "root"
        base.mkdir(mode=0o700, exist_ok=True)
        canary = root / "canary"
        canary.touch(mode=0o600)
        return {
            "command": list(self.command),
            "environment": dict(self.environment),
            "directory": str(self.directories.work),
            "layers": {
                "namespaces": self.layers.namespaces,
                "landlock": self.layers.landlock,
                "seccomp": self.layers.seccomp,
            },
            "grants": [list(pair) for pair in self.grants.pairs],
            "links": [list(pair) for pair in self.grants.links],
            "texts": {**dict(self.grants.texts), UNGRANTED: ""} if self.layers.namespaces else {},
            "base": str(base),
            "temp": str(self.directories.temp),
            "shared_memory": int(limits["memory"] // 2),
            "limits": limits,
            "watched": [str(path) for path in self.directories.writable],
            "rlimits": rlimits_for(limits),
            "seatbelt": self.seatbelt,
            "keep": list(self.keep),
            "canary": str(canary),
            "required": list(self.required),
        }

    def _limits(self) -> dict[str, float]:
        spec = self.spec
        there = machine_memory()
        return {
            "memory": min(spec.memory or int(there * SHARE_OF_MEMORY), there),
            "cpu_time": spec.cpu_time or 0,
            "processes": spec.processes,
            "file_size": spec.file_size or spec.disk,
            "disk": spec.disk,
        }


def seatbelt_for(level: Isolation, grants: Grants, sockets: tuple[Path, ...]) -> str:
    """The Seatbelt profile of a level; empty where there is no Seatbelt or no need."""
    if sys.platform == "darwin" and level >= Isolation.CONFINED:
        from ovagent_jupyter.execution.sandbox import macos

        return macos.profile_for(grants, home=_home(), sockets=sockets)
    return ""


def required_of(level: Isolation) -> tuple[str, ...]:
    """What the self-test of a level must find enforced on this system."""
    return (ON_MACOS if sys.platform == "darwin" else REQUIRED)[level]


def missing(level: Isolation, protections: Mapping[str, str]) -> tuple[str, ...]:
    """Those protections that make up a level and were not found enforced."""
    return tuple(name for name in required_of(level) if protections.get(name) != ENFORCED)


def plan_grants(
    python: str,
    environment: Mapping[str, str],
    *,
    directories: ChildDirectories,
    spec: SandboxSpec,
    readable: tuple[Path, ...] = (),
    patience: float = 60.0,
) -> Grants:
    """The files that a child gets: its interpreter, its own folders, and what the spec grants."""
    return grants_for(
        python=python,
        environment=environment,
        read=(*readable, *spec.read),
        write=(*directories.writable, *spec.write),
        home=_home(),
        patience=patience,
    )


def _home() -> Path:
    return Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() raises without a HOME
