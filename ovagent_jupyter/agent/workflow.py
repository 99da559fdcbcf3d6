"""Priority 1: the steps of a plan, run one by one in an executor, each checked afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ovagent_jupyter.agent.turn import StepRecord
from ovagent_jupyter.events import Category, Emitter, Level
from ovagent_jupyter.execution.executor import (
    CodeBatch,
    CodeError,
    ExecutionRequest,
    ExecutionResult,
    ExecutionStatus,
    Executor,
    LimitHit,
    Output,
)
from ovagent_jupyter.omics.rendering import PRELUDE

if TYPE_CHECKING:
    from ovagent_jupyter.omics import Plan
    from ovagent_jupyter.omics.planner.plan import PlannedStep

_LIST_SLOTS = (
    "import json as _json\n"
    "from ovagent_jupyter.omics.slots import slots as _slots\n"
    "print(_json.dumps(_slots({name})))\n"
    "del _json, _slots"
)


class Workflow:
    """Runs a plan: one child cell a step, stopping at the first that fails.

    Args:
        executor: Where the code runs.
        emit: The turn's events.
        timeout: Seconds that one step may run.
    """

    def __init__(self, executor: Executor, emit: Emitter, timeout: float) -> None:
        self._executor = executor
        self._emit = emit
        self._timeout = timeout
        self._batch: CodeBatch | None = None

    async def run(
        self, plan: Plan, ran: Callable[[StepRecord], None], effects: tuple[str, ...] = ()
    ) -> bool:
        """Run all steps in order; True when every one did what it declares.

        Args:
            plan: What to run.
            ran: Told of each step as it ends, so that an interrupt loses none.
            effects: What the code does to the user's work, should the user be asked.
        """
        # One batch: the user is asked once, if at all, about all of its code.
        self._batch = CodeBatch(tuple(step.code for step in plan.steps), effects)
        prelude = await self._execute(PRELUDE, silent=True)
        if not prelude.ok:
            ran(self._record("imports", "Import the packages", PRELUDE, prelude))
            return False
        for index, step in enumerate(plan.steps):
            record = await self._step(index, step, plan.name)
            ran(record)
            if record.status is not ExecutionStatus.OK:
                return False
        return True

    async def _step(self, index: int, step: PlannedStep, name: str) -> StepRecord:
        self._emit(
            Category.STEP_STARTED,
            step.title,
            index=index,
            id=step.id,
            title=step.title,
            code=step.code,
        )
        result = await self._execute(step.code, index=index)
        record = self._record(step.id, step.title, step.code, result)
        if result.ok:
            missing = await self._missing(step, name)
            if missing:
                record = _without_effect(record, missing)
        self._emit(
            Category.STEP_FINISHED,
            f"{step.title}: {record.status.value}",
            level=Level.INFO if record.status is ExecutionStatus.OK else Level.ERROR,
            index=index,
            id=step.id,
            ok=record.status is ExecutionStatus.OK,
            status=record.status.value,
            duration=record.duration,
            error=f"{record.error.name}: {record.error.message}" if record.error else "",
        )
        return record

    def _record(self, step_id: str, title: str, code: str, result: ExecutionResult) -> StepRecord:
        limit = result.limit
        if limit is None and result.status is ExecutionStatus.TIMEOUT:
            limit = LimitHit("wall_time", self._timeout, result.duration)
        return StepRecord(
            id=step_id,
            title=title,
            code=code,
            status=result.status,
            duration=result.duration,
            outputs=result.outputs,
            error=result.error,
            limit=limit,
        )

    async def _execute(
        self, code: str, *, silent: bool = False, index: int = -1
    ) -> ExecutionResult:
        batch = None if silent else self._batch
        request = ExecutionRequest(code, timeout=self._timeout, silent=silent, batch=batch)

        def relay(output: Output) -> None:
            self._emit(Category.CODE_OUTPUT, output.kind, output=output, index=index)

        return await self._executor.execute(request, None if silent else relay)

    async def _missing(self, step: PlannedStep, name: str) -> tuple[str, ...]:
        """Slots the step declares and did not make.

        The list comes from the child and is only a check on honest mistakes.
        """
        from ovagent_jupyter.omics.checks import missing_after
        from ovagent_jupyter.omics.step import STEPS

        code = _LIST_SLOTS.replace("{name}", name)
        result = await self._executor.execute(
            ExecutionRequest(code, timeout=self._timeout, silent=True)
        )
        slots = _strings(result.stdout) if result.ok else None
        if slots is None:
            return ()
        return missing_after(STEPS.get(step.id), step.params, slots)


def _strings(text: str) -> list[str] | None:
    """A JSON list of strings, or None when the child printed something else."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, list):
        return None
    return [item for item in value if isinstance(item, str)]


def _without_effect(record: StepRecord, missing: tuple[str, ...]) -> StepRecord:
    message = f"the step ran but did not make {', '.join(missing[:3])}"
    return replace(
        record,
        status=ExecutionStatus.ERROR,
        error=CodeError("PostconditionFailed", message),
    )
