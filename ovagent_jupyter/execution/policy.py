"""What happens when the place where code should run cannot be started: SandboxFallbackPolicy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ovagent_jupyter.config.schema import SandboxFallbackPolicy
from ovagent_jupyter.errors import ChildStartError, ExecutionError, SandboxDeniedError
from ovagent_jupyter.events import AgentEvent, Category, Emit, Level
from ovagent_jupyter.execution.executor import (
    ExecutionRequest,
    ExecutionResult,
    Executor,
    Isolation,
    OnOutput,
)
from ovagent_jupyter.execution.executors import level_name

if TYPE_CHECKING:
    from ovagent_jupyter.execution.handover import Changes, HandoverReport


async def choose_executor(
    chain: Sequence[Executor],
    policy: SandboxFallbackPolicy,
    floor: Isolation,
    emit: Emit,
) -> Executor:
    """The first executor of the chain that starts, as far down as the policy allows.

    Args:
        chain: Executors, the one that is wanted first, each weaker than the one before.
        policy: Whether a weaker one may be taken, and whether that is said.
        floor: No executor below this level is taken.
        emit: Told of each step down.

    Raises:
        SandboxDeniedError: None that is allowed can be started; nothing was run.
    """
    for place, executor in enumerate(chain):
        try:
            await executor.start()
        except ChildStartError as error:
            weaker = chain[place + 1] if place + 1 < len(chain) else None
            if weaker is None or policy is SandboxFallbackPolicy.RAISE or weaker.isolation < floor:
                raise _denied(executor, weaker, policy, error) from error
            emit(_stepped_down(executor, weaker, policy, error))
        else:
            return executor
    raise ExecutionError("No executor was given.", next_step="Pass at least one.")


class PolicyExecutor:
    """An executor that settles on one of several when it is first started, and stays with it.

    Only a failure to start, before any of the user's code ran, leads to a weaker one. Code that
    fails, a child that dies and a child that cannot be started again do not: the code could
    cause those at will, and a policy that answers them with less isolation is the way out.

    Args:
        chain: Executors, the one that is wanted first, each weaker than the one before.
        policy: Whether a weaker one may be taken, and whether that is said.
        floor: No executor below this level is taken.
        emit: Told of each step down.
    """

    def __init__(
        self,
        chain: Sequence[Executor],
        *,
        policy: SandboxFallbackPolicy,
        floor: Isolation,
        emit: Emit,
    ) -> None:
        if not chain:
            raise ExecutionError("No executor was given.", next_step="Pass at least one.")
        self._chain = tuple(chain)
        self._policy = policy
        self._floor = floor
        self._emit = emit
        self._chosen: Executor | None = None
        self.isolation = chain[0].isolation
        """The level in force; before the first start, the level that is wanted."""

    @property
    def alive(self) -> bool:
        """Whether the chosen executor can run a cell."""
        return self._chosen is not None and self._chosen.alive

    async def start(self) -> None:
        """Settle on an executor at the first call; later, start that one again.

        Raises:
            SandboxDeniedError: None that is allowed can be started.
            ChildStartError: The one settled on cannot be started again.
        """
        if self._chosen is not None:
            await self._chosen.start()
            return
        self._chosen = await choose_executor(self._chain, self._policy, self._floor, self._emit)
        self.isolation = self._chosen.isolation

    async def execute(
        self, request: ExecutionRequest, on_output: OnOutput | None = None
    ) -> ExecutionResult:
        """Run one cell once in the chosen executor."""
        return await self._settled().execute(request, on_output)

    async def put(self, objects: Mapping[str, object]) -> HandoverReport:
        """Bind objects to names in the chosen executor."""
        return await self._settled().put(objects)

    async def changes(self, outputs: Sequence[str] = ()) -> Changes:
        """What changed in the chosen executor."""
        return await self._settled().changes(outputs)

    async def interrupt(self) -> bool:
        """Stop the running cell."""
        return self._chosen is not None and await self._chosen.interrupt()

    async def restart(self) -> None:
        """Begin anew with no variables, at the same level."""
        if self._chosen is None:
            await self.start()
        else:
            await self._chosen.restart()

    async def shutdown(self) -> None:
        """End the chosen executor; safe to call twice."""
        if self._chosen is not None:
            await self._chosen.shutdown()

    def _settled(self) -> Executor:
        if self._chosen is None:
            raise ExecutionError("No executor was started.", next_step="Call start().")
        return self._chosen


def _stepped_down(
    wanted: Executor, taken: Executor, policy: SandboxFallbackPolicy, error: ChildStartError
) -> AgentEvent:
    requested, actual = level_name(wanted.isolation), level_name(taken.isolation)
    silent = policy is SandboxFallbackPolicy.SILENT
    return AgentEvent(
        category=Category.SANDBOX_FALLBACK,
        message=f"Code runs at level {actual!r}: level {requested!r} cannot be started.",
        level=Level.DEBUG if silent else Level.WARNING,
        data={
            "requested": requested,
            "actual": actual,
            "policy": policy.value,
            "reason": " ".join(error.lines()),
        },
    )


def _denied(
    executor: Executor,
    weaker: Executor | None,
    policy: SandboxFallbackPolicy,
    error: ChildStartError,
) -> SandboxDeniedError:
    level = level_name(executor.isolation)
    remedy = error.next_step
    if weaker is not None:
        setting, allowed = "fallback_floor", level_name(weaker.isolation)
        if policy is SandboxFallbackPolicy.RAISE:
            setting, allowed = "sandbox_fallback_policy", SandboxFallbackPolicy.WARN_AND_FALLBACK
        remedy = f"{remedy} Or allow a weaker level with {setting}={str(allowed)!r}.".strip()
    return SandboxDeniedError(
        f"Code cannot be run at level {level!r}, and the policy allows no weaker one.",
        why=f"{error.what} {error.why}".strip(),
        next_step=remedy,
    )
