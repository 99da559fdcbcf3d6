"""The only way from a child to the network: it hands over sockets, we connect them to hosts.

A child has no network of its own. It holds one end of a socket pair, the broker; to open a
connection it makes another pair, sends one end of that through the broker, and speaks to it as
to an HTTP proxy (RFC 9110, 9.3.6 for tunnels). So it needs neither addresses nor ``connect``,
which the filter of system calls refuses.

A host that is granted sees what the child sends, and TLS is between these two: within a tunnel a
child may ask such a host for other names that it serves.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from ovagent_jupyter.config.hosts import HostList, Target
from ovagent_jupyter.execution.sandbox import proxied
from ovagent_jupyter.execution.sandbox.outside import Answer, Outside, Resolve, resolve
from ovagent_jupyter.execution.sandbox.wire import Traffic, Wire

OnDenied = Callable[[str, int], None]
"""Told the host and the port that a child asked for in vain; must not raise."""
MOST_DESCRIPTORS = 2
"""Taken of one message: enough to see that it is not one. The system closes the others."""
BATCH = 16
"""Messages taken before other work of the loop has its turn."""
MOST_CLOSING = 64
"""Descriptors that wait to be closed; while there are more, no message is taken."""
LINGER = 2.0
"""Seconds that a child gets to read its last answer."""
MOST_REJECTED = 256
"""What is no connection and was sent all the same; after it the broker is closed for good."""
MOST_TOLD = 20
TELL_AGAIN = 10.0
"""Seconds in which so many refused hosts are told, each once."""
MOST_COUNTED = 1_000
"""Hosts whose traffic is counted one by one; a wildcard covers any number."""
OTHERS = "others"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyLimits:
    """What one child may use of this process."""

    connections: int = 64
    """Open at once; more are turned away."""
    head: float = 30.0
    """Seconds in which a request must have come."""
    connect: float = 20.0
    """Seconds in which a host must be found and reached."""
    idle: float = 300.0
    """Seconds after which a connection ends on which nothing moves."""


class Proxy:
    """Connects one child to the hosts that are granted to it; used on one event loop.

    Args:
        hosts: What is granted.
        on_denied: Told of what was refused, a bounded number of times.
        resolve: How names are resolved.
        environment: Where the user's own proxy is named; it then resolves the names itself.
        limits: What the child may use.
    """

    def __init__(
        self,
        hosts: HostList,
        *,
        on_denied: OnDenied | None = None,
        resolve: Resolve = resolve,
        environment: Mapping[str, str] = MappingProxyType({}),
        limits: ProxyLimits | None = None,
    ) -> None:
        self._limits = limits or ProxyLimits()
        self._outside = Outside(hosts, resolve, environment, self._limits.connect)
        self._on_denied = on_denied
        self._broker: socket.socket | None = None
        self._handed_out: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Future[None]] = set()
        self._traffic: dict[str, Traffic] = {}
        self._told: set[Target] = set()
        self._told_since = 0.0
        self.rejected = 0
        """What the child sent that is no connection."""

    @property
    def traffic(self) -> Mapping[str, Traffic]:
        """Host and port → bytes so far."""
        return MappingProxyType(self._traffic)

    @property
    def open(self) -> int:
        """Connections of the child now."""
        return len(self._tasks)

    @property
    def listening(self) -> bool:
        """Whether the child can ask for more."""
        return self._broker is not None

    def start(self) -> int:
        """Make the broker; the descriptor of the child's end, which no other process inherits.

        Raises:
            OSError: No descriptors are left.
        """
        self._loop = asyncio.get_running_loop()
        self._broker, self._handed_out = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._broker.setblocking(False)
        self._loop.add_reader(self._broker.fileno(), self._take_some)
        return self._handed_out.fileno()

    def release(self) -> None:
        """Close the child's end here, once the child has it; safe to call twice."""
        if self._handed_out is not None:
            self._handed_out.close()

    async def close(self) -> None:
        """End all connections; safe to call twice."""
        self.release()
        self._hang_up()
        while self._tasks or self._closing:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, *self._closing, return_exceptions=True)

    def _hang_up(self) -> None:
        if self._broker is not None:
            self._loop.remove_reader(self._broker.fileno())
            self._broker.close()
            self._broker = None

    def _take_some(self) -> None:
        for _ in range(BATCH):
            if self._broker is None:
                return
            try:
                said, ancillary, _, _ = self._broker.recvmsg(1, _ROOM, _RECEIVE_FLAGS)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                said, ancillary = b"", []
            if not said:
                self._hang_up()
                return
            self._take(_descriptors(ancillary))

    def _take(self, received: list[int]) -> None:
        connection = _connection(received[0]) if len(received) == 1 else None
        if connection is None:
            for descriptor in received:
                self._dispose(descriptor)
            self.rejected += 1
            if self.rejected >= MOST_REJECTED:
                self._hang_up()
            return
        if len(self._tasks) >= self._limits.connections:
            self._turn_away(connection)
            return
        wire = Wire(connection)
        task = self._loop.create_task(self._serve(wire))
        self._tasks.add(task)
        task.add_done_callback(partial(self._end, wire))

    def _turn_away(self, connection: socket.socket) -> None:
        said = Answer(503, f"More than {self._limits.connections} connections are open.")
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            # Once: one that does not read must not be kept for it.
            connection.send(proxied.answer(said), socket.MSG_DONTWAIT)
        self._dispose(connection.detach())

    def _end(self, wire: Wire, task: asyncio.Task[None]) -> None:
        # Not in the task: one that is cancelled before its first step runs nothing.
        self._tasks.discard(task)
        self._dispose(wire.release())

    def _dispose(self, descriptor: int) -> None:
        # The last holder of a file on a slow disk, or of gigabytes of memory, waits when it
        # closes it; what a child sends must not make the loop wait.
        closing = self._loop.run_in_executor(None, os.close, descriptor)
        self._closing.add(closing)
        closing.add_done_callback(self._closed)
        if len(self._closing) >= MOST_CLOSING and self._broker is not None:
            self._loop.remove_reader(self._broker.fileno())

    def _closed(self, closing: asyncio.Future[None]) -> None:
        self._closing.discard(closing)
        if not self._closing and self._broker is not None:
            self._loop.add_reader(self._broker.fileno(), self._take_some)

    async def _serve(self, wire: Wire) -> None:
        # An error here means that the child is gone, or too slow.
        with contextlib.suppress(OSError):
            await self._exchange(wire)

    async def _exchange(self, wire: Wire) -> None:
        peer = proxied.new_peer()
        async with asyncio.timeout(self._limits.head):
            asked = await proxied.read_head(wire, peer)
        if asked is None:
            return
        if isinstance(asked, Answer):
            await self._tell(wire, asked)
            return
        count = partial(self._counter, asked.target)
        reached = await self._outside.reach(asked.target, count, tunnel=asked.tunnel)
        if isinstance(reached, Answer):
            self._note(reached.denied)
            await self._tell(wire, reached)
            return
        with contextlib.closing(reached.wire):
            if asked.tunnel:
                await proxied.tunnel(wire, peer, reached.wire, self._limits.idle)
            else:
                await proxied.pass_request(wire, peer, asked, reached, self._limits.idle)
                await wire.linger(LINGER)

    async def _tell(self, wire: Wire, said: Answer) -> None:
        async with asyncio.timeout(self._limits.head):
            await wire.send(proxied.answer(said))
        await wire.linger(LINGER)

    def _note(self, denied: Target | None) -> None:
        if denied is None or self._on_denied is None:
            return
        now = self._loop.time()
        if now - self._told_since > TELL_AGAIN:
            self._told.clear()
            self._told_since = now
        if denied not in self._told and len(self._told) < MOST_TOLD:
            self._told.add(denied)
            self._on_denied(denied.host, denied.port)

    def _counter(self, target: Target) -> Traffic:
        name = str(target)
        if name not in self._traffic and len(self._traffic) >= MOST_COUNTED:
            name = OTHERS
        return self._traffic.setdefault(name, Traffic())


_ROOM = socket.CMSG_LEN(MOST_DESCRIPTORS * array.array("i").itemsize)
_RECEIVE_FLAGS = socket.MSG_DONTWAIT | getattr(socket, "MSG_CMSG_CLOEXEC", 0)
"""No child that another thread starts in this moment inherits what is received.

``socket.recv_fds`` of Python 3.11 takes flags and does not use them.
"""


def _descriptors(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    received = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            received.frombytes(data[: len(data) - len(data) % received.itemsize])
    return list(received)


def _connection(descriptor: int) -> socket.socket | None:
    """The socket, if it is one end of a connection within this machine; else it stays open."""
    try:
        found = socket.socket(fileno=descriptor)
    except OSError:
        return None
    try:
        if found.family == socket.AF_UNIX and found.type == socket.SOCK_STREAM:
            found.getpeername()
            return found
    except OSError:
        pass
    found.detach()
    return None
