"""One child and its supervisor: started with a plan, watched, signalled, ended, reaped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ovagent_jupyter.execution.bundles import clean_text
from ovagent_jupyter.execution.executor import LimitHit
from ovagent_jupyter.execution.limits import describe
from ovagent_jupyter.execution.release import on_loop
from ovagent_jupyter.execution.supervised import Spawned, Supervised

if TYPE_CHECKING:
    from ovagent_jupyter.execution.zygote import Zygote

TAIL = 8_000
"""Bytes kept of what the process writes to its own standard error."""
TICK = 0.005
REAP = 5.0
"""Seconds a killed process gets to be gone; one that hangs in the system is left to it."""
CLEAR = 8.0
"""Seconds the supervisor gets to end all that the child has started."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A step of the confinement that could not be done; nothing of the guest's has run."""

    stage: str
    why: str


class ChildProcess:
    """A child below a supervisor of its own; both end when this process does.

    Its standard input is empty; what it writes reaches nobody's terminal, the last part of it is
    kept. Must be made, used and closed on one event loop.

    Args:
        plan: What to start and how, as ``Confinement.as_plan`` gives it.
        environment: Where variables that the interpreter needs are taken from.
        keep: Descriptors for the child.
        zygote: Forks the supervisor; without one, or when it forks no more, a program is started.

    Raises:
        OSError: The supervisor cannot be started.
    """

    def __init__(
        self,
        plan: Mapping[str, object],
        environment: Mapping[str, str],
        keep: Sequence[int] = (),
        zygote: Zygote | None = None,
    ) -> None:
        lifeline, held = os.pipe()
        reading, writing = os.pipe()
        telling, status = os.pipe()
        try:
            with tempfile.TemporaryFile() as file:
                file.write(json.dumps(plan).encode())
                file.seek(0)
                passed = (file.fileno(), lifeline, status)
                forked = zygote.fork((*passed, writing, *keep)) if zygote is not None else None
                self._supervisor: Supervised = forked or Spawned(passed, writing, environment, keep)
        except BaseException:
            for descriptor in (held, reading, telling):
                os.close(descriptor)
            raise
        finally:
            for descriptor in (lifeline, writing, status):
                os.close(descriptor)
        self._reading, self._telling = reading, telling
        self._tail = self._told = b""
        self.protections: Mapping[str, str] | None = None
        """What holds, as measured inside; None until the child's program is about to start."""
        self.refusal: Refusal | None = None
        """Why the level could not be set up."""
        self.limit: LimitHit | None = None
        """The cap for which the child was ended."""
        self._end: tuple[str, int] | None = None
        self._interrupting = False
        self._loop = asyncio.get_running_loop()
        # The loop must not keep alive what nobody else holds.
        for descriptor in (reading, telling):
            os.set_blocking(descriptor, False)
            self._loop.add_reader(descriptor, _read_of, weakref.ref(self))
        release = partial(_release, self._loop, (reading, telling))
        self._finalizer = weakref.finalize(
            self, _end, self._supervisor, held, self._loop, release, os.getpid()
        )

    @property
    def pid(self) -> int:
        """Process id of the supervisor, which is also that of its group."""
        return self._supervisor.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended; an ended one is not reaped by asking."""
        return not self._supervisor.has_ended()

    @property
    def exit_code(self) -> int | None:
        """How it ended, as ``subprocess`` says it: a signal is negative; None while it runs."""
        if self.running:
            return None
        how, number = self._end or ("signal", signal.SIGKILL)
        return number if how == "code" else -number

    @property
    def tail(self) -> str:
        """The last of what it wrote to its own standard error."""
        self._read()
        return clean_text(self._tail.decode("utf-8", "replace")).strip()

    def interrupt(self) -> None:
        """Send SIGINT to the child and to the processes of its group."""
        self._interrupting = True
        self.signal(signal.SIGINT)

    async def interrupt_arrived(self) -> None:
        """Wait until an interrupt that was sent is with the child, for a moment at most.

        The supervisor passes it on; on a busy machine the code may have ended meanwhile, and it
        would hit what runs next.
        """
        deadline = time.monotonic() + CLEAR
        while self._interrupting and self.running and time.monotonic() < deadline:
            await asyncio.sleep(TICK)
            self._read()

    def signal(self, number: int) -> None:
        """Send a signal to the supervisor's group; it passes SIGINT on to the child's."""
        self._supervisor.send(number, group=True)

    async def kill(self) -> None:
        """End it and all that it has started, by force, and reap it."""
        self._supervisor.send(signal.SIGTERM)
        if not await self.wait(CLEAR):
            self.signal(signal.SIGKILL)
        if await self.wait(REAP):
            self._supervisor.bury(REAP)

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
            self._read()
            self._finalizer()

    def cause_of_death(self) -> str:
        """How the child ended: "was killed by SIGKILL", "ended with exit code 3"."""
        self._read()
        if self.limit is not None:
            return f"was ended: {describe(self.limit)}"
        if self._end is not None:
            return _told_end(*self._end)
        end = self._supervisor.end()
        return _told_end(*end) if end is not None else "stopped answering"

    def _read(self) -> None:
        if not self._finalizer.alive:
            return
        self._tail = (self._tail + _all_of(self._loop, self._reading))[-TAIL:]
        self._told += _all_of(self._loop, self._telling)
        *lines, self._told = self._told.split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def _take(self, told: Mapping[str, object]) -> None:
        """Take one line of the supervisor; the guest cannot write one."""
        match told:
            case {"event": "confined", "protections": dict(protections)}:
                self.protections = {str(k): str(v) for k, v in protections.items()}
            case {"event": "failed", "stage": str(stage), "why": str(why)}:
                self.refusal = self.refusal or Refusal(stage, why)
            case {"event": "interrupted"}:
                self._interrupting = False
            case {"event": "limit", "limit": str(limit), "cap": cap, "used": used}:
                self.limit = LimitHit(limit, float(str(cap)), float(str(used)))
            case {"event": "ended", "signal": int(number)}:
                self._end = ("signal", number)
            case {"event": "ended", "code": int(number)}:
                self._end = ("code", number)
            case _:
                pass


def _told_end(how: str, number: int) -> str:
    if how == "code":
        return f"ended with exit code {number}"
    try:
        return f"was killed by {signal.Signals(number).name}"
    except ValueError:
        return f"was killed by signal {number}"


def _all_of(loop: asyncio.AbstractEventLoop, descriptor: int) -> bytes:
    """What there is to read now; an end is listened to no more."""
    chunks = []
    with contextlib.suppress(OSError):
        while chunk := os.read(descriptor, 65_536):
            chunks.append(chunk)
        loop.remove_reader(descriptor)
    return b"".join(chunks)


def _read_of(process: weakref.ref[ChildProcess]) -> None:
    held = process()
    if held is not None:
        held._read()


def _end(
    supervisor: Supervised,
    held: int,
    loop: asyncio.AbstractEventLoop,
    release: Callable[[], None],
    owner: int,
) -> None:
    """End the process and give back what is held, at the latest when the interpreter exits."""
    if os.getpid() != owner:
        # A fork of this process ends; the child is not the fork's.
        return
    os.close(held)  # the supervisor ends all below it when this end is closed
    if not supervisor.bury(CLEAR):
        supervisor.send(signal.SIGKILL, group=True)
        supervisor.bury(REAP)
    on_loop(loop, release)


def _release(loop: asyncio.AbstractEventLoop, descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        loop.remove_reader(descriptor)
        os.close(descriptor)
