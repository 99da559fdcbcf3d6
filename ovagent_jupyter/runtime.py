"""The one place where the parts are put together; constructor calls, no decisions."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self
from uuid import uuid4

from ovagent_jupyter.agent.doctor import Check, examine
from ovagent_jupyter.agent.recorder import Recorder
from ovagent_jupyter.agent.session import AgentSession
from ovagent_jupyter.agent.turn import Mode, Turn, TurnRequest
from ovagent_jupyter.config.schema import OFFLINE, AgentConfig
from ovagent_jupyter.config.sources import Resolved, resolve
from ovagent_jupyter.errors import ConfigError
from ovagent_jupyter.events import AgentEvent, Emit, Reporter
from ovagent_jupyter.execution.executor import Isolation
from ovagent_jupyter.execution.executors import executors, level_name, level_named
from ovagent_jupyter.execution.policy import PolicyExecutor
from ovagent_jupyter.loop_thread import SLICE, CallerThread, LoopThread
from ovagent_jupyter.reporters import make_reporter
from ovagent_jupyter.storage import paths
from ovagent_jupyter.storage.history import SessionHistory
from ovagent_jupyter.storage.redaction import Redactor
from ovagent_jupyter.storage.session_log import SessionLog, session_file
from ovagent_jupyter.storage.session_notebook import SessionNotebook

if TYPE_CHECKING:
    from ovagent_jupyter.config.schema import ExecutionConfig
    from ovagent_jupyter.omics import Plan


WARM = ("scanpy", "matplotlib.pyplot")
"""What a child imports in the background: the code of every plan begins with it."""


def settings_in_force(
    flags: Mapping[str, object] | None = None, traits: Mapping[str, object] | None = None
) -> Resolved:
    """The settings from all sources of this process."""
    return resolve(flags=flags, traits=traits, env=os.environ, file=paths.config_file(os.environ))


def new_session_id() -> str:
    """An id that sorts by time and is unique."""
    now = datetime.now(UTC).astimezone()
    return f"{now:%Y%m%d-%H%M%S}-{uuid4().hex[:4]}"


def build_session(
    session_id: str, resolved: Resolved, emit: Emit, caller: CallerThread
) -> AgentSession:
    """One session with its child, log, notebook and history."""
    config = resolved.config
    redactor = Redactor(os.environ)
    directory = paths.sessions_dir(os.environ, config.execution.storage_dir)
    recorder = Recorder(
        SessionLog(directory, session_id, redactor),
        SessionNotebook(directory, session_id, redactor),
        SessionHistory(redactor=redactor) if config.history_enabled else None,
        config.llm.model,
    )
    executor = build_executor(config.execution, emit, caller)
    return AgentSession(session_id, config, executor, recorder, emit)


def build_executor(config: ExecutionConfig, emit: Emit, caller: CallerThread) -> PolicyExecutor:
    """Where code runs: the child kernel, and what the policy may fall back to."""
    table = executors()
    in_process = table.get(level_name(Isolation.IN_PROCESS))(run_in_cell=caller.run)
    child = table.get(level_name(Isolation.PROCESS))(warm=WARM) if config.use_notebook else None
    return PolicyExecutor(
        [child, in_process] if child is not None else [in_process],
        policy=config.sandbox_fallback_policy,
        floor=level_named(config.fallback_floor),
        emit=emit,
    )


async def examine_machine(config: AgentConfig) -> tuple[Check, ...]:
    """What works on this machine, tried with a child of its own."""
    executor = build_executor(config.execution, _nobody, CallerThread())
    return await examine(config, executor)


class Runtime:
    """The sessions of one kernel or process, on one loop thread."""

    def __init__(self) -> None:
        self.loop = LoopThread()
        self.caller = CallerThread()
        self.current: AgentSession | None = None
        self.current_name = ""
        self._sessions: dict[str, AgentSession] = {}
        self._watcher: Emit = _nobody
        # One turn at a time: the end of one that is being stopped belongs to its own cell.
        self._one_turn = asyncio.Lock()

    async def turn(
        self,
        request: TurnRequest,
        *,
        session: str = "",
        traits: Mapping[str, object] | None = None,
        flags: Mapping[str, object] | None = None,
        emit: Emit,
    ) -> Turn:
        """Answer one request in the named session, or in the current one."""
        async with self._one_turn:
            self._watcher = emit
            session_id = session or self.current_name or new_session_id()
            self.current = await self._session(session_id, settings_in_force(flags, traits))
            self.current_name = session_id
            return await self.current.run(request)

    @property
    def last_turn(self) -> Turn | None:
        """The last turn of the current session."""
        return self.current.last_turn if self.current else None

    def settings(self, traits: Mapping[str, object]) -> Resolved:
        """The settings in force, with where each was found."""
        return settings_in_force(traits=traits)

    def go_on_in(self, session_id: str) -> None:
        """Make the next request go to that session; it begins there if it is new.

        Raises:
            StorageError: The name could not be the name of a file.
        """
        session_file(Path(), session_id, "")
        self.current_name = session_id
        self.current = self._sessions.get(session_id)

    async def _session(self, session_id: str, resolved: Resolved) -> AgentSession:
        """The session of that name with these settings; a new child where they need one."""
        known = self._sessions.get(session_id)
        if known is not None and known.can_go_on_with(resolved.config):
            known.config = resolved.config
            return known
        made = build_session(session_id, resolved, self._emit, self.caller)
        if known is not None:
            made.last_turn = known.last_turn
            await known.close()
        self._sessions[session_id] = made
        return made

    def _emit(self, event: AgentEvent) -> None:
        self._watcher(event)

    def close(self) -> None:
        """End all child kernels and the loop thread; safe to call twice."""
        # In a fork of this process nobody would answer; the children are not the fork's.
        if self.loop.running:
            for session in self._sessions.values():
                self.loop.run(session.close())
        self._sessions.clear()
        self.current = None
        self.loop.close()


def _nobody(_event: AgentEvent) -> None:
    """Watches until the first turn names somebody who does."""


class Agent:
    """The analysis agent from Python.

    Args:
        config: The settings; None takes them from file, environment and keywords.
        model: Who answers; ``"offline"`` is the built-in planner.
        reporter: Told of every event; None prints when ``verbose`` is set.
        callback: Called with every event.
        session: Name of the session; empty for a new one.
        **flat_kwargs: Settings by their flat names, as in ``AgentConfig.from_flat_kwargs``.

    Raises:
        ConfigError: A setting is unknown or cannot be used.

    Example:
        >>> with Agent() as agent:  # doctest: +SKIP
        ...     turn = agent.run("cluster and show markers", data=adata)
        ...     adata = turn.data
    """

    def __init__(
        self,
        config: AgentConfig | None = None,
        model: str = OFFLINE,
        *,
        reporter: Reporter | None = None,
        callback: Callable[[AgentEvent], object] | None = None,
        session: str = "",
        **flat_kwargs: object,
    ) -> None:
        if config is not None and flat_kwargs:
            raise ConfigError(
                "Agent takes either config or single settings.",
                why=f"Both were given: config and {', '.join(flat_kwargs)}.",
                next_step="Put the settings into the AgentConfig.",
            )
        flags = dict(flat_kwargs) if model == OFFLINE else {**flat_kwargs, "model": model}
        resolved = settings_in_force(flags)
        self._resolved = replace(resolved, config=config) if config is not None else resolved
        verbose = self._resolved.config.verbose
        self._reporter = make_reporter(verbose=verbose, callback=callback, reporter=reporter)
        self._loop = LoopThread()
        self._watchers: list[Emit] = [self._reporter.report]
        emit = _to_all(self._watchers)
        self._caller = CallerThread()
        self._session = build_session(
            session or new_session_id(), self._resolved, emit, self._caller
        )
        # A program that forgets to close must not leave a child behind.
        self._finalizer = weakref.finalize(self, _end, self._loop, self._session)

    @property
    def session_id(self) -> str:
        """Id of the session."""
        return self._session.session_id

    @property
    def notebook(self) -> Path:
        """The session's notebook, written after each turn."""
        return self._session.recorder.notebook.path

    def run(
        self,
        request: str,
        data: object = None,
        *,
        name: str = "adata",
        mode: Mode = "run",
        timeout: float | None = None,
    ) -> Turn:
        """Answer a request.

        Args:
            request: What to do, in words.
            data: An AnnData, the path of a file with one, or a mapping from names to objects.
            name: Name of the data in the code.
            mode: ``"plan"`` and ``"code"`` run nothing.
            timeout: Seconds that one step may run.

        Returns:
            The turn; ``turn.data`` is the changed data. The object given stays as it is. Code
            that fails is a turn with ``status`` failed and the ``error``.

        Raises:
            WorkflowNeedsFallback: The planner cannot cover the request; nothing was run.
            DataError: The data is missing, ambiguous or cannot be read.
            TurnInterrupted: Ctrl-C.
        """
        work = self._session.run(_request(request, data, name, mode, timeout))
        return self._loop.run(work, self._caller.serve)

    async def arun(
        self,
        request: str,
        data: object = None,
        *,
        name: str = "adata",
        mode: Mode = "run",
        timeout: float | None = None,  # noqa: ASYNC109 - the limit of a step, not of this call
    ) -> Turn:
        """Answer a request from asynchronous code; as ``run``. Cancelling it stops the turn."""
        work = self._session.run(_request(request, data, name, mode, timeout))
        return await self._loop.drive(work, self._caller.serve)

    async def stream(
        self, request: str, data: object = None, *, name: str = "adata", mode: Mode = "run"
    ) -> AsyncIterator[AgentEvent]:
        """Answer a request and yield its events as they happen; the last carries the turn."""
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[AgentEvent | None] = asyncio.Queue()

        def watch(event: AgentEvent | None) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        self._watchers.append(watch)
        work = self._loop.submit(self._session.run(_request(request, data, name, mode, None)))
        work.future.add_done_callback(lambda _: watch(None))
        try:
            while True:
                self._caller.serve()
                try:
                    event = await asyncio.wait_for(events.get(), SLICE)
                except TimeoutError:
                    continue
                if event is None:
                    break
                yield event
            work.future.result()
        finally:
            work.cancel()
            self._watchers.remove(watch)

    def close(self) -> None:
        """End the child kernel; safe to call twice."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def plan(request: str, data: object = None, *, name: str = "adata") -> Plan:
    """The steps for a request, by the offline planner; runs nothing.

    Args:
        request: What to do, in words.
        data: An AnnData or the path of a file with one; None when there is none yet.
        name: Name of the data in the code.

    Raises:
        WorkflowNeedsFallback: The planner cannot cover the request.
        DataError: The file cannot be read.
    """
    from ovagent_jupyter import omics

    held = _namespace(data, name).get(name)
    return omics.plan(request, None if held is None else omics.describe(held, name), name=name)


def _to_all(watchers: list[Emit]) -> Emit:
    """Passes an event to all that watch now; holds the list only, so that agents can end."""

    def emit(event: AgentEvent) -> None:
        for watch in tuple(watchers):
            watch(event)

    return emit


def _end(loop: LoopThread, session: AgentSession) -> None:
    # Not running: no turn was asked for, or this is a fork, whose child it is not.
    if loop.running:
        loop.run(session.close())
        loop.close()


def _request(text: str, data: object, name: str, mode: Mode, timeout: float | None) -> TurnRequest:
    namespace = _namespace(data, name)
    inputs = (name,) if name in namespace and not isinstance(data, Mapping) else ()
    sources = {name: Path(data).absolute()} if isinstance(data, str | os.PathLike) else {}
    return TurnRequest(
        text=text,
        mode=mode,
        namespace=namespace,
        inputs=inputs,
        timeout=timeout,
        sources=sources,
    )


def _namespace(data: object, name: str) -> Mapping[str, object]:
    if data is None:
        return {}
    if isinstance(data, Mapping):
        return data
    if isinstance(data, str | os.PathLike):
        from ovagent_jupyter.omics.files import read_data

        return {name: read_data(Path(data))}
    return {name: data}
