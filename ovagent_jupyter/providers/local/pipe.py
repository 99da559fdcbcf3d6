"""Carries what a thread makes to an event loop, and holds the thread back when nobody takes it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Generic, TypeVar

from ovagent_jupyter.providers.local.runner import CancelToken

T = TypeVar("T")


class Pipe(Generic[T]):
    """A bounded queue from one thread to the loop in which it was made.

    Args:
        size: Items that may wait to be taken.
    """

    def __init__(self, size: int = 64) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[T] = asyncio.Queue()
        self._room = threading.Semaphore(size)
        self.cancel = CancelToken()
        """Set once nobody wants more."""

    def put(self, item: T) -> bool:
        """In the thread: hand an item over, once there is room; False when nobody wants it."""
        self._room.acquire()
        if self.cancel.cancelled:
            # Whoever waits next gets through as well.
            self._room.release()
            return False
        try:
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)
        except RuntimeError:  # the loop is closed
            self.close()
            return False
        return True

    def push(self, item: T) -> None:
        """Hand an item over at once, from any thread, whether there is room or not."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    async def get(self) -> T:
        """In the loop: the next item."""
        item = await self._items.get()
        self._room.release()
        return item

    def close(self) -> None:
        """Want no more, in any thread; a thread that waits for room goes on."""
        self.cancel.cancel()
        self._room.release()
