"""What this machine can confine, found by trying each level in a process that is thrown away."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ovagent_jupyter.config.sandbox import SandboxSpec
from ovagent_jupyter.errors import ConfinementError
from ovagent_jupyter.execution.environment import ChildDirectories, child_environment
from ovagent_jupyter.execution.executor import Isolation
from ovagent_jupyter.execution.process import ChildProcess
from ovagent_jupyter.execution.rundir import RunDirectory
from ovagent_jupyter.execution.sandbox import landlock
from ovagent_jupyter.execution.sandbox.confinement import (
    Confinement,
    Layers,
    missing,
    plan_grants,
)

PATIENCE = 20.0
"""Seconds until a trial that does not end counts as failed."""
HINTS: tuple[tuple[Path, str, str], ...] = (
    (
        Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        "1",
        "AppArmor lets only programs with a profile make user namespaces "
        "(kernel.apparmor_restrict_unprivileged_userns=1).",
    ),
    (
        Path("/proc/sys/kernel/unprivileged_userns_clone"),
        "0",
        "The system lets no user make namespaces (kernel.unprivileged_userns_clone=0).",
    ),
    (
        Path("/proc/sys/user/max_user_namespaces"),
        "0",
        "The system lets nobody make user namespaces (user.max_user_namespaces=0).",
    ),
)
"""Settings that forbid user namespaces: where they are, the value that forbids, what it means."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One level as it was tried."""

    level: Isolation
    protections: Mapping[str, str]
    """What was measured inside; empty when it could not be set up."""
    why: str = ""
    """Why it could not be set up; empty when it holds."""

    @property
    def holds(self) -> bool:
        """Whether the level can be used here."""
        return not self.why


@dataclass(frozen=True, slots=True)
class MachineReport:
    """What this machine offers for confinement."""

    system: str
    """As ``sys.platform`` has it."""
    landlock_abi: int
    """0 when there is none."""
    trials: tuple[Trial, ...]
    """The strongest level first."""
    hints: tuple[str, ...]
    """What stands in the way of a stronger level, as far as the system says."""

    @property
    def strongest(self) -> Isolation:
        """The strongest level that holds."""
        return next((trial.level for trial in self.trials if trial.holds), Isolation.PROCESS)

    def as_probe(self) -> dict[str, str]:
        """One line a level, for errors and records."""
        return {
            trial.level.name.lower(): "holds" if trial.holds else trial.why for trial in self.trials
        }


async def probe() -> MachineReport:
    """Try every level that the operating system confines.

    Raises:
        OSError: No folder can be made for the trials.
    """
    trials = [await _try(level) for level in (Isolation.NAMESPACES, Isolation.CONFINED)]
    blocked = not trials[0].holds
    return MachineReport(
        system=sys.platform,
        landlock_abi=landlock.abi() if sys.platform == "linux" else 0,
        trials=tuple(trials),
        hints=tuple(_hints()) if blocked else (),
    )


async def _try(level: Isolation) -> Trial:
    folder = RunDirectory(Path(tempfile.gettempdir()), "ovagent-child-")
    directories = ChildDirectories.below(folder.path)
    directories.make()
    environment = child_environment(os.environ, directories)
    try:
        grants = plan_grants(
            sys.executable, environment, directories=directories, spec=SandboxSpec()
        )
        plan = Confinement(
            layers=Layers.of(level),
            spec=SandboxSpec(),
            grants=grants,
            directories=directories,
            environment=environment,
            command=(),
        ).as_plan()
        process = ChildProcess(plan, os.environ)
        try:
            return await _outcome(level, process)
        finally:
            await process.close()
    except ConfinementError as error:
        return Trial(level, {}, f"{error.what} {error.why}")
    finally:
        folder.remove()


async def _outcome(level: Isolation, process: ChildProcess) -> Trial:
    ended = await process.wait(PATIENCE)
    tail = process.tail
    if process.refusal is not None:
        return Trial(level, {}, f"{process.refusal.stage}: {process.refusal.why}")
    if process.protections is None:
        return Trial(level, {}, tail[-500:] if ended else "the trial did not end")
    lacking = missing(level, process.protections)
    return Trial(level, process.protections, f"{', '.join(lacking)} not enforced" * bool(lacking))


def _hints() -> list[str]:
    found = []
    for path, forbidding, meaning in HINTS:
        try:
            value = path.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if value == forbidding:
            found.append(meaning)
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        found.append(
            "This is a container; the filter of its runtime commonly forbids user namespaces."
        )
    return found
