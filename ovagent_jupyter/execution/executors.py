"""The table of executors: the name of a level leads to what runs code there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ovagent_jupyter.execution.executor import Executor, Isolation
from ovagent_jupyter.registry import Registry

if TYPE_CHECKING:
    from ovagent_jupyter.config.sandbox import SandboxSpec
    from ovagent_jupyter.config.schema import ExecutionConfig
    from ovagent_jupyter.execution.transfer import StoreSource
    from ovagent_jupyter.execution.warm import Keeper

ExecutorFactory = Callable[..., Executor]

OWNER = "ovagent-jupyter"


def level_name(level: Isolation) -> str:
    """The name of a level as settings and tables write it: ``namespaces``, ``in_process``."""
    return level.name.lower()


def level_named(name: str) -> Isolation:
    """The level of that name.

    Raises:
        KeyError: There is none.
    """
    return Isolation[name.upper()]


def levels_from(config: ExecutionConfig) -> tuple[Isolation, ...]:
    """The levels that settings ask for, the wanted one first, down to the weakest there is.

    How far down the policy goes is for ``choose_executor`` to say.
    """
    asked = level_named(config.sandbox_level) if config.use_notebook else Isolation.IN_PROCESS
    return tuple(sorted((level for level in Isolation if level <= asked), reverse=True))


def executors() -> Registry[ExecutorFactory]:
    """All executors by name; each is imported when it is first asked for."""
    table: Registry[ExecutorFactory] = Registry("executor")
    for level in sorted(Isolation, reverse=True):
        if level is not Isolation.IN_PROCESS:
            table.register(level_name(level), partial(_child_kernel, level), owner=OWNER)
    table.register_lazy(
        level_name(Isolation.IN_PROCESS),
        "ovagent_jupyter.execution.inprocess:InProcessExecutor",
        owner=OWNER,
    )
    return table


def make_keeper() -> Keeper:
    """What keeps a child ready for executors; its module is imported when one is wanted."""
    from ovagent_jupyter.execution.warm import Keeper

    return Keeper()


def _child_kernel(
    level: Isolation,
    *,
    spec: SandboxSpec | None = None,
    warm: Sequence[str] = (),
    keeper: Keeper | None = None,
    store: StoreSource | None = None,
) -> Executor:
    """A child kernel at a level; its module is imported when one is wanted."""
    from ovagent_jupyter.execution.ahead import compile_later
    from ovagent_jupyter.execution.kernel import KernelExecutor
    from ovagent_jupyter.execution.launch import LaunchOptions

    options = LaunchOptions(spec=spec) if spec is not None else None
    return KernelExecutor(
        isolation=level,
        warm=warm,
        options=options,
        ahead=compile_later,
        keeper=keeper,
        store=store,
    )
