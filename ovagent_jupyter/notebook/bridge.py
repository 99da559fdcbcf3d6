"""Between a cell and the loop thread: events come over and are shown from the cell's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ovagent_jupyter.errors import TurnInterrupted
from ovagent_jupyter.events import AgentEvent, Emit
from ovagent_jupyter.loop_thread import CallerThread, LoopThread

T = TypeVar("T")
Show = Callable[[AgentEvent | None], None]
"""Shows one event in the cell; None is the heartbeat, at which late drawing is done."""


class Bridge:
    """Runs one turn at a time on the loop thread and shows its events from the cell's thread.

    Only the cell's thread publishes: output of another thread lands in whatever cell runs.

    Args:
        loop: Where the turn runs.
        caller: Serves what the turn wants run in the cell's thread.
    """

    def __init__(self, loop: LoopThread, caller: CallerThread) -> None:
        self._loop = loop
        self._caller = caller
        self._events: SimpleQueue[AgentEvent] = SimpleQueue()

    @property
    def emit(self) -> Emit:
        """Where the loop thread puts events."""
        return self._events.put

    def run(self, coroutine: Coroutine[Any, Any, T], show: Show) -> T:
        """Run a turn from a synchronous cell.

        Raises:
            TurnInterrupted: The user stopped it; the child is idle or gone.
        """
        return self._loop.run(coroutine, lambda: self._pump(show))

    async def drive(self, coroutine: Coroutine[Any, Any, T], show: Show) -> T:
        """Run a turn from an asynchronous cell.

        Raises:
            TurnInterrupted: The user stopped it; the child is idle or gone.
        """
        try:
            return await self._loop.drive(coroutine, lambda: self._pump(show))
        except (asyncio.CancelledError, KeyboardInterrupt):
            # ipykernel cancels the cell; the user shall read one line, not a CancelledError.
            raise TurnInterrupted from None

    def _pump(self, show: Show) -> None:
        self._caller.serve()
        while True:
            try:
                event = self._events.get_nowait()
            except Empty:
                break
            show(event)
        show(None)
