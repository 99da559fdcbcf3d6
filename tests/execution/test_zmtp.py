"""The wire against peers that keep the protocol, and against those that do not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import zmq
import zmq.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovagent_jupyter.execution.zmtp import (
    GREETING,
    LARGEST_MESSAGE,
    MOST_FRAMES,
    WAITING,
    Wire,
    connect,
)

READY = b"\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER"


@asynccontextmanager
async def peer(
    tmp_path: Path, say: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> AsyncIterator[tuple[Wire, asyncio.Event]]:
    """A wire to a server that says what it likes."""
    place = tmp_path / "k"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await say(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, place)
    arrived = asyncio.Event()
    wire = await connect(place, "DEALER", arrived)
    try:
        yield wire, arrived
    finally:
        wire.close()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("size", [0, 1, 255, 256, 70_000, 3_000_000])
async def test_it_speaks_with_libzmq(tmp_path: Path, size: int) -> None:
    context = zmq.asyncio.Context()
    router = context.socket(zmq.ROUTER)
    router.bind(f"ipc://{tmp_path}/k")
    arrived = asyncio.Event()
    wire = await connect(tmp_path / "k", "DEALER", arrived)
    try:
        wire.send([b"a", b"x" * size])
        identity, *frames = await asyncio.wait_for(router.recv_multipart(), 20)
        assert frames == [b"a", b"x" * size]
        await router.send_multipart([identity, b"back", b"y" * size])
        assert await taken(wire, arrived) == [b"back", b"y" * size]
    finally:
        wire.close()
        router.close(linger=0)
        context.term()


async def test_it_subscribes(tmp_path: Path) -> None:
    context = zmq.asyncio.Context()
    publisher = context.socket(zmq.XPUB)
    publisher.bind(f"ipc://{tmp_path}/k")
    arrived = asyncio.Event()
    wire = await connect(tmp_path / "k", "SUB", arrived)
    try:
        assert await asyncio.wait_for(publisher.recv(), 20) == b"\x01"
        for number in range(500):
            await publisher.send_multipart([b"%d" % number])
        heard = [await taken(wire, arrived) for _ in range(500)]
        assert heard == [[b"%d" % number] for number in range(500)]
    finally:
        wire.close()
        publisher.close(linger=0)
        context.term()


async def taken(wire: Wire, arrived: asyncio.Event) -> list[bytes]:
    """The next message."""
    async with asyncio.timeout(20):
        while (message := wire.receive()) is None:
            assert not wire.broken
            arrived.clear()
            await arrived.wait()
    return message


async def test_what_is_sent_before_the_greeting_waits(tmp_path: Path) -> None:
    got = asyncio.Event()

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.1)
        writer.write(GREETING + READY)
        data = await reader.readuntil(b"early")
        assert data.startswith(GREETING)
        got.set()

    async with peer(tmp_path, say) as (wire, _):
        wire.send([b"early"])
        await asyncio.wait_for(got.wait(), 20)


@pytest.mark.parametrize(
    "told",
    [
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100,
        GREETING[:10] + b"\x01" + GREETING[11:],
        GREETING + READY + b"\x02" + (LARGEST_MESSAGE + 1).to_bytes(8, "big"),
        GREETING + READY + b"\x02" + b"\xff" * 8,
        GREETING + READY + b"\x08\x00",
        GREETING + READY + b"\x01\x00" * (MOST_FRAMES + 1),
        GREETING + READY + b"\x06" + (LARGEST_MESSAGE + 1).to_bytes(8, "big"),
    ],
)
async def test_what_breaks_the_bounds_ends_the_wire(tmp_path: Path, told: bytes) -> None:
    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(told)
        await writer.drain()
        await asyncio.sleep(30)

    async with peer(tmp_path, say) as (wire, arrived):
        await asyncio.wait_for(arrived.wait(), 20)
        assert wire.broken
        assert wire.receive() is None


@pytest.mark.parametrize(
    ("frame", "bound"),
    [
        (b"\x03" + (1 << 20).to_bytes(8, "big") + b"x" * (1 << 20), LARGEST_MESSAGE),
        (b"\x02" + (1 << 20).to_bytes(8, "big") + b"x" * (1 << 20), WAITING),
        (b"\x00\x00", WAITING),
    ],
    ids=["a message without end", "large messages", "empty messages"],
)
async def test_a_flood_takes_no_more_than_its_bound(
    tmp_path: Path, frame: bytes, bound: int
) -> None:
    sent = 0

    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(GREETING + READY)
        chunk = frame * max(1, (1 << 18) // len(frame))
        while sent < 400_000_000:
            writer.write(chunk)
            await writer.drain()
            sent += len(chunk)

    before = psutil.Process().memory_info().rss
    async with peer(tmp_path, say) as (wire, _):
        last = -1
        while sent != last and not wire.broken:
            last = sent
            await asyncio.sleep(0.5)
        grown = psutil.Process().memory_info().rss - before
    assert sent < 400_000_000
    assert grown < 4 * bound + 100_000_000


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.binary(max_size=300), max_size=6), st.integers(1, 64))
def test_garbage_never_raises(parts: list[bytes], step: int) -> None:
    """Whatever comes, in whatever pieces: messages, or an end."""
    ours, theirs = socket.socketpair()

    async def feed() -> None:
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()
        _, wire = await loop.create_connection(lambda: Wire("SUB", arrived), sock=ours)
        data = GREETING + READY + b"".join(parts)
        for start in range(0, len(data), step):
            wire.data_received(data[start : start + step])
        while (message := wire.receive()) is not None:
            assert len(message) <= MOST_FRAMES
        wire.close()
        await asyncio.sleep(0)

    try:
        asyncio.run(feed())
    finally:
        ours.close()
        theirs.close()


async def test_a_peer_that_goes_is_told(tmp_path: Path) -> None:
    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING + READY)
        await writer.drain()

    async with peer(tmp_path, say) as (wire, arrived):
        await asyncio.wait_for(arrived.wait(), 20)
        assert wire.broken


async def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await connect(tmp_path / "none", "SUB", asyncio.Event())
