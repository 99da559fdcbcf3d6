"""What happens when code cannot be confined as far as is wanted: SandboxFallbackPolicy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from ovagent_jupyter.config.schema import SandboxFallbackPolicy
from ovagent_jupyter.errors import ConfinementError, ExecutionError, SandboxUnavailableError
from ovagent_jupyter.events import AgentEvent, Category, Emit, Level
from ovagent_jupyter.execution.approval import Approval
from ovagent_jupyter.execution.executor import (
    ExecutionRequest,
    ExecutionResult,
    Executor,
    Isolation,
    OnOutput,
    Preparable,
)
from ovagent_jupyter.execution.executors import level_name

if TYPE_CHECKING:
    from ovagent_jupyter.execution.handover import Changes, HandoverReport


@dataclass(frozen=True, slots=True)
class Fallback:
    """One step down, from the level that could not be set up to the next weaker one."""

    requested: Isolation
    actual: Isolation
    reason: str
    cause: str
    """``"unavailable"`` or ``"setup_failed"``, as in ``ConfinementError``."""
    probe: Mapping[str, str] = field(default_factory=dict)
    """What was found, by the name of each protection."""


class Startable(Protocol):
    """What can be tried: an executor, or a kernel that another client will speak to."""

    @property
    def isolation(self) -> Isolation:
        """The level it sets up."""
        ...

    async def start(self) -> None:
        """Make it ready.

        Raises:
            ConfinementError: Its level cannot be set up.
        """
        ...


T = TypeVar("T", bound=Startable)


@dataclass(frozen=True, slots=True)
class Choice(Generic[T]):
    """The executor that was taken, and the steps down to it."""

    executor: T
    fallbacks: tuple[Fallback, ...] = ()


async def choose_executor(
    chain: Sequence[T], policy: SandboxFallbackPolicy, floor: Isolation
) -> Choice[T]:
    """The first executor of the chain that starts, as far down as the policy allows.

    Args:
        chain: Executors, the one that is wanted first, each weaker than the one before.
        policy: Whether a weaker one may be taken.
        floor: No executor below this level is taken. Only the user's own settings can have put
            it below the boundary of the system, so ``SILENT`` need not ask again.

    Raises:
        SandboxUnavailableError: None that is allowed can be set up; nothing was run.
        ChildStartError: One could be set up, and its child did not start. That may be the
            child's own doing and never leads to a weaker level.
    """
    steps: list[Fallback] = []
    for place, executor in enumerate(chain):
        try:
            await executor.start()
        except ConfinementError as error:
            weaker = chain[place + 1] if place + 1 < len(chain) else None
            if weaker is None or policy is SandboxFallbackPolicy.RAISE or weaker.isolation < floor:
                raise _denied(chain[0], executor, weaker, policy, error) from error
            reason = " ".join(error.lines())
            steps.append(
                Fallback(executor.isolation, weaker.isolation, reason, error.cause, error.probe)
            )
        else:
            return Choice(executor, tuple(steps))
    raise _no_executor()


class PolicyExecutor:
    """An executor that settles on one of several when it is first started, and stays with it.

    Only a level that cannot be set up, before any guest code ran, leads to a weaker one. Code
    that fails, a child that dies and a child that cannot be started again do not: the code could
    cause those at will, and a policy that answers them with less isolation is the way out.

    Args:
        chain: Executors, the one that is wanted first, each weaker than the one before.
        policy: Whether a weaker one may be taken, and whether that is said.
        floor: No executor below this level is taken.
        emit: Told of each step down, once it is taken.
        approval: Asks the user before code runs; by default nobody can be asked.
    """

    def __init__(
        self,
        chain: Sequence[Executor],
        *,
        policy: SandboxFallbackPolicy,
        floor: Isolation,
        emit: Emit,
        approval: Approval | None = None,
    ) -> None:
        if not chain:
            raise _no_executor()
        self._chain = tuple(chain)
        self._policy = policy
        self._floor = floor
        self._emit = emit
        self._approval = approval or Approval("risky")
        self._chosen: Executor | None = None
        self.fallbacks: tuple[Fallback, ...] = ()
        """The steps down that led to the level in force."""
        self.isolation = chain[0].isolation
        """The level in force; before the first start, the level that is wanted."""

    @property
    def alive(self) -> bool:
        """Whether the chosen executor can run a cell."""
        return self._chosen is not None and self._chosen.alive

    @property
    def work_dir(self) -> Path:
        """Where the code of the chosen executor runs."""
        return self._settled().work_dir

    @property
    def protections(self) -> Mapping[str, str]:
        """What holds the code back in the chosen executor; empty when nothing does."""
        return self._chosen.protections if self._chosen is not None else {}

    async def grant(self, read: Sequence[Path] = ()) -> bool:
        """Let the code read these files too; before the start, whichever executor is taken."""
        if self._chosen is not None:
            return await self._chosen.grant(read)
        for executor in self._chain:
            await executor.grant(read)
        return False

    def prepare(self) -> None:
        """Have a child made ready at the level in force or, before the start, the one wanted."""
        first = self._chosen or self._chain[0]
        if isinstance(first, Preparable):
            first.prepare()

    async def start(self) -> None:
        """Settle on an executor at the first call; later, start that one again.

        Raises:
            SandboxUnavailableError: None that is allowed can be set up.
            ChildStartError: The child did not start, or not again.
        """
        if self._chosen is not None:
            await self._chosen.start()
            return
        choice = await choose_executor(self._chain, self._policy, self._floor)
        self._chosen, self.fallbacks = choice.executor, choice.fallbacks
        self.isolation = choice.executor.isolation
        for step in choice.fallbacks:
            self._emit(_stepped_down(step, self._policy))

    async def execute(
        self, request: ExecutionRequest, on_output: OnOutput | None = None
    ) -> ExecutionResult:
        """Run one cell once in the chosen executor, if the user agrees where that is asked.

        Raises:
            SandboxDeniedError: They do not, or cannot be asked; the cell was not run.
        """
        if not request.silent:
            await self._approval.require(request, self._settled().isolation)
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


def _stepped_down(step: Fallback, policy: SandboxFallbackPolicy) -> AgentEvent:
    requested, actual = level_name(step.requested), level_name(step.actual)
    silent = policy is SandboxFallbackPolicy.SILENT
    return AgentEvent(
        category=Category.SANDBOX_FALLBACK,
        message=f"Code runs at level {actual!r}: level {requested!r} cannot be set up here.",
        level=Level.DEBUG if silent else Level.WARNING,
        data={
            "requested": requested,
            "actual": actual,
            "reason": step.reason,
            "cause": step.cause,
            "probe": dict(step.probe),
            "policy": policy.value,
        },
    )


def _denied(
    wanted: Startable,
    tried: Startable,
    weaker: Startable | None,
    policy: SandboxFallbackPolicy,
    error: ConfinementError,
) -> SandboxUnavailableError:
    level = level_name(wanted.isolation)
    also = "" if tried is wanted else f", nor at {level_name(tried.isolation)!r}"
    remedy = error.next_step
    if weaker is not None:
        setting, allowed = "fallback_floor", level_name(weaker.isolation)
        if policy is SandboxFallbackPolicy.RAISE:
            setting, allowed = "sandbox_fallback_policy", SandboxFallbackPolicy.WARN_AND_FALLBACK
        remedy = f"{remedy} Or allow a weaker level with {setting}={str(allowed)!r}.".strip()
    return SandboxUnavailableError(
        f"Code cannot be run at level {level!r}{also}, and the policy allows no weaker one.",
        probe=error.probe,
        why=f"{error.what} {error.why} {_report(error.probe)}".strip(),
        next_step=remedy,
    )


def _report(probe: Mapping[str, str]) -> str:
    return f"Found: {'; '.join(f'{name} {state}' for name, state in probe.items())}." * bool(probe)


def _no_executor() -> ExecutionError:
    return ExecutionError("No executor was given.", next_step="Pass at least one.")
