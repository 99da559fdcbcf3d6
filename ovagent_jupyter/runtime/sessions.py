"""The sessions of one kernel: which one answers, with which settings."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ovagent_jupyter.agent.session import AgentSession
from ovagent_jupyter.agent.turn import Turn, TurnRequest
from ovagent_jupyter.config.sources import Resolved
from ovagent_jupyter.errors import ConfigError
from ovagent_jupyter.events import AgentEvent, Emit
from ovagent_jupyter.execution.approval import Ask
from ovagent_jupyter.execution.executor import Preparable
from ovagent_jupyter.execution.executors import make_keeper
from ovagent_jupyter.loop_thread import CallerThread, LoopThread
from ovagent_jupyter.runtime.build import (
    build_executor,
    build_session,
    new_session_id,
    nobody_watches,
    settings_in_force,
)
from ovagent_jupyter.runtime.models import Models
from ovagent_jupyter.storage.redaction import Redactor
from ovagent_jupyter.storage.session_log import session_file

if TYPE_CHECKING:
    from ovagent_jupyter.config.schema import AgentConfig
    from ovagent_jupyter.execution.handover import Store
    from ovagent_jupyter.execution.warm import Keeper


class Runtime:
    """The sessions of one kernel, on one loop thread.

    Args:
        profile: Settings made in the configuration file of the IPython profile.
        ask: Asks the user before code runs; None where there is nobody to ask.
    """

    def __init__(
        self, *, profile: Mapping[str, object] | None = None, ask: Ask | None = None
    ) -> None:
        self.granted: dict[str, object] = {}
        """Settings that the user said yes to in this session, by their flat names."""
        self._profile = dict(profile or {})
        self._ask = ask
        self.loop = LoopThread()
        self.caller = CallerThread()
        self.current: AgentSession | None = None
        self.current_name = ""
        self.keeper: Keeper | None = None
        """What keeps a child ready; None until something asks for one."""
        self.redactor = Redactor(os.environ)
        """Knows the keys of the environment, and of every model that was asked."""
        self.models = Models()
        """The models that were asked."""
        self._store: Store | None = None
        self._sessions: dict[str, AgentSession] = {}
        self._watcher: Emit = nobody_watches
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
        """Answer one request in the named session, or in the current one.

        Traits and flags are those of a notebook: they may tighten the sandbox, not loosen it.
        """
        async with self._one_turn:
            self._watcher = emit
            session_id = session or self.current_name or new_session_id()
            self.current = await self._session(session_id, self.settings(traits or {}, flags))
            self.current_name = session_id
            return await self.current.run(request)

    def prepare(self, traits: Mapping[str, object]) -> None:
        """Have a child made ready in the background for the first session; returns at once.

        Settings that cannot be used are told by the turn that needs them.
        """
        if self.keeper is None:
            with contextlib.suppress(ConfigError):
                self.loop.submit(self._prepare(self.settings(traits).config))

    def store(self) -> Store:
        """The store in which handed-over objects are kept, shared by all sessions."""
        if self._store is None:
            from ovagent_jupyter.execution.handover import Store

            self._store = Store()
        return self._store

    @property
    def stored(self) -> tuple[int, int]:
        """Bytes of handed-over objects that are kept: in memory, and on disk."""
        if self._store is None:
            return 0, 0
        size = self._store.size
        return size.memory, size.disk

    @property
    def last_turn(self) -> Turn | None:
        """The last turn of the current session."""
        return self.current.last_turn if self.current else None

    def settings(
        self, traits: Mapping[str, object], flags: Mapping[str, object] | None = None
    ) -> Resolved:
        """The settings in force, with where each was found.

        Raises:
            ConfigError: One cannot be used, or loosens what the user has set.
        """
        return settings_in_force(
            flags, traits, profile=self._profile, granted=self.granted, notebook=True
        )

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
        made = build_session(
            session_id,
            resolved,
            self._emit,
            self.caller,
            self._ask,
            keeper=self._kept(),
            store=self.store,
            models=self.models,
            redactor=self.redactor,
        )
        if isinstance(made.executor, Preparable):
            made.executor.prepare()
        if known is not None:
            made.last_turn = known.last_turn
            await known.close()
        self._sessions[session_id] = made
        return made

    async def _prepare(self, config: AgentConfig) -> None:
        keeper = self._kept()
        build_executor(config, self._emit, self.caller, self._ask, keeper=keeper).prepare()

    def _kept(self) -> Keeper:
        if self.keeper is None:
            self.keeper = make_keeper()
        return self.keeper

    def _emit(self, event: AgentEvent) -> None:
        self._watcher(event)

    def close(self) -> None:
        """End all child kernels and the loop thread; safe to call twice."""
        # In a fork of this process nobody would answer; the children are not the fork's.
        if self.loop.running:
            for session in self._sessions.values():
                self.loop.run(session.close())
            self.loop.run(self.models.aclose())
            if self.keeper is not None:
                self.loop.run(self.keeper.close())
        self.keeper = None
        self._sessions.clear()
        self.current = None
        self.loop.close()
