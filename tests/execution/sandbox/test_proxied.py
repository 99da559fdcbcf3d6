"""What is passed on to a host, and what a child is told instead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ovagent_jupyter.execution.sandbox.network import ProxyLimits
from tests.execution.sandbox.brokered import guest, host

REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"
ASK = b"GET http://%s/ HTTP/1.1\r\nHost: %s\r\n\r\n"


async def test_plain_request_is_written_anew() -> None:
    async with host(REPLY) as server, guest(f"127.0.0.1:{server.port}") as child:
        name = f"127.0.0.1:{server.port}".encode()
        said = await child.ask(
            b"GET HTTP://%s/a?b=c#d HTTP/1.1\r\nhost: %s\r\nConnection: keep-alive, X-Hop\r\n"
            b"X-Hop: 1\r\nProxy-Authorization: Basic x\r\nUpgrade: h2c\r\nTE: trailers\r\n"
            b"X-Kept: 2\r\n\r\n" % (name, name)
        )
    assert server.heard == (
        b"GET /a?b=c HTTP/1.1\r\nHost: %s\r\nx-kept: 2\r\nConnection: close\r\n\r\n" % name
    )
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b"Connection: close" in head
    assert b"keep-alive" not in head
    assert body == b"ok"


@pytest.mark.parametrize(
    ("framing", "passed"),
    [
        (b"Content-Length: 5\r\n\r\nabcde", b"abcde"),
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n", b"abcde\r\n0\r\n\r\n"),
    ],
)
async def test_nothing_follows_a_request(framing: bytes, passed: bytes) -> None:
    hidden = b"GET /hidden HTTP/1.1\r\nHost: other.example\r\n\r\n"
    async with host(REPLY) as server, guest(f"127.0.0.1:{server.port}") as child:
        name = f"127.0.0.1:{server.port}".encode()
        start = b"POST http://%s/ HTTP/1.1\r\nHost: %s\r\n" % (name, name)
        await child.ask(start + framing + hidden)
    assert server.heard.endswith(passed)
    assert b"hidden" not in server.heard


async def test_named_host_is_the_one_that_is_asked() -> None:
    async with host(REPLY) as server:
        port = server.port
        addresses = {"site.example": ["127.0.0.1"]}
        granted = (f"site.example:{port}", f"127.0.0.1:{port}")
        async with guest(*granted, addresses=addresses) as child:
            for name in (b"other.example", b"site.example:81", b"site.example"):
                said = await child.ask(
                    b"GET http://site.example:%d/ HTTP/1.1\r\nHost: %s\r\n\r\n" % (port, name)
                )
                assert said.startswith(b"HTTP/1.1 400 ")
            said = await child.ask(
                b"GET http://SITE.example.:%d/ HTTP/1.1\r\nHost: site.EXAMPLE:%d\r\n\r\n"
                % (port, port)
            )
    assert said.startswith(b"HTTP/1.1 200 ")
    assert server.heard.startswith(b"GET / HTTP/1.1\r\nHost: site.example:%d\r\n" % port)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET https://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET ftp://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET http://user@a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET http:///x HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nHost : a.example\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nA: b\n c\r\rd: e\r\n\r\n",
        b"POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\n"
        b"Content-Length: 2\r\n\r\nab",
        b"POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: x\r\n\r\n",
        b"CONNECT a.example HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\n\r\nx",
        b"CONNECT 127.1:443 HTTP/1.1\r\nHost: 127.1:443\r\n\r\n",
        b"CONNECT http://a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"\x00" * 20_000,
        b"GET http://a.example/" + b"a" * 20_000,
        b"GET http://a.example/ HTTP/1.1\r\n" + b"A: b\r\n" * 4_000,
    ],
)
async def test_what_is_not_understood(head: bytes) -> None:
    async with guest("a.example", addresses={"a.example": []}) as child:
        assert (await child.ask(head)).startswith(b"HTTP/1.1 400 ")
        assert child.denied == []


@pytest.mark.parametrize(
    ("head", "denied"),
    [
        (b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", 443),
        (b"CONNECT evil.example:443 HTTP/1.0\r\n\r\n", 443),
        (b"CONNECT a.example:22 HTTP/1.1\r\nHost: a.example:22\r\n\r\n", 22),
        (ASK % (b"evil.example", b"evil.example"), 80),
    ],
)
async def test_what_is_not_granted(head: bytes, denied: int) -> None:
    async with guest("a.example", addresses={}) as child:
        for _ in range(3):
            said = (await child.ask(head)).decode()
            assert said.startswith("HTTP/1.1 403 The sandbox did not let the code reach ")
            name, port = child.denied[0]
            assert port == denied
            assert f"%ovagent policy network {name}" in said
        assert len(child.denied) == 1
        assert child.proxy.traffic == {}


async def test_refusals_are_told_a_bounded_number_of_times() -> None:
    async with guest("a.example") as child:
        for number in range(60):
            name = b"evil%d.example" % number
            assert b" 403 " in await child.ask(ASK % (name, name))
        assert len(child.denied) == 20


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0"),
        *("::", "fe80::1", "224.0.0.1", "64:ff9b::7f00:1"),
    ],
)
async def test_granted_name_may_not_lead_into_this_machine(address: str) -> None:
    async with host(REPLY) as server:
        granted = f"rebound.example:{server.port}"
        async with guest(granted, addresses={"rebound.example": [address]}) as child:
            name = granted.encode()
            for head in (ASK % (name, name), b"CONNECT %s HTTP/1.0\r\n\r\n" % name):
                assert b" 403 " in (await child.ask(head)).partition(b"\r\n")[0]
            assert {port for _, port in child.denied} == {server.port}
    assert server.heard == b""


async def test_addresses_are_asked_for_once_and_tried_in_turn() -> None:
    asked: list[str] = []
    async with host(REPLY) as server:
        port = server.port

        class Addresses(dict[str, list[str]]):
            def __getitem__(self, key: str) -> list[str]:
                asked.append(key)
                return ["10.0.0.1", "127.0.0.2", "127.0.0.1"]

        granted = (f"a.example:{port}", f"127.0.0.1:{port}", f"127.0.0.2:{port}")
        async with guest(*granted, addresses=Addresses(x=[])) as child:
            name = b"a.example:%d" % port
            assert b" 200 " in await child.ask(ASK % (name, name))
    assert asked == ["a.example"]


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (b"", b"502"),
        (b"garbage\r\n\r\n", b"502"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000, b"502"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"200"),
        (b"HTTP/1.1 204 No\r\n\r\n", b"204"),
        (b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n", b"413"),
        (b"HTTP/1.1 103 Early\r\nA: b\r\n\r\n" + REPLY, b"103"),
    ],
)
async def test_replies_of_hosts(reply: bytes, status: bytes) -> None:
    async with host(reply) as server, guest(f"127.0.0.1:{server.port}") as child:
        name = b"127.0.0.1:%d" % server.port
        said = await child.ask(ASK % (name, name))
    assert said.split(b" ")[1] == status


async def test_host_that_cannot_be_reached() -> None:
    async with host(REPLY) as server:
        port = server.port
    async with guest(f"127.0.0.1:{port}") as child:
        name = b"127.0.0.1:%d" % port
        assert b" 502 127.0.0.1:%d cannot be reached: " % port in await child.ask(
            ASK % (name, name)
        )
    async with guest("a.example", addresses={"a.example": []}) as child:
        said = await child.ask(ASK % (b"a.example", b"a.example"))
        assert b" 502 a.example:80 cannot be reached: it has no address." in said


async def test_host_that_does_not_answer() -> None:
    limits = ProxyLimits(idle=0.2)
    async with (
        host(b"", close=False) as server,
        guest(f"127.0.0.1:{server.port}", limits=limits) as child,
    ):
        name = b"127.0.0.1:%d" % server.port
        said = await child.ask(ASK % (name, name))
    assert b" 502 127.0.0.1:%d broke off the exchange." % server.port in said


class UserProxy:
    """A proxy of the user's own."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.port = 0


@asynccontextmanager
async def user_proxy(answer: bytes) -> AsyncIterator[UserProxy]:
    this = UserProxy(answer)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        this.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(this.answer)
        if b" 200 " in this.answer:
            writer.write(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    this.port = server.sockets[0].getsockname()[1]
    try:
        yield this
    finally:
        server.close()
        await server.wait_closed()


async def test_tunnel_by_the_users_proxy() -> None:
    async with user_proxy(b"HTTP/1.1 200 Go\r\n\r\nbanner ") as between:
        environment = {"HTTPS_PROXY": f"http://me:p%40ss@127.0.0.1:{between.port}"}
        async with guest("far.example", environment=environment, addresses={}) as child:
            said = await child.ask(b"CONNECT far.example:443 HTTP/1.0\r\n\r\nping")
            assert b" 403 " in await child.ask(b"CONNECT evil.example:443 HTTP/1.0\r\n\r\n")
    assert said.endswith(b"\r\n\r\nbanner ping")
    assert between.heads == [
        b"CONNECT far.example:443 HTTP/1.1\r\nHost: far.example:443\r\n"
        b"Proxy-Authorization: Basic bWU6cEBzcw==\r\n\r\n"
    ]


async def test_plain_request_by_the_users_proxy() -> None:
    async with user_proxy(REPLY) as between:
        environment = {"http_proxy": f"127.0.0.1:{between.port}"}
        async with guest("far.example", environment=environment, addresses={}) as child:
            said = await child.ask(ASK % (b"far.example", b"far.example"))
    assert said.endswith(b"ok")
    assert between.heads[0].startswith(b"GET http://far.example/ HTTP/1.1\r\nHost: far.example\r\n")


async def test_users_proxy_that_refuses_keeps_its_password() -> None:
    async with user_proxy(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n") as between:
        for url in (
            f"http://me:secret@127.0.0.1:{between.port}",
            f"https://me:secret@127.0.0.1:{between.port}",
            "http://me:secret",
            "http://me:secret@[::",
            "socks5://me:secret@127.0.0.1:1",
        ):
            async with guest("far.example", environment={"ALL_PROXY": url}) as child:
                said = await child.ask(b"CONNECT far.example:443 HTTP/1.0\r\n\r\n")
            assert said.startswith(b"HTTP/1.1 502 ")
            assert b"secret" not in said
    assert len(between.heads) == 1


async def test_users_proxy_is_not_asked_for_what_is_near() -> None:
    async with host(REPLY) as server, user_proxy(REPLY) as between:
        port = server.port
        environment = {
            "http_proxy": f"http://127.0.0.1:{between.port}",
            "NO_PROXY": "other.example,.near.example",
        }
        granted = [f"{name}:{port}" for name in ("a.near.example", "127.0.0.1", "localhost")]
        addresses = {"a.near.example": ["127.0.0.1"], "localhost": ["127.0.0.1"]}
        async with guest(*granted, environment=environment, addresses=addresses) as child:
            for name in granted:
                said = await child.ask(ASK % (name.encode(), name.encode()))
                assert said.endswith(b"ok")
    assert between.heads == []
