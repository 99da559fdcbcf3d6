"""Starts one child kernel, confined, and waits until it answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ovagent_jupyter.config.sandbox import SandboxSpec
from ovagent_jupyter.errors import ChildStartError
from ovagent_jupyter.execution import seed
from ovagent_jupyter.execution.child import command
from ovagent_jupyter.execution.connection import Address, KernelConnection
from ovagent_jupyter.execution.environment import (
    BROKER,
    EXCHANGE,
    SOCKETS,
    ChildDirectories,
    child_environment,
)
from ovagent_jupyter.execution.executor import Isolation
from ovagent_jupyter.execution.folders import ChildFolders, make_folders
from ovagent_jupyter.execution.handover.exchange import Exchange
from ovagent_jupyter.execution.process import ChildProcess
from ovagent_jupyter.execution.refused import not_confined, setup_failed
from ovagent_jupyter.execution.sandbox.confinement import (
    Confinement,
    Layers,
    missing,
    plan_grants,
    required_of,
    seatbelt_for,
)
from ovagent_jupyter.execution.sandbox.grants import Grants
from ovagent_jupyter.execution.transfer import OtherSide

if TYPE_CHECKING:
    from ovagent_jupyter.execution.sandbox.network import Proxy
    from ovagent_jupyter.execution.zygote import Zygote

POLITE = 0.5
"""Seconds a child gets to end by itself when it is told to."""
ASK_AGAIN = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOptions:
    """How a child is started."""

    isolation: Isolation = Isolation.PROCESS
    """The level to set up; no other is taken."""
    spec: SandboxSpec = field(default_factory=SandboxSpec)
    """What is granted to it, and its caps."""
    layers: Layers | None = None
    """The mechanisms to use; None takes all that make up the level."""
    run_dir: Path | None = None
    """Where its sockets are made; None is the user's runtime directory."""
    work_dir: Path | None = None
    """Where its code runs; None is a private directory that goes with the child."""
    python: str = sys.executable
    """The interpreter."""
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    """Where the allowed variables are taken from."""
    on_denied: Callable[[str, int], None] | None = None
    """Told of a host and port that were asked for and are not granted; on the event loop."""
    start_timeout: float = 60.0
    """Seconds until a child that does not answer is given up."""

    @property
    def semaphores(self) -> bool:
        """Whether a child has semaphores: the second level has none of its own."""
        return self.isolation is not Isolation.CONFINED


class ConfinedProcess:
    """One kernel process, confined, with its folders; who speaks to it, and how, is not its matter.

    Args:
        options: How it is started.
        folders: Its folders.
        exchanges: Whether objects go there and come back.
        zygote: Forks it; without one, or when it cannot, the kernel's program is started.
    """

    def __init__(
        self,
        options: LaunchOptions,
        folders: ChildFolders,
        *,
        exchanges: bool = False,
        zygote: Zygote | None = None,
    ) -> None:
        self.options = options
        self.folders = folders
        self._exchanges = exchanges
        self._zygote = zygote
        self._exchange: Exchange | None = None
        self.directories = ChildDirectories.below(folders.root, options.work_dir)
        self._process: ChildProcess | None = None
        self._proxy: Proxy | None = None

    @property
    def process(self) -> ChildProcess:
        """The process."""
        assert self._process is not None
        return self._process

    @property
    def exchange(self) -> Exchange:
        """The way by which objects go there and back."""
        assert self._exchange is not None
        return self._exchange

    @property
    def started(self) -> bool:
        """Whether there is a process, alive or not."""
        return self._process is not None

    async def start(self, address: Address) -> None:
        """Start the kernel that answers at an address.

        Raises:
            OSError: A socket or the process cannot be made.
            ConfinementError: Its interpreter cannot be asked for its packages.
        """
        options = self.options
        preparing = asyncio.ensure_future(asyncio.to_thread(self._prepare, address.file))
        try:
            environment, grants = await asyncio.shield(preparing)
        except asyncio.CancelledError:
            # A thread cannot be stopped, and would fill the folders after they were removed.
            await asyncio.wait([preparing])
            raise
        listeners = address.listen()
        try:
            keep = tuple(each.fileno() for each in listeners)
            environment[SOCKETS] = " ".join(map(str, keep))
            if self._exchanges:
                self._exchange = Exchange()
                keep = (*keep, self._exchange.end)
                environment[EXCHANGE] = str(self._exchange.end)
            if options.spec.network:
                self._proxy = proxy = _proxy(options)
                broker = proxy.start()
                keep = (*keep, broker)
                environment[BROKER] = str(broker)
            confinement = Confinement(
                layers=options.layers or Layers.of(options.isolation),
                spec=options.spec,
                grants=grants,
                directories=self.directories,
                environment=environment,
                command=tuple(command(options.python, address.file)),
                keep=keep,
                required=() if options.layers else required_of(options.isolation),
                seatbelt=seatbelt_for(options.isolation, grants, address.sockets),
            )
            self._process = ChildProcess(
                confinement.as_plan(), options.environment, keep, self._zygote
            )
        finally:
            for each in listeners:
                each.close()
            if self._exchange is not None:
                self._exchange.release()
            if self._proxy is not None:
                self._proxy.release()

    def _prepare(self, connection_file: Path) -> tuple[dict[str, str], Grants]:
        """Fill its folders, and find what it may see."""
        options = self.options
        options.spec.check(Path.home())
        self.directories.make()
        seed.give(options.environment, self.directories.compiled)
        environment = child_environment(
            options.environment, self.directories, semaphores=options.semaphores
        )
        grants = plan_grants(
            options.python,
            environment,
            directories=self.directories,
            spec=options.spec,
            readable=(connection_file,),
            patience=options.start_timeout,
        )
        return environment, grants

    async def until_it_holds(self) -> None:
        """Wait until the kernel's program is about to start, confined; raises as ``check``."""
        while self.process.protections is None:
            self.check()
            await asyncio.sleep(0.002)
        self.check()

    def check(self) -> None:
        """Whether it may go on.

        Raises:
            ConfinementError: The level could not be set up; nothing of the guest's has run.
            ChildStartError: It ended.
        """
        process = self.process
        level = self.options.isolation
        if process.refusal is not None:
            raise not_confined(level, process.refusal.stage, process.refusal.why)
        if process.protections is not None and self.options.layers is None:
            lacking = missing(level, process.protections)
            if lacking:
                raise not_confined(level, ", ".join(lacking), "The self-test found it open.")
        if process.running:
            return
        if process.protections is None:
            raise not_confined(level, "supervisor", self.last_words())
        raise ChildStartError(
            f"The child kernel {process.cause_of_death()} while starting.",
            why=self.last_words(),
            next_step="Run `%ovagent doctor` to see what the child lacks.",
        )

    def last_words(self) -> str:
        """The last lines that it wrote where nobody reads."""
        lines = self.process.tail.splitlines()[-3:] if self.started else []
        return "It said: " + " | ".join(line.strip() for line in lines) if lines else ""

    async def end(self) -> None:
        """End it; its folders stay; safe to call twice."""
        if self._process is not None:
            await self._process.close()
        if self._exchange is not None:
            self._exchange.close()
        if self._proxy is not None:
            await self._proxy.close()

    async def close(self) -> None:
        """End it and remove its folders; safe to call twice."""
        await self.end()
        try:
            await asyncio.to_thread(self.folders.remove)
        except RuntimeError:  # the interpreter ends, and starts no more threads
            self.folders.remove()


class Child:
    """One running child kernel that we speak to ourselves.

    Args:
        confined: Its process, not started yet.
    """

    def __init__(self, confined: ConfinedProcess) -> None:
        self.confined = confined
        self._connection: KernelConnection | None = None

    @property
    def process(self) -> ChildProcess:
        """The process."""
        return self.confined.process

    @property
    def connection(self) -> KernelConnection:
        """The wire to it."""
        assert self._connection is not None
        return self._connection

    @property
    def run_dir(self) -> Path:
        """Where its sockets lie."""
        return self.confined.folders.run

    @property
    def work_dir(self) -> Path:
        """Where its code runs and leaves its files."""
        return self.confined.directories.work

    @property
    def other_side(self) -> OtherSide:
        """How objects reach it."""
        confined = self.confined
        return OtherSide(
            confined.exchange, confined.directories.exchange, confined.options.spec.memory
        )

    async def start(self) -> None:
        """Start the process and wait until it answers on both channels.

        Raises:
            ChildStartError: It ended, or did not answer in time.
        """
        seconds = self.confined.options.start_timeout
        address = Address.create(self.run_dir)
        try:
            async with asyncio.timeout(seconds):
                await self.confined.start(address)
                await self.confined.until_it_holds()
                self._connection = KernelConnection(address)
                await self._connection.open()
                await self._wait_until_heard()
        except TimeoutError:
            raise ChildStartError(
                "The child kernel did not answer.",
                why=f"No reply within {seconds:g} s. {self.confined.last_words()}".strip(),
                next_step="Run `%ovagent doctor`; raise the start time-out on a slow machine.",
            ) from None

    async def listen_again(self) -> None:
        """Restore the output channel; a message above the bound ends it for good."""
        await self.connection.listen_again()
        await self._wait_until_heard()

    async def close(self, *, politely: bool = False) -> None:
        """End it and remove what was made for it; safe to call twice."""
        if politely and self._connection is not None and self.process.running:
            self._connection.send("control", "shutdown_request", {"restart": False})
            await self.process.wait(POLITE)
        await self.confined.close()
        if self._connection is not None:
            self._connection.close()

    async def _wait_until_heard(self) -> None:
        # A subscription takes a moment; what is published before it is in place is not heard.
        asked: set[str] = set()
        answered = heard = False
        ask_at = 0.0
        while not (answered and heard):
            if time.monotonic() >= ask_at:
                asked.add(self.connection.send("shell", "kernel_info_request", {}))
                ask_at = time.monotonic() + ASK_AGAIN
            for message in await self.connection.receive(ASK_AGAIN / 2):
                if message.parent_id in asked:
                    answered |= message.channel == "shell"
                    heard |= message.channel == "iopub"
            self.confined.check()


async def launch(options: LaunchOptions, zygote: Zygote | None = None) -> Child:
    """Start a child that is ready for its first cell.

    Args:
        options: How it is started.
        zygote: Forks it, if it can.

    Raises:
        ConfinementError: Its level cannot be set up; nothing of the guest's has run.
        ChildStartError: It cannot be started; nothing is left behind.
    """
    child: Child | None = None
    try:
        folders = make_folders(options.run_dir, options.environment)
        child = Child(ConfinedProcess(options, folders, exchanges=True, zygote=zygote))
        await child.start()
    except BaseException as error:
        if child is not None:
            with contextlib.suppress(OSError):
                await child.close()
        if isinstance(error, OSError):
            raise setup_failed(error) from error
        raise
    return child


def _proxy(options: LaunchOptions) -> Proxy:
    from ovagent_jupyter.config.hosts import HostList
    from ovagent_jupyter.execution.sandbox.network import Proxy

    return Proxy(
        HostList(options.spec.network),
        on_denied=options.on_denied,
        environment=options.environment,
    )
