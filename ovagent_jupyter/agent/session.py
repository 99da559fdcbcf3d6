"""A session: one child, one log, one notebook, and the turns that go through them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from ovagent_jupyter.agent.ask import Conversation, ModelSource, ask
from ovagent_jupyter.agent.choose_data import choose_inputs
from ovagent_jupyter.agent.denials import denied
from ovagent_jupyter.agent.draft import Draft, counted
from ovagent_jupyter.agent.effects import effects_of_plan
from ovagent_jupyter.agent.prepare import (
    Prepared,
    SavedFile,
    files_behind,
    in_memory,
    objects_named,
    with_files,
)
from ovagent_jupyter.agent.recorder import Recorder
from ovagent_jupyter.agent.results import bindings_of, explain_failure
from ovagent_jupyter.agent.sandbox_record import SandboxRecord, Watch
from ovagent_jupyter.agent.turn import Turn, TurnRequest
from ovagent_jupyter.agent.workflow import Workflow
from ovagent_jupyter.config.schema import OFFLINE
from ovagent_jupyter.errors import ConfigError, OVAgentError
from ovagent_jupyter.events import AgentEvent, Category, Emit, Emitter, Level

if TYPE_CHECKING:
    from ovagent_jupyter.config.schema import AgentConfig
    from ovagent_jupyter.execution.executor import Executor
    from ovagent_jupyter.execution.handover import LeftBehind
    from ovagent_jupyter.omics import DataState, Plan

CHANGED_MEANWHILE = (
    "was changed in your kernel while the code ran. The result is what was handed over plus what "
    "the code changed; the object that you changed is as you left it, one %ovagent undo away."
)
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
        models: Gives the model that the settings name; None where there is none to be had.
    """

    def __init__(
        self,
        session_id: str,
        config: AgentConfig,
        executor: Executor,
        recorder: Recorder,
        emit: Emit,
        *,
        models: ModelSource | None = None,
    ) -> None:
        self.session_id = session_id
        self.config = config
        self.executor = executor
        self.recorder = recorder
        self.last_turn: Turn | None = None
        self.sandbox = SandboxRecord()
        """Where code runs; unknown until the first turn that runs some."""
        self.named: tuple[Path, ...] = ()
        """Files and folders that requests named, and that the code may read for that."""
        self._models = models
        self._conversation = Conversation()
        self._told: set[str] = set()
        self._emit = emit
        self._emitter: Emitter | None = None
        self._watch = Watch()
        self._turns_in_child = 0
        self._preparing: asyncio.Future[None] | None = None
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
            self._emitter = emit
            draft = Draft(request, self.session_id, turn_id)
            if self._preparing is None:
                # Beside the turn, which waits for a child or a model anyway.
                self._preparing = asyncio.ensure_future(asyncio.to_thread(self.recorder.prepare))
            try:
                turn = await self._answer(draft, emit)
            except OVAgentError as error:
                self._end(request, draft.failed(error), emit)
                raise
            except (asyncio.CancelledError, KeyboardInterrupt):
                self._end(request, draft.interrupted(), emit)
                raise
            except BaseException as error:
                self._end(request, draft.failed(OVAgentError(f"A fault of ours: {error!r}")), emit)
                raise
            self._end(request, turn, emit)
            return turn

    def hear(self, event: AgentEvent) -> None:
        """An event of the executor: it belongs to the turn that runs, and into the log."""
        self._watch.note(event)
        if self._emitter is not None:
            self._emitter.pass_on(event)
        else:
            self._take(replace(event, session_id=self.session_id))

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

    async def _answer(self, draft: Draft, emit: Emitter) -> Turn:
        request = draft.request
        model = self.config.llm.model if request.mode == "ask" else OFFLINE
        emit(
            Category.TURN_STARTED,
            request.text,
            request=request.text,
            mode=request.mode,
            model=model,
        )
        if request.mode == "ask":
            return await self._ask(draft, emit)
        main, names = choose_inputs(request.text, request.namespace, request.inputs)
        state = self._describe(request, main, emit)
        prepared = with_files(self._plan(request, state, main), Path.cwd())
        prepared = in_memory(prepared, request.namespace)
        plan = draft.plan = prepared.plan
        draft.effects = effects_of_plan(prepared)
        emit(
            Category.PLAN_READY,
            counted(len(plan.steps), "step"),
            plan=plan,
            effects=draft.effects,
        )
        if request.mode != "run":
            return draft.planned()
        names = tuple(dict.fromkeys([*names, *objects_named(plan, request.namespace)]))
        objects = {name: request.namespace[name] for name in names}
        draft.sandbox = await self._ready_child((*prepared.read, *files_behind(objects)), emit)
        report = await self.executor.put(objects)
        draft.before = report.saved
        self._tell_left_behind(report.left_behind, emit)
        workflow = Workflow(self.executor, emit, request.timeout or self.config.execution.timeout)
        self._turns_in_child += 1
        if not await workflow.run(plan, draft.steps.append, draft.effects):
            return self._explained(draft, emit, sent=bool(names))
        return await self._collect(draft, prepared, state, emit)

    async def _ask(self, draft: Draft, emit: Emitter) -> Turn:
        """Have a model answer in words; nothing is run."""
        if self._models is None or self.config.llm.model == OFFLINE:
            raise ConfigError(
                "There is no model to ask.",
                why="The built-in planner plans and runs analyses; it does not answer questions.",
                next_step="Name one: -m NAME, or Agent(model=NAME); `models` lists what there is.",
            )
        # In a thread: it reads price lists.
        model = await asyncio.to_thread(self._models, self.config, dry=draft.request.dry_run)
        for note in model.notes:
            if note not in self._told:
                self._told.add(note)
                emit(Category.NOTICE, note, level=Level.WARNING)
        request = self._conversation.request(model, draft.request)
        if draft.request.dry_run:
            return draft.estimated(model.estimate(request))
        seconds = draft.request.timeout
        ids = (self.session_id, emit.correlation_id)
        reply = await ask(model, request, ids, emit, seconds=seconds)
        turn = draft.answered(reply)
        self._conversation.remember(draft.request.text, turn.answer)
        return turn

    def _explained(self, draft: Draft, emit: Emitter, *, sent: bool) -> Turn:
        """The turn whose last step failed, with what the sandbox had to do with it."""
        step = draft.steps[-1]
        denial = denied(step, self.executor.isolation)
        if denial is not None:
            emit(
                Category.SANDBOX_DENIED,
                denial.message,
                level=Level.WARNING,
                what=denial.what,
                grant=denial.grant,
            )
        return draft.failed(explain_failure(step, sent=sent), code_error=step.error)

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

    async def _ready_child(self, read: tuple[Path, ...], emit: Emitter) -> SandboxRecord:
        """A child that may read these files, and where it runs."""
        self._watch.starting()
        limit = self.config.execution.max_prompts
        self.named = tuple(dict.fromkeys([*self.named, *read]))
        if await self.executor.grant(read):
            names = ", ".join(path.name for path in read)
            emit(Category.NOTICE, f"A fresh child kernel was started: it may read {names}.")
            self._turns_in_child = 0
        elif limit and self._turns_in_child >= limit:
            emit(Category.CHILD_STARTING, "replacing the child kernel (max_prompts reached)")
            await self.executor.restart()
            self._turns_in_child = 0
        elif not self.executor.alive:
            emit(Category.CHILD_STARTING, "starting the child kernel …")
            await self.executor.start()
            self._turns_in_child = 0
        sandbox = self.sandbox = self._watch.started(self.executor)
        banner = sandbox.banner
        emit(
            Category.CHILD_READY,
            banner or sandbox.label,
            level=Level.WARNING if banner else Level.INFO,
            sandbox=sandbox,
        )
        return sandbox

    async def _collect(
        self, draft: Draft, prepared: Prepared, state: DataState | None, emit: Emitter
    ) -> Turn:
        plan = prepared.plan
        wanted = tuple(draft.request.outputs.values())
        # A plan that loads its data makes the main object itself.
        made = () if state is not None else (plan.name,)
        changes = await self.executor.changes((*made, *plan.outputs, *wanted))
        self._tell_left_behind(changes.left_behind, emit)
        bindings, diffs = bindings_of(changes, draft.request, state)
        for name, value in bindings.items():
            if _is_backed(value) or not _is_backed(draft.request.namespace.get(name)):
                continue
            message = f"{name} was read from its file as needed; the changed one is in memory."
            emit(Category.NOTICE, message, level=Level.WARNING)
        for name in (name for name in bindings if name in changes.changed_meanwhile):
            message = f"{name} {CHANGED_MEANWHILE}"
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
        files = await self._fetch(prepared.saved)
        return draft.finished(bindings, diffs, changes, files)

    async def _fetch(self, saved: tuple[SavedFile, ...]) -> tuple[Path, ...]:
        """Move the files that the code wrote to where the user wants them."""
        from ovagent_jupyter.execution.files import fetch_file

        return tuple(
            [
                await asyncio.to_thread(fetch_file, self.executor.work_dir, file.name, file.target)
                for file in saved
            ]
        )

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
        self._emitter = None
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
        config.history_enabled,
        run.use_notebook,
        run.keep_ready,
        run.storage_dir,
        run.sandbox_fallback_policy,
        run.sandbox_level,
        run.fallback_floor,
        run.approve,
        config.sandbox,
    )
