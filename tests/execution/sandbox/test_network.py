"""The broker: connections of a child, whatever the child does with them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from ovagent_jupyter.config.hosts import HostList
from ovagent_jupyter.execution.sandbox.network import MOST_REJECTED, Proxy, ProxyLimits
from tests.execution.sandbox.brokered import Guest, descriptors, guest, host

REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """A server that says what it hears."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


async def tunnel(child: Guest, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(sock=child.open())
    writer.write(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (port, port))
    if (said := await reader.readexactly(len(ESTABLISHED))) != ESTABLISHED:
        writer.close()
    assert said == ESTABLISHED
    return reader, writer


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds; the time-out of the test run ends a wait in vain."""
    while not holds():  # noqa: ASYNC110 - a proxy tells nobody of its connections
        await asyncio.sleep(0.005)


async def works(child: Guest, port: int) -> None:
    reader, writer = await tunnel(child, port)
    writer.write(b"ping")
    assert await reader.readexactly(4) == b"ping"
    writer.close()


async def test_tunnel_passes_everything_in_both_directions() -> None:
    data = os.urandom(4_000_000)
    async with echo() as port, guest(f"127.0.0.1:{port}") as child:
        reader, writer = await tunnel(child, port)
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == data
        writer.close()
        counted = child.proxy.traffic[f"127.0.0.1:{port}"]
    assert (counted.sent, counted.received) == (len(data), len(data))


async def test_one_that_does_not_read_holds_up_only_itself() -> None:
    async with echo() as port, guest(f"127.0.0.1:{port}") as child:
        _, writer = await tunnel(child, port)
        writer.write(b"x" * 40_000_000)
        counted = child.proxy.traffic[f"127.0.0.1:{port}"]
        moved = -1
        while moved != counted.sent:
            moved = counted.sent
            await asyncio.sleep(0.1)
        assert moved < 40_000_000
        await works(child, port)
        writer.transport.abort()


async def test_child_that_is_gone_leaves_nothing() -> None:
    async with echo() as port, guest(f"127.0.0.1:{port}") as child:
        _, writer = await tunnel(child, port)
        assert child.proxy.open == 1
        writer.transport.abort()
        await until(lambda: child.proxy.open == 0)
        child.broker.close()
        await until(lambda: not child.proxy.listening)


async def test_close_ends_what_is_open_and_can_be_said_twice() -> None:
    async with echo() as port, guest(f"127.0.0.1:{port}") as child:
        reader, writer = await tunnel(child, port)
        waiting = child.open()
        await until(lambda: child.proxy.open == 2)
        just_sent = child.open()
        await child.proxy.close()
        assert await reader.read() == b""
        for each in (waiting, just_sent):
            with each:
                each.setblocking(False)
                assert await asyncio.get_running_loop().sock_recv(each, 1) == b""
        writer.close()
        await child.proxy.close()


async def test_close_before_start() -> None:
    proxy = Proxy(HostList([]))
    await proxy.close()
    assert not proxy.listening


@contextmanager
def a_file(tmp_path: Path) -> Iterator[list[int]]:
    with (tmp_path / "x").open("wb") as file:
        yield [file.fileno()]


@contextmanager
def a_directory(tmp_path: Path) -> Iterator[list[int]]:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield [descriptor]
    os.close(descriptor)


@contextmanager
def a_pipe(tmp_path: Path) -> Iterator[list[int]]:
    reading, writing = os.pipe()
    yield [reading]
    os.close(reading)
    os.close(writing)


@contextmanager
def an_epoll(tmp_path: Path) -> Iterator[list[int]]:
    with select.epoll() as epoll:
        yield [epoll.fileno()]


@contextmanager
def sockets(*made: socket.socket) -> Iterator[list[int]]:
    with ExitStack() as stack:
        for each in made:
            stack.enter_context(each)
        yield [made[0].fileno()]


def a_datagram_socket(tmp_path: Path) -> object:
    return sockets(*socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))


def a_packet_socket(tmp_path: Path) -> object:
    return sockets(*socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))


def an_unconnected_socket(tmp_path: Path) -> object:
    return sockets(socket.socket(socket.AF_UNIX))


def a_listening_socket(tmp_path: Path) -> object:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(os.path.relpath(tmp_path / "s"))
    listening.listen()
    return sockets(listening)


def a_tcp_connection(tmp_path: Path) -> object:
    listening = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listening.getsockname())
    return sockets(client, listening)


@contextmanager
def two_connections(tmp_path: Path) -> Iterator[list[int]]:
    with sockets(*(pair := socket.socketpair())):
        yield [each.fileno() for each in pair]


@contextmanager
def a_hundred_files(tmp_path: Path) -> Iterator[list[int]]:
    with (tmp_path / "x").open("wb") as file:
        yield [file.fileno()] * 100


@contextmanager
def nothing(tmp_path: Path) -> Iterator[list[int]]:
    yield []


@pytest.mark.parametrize(
    "what",
    [
        *(a_file, a_directory, a_pipe, an_epoll, a_datagram_socket, a_packet_socket, nothing),
        *(an_unconnected_socket, a_listening_socket, a_tcp_connection),
        *(two_connections, a_hundred_files),
    ],
)
async def test_what_is_no_connection_is_closed(what: Callable, tmp_path: Path) -> None:  # type: ignore[type-arg]
    async with echo() as port, guest(f"127.0.0.1:{port}") as child:
        for count in range(1, 6):
            with what(tmp_path) as descriptors:
                child.send(*descriptors)
            (tmp_path / "s").unlink(missing_ok=True)
            await until(lambda count=count: child.proxy.rejected == count)  # type: ignore[misc]
        assert child.proxy.open == 0
        await works(child, port)


async def test_broker_is_closed_after_too_much_that_is_none() -> None:
    async with guest("a.example") as child:
        while child.proxy.listening:
            with contextlib.suppress(BrokenPipeError):
                child.send()
            await asyncio.sleep(0)
        assert child.proxy.rejected == MOST_REJECTED


async def test_ten_thousand_connections() -> None:
    limits = ProxyLimits(connections=8)
    async with echo() as port, guest(f"127.0.0.1:{port}", limits=limits) as child:
        before = descriptors()
        held = [child.open() for _ in range(8)]
        await until(lambda: child.proxy.open == 8)
        for number in range(10_000):
            with child.open() as more:
                if number % 100 == 0:
                    reader, writer = await asyncio.open_connection(sock=more.dup())
                    assert (await reader.read()).startswith(b"HTTP/1.1 503 More than 8 connections")
                    writer.close()
                    assert descriptors() < before + 16 + 100
                elif number % 10 == 0:
                    await asyncio.sleep(0)
        assert child.proxy.open == 8
        for each in held:
            each.close()
        # Some of the ten thousand may still be on their way.
        for _ in range(200):
            await until(lambda: child.proxy.open == 0)
            with suppress(AssertionError):
                await works(child, port)
                break
            await asyncio.sleep(0.05)
        else:
            await works(child, port)


async def test_turned_away_without_waiting_for_one_that_does_not_read() -> None:
    limits = ProxyLimits(connections=1)
    async with guest("a.example", limits=limits) as child:
        with child.open(), ExitStack() as stack:
            await until(lambda: child.proxy.open == 1)
            for _ in range(20):
                _, theirs = map(stack.enter_context, socket.socketpair())
                theirs.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while theirs.send(b"x" * 65_536):
                        pass
                child.send(theirs.fileno())
            before = descriptors()
            await asyncio.sleep(0.1)
            assert child.proxy.open == 1
            assert descriptors() <= before
        await until(lambda: child.proxy.open == 0)


async def test_child_cannot_make_the_parent_wait() -> None:
    """Flags are of the open socket, and a child can keep the end that it sends away."""
    async with echo() as port, guest(f"127.0.0.1:{port}") as child:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            child.send(theirs.fileno())
            await until(lambda: child.proxy.open == 1)
            # A loop that waits in the system cannot end by itself, nor be told to by pytest.
            stuck: list[bool] = []
            rescue = threading.Timer(
                10, lambda: (stuck.append(True), theirs.shutdown(socket.SHUT_RDWR))
            )
            rescue.start()
            flags = fcntl.fcntl(theirs, fcntl.F_GETFL)
            fcntl.fcntl(theirs, fcntl.F_SETFL, flags & ~os.O_NONBLOCK)
            ours.send(b"CONNECT 127.0.0.1:%d HTTP/1.0\r\n\r\n" % port)
            await works(child, port)
            # It now passes bytes to one that never reads, and reads from one that says no more.
            ours.setblocking(False)
            loop = asyncio.get_running_loop()
            filling = loop.create_task(loop.sock_sendall(ours, b"x" * 20_000_000))
            await asyncio.sleep(0.2)
            assert not filling.done()
            await works(child, port)
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)
            rescue.cancel()
            rescue.join()
            assert not stuck


async def test_child_that_takes_bytes_back_or_ends_its_own_side() -> None:
    async with echo() as port, guest(f"127.0.0.1:{port}") as child:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            child.send(theirs.fileno())
            await until(lambda: child.proxy.open == 1)
            theirs.setblocking(False)
            for _ in range(200):
                ours.send(b"C")
                try:
                    theirs.recv(1)
                except BlockingIOError:
                    await asyncio.sleep(0)
            theirs.shutdown(socket.SHUT_RDWR)
            await until(lambda: child.proxy.open == 0)
        await works(child, port)


async def slow_head(ours: socket.socket, port: int) -> None:
    while True:
        ours.send(b"C")
        await asyncio.sleep(0.01)


async def no_head(ours: socket.socket, port: int) -> None:
    await asyncio.sleep(60)


async def silent_tunnel(ours: socket.socket, port: int) -> None:
    ours.send(b"CONNECT 127.0.0.1:%d HTTP/1.0\r\n\r\n" % port)
    await asyncio.sleep(60)


async def half_open_tunnel(ours: socket.socket, port: int) -> None:
    ours.send(b"CONNECT 127.0.0.1:%d HTTP/1.0\r\n\r\n" % port)
    ours.shutdown(socket.SHUT_WR)
    await asyncio.sleep(60)


async def slow_body(ours: socket.socket, port: int) -> None:
    name = b"127.0.0.1:%d" % port
    ours.send(b"POST http://%s/ HTTP/1.1\r\nHost: %s\r\nContent-Length: 9\r\n\r\n" % (name, name))
    await asyncio.sleep(60)


@pytest.mark.parametrize("behave", [slow_head, no_head, silent_tunnel, half_open_tunnel, slow_body])
async def test_slow_child_is_left(
    behave: Callable[[socket.socket, int], Awaitable[None]],
) -> None:
    limits = ProxyLimits(head=0.3, idle=0.3)
    async with (
        host(b"", close=False) as server,
        guest(f"127.0.0.1:{server.port}", limits=limits) as child,
    ):
        with child.open() as ours:
            await until(lambda: child.proxy.open == 1)
            behaving = asyncio.ensure_future(behave(ours, server.port))
            await until(lambda: child.proxy.open == 0)
            behaving.cancel()
            await asyncio.gather(behaving, return_exceptions=True)


async def test_descriptors_of_the_parent_are_closed_on_exec() -> None:
    async with guest("a.example") as child:
        before = await inherited()
        with child.open():
            await until(lambda: child.proxy.open == 1)
            assert await inherited() == before


async def inherited() -> int:
    """How many descriptors a program that is started now gets from this process."""
    ls = await asyncio.create_subprocess_exec(
        "ls", "/dev/fd", close_fds=False, stdout=subprocess.PIPE
    )
    listed, _ = await ls.communicate()
    return len(listed.split())


async def test_default_time_out_of_the_user_does_not_matter() -> None:
    socket.setdefaulttimeout(30)
    try:
        async with echo() as port, guest(f"127.0.0.1:{port}") as child:
            with child.open():
                await until(lambda: child.proxy.open == 1)
                await works(child, port)
    finally:
        socket.setdefaulttimeout(None)
