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
from ovagent_jupyter.execution.executor import ExecutionRequest
from ovagent_jupyter.storage import paths

if TYPE_CHECKING:
    from ovagent_jupyter.config.schema import AgentConfig
    from ovagent_jupyter.execution.executor import Executor

Mark = Literal["✓", "!", "✗"]
LOW_DISK = 1 << 30
"""Bytes below which the session's files may soon not be written."""


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; ``!`` works with a limit, ``✗`` does not work."""

    mark: Mark
    name: str
    finding: str
    remedy: str = ""


async def examine(config: AgentConfig, executor: Executor) -> tuple[Check, ...]:
    """All checks, in the order a user reads them.

    Args:
        config: The settings in force.
        executor: Started, tried and ended.
    """
    return (
        Check("✓", "Python", f"{platform.python_version()} on {platform.system()}"),
        *_packages(),
        await _child(executor),
        Check(
            "!",
            "sandbox",
            "the child is a process of its own, without keys or history, not confined",
            "Run only requests whose code you would run yourself.",
        ),
        *_places(config),
        Check("✓", "model", "offline: the built-in planner, no key and no network needed"),
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
    yield from _optional_packages()


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


async def _child(executor: Executor) -> Check:
    began = time.monotonic()
    try:
        await executor.start()
        result = await executor.execute(ExecutionRequest("print(6 * 7)", timeout=60))
    except OVAgentError as error:
        return Check("✗", "child kernel", f"{error.what} {error.why}", error.next_step)
    finally:
        await executor.shutdown()
    if result.stdout.strip() != "42":
        return Check("✗", "child kernel", f"ran code with the outcome {result.status}")
    return Check("✓", "child kernel", f"starts and runs code ({time.monotonic() - began:.1f} s)")


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
