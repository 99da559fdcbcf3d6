"""The one edge between synchronous and asynchronous code: a private thread that owns one loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from ovagent_jupyter.errors import TurnInterrupted

T = TypeVar("T")

SLICE = 0.05
"""Seconds between two looks at a running piece of work: how late an interrupt can be seen."""
STOP_WITHIN = 3.0
"""Seconds that interrupted work is given to clean up before the caller goes on."""


def nothing() -> None:
    """The pump of a caller that has nothing to do while it waits."""


class Work(Generic[T]):
    """A coroutine running on the loop thread.

    Its future ends only when the coroutine has really ended, also after ``cancel``: what
    follows an interrupt must not meet half-stopped work.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> None:
        self.future: Future[T] = Future()
        self._loop = loop
        self._task: asyncio.Task[None] | None = None
        self._cancelled = False
        loop.call_soon_threadsafe(self._begin, coroutine)

    def cancel(self) -> None:
        """Cancel the coroutine; does nothing when it has ended."""
        self._loop.call_soon_threadsafe(self._cancel_task)

    def _begin(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._task = self._loop.create_task(self._follow(coroutine))
        if self._cancelled:
            self._task.cancel()

    def _cancel_task(self) -> None:
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()

    async def _follow(self, coroutine: Coroutine[Any, Any, T]) -> None:
        try:
            result = await coroutine
        except asyncio.CancelledError:
            self.future.set_exception(TurnInterrupted())
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the work
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class LoopThread:
    """A daemon thread with one event loop, started on first use, ended by ``close``."""

    def __init__(self, name: str = "ovagent-loop") -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        # Protects the two fields above when two threads ask for the loop at once.
        self._lock = threading.Lock()

    @property
    def running(self) -> bool:
        """Whether its thread runs; a fork of this process has none."""
        return self._thread is not None and self._thread.is_alive()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Work[T]:
        """Schedule a coroutine on the loop and return at once."""
        return Work(coroutine, self._running_loop())

    def run(self, coroutine: Coroutine[Any, Any, T], pump: Callable[[], None] = nothing) -> T:
        """Run a coroutine to its end from synchronous code.

        Args:
            coroutine: What to run.
            pump: Called in this thread between two looks at the work.

        Raises:
            TurnInterrupted: Ctrl-C; the work was cancelled and has cleaned up.
        """
        return self.wait(self.submit(coroutine), pump)

    def wait(self, work: Work[T], pump: Callable[[], None] = nothing) -> T:
        """Wait for submitted work in short slices, so that an interrupt is seen at once.

        Work that has ended in spite of the interrupt gives its result.
        """
        with _noted_interrupts() as noted:
            try:
                while not (noted or _ended(work)):
                    pump()
                pump()
            except KeyboardInterrupt:
                noted.append(signal.SIGINT)
            if noted and not self.stop(work, pump, hurry=lambda: len(noted) > 1):
                raise TurnInterrupted
        return work.future.result()

    async def drive(
        self, coroutine: Coroutine[Any, Any, T], pump: Callable[[], None] = nothing
    ) -> T:
        """Run a coroutine to its end from another loop, such as that of an asynchronous cell.

        The short sleep is a heartbeat: a cell that awaits one long thing sees an interrupt only
        when that ends.

        Raises:
            CancelledError: The caller was cancelled; the work too, and it has cleaned up.
        """
        work = self.submit(coroutine)
        try:
            while not work.future.done():
                pump()
                await asyncio.sleep(SLICE)
            pump()
        except (asyncio.CancelledError, KeyboardInterrupt):
            self.stop(work, pump)
            raise
        return work.future.result()

    def stop(
        self,
        work: Work[T],
        pump: Callable[[], None] = nothing,
        hurry: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Cancel submitted work and give it a bounded time to clean up; True when it ended.

        Args:
            work: What to stop.
            pump: Called in this thread between two looks at the work.
            hurry: Whether nobody wants to wait any more; the cleaning up is told to hurry too.
        """
        work.cancel()
        try:
            for _ in range(int(STOP_WITHIN / SLICE)):
                pump()
                if _ended(work):
                    break
                if hurry():
                    work.cancel()
                    break
            pump()
        except KeyboardInterrupt:
            work.cancel()
        return work.future.done()

    def close(self) -> None:
        """End the loop and its thread; safe to call twice."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(STOP_WITHIN)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            # In a fork of this process the loop is there, and nobody who runs it.
            if self._loop is None or not self.running:
                self._loop = asyncio.new_event_loop()
                # ipykernel 7.0 finds the cell a thread prints for through its context.
                context = contextvars.copy_context()
                self._thread = threading.Thread(
                    target=context.run, args=(_serve, self._loop), name=self._name, daemon=True
                )
                self._thread.start()
            return self._loop


class CallerThread:
    """The thread that waits for work: it runs, between two slices, what the work asks it to.

    Code in the user's own process belongs into the cell's thread: matplotlib, signals and much
    else expect it there.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], None], Future[None]]] = SimpleQueue()

    async def run(self, call: Callable[[], None]) -> None:
        """Have the waiting thread run a function; from the loop thread."""
        done: Future[None] = Future()
        self._calls.put((call, done))
        await asyncio.wrap_future(done)

    def serve(self) -> None:
        """Run what was asked for; from the waiting thread."""
        while True:
            try:
                call, done = self._calls.get_nowait()
            except Empty:
                return
            if not done.set_running_or_notify_cancel():
                continue
            try:
                with interruptible():
                    call()
            except BaseException as error:  # noqa: BLE001 - handed to whoever asked for the call
                done.set_exception(error)
            else:
                done.set_result(None)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end what runs here: in an asynchronous cell it would wait for the cell's loop."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _noted_interrupts() -> Iterator[list[int]]:
    """Note Ctrl-C instead of raising it: a second one would hit the handling of the first.

    A handler that is not Python's own is somebody's wish and stays.
    """
    noted: list[int] = []
    raising = signal.default_int_handler
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not raising:
        yield noted
        return
    signal.signal(signal.SIGINT, lambda number, _frame: noted.append(number))
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, raising)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


def _ended(work: Work[T]) -> bool:
    """Wait one slice for the work; True when it has ended."""
    try:
        work.future.exception(timeout=SLICE)
    except NotYet:
        return False
    return True
