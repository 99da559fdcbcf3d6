"""Starts one child kernel and waits until it answers; the seam where confinement will be put in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ovagent_jupyter.errors import ChildStartError, OVAgentError
from ovagent_jupyter.execution.child import command
from ovagent_jupyter.execution.connection import Address, KernelConnection
from ovagent_jupyter.execution.environment import CACHE, ChildDirectories, child_environment
from ovagent_jupyter.execution.process import ChildProcess
from ovagent_jupyter.execution.rundir import RunDirectory
from ovagent_jupyter.storage.paths import cache_dir, runtime_dir

LONGEST_SOCKET_PATH = 103
"""Bytes of a socket's path: sun_path of unix(7) has 108, that of macOS 104."""
POLITE = 0.5
"""Seconds a child gets to end by itself when it is told to."""
ASK_AGAIN = 0.1
CACHE_ROOM = 64 << 20
"""Bytes that compiled code may need; with less than that free, the cache goes with the child."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOptions:
    """How a child is started."""

    run_dir: Path | None = None
    """Where its sockets are made; None is the user's runtime directory."""
    work_dir: Path | None = None
    """Where its code runs; None is a private directory that goes with the child."""
    cache_dir: Path | None = None
    """Compiled code that outlives a child; None is below the user's cache directory."""
    python: str = sys.executable
    """The interpreter."""
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    """Where the allowed variables are taken from."""
    start_timeout: float = 60.0
    """Seconds until a child that does not answer is given up."""


class Child:
    """One running child: its process, the wire to it, and its directories."""

    def __init__(self, run: RunDirectory, home: RunDirectory) -> None:
        self._run = run
        self._home = home
        self._process: ChildProcess | None = None
        self._connection: KernelConnection | None = None

    @property
    def process(self) -> ChildProcess:
        """The process."""
        assert self._process is not None
        return self._process

    @property
    def connection(self) -> KernelConnection:
        """The wire to it."""
        assert self._connection is not None
        return self._connection

    @property
    def run_dir(self) -> Path:
        """Where its sockets lie."""
        return self._run.path

    @property
    def exchange_dir(self) -> Path:
        """Where what is handed over lies: the runtime directory is small on many systems."""
        return self._home.path

    async def start(self, options: LaunchOptions) -> None:
        """Start the process and wait until it answers on both channels.

        Raises:
            ChildStartError: It ended, or did not answer in time.
        """
        address = Address.create(self.run_dir)
        directories = ChildDirectories.below(self._home.path, options.work_dir)
        directories.make()
        cache = _cache(options, self._home.path)
        environment = child_environment(options.environment, directories, cache)
        environment["JPY_PARENT_PID"] = str(os.getpid())
        self._process = ChildProcess(
            command(options.python, address.file), environment, directories.work
        )
        try:
            async with asyncio.timeout(options.start_timeout):
                while not address.bound:
                    self._check_running()
                    await asyncio.sleep(0.005)
                self._connection = KernelConnection(address)
                await self._wait_until_heard()
        except TimeoutError:
            raise ChildStartError(
                "The child kernel did not answer.",
                why=f"No reply within {options.start_timeout:g} s. {self._last_words()}".strip(),
                next_step="Run `%ovagent doctor`; raise the start time-out on a slow machine.",
            ) from None

    async def listen_again(self) -> None:
        """Restore the output channel; a message above the bound ends it for good."""
        self.connection.listen_again()
        await self._wait_until_heard()

    async def close(self, *, politely: bool = False) -> None:
        """End it and remove what was made for it; safe to call twice."""
        if self._process is not None:
            if politely and self._connection is not None and self._process.running:
                self._connection.send("control", "shutdown_request", {"restart": False})
                await self._process.wait(POLITE)
            await self._process.close()
        if self._connection is not None:
            self._connection.close()
        self._home.remove()
        self._run.remove()

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
            self._check_running()

    def _check_running(self) -> None:
        if self.process.running:
            return
        raise ChildStartError(
            f"The child kernel {self.process.cause_of_death()} while starting.",
            why=self._last_words(),
            next_step="Run `%ovagent doctor` to see what the child lacks.",
        )

    def _last_words(self) -> str:
        lines = self.process.tail.splitlines()[-3:]
        return "It said: " + " | ".join(line.strip() for line in lines) if lines else ""


async def launch(options: LaunchOptions) -> Child:
    """Start a child that is ready for its first cell.

    Raises:
        ChildStartError: It cannot be started; nothing is left behind.
    """
    child: Child | None = None
    try:
        child = _prepare(options)
        await child.start(options)
    except BaseException as error:
        if child is not None:
            await child.close()
        if isinstance(error, OSError):
            raise ChildStartError(
                "The child kernel cannot be started.",
                why=str(error),
                next_step="Check free space and permissions of that path.",
            ) from error
        raise
    return child


def _prepare(options: LaunchOptions) -> Child:
    try:
        base = options.run_dir or runtime_dir(options.environment)
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OVAgentError as error:
        raise ChildStartError(error.what, why=error.why, next_step=error.next_step) from error
    run = RunDirectory(base, "k-")
    longest = len(os.fsencode(run.path)) + len("/k-5")
    if longest > LONGEST_SOCKET_PATH:
        run.remove()
        raise ChildStartError(
            f"The path {base} is too long for sockets.",
            why=f"They would have {longest} bytes; the system allows {LONGEST_SOCKET_PATH}.",
            next_step="Choose a shorter run_dir.",
        )
    try:
        return Child(run, RunDirectory(Path(tempfile.gettempdir()), "ovagent-child-"))
    except OSError:
        run.remove()
        raise


def _cache(options: LaunchOptions, private: Path) -> Path:
    """The cache that outlives the child; one that goes with it when that cannot be written."""
    named = options.environment.get(CACHE)
    cache = options.cache_dir or (Path(named) if named else cache_dir(options.environment))
    with contextlib.suppress(OSError):
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Numba ends the code that calls it when its cache cannot be written.
        room = shutil.disk_usage(cache).free >= CACHE_ROOM
        if room and os.access(cache, os.W_OK | os.X_OK):
            return cache
    return private / "cache"
