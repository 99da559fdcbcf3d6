"""Between a cell and the loop thread: events come over and are shown from the cell's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ovagent_jupyter.errors import TurnInterrupted
from ovagent_jupyter.events import AgentEvent, Emit
from ovagent_jupyter.loop_thread import CallerThread, LoopThread

T = TypeVar("T")
Show = Callable[[AgentEvent | None], None]
"""Shows one event in the cell; None is the heartbeat, at which late drawing is done."""
Begin = Callable[[Emit], Coroutine[Any, Any, T]]
"""Makes a turn whose events go to the given place."""
_Events = SimpleQueue[AgentEvent]
"""Of one turn: what a turn that was given up says later belongs to no other cell."""


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

    def run(self, begin: Begin[T], show: Show) -> T:
        """Run a turn from a synchronous cell.

        Raises:
            TurnInterrupted: The user stopped it; the child is idle or gone.
        """
        events = _Events()
        return self._loop.run(begin(events.put), partial(self._pump, events, show))

    async def drive(self, begin: Begin[T], show: Show) -> T:
        """Run a turn from an asynchronous cell.

        Raises:
            TurnInterrupted: The user stopped it; the child is idle or gone.
        """
        events = _Events()
        try:
            return await self._loop.drive(begin(events.put), partial(self._pump, events, show))
        except (asyncio.CancelledError, KeyboardInterrupt):
            # ipykernel cancels the cell; the user shall read one line, not a CancelledError.
            raise TurnInterrupted from None

    def _pump(self, events: _Events, show: Show) -> None:
        while True:
            try:
                event = events.get_nowait()
            except Empty:
                break
            show(event)
        show(None)
        # Last: nothing is shown while the user's own kernel works for the turn.
        self._caller.serve()
