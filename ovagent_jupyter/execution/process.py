"""One child process: started away from our terminal, watched, signalled as a group, reaped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from ovagent_jupyter.execution.environment import LIFELINE
from ovagent_jupyter.execution.release import on_loop

TAIL = 8_000
"""Bytes kept of what the process writes to its own standard error."""
TICK = 0.005
REAP = 5.0
"""Seconds a killed process gets to be gone; one that hangs in the system is left to it."""


class ChildProcess:
    """A process in a session of its own that ends when this process does.

    Its standard input is empty; what it writes reaches nobody's terminal, the last part of it is
    kept. Must be made, used and closed on one event loop.

    Args:
        command: Program and arguments.
        environment: All of its environment.
        directory: Where it starts.

    Raises:
        OSError: The program cannot be started.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], directory: Path
    ) -> None:
        lifeline, held = os.pipe()
        reading, writing = os.pipe()
        try:
            self._popen = subprocess.Popen(
                list(command),
                env={**environment, LIFELINE: str(lifeline)},
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                pass_fds=(lifeline,),
                start_new_session=True,
            )
        except BaseException:
            os.close(held)
            os.close(reading)
            raise
        finally:
            os.close(lifeline)
            os.close(writing)
        os.set_blocking(reading, False)
        self._reading = reading
        self._tail = b""
        self._loop = asyncio.get_running_loop()
        # The loop must not keep alive what nobody else holds.
        self._loop.add_reader(reading, _read_tail_of, weakref.ref(self))
        release = partial(_release, self._loop, reading, held)
        self._finalizer = weakref.finalize(
            self, _end, self._popen, self._loop, release, os.getpid()
        )

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its group."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended; an ended one is not reaped by asking."""
        return self._popen.returncode is None and not _has_ended(self._popen)

    @property
    def tail(self) -> str:
        """The last of what it wrote to its own standard error."""
        self._read_tail()
        return self._tail.decode("utf-8", "replace").strip()

    def interrupt(self) -> None:
        """Send SIGINT to it and to the processes it started."""
        self._signal(signal.SIGINT)

    async def kill(self) -> None:
        """End it and the processes it started, by force, and reap it."""
        self._signal(signal.SIGKILL)
        if await self.wait(REAP):
            self._popen.wait()

    async def wait(self, seconds: float) -> bool:
        """Wait until it ends by itself; False when it did not."""
        deadline = time.monotonic() + seconds
        while self.running:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(TICK)
        return True

    async def close(self) -> None:
        """End it if it runs and release what is held for it; safe to call twice."""
        await self.kill()
        if self._finalizer.alive:
            self._read_tail()
            self._finalizer()

    def cause_of_death(self) -> str:
        """How it ended: "was killed by SIGKILL", "ended with exit code 3"."""
        if not self.running:
            self._signal(signal.SIGKILL)  # what it started, while the group's id is still ours
        code = self._popen.poll()
        if code is None:
            return "stopped answering"
        if code >= 0:
            return f"ended with exit code {code}"
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"

    def _signal(self, number: int) -> None:
        # Before the reaping: until then nobody else can get this group's id.
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, number)

    def _read_tail(self) -> None:
        if not self._finalizer.alive:
            return
        with contextlib.suppress(OSError):
            while chunk := os.read(self._reading, 65_536):
                self._tail = (self._tail + chunk)[-TAIL:]
            self._loop.remove_reader(self._reading)


def _has_ended(popen: subprocess.Popen[bytes]) -> bool:
    if not hasattr(os, "waitid"):
        return popen.poll() is not None
    try:
        return os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        # Somebody else in this process reaped it; Popen then reports 0.
        return popen.poll() is not None


def _read_tail_of(process: weakref.ref[ChildProcess]) -> None:
    held = process()
    if held is not None:
        held._read_tail()


def _end(
    popen: subprocess.Popen[bytes],
    loop: asyncio.AbstractEventLoop,
    release: Callable[[], None],
    owner: int,
) -> None:
    """End the process and give back what is held, at the latest when the interpreter exits."""
    if os.getpid() != owner:
        # A fork of this process ends; the child is not the fork's.
        return
    if popen.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(popen.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            popen.wait(REAP)
    on_loop(loop, release)


def _release(loop: asyncio.AbstractEventLoop, reading: int, held: int) -> None:
    loop.remove_reader(reading)
    os.close(reading)
    os.close(held)
