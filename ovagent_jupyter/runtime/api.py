"""``Agent`` and ``plan``: what a Python program calls."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ovagent_jupyter.agent.session import AgentSession
from ovagent_jupyter.agent.turn import Mode, Turn, TurnRequest
from ovagent_jupyter.config.options import require_words
from ovagent_jupyter.config.schema import OFFLINE, AgentConfig
from ovagent_jupyter.errors import ConfigError
from ovagent_jupyter.events import AgentEvent, Emit, Reporter
from ovagent_jupyter.execution.approval import Ask
from ovagent_jupyter.execution.executors import make_keeper
from ovagent_jupyter.loop_thread import SLICE, CallerThread, LoopThread
from ovagent_jupyter.reporters import make_reporter
from ovagent_jupyter.runtime.build import build_session, new_session_id, settings_in_force
from ovagent_jupyter.runtime.models import Models

if TYPE_CHECKING:
    from ovagent_jupyter.execution.warm import Keeper
    from ovagent_jupyter.omics import Plan


class Agent:
    """The analysis agent from Python.

    Args:
        config: The settings; None takes them from file, environment and keywords.
        model: Who answers; ``"offline"`` is the built-in planner.
        reporter: Told of every event; None prints when ``verbose`` is set.
        callback: Called with every event.
        session: Name of the session; empty for a new one.
        ask: Puts a question to the user, before code runs where the system does not hold it
            back; None where nobody can be asked: such code then needs ``approve="never"``.
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
        ask: Ask | None = None,
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
        self._models = Models()
        keeper = make_keeper()
        self._session = build_session(
            session or new_session_id(),
            self._resolved,
            emit,
            self._caller,
            ask,
            keeper=keeper,
            models=self._models,
        )
        # A program that forgets to close must not leave a child behind.
        self._finalizer = weakref.finalize(
            self, _end, self._loop, self._session, keeper, self._models
        )

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

    def ask(self, question: str, data: object = None, *, dry_run: bool = False) -> Turn:
        """Have a model answer a question in words; nothing is run.

        Args:
            question: What you want to know.
            data: As in ``run``; the model is told names, sizes and types, and levels that many
                cells have; no values of cells.
            dry_run: Only say what it would cost.

        Returns:
            The turn; ``turn.answer`` is the answer, ``turn.usage`` and ``turn.cost`` what it took.

        Raises:
            ProviderError: There is no answer; see ``fault``, ``retryable`` and ``next_step``.
            ConfigError: The settings name no model.
            TurnInterrupted: Ctrl-C.
        """
        request = replace(_request(question, data, "adata", "ask", None), dry_run=dry_run)
        return self._loop.run(self._session.run(request), self._caller.serve)

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


def _end(loop: LoopThread, session: AgentSession, keeper: Keeper, models: Models) -> None:
    # Not running: no turn was asked for, or this is a fork, whose child it is not.
    if loop.running:
        try:
            # First what would begin something anew.
            loop.run(keeper.close())
        finally:
            try:
                loop.run(session.close())
                loop.run(models.aclose())
            finally:
                loop.close()


def _request(text: str, data: object, name: str, mode: Mode, timeout: float | None) -> TurnRequest:
    kind = "question" if mode == "ask" else "request"
    require_words(text, kind, "Write it in words.")
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
