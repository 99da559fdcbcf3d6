"""A socket that never blocks its reader, whatever the process at its other end does with it."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass

CHUNK = 65_536
"""Bytes of one read."""


@dataclass(slots=True)
class Traffic:
    """Bytes exchanged with one host."""

    sent: int = 0
    received: int = 0


class Wire:
    """One end of a connection, used by one reader and one writer on the running loop.

    A socket that came from a child may still be held there, and its flags are shared: the child
    can make it blocking again at any time. So every call says itself that it must not wait.

    Args:
        connection: A connected stream socket; the wire owns it.
        traffic: Where its bytes are counted.
    """

    def __init__(self, connection: socket.socket, traffic: Traffic | None = None) -> None:
        # Else a default time-out of the user's would make Python itself wait.
        connection.setblocking(False)
        self._socket = connection
        self._loop = asyncio.get_running_loop()
        self._traffic = traffic if traffic is not None else Traffic()
        self._unread = b""

    async def receive(self, size: int = CHUNK) -> bytes:
        """Wait for some bytes; none at the end.

        Raises:
            OSError: The connection broke.
        """
        if self._unread:
            data, self._unread = self._unread[:size], self._unread[size:]
            return data
        while True:
            try:
                data = self._socket.recv(size, socket.MSG_DONTWAIT)
            except (BlockingIOError, InterruptedError):
                await self._until(self._loop.add_reader, self._loop.remove_reader)
            else:
                self._traffic.received += len(data)
                return data

    async def send(self, data: bytes) -> None:
        """Send all of it; waits while the other end does not read.

        Raises:
            OSError: The connection broke.
        """
        left = memoryview(data)
        while left:
            try:
                sent = self._socket.send(left, socket.MSG_DONTWAIT)
            except (BlockingIOError, InterruptedError):
                await self._until(self._loop.add_writer, self._loop.remove_writer)
            else:
                self._traffic.sent += sent
                left = left[sent:]

    def put_back(self, data: bytes) -> None:
        """Have these bytes read again, before all others."""
        self._unread = data + self._unread

    def end_sending(self) -> None:
        """Tell the other end that nothing follows."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    async def linger(self, seconds: float) -> None:
        """End sending, and read what still comes for a while.

        A socket that is closed with bytes unread in it breaks the connection, and what was sent
        last may be lost to the other end.

        Raises:
            OSError: The other end broke it, or did not end in time.
        """
        self.end_sending()
        async with asyncio.timeout(seconds):
            while await self.receive():  # noqa: ASYNC110 - gives way, waits for no event
                await asyncio.sleep(0)

    def is_abandoned(self) -> bool:
        """Whether the other end is closed altogether, not only for what it sends."""
        poll = select.poll()
        poll.register(self._socket, 0)
        return any(event & select.POLLHUP for _, event in poll.poll(0))

    def release(self) -> int:
        """Give the descriptor away, to be closed by the caller."""
        return self._socket.detach()

    def close(self) -> None:
        """Close it; safe to call twice."""
        self._socket.close()

    async def _until(
        self,
        watch: Callable[
            [int, Callable[[asyncio.Future[None]], None], asyncio.Future[None]], object
        ],
        unwatch: Callable[[int], object],
    ) -> None:
        ready = self._loop.create_future()
        watch(self._socket.fileno(), _wake, ready)
        try:
            await ready
        finally:
            unwatch(self._socket.fileno())


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def relay(first: Wire, second: Wire, seconds: float) -> None:
    """Pass bytes in both directions until both have ended, or nothing moves for some seconds."""
    try:
        async with asyncio.timeout(seconds) as clock, asyncio.TaskGroup() as both:
            both.create_task(_pump(first, second, clock, seconds))
            both.create_task(_pump(second, first, clock, seconds))
    except* OSError:
        pass  # time is over, or an end was closed in the middle: the caller closes the other


async def _pump(source: Wire, sink: Wire, clock: asyncio.Timeout, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    while data := await source.receive():
        await sink.send(data)
        clock.reschedule(loop.time() + seconds)
        # Two fast ends never make the calls above wait; others need the loop too.
        await asyncio.sleep(0)
    if source.is_abandoned():
        raise ConnectionAbortedError
    sink.end_sending()
