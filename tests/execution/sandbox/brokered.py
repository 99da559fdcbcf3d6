"""The other side of a broker, for tests: sends ends of connections, and speaks on them."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from ovagent_jupyter.config.hosts import HostList
from ovagent_jupyter.execution.sandbox.network import Proxy, ProxyLimits


class Guest:
    """What a child does with its end of the broker."""

    def __init__(self, proxy: Proxy, broker: socket.socket, denied: list[tuple[str, int]]) -> None:
        self.proxy = proxy
        self.broker = broker
        self.denied = denied

    def send(self, *descriptors: int) -> None:
        """Send descriptors through the broker, as one message."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        self.broker.sendmsg([b"+"], rights if descriptors else [])

    def open(self) -> socket.socket:
        """Open a connection to the proxy."""
        ours, theirs = socket.socketpair()
        with theirs:
            self.send(theirs.fileno())
        return ours

    async def ask(self, text: bytes) -> bytes:
        """Say something on a new connection; all that is answered until it ends."""
        reader, writer = await asyncio.open_connection(sock=self.open())
        try:
            writer.write(text)
            return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def guest(
    *hosts: str,
    addresses: Mapping[str, Sequence[str]] | None = None,
    environment: Mapping[str, str] | None = None,
    limits: ProxyLimits | None = None,
) -> AsyncIterator[Guest]:
    """A started proxy and its guest; afterwards all that they have opened must be closed."""
    before = descriptors()
    denied: list[tuple[str, int]] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        return (addresses or {})[host]

    proxy = Proxy(
        HostList(hosts),
        on_denied=lambda host, port: denied.append((host, port)),
        environment=environment or {},
        limits=limits,
        **({} if addresses is None else {"resolve": resolve}),
    )
    broker = socket.socket(fileno=os.dup(proxy.start()))
    proxy.release()
    try:
        yield Guest(proxy, broker, denied)
    finally:
        broker.close()
        await proxy.close()
    assert proxy.open == 0
    assert not proxy.listening
    # Streams of the test close their sockets in the next round of the loop.
    for _ in range(3):
        await asyncio.sleep(0)
    assert descriptors() <= before


def descriptors() -> int:
    """How many descriptors this process has open."""
    return len(list(Path("/dev/fd").iterdir()))


class Host:
    """A server that keeps what it is sent and always says the same."""

    def __init__(self, reply: bytes) -> None:
        self.reply = reply
        self.heard = b""
        self.port = 0


@asynccontextmanager
async def host(reply: bytes, *, close: bool = True) -> AsyncIterator[Host]:
    """A server on loopback that answers after the first bytes that it gets."""
    this = Host(reply)
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(OSError):
            this.heard += await reader.read(65_536)
            writer.write(this.reply)
            if close:
                await writer.drain()
                writer.write_eof()
            # Whether more comes than should.
            while data := await reader.read(65_536):
                this.heard += data
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    this.port = server.sockets[0].getsockname()[1]
    try:
        yield this
    finally:
        server.close()
        for writer in writers:
            writer.close()
        for writer in writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await server.wait_closed()
