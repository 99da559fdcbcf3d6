"""Gives back what belongs to an event loop, also when the garbage collector is who lets go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable


def on_loop(loop: asyncio.AbstractEventLoop, action: Callable[[], object]) -> None:
    """Do something on the loop's own thread if the loop runs, else here and now."""
    if not loop.is_running() or _is_current(loop):
        action()
        return
    # The loop may be closed between the question and the call; then it holds nothing any more.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(action)


def _is_current(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
