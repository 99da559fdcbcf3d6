"""Examining this machine: what works, what does not, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ovagent_jupyter.errors import OVAgentError
from ovagent_jupyter.execution.executor import ExecutionRequest, Isolation
from ovagent_jupyter.execution.executors import level_name
from ovagent_jupyter.storage import paths

if TYPE_CHECKING:
    from ovagent_jupyter.config.schema import AgentConfig
    from ovagent_jupyter.execution.executor import Executor
    from ovagent_jupyter.execution.sandbox.probe import MachineReport, Trial

Mark = Literal["✓", "!", "✗"]
LOW_DISK = 1 << 30
"""Bytes below which the session's files may soon not be written."""
REMEDIES = {
    "apparmor_restrict_unprivileged_userns": "Give this Python an AppArmor profile with `userns,`; "
    "or, for all programs: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    "unprivileged_userns_clone": "sudo sysctl kernel.unprivileged_userns_clone=1",
    "max_user_namespaces": "sudo sysctl user.max_user_namespaces=10000",
    "container": "Start the container with a seccomp profile that allows unshare, mount and "
    "pivot_root (Docker: --security-opt seccomp=PROFILE).",
}
"""What helps, by a word of the hint that the probe gives."""
_MEANS = {
    Isolation.NAMESPACES: "user namespaces, Landlock, seccomp",
    Isolation.CONFINED: "Landlock, seccomp",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; ``!`` works with a limit, ``✗`` does not work."""

    mark: Mark
    name: str
    finding: str
    remedy: str = ""


async def examine(
    config: AgentConfig, executor: Executor, *, live: bool = False
) -> tuple[Check, ...]:
    """All checks, in the order a user reads them.

    Args:
        config: The settings in force.
        executor: Started, tried and ended.
        live: Also ask model services what they serve, which needs the network.
    """
    return (
        Check("✓", "Python", f"{platform.python_version()} on {platform.system()}"),
        *_packages(),
        *await _machine(),
        *await _child(executor),
        *await _kept_ready(config, executor.isolation),
        *_places(config),
        *await _models(config, live=live),
    )


def versions() -> Iterable[tuple[str, str]]:
    """Versions of the packages that matter in a report of a problem."""
    yield "python", platform.python_version()
    for name in ("ovagent-jupyter", "ipython", "ipykernel", "jupyter-client", "scanpy", "anndata"):
        yield name, _version(name) or "not installed"


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _packages() -> Iterable[Check]:
    for name in ("scanpy", "anndata"):
        version = _version(name)
        if version:
            yield Check("✓", name, version)
        else:
            yield Check("✗", name, "not installed", "pip install 'ovagent-jupyter[omics]'")
    yield kernel_check(_version("ipykernel"))
    yield from _optional_packages()


def kernel_check(version: str) -> Check:
    """Whether this ipykernel reads each cell at once: 7.0 to 7.3 may overlook one (#1554)."""
    if version.startswith(("7.0.", "7.1.", "7.2.", "7.3.")):
        finding = f"{version}: can leave a cell waiting until another client connects"
        return Check("!", "ipykernel", finding, "pip install --upgrade 'ipykernel>=7.4'")
    return Check("✓", "ipykernel", version)


def _optional_packages() -> Iterable[Check]:
    from ovagent_jupyter.omics.step import STEPS

    wanted: dict[str, list[str]] = {}
    for step_id in STEPS:
        for module in STEPS.get(step_id).requires:
            wanted.setdefault(module, []).append(step_id)
    missing = {m: s for m, s in wanted.items() if importlib.util.find_spec(m) is None}
    for module, steps in missing.items():
        yield Check(
            "!",
            module,
            f"not installed: no {', '.join(steps)}",
            "pip install 'ovagent-jupyter[omics]'",
        )
    if not missing:
        yield Check("✓", "steps", f"all {len(STEPS)} steps have their packages")


async def _models(config: AgentConfig, *, live: bool) -> tuple[Check, ...]:
    """Whether models can be reached: keys, addresses, proxy; asked only when ``live``."""
    from ovagent_jupyter.providers.checks import check_models

    return tuple(Check(*found) for found in await check_models(config, os.environ, live=live))


async def _child(executor: Executor) -> tuple[Check, ...]:
    """Whether a child runs code, and what holds it there."""
    began = time.monotonic()
    try:
        await executor.start()
        # Silent: ours, so that nobody is asked about it.
        result = await executor.execute(
            ExecutionRequest("assert 6 * 7 == 42", timeout=60, silent=True)
        )
        in_force = _in_force(executor)
    except OVAgentError as error:
        return (Check("✗", "child kernel", f"{error.what} {error.why}".strip(), error.next_step),)
    finally:
        await executor.shutdown()
    if not result.ok:
        why = f": {result.error.name}: {result.error.message}" if result.error else ""
        said = f"ran code with the outcome {result.status}{why}"
        return (in_force, Check("✗", "child kernel", said))
    seconds = time.monotonic() - began
    return (in_force, Check("✓", "child kernel", f"starts and runs code ({seconds:.1f} s)"))


async def _kept_ready(config: AgentConfig, level: Isolation) -> tuple[Check, ...]:
    """Whether a child waits before it is asked for, and how it is made."""
    if level is Isolation.IN_PROCESS:
        return ()
    from ovagent_jupyter.execution.launch import LaunchOptions
    from ovagent_jupyter.execution.warm import try_to_keep

    name = "child kept ready"
    try:
        none, started = await try_to_keep(LaunchOptions(isolation=level, spec=config.sandbox))
    except OVAgentError as error:
        return (Check("!", name, f"{error.what} {error.why}".strip(), error.next_step),)
    if none:
        return (Check("!", name, f"none: {none}", "Each child is started when it is needed."),)
    if started:
        return (Check("!", name, f"one, which takes a while to make again: {started}"),)
    return (Check("✓", name, "one; the next is forked from a process that has imported"),)


def _in_force(executor: Executor) -> Check:
    """The level that the settings lead to here, with each protection as measured inside."""
    level = level_name(executor.isolation)
    found: dict[str, list[str]] = {}
    for name, state in executor.protections.items():
        found.setdefault(state, []).append(name)
    measured = "; ".join(f"{state}: {', '.join(names)}" for state, names in found.items())
    if not executor.isolation.guarded:
        return Check(
            "!",
            "sandbox",
            f"level {level!r}: the system does not hold the code back. {measured}".strip(),
            "Run only requests whose code you would run yourself, or see %ovagent policy level.",
        )
    return Check("✓", "sandbox", f"level {level!r}, as measured inside: {measured}")


async def _machine() -> tuple[Check, ...]:
    """What this machine can confine, each level tried in a process that is thrown away."""
    from ovagent_jupyter.execution.sandbox.probe import probe

    try:
        report = await probe()
    except (OSError, OVAgentError) as error:
        return (Check("✗", "confinement", f"cannot be tried: {error}"),)
    return machine_checks(report)


def machine_checks(report: MachineReport) -> tuple[Check, ...]:
    """What was found of this machine, with what helps where a level is not to be had."""
    found = [_tried(trial, report) for trial in report.trials if _offered(trial, report)]
    if report.system == "linux":
        found += [_landlock(report.landlock_abi), _control_groups()]
    return tuple(found)


def _offered(trial: Trial, report: MachineReport) -> bool:
    return report.system == "linux" or trial.level is not Isolation.NAMESPACES


def _tried(trial: Trial, report: MachineReport) -> Check:
    name = level_name(trial.level)
    if trial.holds:
        means = "Seatbelt" if report.system == "darwin" else _MEANS[trial.level]
        return Check("✓", f"can: {name}", f"{means}: holds here")
    remedies = [remedy for key, remedy in REMEDIES.items() if any(key in h for h in report.hints)]
    # A machine without namespaces is well guarded by the next level.
    mark: Mark = "!" if trial.level is Isolation.NAMESPACES else "✗"
    why = " ".join([trial.why, *report.hints])
    return Check(mark, f"can: {name}", f"not here: {why}", " Or: ".join(remedies))


def _landlock(abi: int) -> Check:
    if not abi:
        remedy = "Linux 5.13 or newer, with landlock in lsm= on the kernel's command line."
        return Check("!", "Landlock", "this kernel has none, or it is switched off", remedy)
    return Check("✓", "Landlock", f"ABI {abi}")


def _control_groups() -> Check:
    from ovagent_jupyter.execution.sandbox.cgroup import open_cgroup

    group = open_cgroup({"memory": float(1 << 30), "processes": 256.0})
    if group is None:
        return Check("✓", "control groups", "not to be had here: a watchdog alone holds the caps")
    group.remove()
    return Check("✓", "control groups", "hold the caps, besides the watchdog")


def _places(config: AgentConfig) -> Iterable[Check]:
    yield _place("history", paths.home_dir(os.environ))
    yield _place("sessions", paths.sessions_dir(os.environ, config.execution.storage_dir))
    try:
        yield _place("sockets", paths.runtime_dir(os.environ))
    except OVAgentError as error:
        yield Check("✗", "sockets", error.why, error.next_step)


def _place(name: str, directory: Path) -> Check:
    probe = directory / f".probe-{os.getpid()}"
    try:
        paths.ensure_dir(directory)
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
        free = shutil.disk_usage(directory).free
    except OVAgentError as error:
        return Check("✗", name, error.why, error.next_step)
    except OSError as error:
        remedy = f"Free space there, or set {paths.HOME_VARIABLE} to another directory."
        return Check("✗", name, f"{directory}: {error.strerror}", remedy)
    room = f"{free / 2**30:.1f} GiB free"
    if free < LOW_DISK:
        return Check("!", name, f"{directory} ({room})", "Free some space.")
    return Check("✓", name, f"{directory} ({room})")
