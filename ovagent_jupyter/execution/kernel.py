"""Runs code in a child kernel: a process of its own that can be stopped, killed and replaced."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING

from ovagent_jupyter.errors import ChildStartError, ExecutionError
from ovagent_jupyter.execution.cell import CellRun
from ovagent_jupyter.execution.executor import (
    CodeError,
    ExecutionRequest,
    ExecutionResult,
    ExecutionStatus,
    Isolation,
    OnOutput,
)
from ovagent_jupyter.execution.launch import Child, LaunchOptions, launch
from ovagent_jupyter.execution.limits import limit_error
from ovagent_jupyter.execution.outputs import OutputAllowance, OutputCollector, OutputLimits
from ovagent_jupyter.execution.transfer import StoreSource, Transfer
from ovagent_jupyter.execution.warm import Ready, import_code

if TYPE_CHECKING:
    from ovagent_jupyter.execution.handover import Changes, HandoverReport
    from ovagent_jupyter.execution.warm import Keeper

TICK = 0.1
"""Seconds between two looks at whether the child is alive and the time is up."""
LAST_OUTPUT = 0.05
"""Seconds waited for output that a dead child has already sent."""
LAST_WORDS = 0.5
"""Seconds waited for the end of a child whose channels are closed."""
SILENT_LIMIT = 900.0
"""Seconds for a hand-over or a warm-up: far more than they take, since no wait is without end."""
INTERRUPTS = 2
"""A first interrupt can fall into the gap before the child listens; the second does not."""


class _Ending(Enum):
    DONE = auto()
    DEAD = auto()
    LATE = auto()
    STOP = auto()


class KernelExecutor:
    """An executor whose code runs in a child kernel over private sockets.

    Every wait has an end: a dead child is noticed by looking, code that does not end is
    interrupted and, if it ignores that for ``grace`` seconds, killed with its process. Use one
    executor on one event loop.

    Args:
        isolation: The level to set up; no other is taken.
        timeout: Seconds a cell may run whose request names none; None for no limit.
        grace: Seconds between the interrupt of a cell and the end by force.
        warm: Modules that the child imports in the background once it is up.
        limits: How much output of a cell is passed on.
        options: How else the child is started.
        ahead: Called once in the background when the child is up: makes what later ones need.
        keeper: Has a child ready that is taken instead of starting one.
        store: Gives the store in which handed-over objects are kept; None for one of its own.
    """

    def __init__(
        self,
        *,
        isolation: Isolation = Isolation.NAMESPACES,
        timeout: float | None = None,
        grace: float = 0.7,
        warm: Sequence[str] = (),
        limits: OutputLimits | None = None,
        options: LaunchOptions | None = None,
        ahead: Callable[[LaunchOptions], Coroutine[None, None, object]] | None = None,
        keeper: Keeper | None = None,
        store: StoreSource | None = None,
    ) -> None:
        self.isolation = isolation
        self._options = replace(options or LaunchOptions(), isolation=isolation)
        self._timeout = timeout
        self.grace = grace
        self._warm = tuple(warm)
        self._limits = limits or OutputLimits()
        self._allowance = OutputAllowance(self._limits)
        self._child: Child | None = None
        self._run: CellRun | None = None
        self._warming: asyncio.Task[None] | None = None
        self._ahead = ahead
        self._keeper = keeper
        self._making: asyncio.Task[object] | None = None
        self._transfer = Transfer(self._run_silently, store)
        # Protects the child's sockets: one cell is sent and followed to its end at a time.
        self._one_cell = asyncio.Lock()
        # Protects the child itself: two callers of start() get the same one.
        self._one_start = asyncio.Lock()

    @property
    def alive(self) -> bool:
        """Whether the child runs."""
        return self._child is not None and self._child.process.running

    @property
    def pid(self) -> int | None:
        """Process id of the child, or None when there is none."""
        return self._child.process.pid if self._child is not None else None

    @property
    def protections(self) -> Mapping[str, str]:
        """What holds the child, as measured inside it; empty when there is none.

        From the name of a protection to ``enforced``, ``missing`` or ``not applicable``.
        """
        return (self._child.process.protections or {}) if self._child is not None else {}

    @property
    def work_dir(self) -> Path:
        """Where the code runs and leaves its files; it goes with the child.

        Raises:
            ExecutionError: There is no child.
        """
        return self._living_child().work_dir

    async def grant(self, read: Sequence[Path] = ()) -> bool:
        """Let the code read these, besides what is granted; True when that took a fresh child.

        A process that has confined itself cannot be given more, so a running child that lacks
        one is replaced; its variables are lost.

        Raises:
            ChildStartError: The fresh child cannot be started.
        """
        if self.isolation < Isolation.CONFINED:
            return False  # nothing is kept from it
        spec = self._options.spec
        lacking = [path for path in read if not _within(path, (*spec.read, *spec.write))]
        if not lacking:
            return False
        spec = replace(spec, read=(*spec.read, *lacking))
        self._options = replace(self._options, spec=spec)
        if not self.alive:
            return False
        await self.restart()
        return True

    def prepare(self) -> None:
        """Have a child made ready in the background, if there is somebody to keep it."""
        if self._keeper is not None:
            self._keeper.prepare(self._options, self._warm, lambda: self._run is not None)

    async def start(self) -> None:
        """Start the child unless it runs; one that died is replaced, its variables are lost.

        Raises:
            ChildStartError: It cannot be started.
        """
        async with self._one_start:
            if self.alive:
                return
            async with self._one_cell:
                await self._drop_child()
            keeper = self._keeper
            if keeper is None:
                ready = Ready(await launch(self._options), warm=False)
            else:
                ready = await keeper.child(self._options, self._warm)
            self._child = ready.child
            self._allowance = OutputAllowance(self._limits)
            if self._ahead is not None and self._making is None:
                self._making = asyncio.create_task(self._ahead(self._options))
        self.prepare()
        if self._warm and not ready.warm:
            self._warming = asyncio.create_task(self._import_warm())
            # Once around the loop, so that it is in line before the first cell.
            await asyncio.sleep(0)

    async def execute(
        self, request: ExecutionRequest, on_output: OnOutput | None = None
    ) -> ExecutionResult:
        """Run one cell once in the child and return how it ended.

        Raises:
            ExecutionError: There is no child; it was not started, or it died before.
        """
        if not request.silent:
            self.prepare()
        async with self._one_cell:
            return await self._execute(self._living_child(), request, on_output)

    async def put(self, objects: Mapping[str, object]) -> HandoverReport:
        """Hand objects to the child as they are now, into its variables.

        Raises:
            HandoverError: Nothing could be handed over.
            ExecutionError: There is no child.
        """
        return await self._transfer.put(objects, self._living_child().other_side)

    async def changes(self, outputs: Sequence[str] = ()) -> Changes:
        """What the child changed in the objects handed over, and the new ``outputs``.

        Raises:
            HandoverError: What the child sent is malformed; nothing of it was used.
            ExecutionError: There is no child.
        """
        return await self._transfer.changes(outputs, self._living_child().other_side)

    async def interrupt(self) -> bool:
        """Stop the running cell; its ``execute`` returns with status INTERRUPTED."""
        run = self._run
        if run is None:
            return self.alive
        run.stop_asked = True
        await run.over.wait()
        return self.alive

    async def restart(self) -> None:
        """Replace the child by a fresh one.

        Raises:
            ChildStartError: It cannot be started.
        """
        await self.shutdown()
        await self.start()

    async def shutdown(self) -> None:
        """End the child and remove its directories; safe to call twice."""
        await self.interrupt()
        if self._making is not None:
            self._making.cancel()
            await asyncio.wait({self._making})
        async with self._one_start, self._one_cell:
            await self._drop_child(politely=True)

    async def _execute(
        self, child: Child, request: ExecutionRequest, on_output: OnOutput | None
    ) -> ExecutionResult:
        await child.process.interrupt_arrived()
        listener = None if request.silent else on_output
        collector = OutputCollector(self._limits, listener, allowance=self._allowance)
        request_id = child.connection.send("shell", "execute_request", _content(request))
        run = self._run = CellRun(request_id, collector, silent=request.silent)
        seconds = self._timeout if request.timeout is None else request.timeout
        try:
            deadline = float("inf") if seconds is None else time.monotonic() + seconds
            ending = await self._follow(child, run, deadline)
            if ending is _Ending.DONE:
                if run.lost and not await self._listens_again(child):
                    return await self._died(child, run)
                return run.result()
            if ending is _Ending.DEAD:
                return await self._died(child, run)
            return await self._stopped(child, run, ending, seconds)
        except BaseException:
            # Cancelled, or a listener failed: the code must not go on unseen.
            run.collector.detach()
            if self._child is child:
                await self._stop(child, run)
            raise
        finally:
            self._run = None
            run.over.set()

    async def _listens_again(self, child: Child) -> bool:
        """Whether the child's output can be heard again; one that closed its own ends is dead."""
        try:
            async with asyncio.timeout(self._options.start_timeout):
                await child.listen_again()
        except (ChildStartError, TimeoutError):
            return False
        return True

    async def _follow(self, child: Child, run: CellRun, deadline: float) -> _Ending:
        """Read what the child says of a cell until something ends the waiting."""
        patience = TICK
        while True:
            for message in await child.connection.receive(patience):
                run.take(message)
            patience = min(TICK, run.collector.flush())
            if run.done:
                return _Ending.DONE
            if not child.process.running or child.connection.broken:
                return _Ending.DEAD
            if run.stop_asked:
                return _Ending.STOP
            if time.monotonic() > deadline:
                return _Ending.LATE
            if run.overlooked:
                await child.connection.knock(TICK)
            # A flood of messages must not keep a cancellation from getting its turn.
            await asyncio.sleep(0)

    async def _stop(self, child: Child, run: CellRun) -> bool:
        """Interrupt, wait for the grace, kill; True when the child and its variables are kept."""
        run.stop_asked = False
        try:
            for _ in range(INTERRUPTS):
                if run.started:
                    child.process.interrupt()
                until = time.monotonic() + self.grace / INTERRUPTS
                ending = await self._follow(child, run, until)
                if ending is _Ending.DONE:
                    return True
                if ending is not _Ending.LATE:
                    break
        except BaseException:
            # A second cancellation, or a listener that fails again: no more patience.
            await self._bury(child)
            raise
        await self._bury(child)
        return False

    async def _stopped(
        self, child: Child, run: CellRun, ending: _Ending, seconds: float | None
    ) -> ExecutionResult:
        """The result of a cell that we stop because of the time or on request."""
        kept = await self._stop(child, run)
        fate = "its variables are kept." if kept else "its process was killed, variables are lost."
        if ending is _Ending.LATE:
            error = CodeError("TimeoutError", f"The cell ran longer than {seconds:g} s; {fate}")
            return run.ended(ExecutionStatus.TIMEOUT, error)
        error = CodeError("KeyboardInterrupt", f"The cell was stopped; {fate}")
        return run.ended(ExecutionStatus.INTERRUPTED, error)

    async def _died(self, child: Child, run: CellRun) -> ExecutionResult:
        """The result of a cell whose child ended under it."""
        while messages := await child.connection.receive(LAST_OUTPUT):
            for message in messages:
                run.take(message)
        # What it had open closes a moment before its end is told.
        await child.process.wait(LAST_WORDS)
        cause = child.process.cause_of_death()
        limit = child.process.limit
        lines = child.process.tail.splitlines()
        await self._bury(child)
        if limit is not None:
            return replace(run.ended(ExecutionStatus.LIMIT, limit_error(limit)), limit=limit)
        hint = " The system may have run out of memory." if "SIGKILL" in cause else ""
        error = CodeError(
            "ChildDied",
            f"The process that ran the cell {cause}; its variables are lost.{hint}",
            tuple(lines),
        )
        return run.ended(ExecutionStatus.DEAD, error)

    async def _bury(self, child: Child) -> None:
        """End a child for good; the next start brings another."""
        if self._child is child:
            self._child = None
            self._transfer.forget()
        await child.close()

    async def _drop_child(self, *, politely: bool = False) -> None:
        child, self._child = self._child, None
        self._transfer.forget()
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.wait({self._warming})
            self._warming = None
        if child is not None:
            await child.close(politely=politely)

    async def _import_warm(self) -> None:
        # The code of the first cell waits for this; without it, it would import the same.
        with contextlib.suppress(ExecutionError):
            await self._run_silently(import_code(self._warm))

    async def _run_silently(self, code: str) -> ExecutionResult:
        return await self.execute(ExecutionRequest(code, timeout=SILENT_LIMIT, silent=True))

    def _living_child(self) -> Child:
        if self._child is None or not self._child.process.running:
            raise ExecutionError(
                "The child kernel is not running.",
                why="It was not started, or it ended.",
                next_step="Call start(); variables of an earlier child are lost.",
            )
        return self._child


def _within(path: Path, granted: Sequence[Path]) -> bool:
    return any(path == each or each in path.parents for each in granted)


def _content(request: ExecutionRequest) -> dict[str, object]:
    return {
        "code": request.code,
        "silent": request.silent,
        "store_history": not request.silent,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": False,
    }
