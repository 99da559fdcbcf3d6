"""Children ready before they are asked for: one waits, confined, with everything imported."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ovagent_jupyter.errors import OVAgentError
from ovagent_jupyter.execution.forking import Forking
from ovagent_jupyter.execution.freshness import Origin, origin_of
from ovagent_jupyter.execution.launch import Child, LaunchOptions, launch
from ovagent_jupyter.execution.sandbox.rlimits import machine_memory

PAUSE = 2.0
"""Seconds without code of the user's before the next is made: their code has the machine first."""
LOOK = 5.0
"""Seconds between two looks at whether the one that waits is still wanted and still right."""
IDLE = 900.0
"""Seconds without a cell after which none is kept."""
LEAST_MACHINE = 4 << 30
"""Bytes of memory below which a machine, or the group this process is in, keeps no child ready."""
LEAST_FREE = 1 << 30
"""Bytes that must be free to make one, or an eighth of the machine's; half of it to keep one."""
QUIET = 5.0
"""Seconds that a child waits before it loads compiled code, which takes a while."""
USE = """
import warnings
warnings.simplefilter("ignore")
import anndata, numpy, scanpy
data = anndata.AnnData(numpy.random.default_rng(0).normal(size=(64, 8)).astype("f4"))
scanpy.pp.neighbors(data, n_neighbors=5, use_rep="X")
"""
"""Uses on made-up numbers what numba has compiled before, so that it is loaded."""
PATIENCE = 120.0
"""Seconds that a child may take to import; then it is handed out as it is."""

if TYPE_CHECKING:
    from ovagent_jupyter.execution.zygote import Zygote


@dataclass(frozen=True, slots=True)
class Ready:
    """A child that is handed out."""

    child: Child
    warm: bool
    """Whether all is imported; else it is being imported, and a cell waits for that."""


@dataclass(slots=True)
class _Spare:
    origin: Origin
    child: Child
    warm: bool = False
    busy: bool = False
    """Whether it loads compiled code; who needs a child is faster with another."""
    warming: asyncio.Task[None] | None = field(default=None)


@dataclass(frozen=True, slots=True)
class _Wanted:
    options: LaunchOptions
    warm: tuple[str, ...]


class Keeper:
    """Keeps one child ready for the executors of one event loop.

    The child is started and confined by exactly the options of the executor that asked last, has
    imported what that one wants, and holds nothing of the user's. It is handed out only while
    everything that it was made from is as it was; any failure leaves the executor to start its
    own. Use it on one event loop.

    Args:
        pause: Seconds without code of the user's until the next is made.
        idle: Seconds without use after which none is kept.
        look: Seconds between two looks.
        least_free: Bytes of memory that must be free to make one.
    """

    def __init__(
        self,
        *,
        pause: float = PAUSE,
        idle: float = IDLE,
        look: float = LOOK,
        least_free: int = LEAST_FREE,
    ) -> None:
        self._pause = pause
        self._idle = idle
        self._patience = look
        self._least_free = least_free
        self._wanted: _Wanted | None = None
        self._used = 0.0
        self._not_before = 0.0
        self._busy: Callable[[], bool] = lambda: False
        self._spare: _Spare | None = None
        self._has_made = False
        self._made_for: _Wanted | None = None
        self._failed: Origin | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._look = asyncio.Event()
        # Protects the spare: who takes it waits for the one that is being started.
        self._one_at_a_time = asyncio.Lock()
        self.forking = Forking()
        """How children are made, besides being started."""
        self.why_not = "none was asked for yet"
        """Why no child is ready; empty when one is, or is being made."""

    @property
    def ready(self) -> bool:
        """Whether a child waits that has everything imported."""
        spare = self._spare
        return spare is not None and spare.warm and spare.child.process.running

    @property
    def busy(self) -> bool:
        """Whether the child that waits loads compiled code; meanwhile it is not handed out."""
        return self._spare is not None and self._spare.busy

    @property
    def pid(self) -> int | None:
        """Process id of the child that waits, or None."""
        return self._spare.child.process.pid if self._spare is not None else None

    @property
    def state(self) -> str:
        """The same in words, for a user."""
        if self.ready:
            return "one child is ready"
        if self._spare is not None:
            return "one child is being made ready"
        return f"no child is kept ready: {self.why_not or 'the next is about to be made'}"

    def prepare(
        self,
        options: LaunchOptions,
        warm: Sequence[str] = (),
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        """Have a child made ready in the background, and kept while this is called now and then.

        Args:
            options: How it is started.
            warm: Modules that it imports.
            busy: Whether code of the user's runs: none but the first is made meanwhile.
        """
        wanted, before = _Wanted(options, tuple(warm)), self._wanted
        self._wanted, self._busy = wanted, busy
        self._used = time.monotonic()
        if self._has_made:
            self._not_before = self._used + self._pause
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.create_task(self._keep())
        elif wanted != before:
            self._look.set()

    async def child(self, options: LaunchOptions, warm: Sequence[str] = ()) -> Ready:
        """A child for an executor: the one that waits, or one made now; the caller closes it.

        Raises:
            ConfinementError: Its level cannot be set up.
            ChildStartError: It cannot be started.
        """
        ready = await self._take(options, warm)
        if ready is not None:
            return ready
        self._has_made = True
        zygote = self.forking.zygote(options, warm)
        child = await self._launch(options, zygote)
        return Ready(child, zygote is not None and set(warm) <= set(zygote.modules))

    async def _take(self, options: LaunchOptions, warm: Sequence[str] = ()) -> Ready | None:
        """The child that waits, if it is as one made now would be; the caller closes it."""
        if self._made_for is not None and self._made_for != _Wanted(options, tuple(warm)):
            return None
        async with self._one_at_a_time:
            spare = self._spare
            if spare is not None and spare.busy:
                return None
            self._spare = None
            self._not_before = time.monotonic() + self._pause
            self._look.set()
            if spare is None:
                return None
            if not spare.child.process.running or spare.origin != origin_of(options, warm):
                self._end_later(spare)
                return None
        try:
            await _stop_warming(spare)
        except BaseException:
            self._end_later(spare)
            raise
        return Ready(spare.child, spare.warm)

    async def close(self) -> None:
        """End what waits and what is being made; safe to call twice."""
        self._wanted = None
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
            self._keeping = None
        await self._drop("the session has ended")
        self.forking.close()
        if self._ending:
            await asyncio.wait(self._ending)

    async def _keep(self) -> None:
        while self._wanted is not None:
            if time.monotonic() - self._used > self._idle:
                await self._drop("nothing was run for a while")
                self.forking.close()
                return
            await self._tend(self._wanted)
            patience = self._patience
            if self._spare is None and self._not_before > time.monotonic():
                patience = self._not_before - time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._look.wait()
            self._look.clear()

    async def _tend(self, wanted: _Wanted) -> None:
        """One look: drop what is not right any more, make what is missing."""
        origin = origin_of(wanted.options, wanted.warm)
        spare = self._spare
        if spare is not None and not spare.child.process.running:
            # Whatever ended it would end the next one too.
            self._failed = spare.origin
            cause = spare.child.process.cause_of_death()
            await self._drop(f"the one that waited {cause}")
            return
        if spare is not None and spare.origin != origin:
            await self._drop("")
            spare = None
        short = _short_of_memory(self._least_free, keeping=spare is not None)
        if short:
            await self._drop(short)
            self.forking.close()
        elif self._busy() and self._has_made:
            self._used = time.monotonic()
            self._not_before = self._used + self._pause
        elif spare is None and time.monotonic() >= self._not_before and origin != self._failed:
            # The first one is not to wait for the zygote, which takes longer.
            forked = self._has_made and self._failed is None
            zygote = await self.forking.prepare(wanted.options, wanted.warm) if forked else None
            async with self._one_at_a_time:
                await self._make(wanted, origin, zygote)

    async def _launch(self, options: LaunchOptions, zygote: Zygote | None) -> Child:
        """A child, forked if that can be; whatever goes wrong with that, it is started then."""
        if zygote is not None:
            try:
                return await launch(options, zygote)
            except OVAgentError as error:
                if not zygote.broken:
                    self.forking.spoil(f"{error.what} {error.why}".strip())
        return await launch(options)

    async def _make(self, wanted: _Wanted, origin: Origin, zygote: Zygote | None) -> None:
        self._failed = None
        self._made_for = wanted
        try:
            child = await self._launch(wanted.options, zygote)
        except OVAgentError as error:
            # The executor meets the same and says so; here it is not tried over and over.
            self._failed = origin
            self.why_not = f"{error.what} {error.why}".strip()
            return
        finally:
            self._made_for = None
        self.why_not = ""
        self._has_made = True
        self._spare = spare = _Spare(origin, child)
        spare.warming = asyncio.create_task(_warm_up(spare, wanted))

    async def _drop(self, why: str) -> None:
        spare, self._spare = self._spare, None
        self.why_not = why
        if spare is not None:
            await _end(spare)

    def _end_later(self, spare: _Spare) -> None:
        task = asyncio.create_task(_end(spare))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


async def try_to_keep(options: LaunchOptions) -> tuple[str, str]:
    """Whether a child would be kept ready here: why none is, and why it would not be forked.

    Both are empty where all is well. Tried with a process that is thrown away.

    Raises:
        ConfinementError: Its level cannot be set up.
        ChildStartError: It cannot be started.
    """
    short = _short_of_memory(LEAST_FREE, keeping=False)
    if short:
        return short, ""
    keeper = Keeper()
    try:
        await keeper.forking.prepare(options, ())
        ready = await keeper.child(options)
        await ready.child.close()
        return "", keeper.forking.why_not
    finally:
        await keeper.close()


async def _warm_up(spare: _Spare, wanted: _Wanted) -> None:
    """Have it import, and later load what is compiled; one that fails at it serves all the same."""
    spare.warm = await _run(spare, import_code(wanted.warm))
    if spare.warm and spare.origin.compiled and "scanpy" in wanted.warm:
        await asyncio.sleep(QUIET)
        spare.busy = True
        try:
            await _run(spare, f"try:\n    exec({USE!r}, {{}})\nexcept Exception:\n    pass")
        finally:
            spare.busy = False


async def _run(spare: _Spare, code: str) -> bool:
    """Run code of ours; whether it came to an end in time."""
    connection = spare.child.connection
    content = {
        "code": code,
        "silent": True,
        "store_history": False,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": False,
    }
    asked = connection.send("shell", "execute_request", content)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and spare.child.process.running:
        for message in await connection.receive(LOOK):
            if message.parent_id == asked and message.kind == "execute_reply":
                return True
    return False


def import_code(modules: Sequence[str]) -> str:
    """Code that imports modules and leaves no name behind; one that is missing is no error."""
    return "\n".join(
        f"try:\n    __import__({name!r})\nexcept Exception:\n    pass" for name in modules
    )


async def _end(spare: _Spare) -> None:
    await _stop_warming(spare)
    await spare.child.close()


async def _stop_warming(spare: _Spare) -> None:
    if spare.warming is not None:
        spare.warming.cancel()
        await asyncio.wait({spare.warming})


def _short_of_memory(least: int, *, keeping: bool) -> str:
    """Why there is no room for a child that waits; empty when there is."""
    there = machine_memory()
    if there < LEAST_MACHINE:
        return f"this machine has {there >> 20:,} MiB of memory, too little for one more"
    needed = max(least, there // 8) // (2 if keeping else 1)
    free = _free_memory()
    if free is not None and free < needed:
        return f"{free >> 20:,} MiB of memory are free, {needed >> 20:,} are needed"
    return ""


def _free_memory() -> int | None:
    """Bytes that programs can get without swapping; None where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        return int(text.partition("MemAvailable:")[2].split()[0]) << 10
    return None
