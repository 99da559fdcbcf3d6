"""The table of executors: the name of a level leads to the class that runs code there."""

from __future__ import annotations

from collections.abc import Callable

from ovagent_jupyter.execution.executor import Executor, Isolation
from ovagent_jupyter.registry import Registry

ExecutorFactory = Callable[..., Executor]

BUILT_IN = {
    Isolation.PROCESS: "ovagent_jupyter.execution.kernel:KernelExecutor",
    Isolation.IN_PROCESS: "ovagent_jupyter.execution.inprocess:InProcessExecutor",
}


def level_name(level: Isolation) -> str:
    """The name of a level as settings and tables write it: ``process``, ``in_process``."""
    return level.name.lower()


def level_named(name: str) -> Isolation:
    """The level of that name.

    Raises:
        KeyError: There is none.
    """
    return Isolation[name.upper()]


def executors() -> Registry[ExecutorFactory]:
    """All executors by name; each is imported when it is first asked for."""
    table: Registry[ExecutorFactory] = Registry("executor")
    for level, target in BUILT_IN.items():
        table.register_lazy(level_name(level), target)
    return table
