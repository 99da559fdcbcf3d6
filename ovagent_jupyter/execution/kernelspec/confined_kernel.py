"""One kernel for Jupyter clients: its folders and address stay, its processes come and go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from jupyter_client.session import Session

from ovagent_jupyter.config.schema import AgentConfig
from ovagent_jupyter.errors import ChildStartError, SandboxUnavailableError
from ovagent_jupyter.execution.connection import Address
from ovagent_jupyter.execution.executor import Isolation
from ovagent_jupyter.execution.executors import level_name, level_named, levels_from
from ovagent_jupyter.execution.folders import ChildFolders
from ovagent_jupyter.execution.kernelspec.conversation import Conversation
from ovagent_jupyter.execution.kernelspec.relay import Relay
from ovagent_jupyter.execution.launch import ConfinedProcess, LaunchOptions
from ovagent_jupyter.execution.policy import Fallback, choose_executor
from ovagent_jupyter.execution.process import ChildProcess
from ovagent_jupyter.execution.refused import setup_failed
from ovagent_jupyter.execution.rundir import remove_tree

GRACE = 1.0
"""Seconds from the end of a kernel's sockets to that of its process."""
LONG = 1e9
"""Seconds; longer than any kernel lives."""


class ConfinedKernel:
    """A confined kernel that can be started again at the same address.

    Must be used and closed on one event loop.

    Args:
        config: The settings; the level is settled at the first start and stays.
        folders: Its folders.
    """

    def __init__(self, config: AgentConfig, folders: ChildFolders) -> None:
        self.config = config
        self.folders = folders
        self.fallbacks: tuple[Fallback, ...] = ()
        """The steps down to the level it has."""
        self.isolation: Isolation | None = None
        """The level in force, from the first start on."""
        self._levels = guarded_levels(config)
        self._confined: ConfinedProcess | None = None
        self._relay: Relay | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def stem(self) -> Path:
        """Begins the names of the sockets that clients connect to."""
        return self.folders.run / "p"

    @property
    def process(self) -> ChildProcess | None:
        """The process that was started last, alive or not."""
        confined = self._confined
        return confined.process if confined is not None and confined.started else None

    @property
    def protections(self) -> Mapping[str, str]:
        """What holds the code back, as measured inside."""
        process = self.process
        return (process.protections or {}) if process is not None else {}

    async def start(self, session: Session, python: str, environment: Mapping[str, str]) -> None:
        """Start it at the strongest level that the settings and the machine allow.

        Args:
            session: Has the key that clients sign with.
            python: The interpreter.
            environment: Where the allowed variables are taken from.

        Raises:
            SandboxUnavailableError: It cannot be confined as far as the settings want.
            ChildStartError: It was confined and did not start.
        """
        execution = self.config.execution
        options = LaunchOptions(
            spec=self.config.sandbox, python=python, environment=dict(environment)
        )
        chain = [_Level(self, replace(options, isolation=level)) for level in self._levels]
        floor = max(level_named(execution.fallback_floor), Isolation.CONFINED)
        choice = await choose_executor(chain, execution.sandbox_fallback_policy, floor)
        chosen = choice.executor
        if self.isolation is None:
            self.fallbacks = choice.fallbacks
        self.isolation = chosen.isolation
        # Sticky: a kernel that dies on purpose must not earn a weaker level.
        self._levels = (chosen.isolation,)
        self._confined = chosen.confined
        inner = Session(key=chosen.address.key, username="ovagent")
        conversation = Conversation(inner, session, note=self.note())
        self._relay = Relay(conversation, chosen.address, self.stem)
        try:
            await self._relay.open()
        except BaseException as error:
            await self.end()
            if isinstance(error, OSError):
                raise ChildStartError(
                    f"The kernel {chosen.confined.process.cause_of_death()} while starting.",
                    why=str(error),
                    next_step="Run `%ovagent doctor` to see what it lacks.",
                ) from error
            raise
        self._watcher = asyncio.create_task(self._watch(chosen.confined.process, self._relay))

    def note(self) -> str:
        """What its user should know."""
        assert self._confined is not None
        assert self.isolation is not None
        spec = self.config.sandbox
        reads = ", ".join(map(str, (*spec.read, *spec.write))) or "none of your files"
        reaches = ", ".join(spec.network) or "no network"
        return (
            f"This kernel is confined by the system (level {level_name(self.isolation)}): "
            f"it reads {reads} and reaches {reaches}. "
            f"It writes to {self._confined.directories.work}, which goes when it is shut down. "
            "Grant more with sandbox_read, sandbox_write and sandbox_network in your settings."
        )

    async def wait(self) -> str:
        """Wait until its process ends by itself, and give back what was held for it.

        Returns:
            How it ended.
        """
        process = self.process
        assert process is not None
        await process.wait(LONG)
        how = process.cause_of_death()
        await self.end()
        return how

    async def end(self) -> None:
        """End its process; its address stays; safe to call twice."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        if self._confined is not None:
            await self._confined.end()
        if self._relay is not None:
            await self._relay.close()
        self._relay = self._watcher = None

    async def close(self) -> None:
        """End it and remove its folders; safe to call twice."""
        await self.end()
        await asyncio.to_thread(self.folders.remove)

    def forget_traces(self, confined: ConfinedProcess) -> None:
        """Remove what an earlier process left, but for the user's files.

        Its private home has startup files that a fresh kernel would run.
        """
        for directory in confined.directories.writable:
            if directory != confined.directories.work:
                remove_tree(directory)

    async def _watch(self, process: ChildProcess, relay: Relay) -> None:
        """Say why it ended where somebody waits for it; end it when it cannot be understood."""
        ended = asyncio.ensure_future(process.wait(LONG))
        broken = asyncio.ensure_future(relay.broken.wait())
        try:
            await asyncio.wait({ended, broken}, return_when=asyncio.FIRST_COMPLETED)
            if await process.wait(GRACE):
                how = process.cause_of_death()
            else:
                how = "was ended: what it sent could not be read"
                await process.kill()
        finally:
            ended.cancel()
            broken.cancel()
        await relay.say(f"[The kernel {how}.]")


class _Level:
    """A level at which a kernel may be started."""

    def __init__(self, kernel: ConfinedKernel, options: LaunchOptions) -> None:
        self._kernel = kernel
        self._options = options
        self.confined = ConfinedProcess(options, kernel.folders)

    @property
    def isolation(self) -> Isolation:
        """The level."""
        return self._options.isolation

    async def start(self) -> None:
        """Start the process and wait until its confinement holds.

        Raises:
            ConfinementError: The level cannot be set up; nothing of the guest's has run.
            ChildStartError: It ended.
        """
        seconds = self._options.start_timeout
        try:
            await asyncio.to_thread(self._kernel.forget_traces, self.confined)
            self.address = Address.create(self._kernel.folders.run)
            async with asyncio.timeout(seconds):
                await self.confined.start(self.address)
                await self.confined.until_it_holds()
        except BaseException as error:
            with contextlib.suppress(OSError):
                await self.confined.end()
            if isinstance(error, TimeoutError):
                raise ChildStartError(
                    "The child kernel did not start.",
                    why=f"It was not confined within {seconds:g} s.",
                    next_step="Run `%ovagent doctor`.",
                ) from None
            if isinstance(error, OSError):
                raise setup_failed(error) from error
            raise


def guarded_levels(config: AgentConfig) -> tuple[Isolation, ...]:
    """The levels that may be tried for a kernel, strongest first.

    None below the boundary of the system: there each cell needs a yes, and a kernel that a client
    runs cells in has nobody to ask.

    Raises:
        SandboxUnavailableError: The settings ask for a level that does not confine.
    """
    levels = tuple(level for level in levels_from(config.execution) if level.guarded)
    if not levels:
        raise SandboxUnavailableError(
            "The settings ask for no confinement.",
            why=f"sandbox_level is {config.execution.sandbox_level!r}; "
            "the kernel 'ovagent-sandbox' is confined or does not start.",
            next_step="Choose the kernel 'Python 3', or change sandbox_level and use_notebook.",
        )
    return levels
