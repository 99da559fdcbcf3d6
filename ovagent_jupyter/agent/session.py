"""A session: one child, one log, one notebook, and the turns that go through them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from ovagent_jupyter.agent.choose_data import choose_inputs
from ovagent_jupyter.agent.prepare import objects_named, with_absolute_paths
from ovagent_jupyter.agent.recorder import Recorder
from ovagent_jupyter.agent.results import answer_for, bindings_of, explain_failure
from ovagent_jupyter.agent.turn import StepRecord, Turn, TurnRequest, TurnStatus
from ovagent_jupyter.agent.workflow import Workflow
from ovagent_jupyter.errors import OVAgentError
from ovagent_jupyter.events import AgentEvent, Category, Emit, Emitter, Level

if TYPE_CHECKING:
    from ovagent_jupyter.config.schema import AgentConfig
    from ovagent_jupyter.execution.executor import CodeError, Executor
    from ovagent_jupyter.execution.handover import LeftBehind, ObjectDiff
    from ovagent_jupyter.omics import DataState, Plan

LEFT_BEHIND_SHOWN = 5
"""Things that could not travel are named one by one up to here."""


class AgentSession:
    """Turns that share a child kernel, a log and a notebook; one turn runs at a time.

    Args:
        session_id: Names the session in the log, the history and the notebook.
        config: The settings, frozen for the session.
        executor: Where code runs.
        recorder: Keeps what happened.
        emit: Where events go, beside the log.
    """

    def __init__(
        self,
        session_id: str,
        config: AgentConfig,
        executor: Executor,
        recorder: Recorder,
        emit: Emit,
    ) -> None:
        self.session_id = session_id
        self.config = config
        self.executor = executor
        self.recorder = recorder
        self.last_turn: Turn | None = None
        self._emit = emit
        self._turns_in_child = 0
        # One turn at a time: a second would change the child's variables under the first.
        self._turn_lock = asyncio.Lock()

    async def run(self, request: TurnRequest) -> Turn:
        """Answer one request; ends with exactly one terminal event.

        A step that fails, or runs too long, is a ``Turn`` with status ``failed``.

        Raises:
            WorkflowNeedsFallback: The planner cannot cover the request; nothing was run.
            DataError: The data is missing, ambiguous or cannot be read.
            OVAgentError: One of our parts failed.
        """
        async with self._turn_lock:
            emit = Emitter(self._take, self.session_id, turn_id := uuid4().hex[:12])
            draft = _Draft(request, self.session_id, turn_id)
            try:
                turn = await self._answer(draft, emit)
            except OVAgentError as error:
                self._end(request, draft.failed(error), emit)
                raise
            except asyncio.CancelledError:
                self._end(request, draft.interrupted(), emit)
                raise
            except BaseException as error:
                self._end(request, draft.failed(OVAgentError(f"A fault of ours: {error!r}")), emit)
                raise
            self._end(request, turn, emit)
            return turn

    def can_go_on_with(self, config: AgentConfig) -> bool:
        """Whether new settings leave the child, the files and the answerer as they are."""
        return _fixed(config) == _fixed(self.config)

    async def restart_child(self) -> None:
        """Replace the child by a fresh one."""
        async with self._turn_lock:
            await self.executor.restart()
            self._turns_in_child = 0

    async def close(self) -> None:
        """End the child; what was recorded stays."""
        await self.executor.shutdown()

    async def _answer(self, draft: _Draft, emit: Emitter) -> Turn:
        request = draft.request
        emit(Category.TURN_STARTED, request.text, request=request.text, mode=request.mode)
        main, names = choose_inputs(request.text, request.namespace, request.inputs)
        state = self._describe(request, main, emit)
        plan = draft.plan = self._plan(request, state, main)
        plan = draft.plan = with_absolute_paths(plan, Path.cwd())
        emit(Category.PLAN_READY, _counted(len(plan.steps), "step"), plan=plan)
        if request.mode != "run":
            return draft.planned()
        names = tuple(dict.fromkeys([*names, *objects_named(plan, request.namespace)]))
        await self._ready_child(emit)
        report = await self.executor.put({name: request.namespace[name] for name in names})
        self._tell_left_behind(report.left_behind, emit)
        workflow = Workflow(self.executor, emit, request.timeout or self.config.execution.timeout)
        self._turns_in_child += 1
        if not await workflow.run(plan, draft.steps.append):
            error = explain_failure(draft.steps[-1], sent=bool(names))
            return draft.failed(error, code_error=draft.steps[-1].error)
        return await self._collect(draft, plan, state, emit)

    def _describe(self, request: TurnRequest, main: str | None, emit: Emitter) -> DataState | None:
        from ovagent_jupyter.omics import describe

        if main is None:
            return None
        state = describe(request.namespace[main], main)
        emit(Category.DATA_DESCRIBED, f"{main}: {state.n_obs:,} × {state.n_vars:,}", name=main)
        return state

    def _plan(self, request: TurnRequest, state: DataState | None, main: str | None) -> Plan:
        from ovagent_jupyter.omics import plan

        return plan(request.text, state, name=main or "adata")

    async def _ready_child(self, emit: Emitter) -> None:
        limit = self.config.execution.max_prompts
        if limit and self._turns_in_child >= limit:
            emit(Category.CHILD_STARTING, "replacing the child kernel (max_prompts reached)")
            await self.executor.restart()
            self._turns_in_child = 0
        elif not self.executor.alive:
            emit(Category.CHILD_STARTING, "starting the child kernel …")
            await self.executor.start()
            self._turns_in_child = 0
        emit(Category.CHILD_READY, "the child kernel is ready", level=Level.DEBUG)

    async def _collect(
        self, draft: _Draft, plan: Plan, state: DataState | None, emit: Emitter
    ) -> Turn:
        wanted = tuple(draft.request.outputs.values())
        # A plan that loads its data makes the main object itself.
        made = () if state is not None else (plan.name,)
        changes = await self.executor.changes((*made, *plan.outputs, *wanted))
        self._tell_left_behind(changes.left_behind, emit)
        bindings, diffs = bindings_of(changes, draft.request, state)
        for name in (name for name in bindings if _is_backed(draft.request.namespace.get(name))):
            message = f"{name} was read from its file as needed; the changed one is in memory."
            emit(Category.NOTICE, message, level=Level.WARNING)
        for new in draft.request.outputs.keys() - bindings.keys():
            message = f"Nothing was made that could be bound to {new!r}."
            emit(Category.NOTICE, message, level=Level.WARNING)
        emit(
            Category.HANDOVER_RECEIVED,
            "; ".join(diff.summary() for diff in diffs) or "nothing changed",
            level=Level.DEBUG,
            names=tuple(bindings),
        )
        return draft.finished(bindings, diffs, changes.left_behind)

    def _tell_left_behind(self, items: tuple[LeftBehind, ...], emit: Emitter) -> None:
        for item in items[:LEFT_BEHIND_SHOWN]:
            emit(
                Category.NOTICE,
                f"{item.path} stayed where it is: {item.reason}",
                level=Level.WARNING,
            )
        more = len(items) - LEFT_BEHIND_SHOWN
        if more > 0:
            emit(Category.NOTICE, f"… and {more} more", level=Level.WARNING)

    def _end(self, request: TurnRequest, turn: Turn, emit: Emitter) -> None:
        self.last_turn = turn
        for message in self.recorder.turn(turn, request):
            emit(Category.NOTICE, message, level=Level.WARNING)
        category = Category.TURN_FINISHED if turn.ok else Category.TURN_FAILED
        emit(
            category,
            turn.answer,
            level=Level.INFO if turn.ok else Level.ERROR,
            turn=turn,
            state=turn.status.value,
            error=str(turn.error or ""),
        )

    def _take(self, event: AgentEvent) -> None:
        """Every event: first to whoever watches, then to the log."""
        self._emit(event)
        for message in self.recorder.event(event):
            notice = replace(event, category=Category.NOTICE, message=message, data={})
            self._emit(replace(notice, level=Level.WARNING))


def _is_backed(value: object) -> bool:
    return bool(getattr(value, "isbacked", False))


def _fixed(config: AgentConfig) -> tuple[object, ...]:
    """The settings that are frozen when a session starts."""
    run = config.execution
    return (
        config.llm,
        config.history_enabled,
        run.use_notebook,
        run.storage_dir,
        run.sandbox_fallback_policy,
        run.fallback_floor,
    )


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


class _Draft:
    """What is known of a running turn; it becomes the ``Turn``, however the turn ends."""

    def __init__(self, request: TurnRequest, session_id: str, turn_id: str) -> None:
        self.request = request
        self.plan: Plan | None = None
        self.steps: list[StepRecord] = []
        self._ids = (session_id, turn_id)
        self._started = time.monotonic()

    def planned(self) -> Turn:
        count = _counted(len(self.plan.steps) if self.plan else 0, "step")
        return replace(self._turn(TurnStatus.PLANNED), answer=f"{count} planned; nothing was run.")

    def failed(self, error: OVAgentError, code_error: CodeError | None = None) -> Turn:
        turn = self._turn(TurnStatus.FAILED)
        return replace(turn, answer=error.what, error=error, code_error=code_error)

    def interrupted(self) -> Turn:
        turn = self._turn(TurnStatus.INTERRUPTED)
        return replace(turn, answer="Stopped by the user; the data is as it was before.")

    def finished(
        self,
        bindings: Mapping[str, object],
        diffs: tuple[ObjectDiff, ...],
        left_behind: tuple[LeftBehind, ...],
    ) -> Turn:
        turn = self._turn(TurnStatus.FINISHED)
        return replace(
            turn,
            answer=answer_for(diffs),
            bindings=bindings,
            diff=diffs,
            left_behind=left_behind,
            data=bindings.get(turn.data_name, turn.data),
        )

    def _turn(self, status: TurnStatus) -> Turn:
        session_id, turn_id = self._ids
        name = self.plan.name if self.plan else "adata"
        return Turn(
            request=self.request.text,
            session_id=session_id,
            turn_id=turn_id,
            status=status,
            answer="",
            plan=self.plan,
            code=self.plan.code if self.plan else "",
            steps=tuple(self.steps),
            data_name=name,
            data=self.request.namespace.get(name),
            duration=time.monotonic() - self._started,
        )
