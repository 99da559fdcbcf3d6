"""What a child asks for on one connection: a tunnel to a granted host, or one plain request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

import h11

from ovagent_jupyter.config.hosts import Target, parse_target
from ovagent_jupyter.execution.sandbox.outside import LARGEST_HEAD, OK, Answer, Reached
from ovagent_jupyter.execution.sandbox.wire import Wire, relay

HTTP_PORT = 80
LARGEST_REPLY_HEAD = 65_536
SMALL = 4_096
"""Bytes read at once while the size of a head is still to be checked."""
_HOP_BY_HOP = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization"),
        *(b"proxy-connection", b"te", b"trailer", b"upgrade", b"http2-settings", b"host"),
    }
)
"""Headers that concern one connection only (RFC 9110, 7.6.1); the host is written anew."""
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the head of a request asks for."""

    target: Target
    tunnel: bool
    request: h11.Request
    path: bytes = b""
    """What is asked of the host itself."""


def new_peer() -> h11.Connection:
    """The reader of what a child says."""
    return h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST_HEAD - SMALL)


async def read_head(wire: Wire, peer: h11.Connection) -> Asked | Answer | None:
    """Read what a child wants; None when it left without a word.

    Raises:
        OSError: The connection broke.
    """
    try:
        while not isinstance(event := peer.next_event(), h11.Request):
            if event is not h11.NEED_DATA:
                return None
            peer.receive_data(await wire.receive(SMALL))
        return _asked(event)
    except (h11.RemoteProtocolError, ValueError) as error:
        return Answer(400, f"The request is not understood: {_ascii(str(error))}.")


def _asked(request: h11.Request) -> Asked:
    """Read where a request goes.

    Raises:
        ValueError: It does not say so, or contradicts itself.
    """
    tunnel = request.method == b"CONNECT"
    text = request.target.decode("ascii")
    path = b""
    if tunnel:
        if any(name in _FRAMING for name, _ in request.headers):
            raise ValueError("CONNECT has no body")
        target = parse_target(text)
    else:
        target, path = _absolute(text)
    for name, value in request.headers:
        if name == b"host":
            port = target.port if tunnel else HTTP_PORT
            if parse_target(value.decode("ascii"), port) != target:
                raise ValueError("its Host header names another host than its first line")
    return Asked(target, tunnel, request, path)


def _absolute(text: str) -> tuple[Target, bytes]:
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() != "http":
        raise ValueError("it must be CONNECT host:port or name an http:// address")
    end = next((at for at, letter in enumerate(rest) if letter in "/?#"), len(rest))
    path = rest[end:].partition("#")[0]
    if not path.startswith("/"):
        path = f"/{path}"
    return parse_target(rest[:end], HTTP_PORT), path.encode("ascii")


def answer(said: Answer) -> bytes:
    """What a child is told that gets no connection."""
    # In the reason too: libraries show it, and drop the body of what a proxy says.
    text = _ascii(said.text)
    head = (
        f"HTTP/1.1 {said.status} {text}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(text) + 1}\r\nConnection: close\r\n\r\n"
    )
    return f"{head}{text}\n".encode("ascii")


async def tunnel(wire: Wire, peer: h11.Connection, host: Wire, idle: float) -> None:
    """Pass bytes between a child and a host."""
    await wire.send(f"HTTP/1.1 {OK} Connection established\r\n\r\n".encode("ascii"))
    wire.put_back(peer.trailing_data[0])
    await relay(wire, host, idle)


async def pass_request(
    wire: Wire, peer: h11.Connection, asked: Asked, reached: Reached, idle: float
) -> None:
    """Pass one request and its answer, and nothing that follows either.

    Both are read and written anew: what a child hides behind a request never gets to a host,
    which may serve other names by the same address.
    """
    ours = h11.Connection(h11.CLIENT, max_incomplete_event_size=LARGEST_REPLY_HEAD)
    try:
        async with asyncio.timeout(idle) as clock, asyncio.TaskGroup() as both:
            moved = _Moved(clock, idle)
            await _sent(reached.wire, ours.send(_forwarded(asked, reached)) or b"")
            body = both.create_task(_pass_body(wire, peer, reached.wire, ours, moved))
            await _pass_reply(reached.wire, ours, wire, peer, moved)
            body.cancel()
    except* (OSError, h11.ProtocolError):
        # Time is over, or an end broke: a child that has had no answer yet is told.
        if peer.our_state is h11.SEND_RESPONSE:
            with contextlib.suppress(OSError):
                await _last_word(wire, asked.target, idle)


def _forwarded(asked: Asked, reached: Reached) -> h11.Request:
    host = str(asked.target).removesuffix(f":{HTTP_PORT}").encode("ascii")
    headers: Headers = [(b"Host", host), *_end_to_end(asked.request.headers)]
    headers += [(name.encode(), value.encode()) for name, value in reached.headers]
    return h11.Request(
        method=asked.request.method,
        target=b"http://" + host + asked.path if reached.by_proxy else asked.path,
        headers=[*headers, (b"Connection", b"close")],
    )


@dataclass(frozen=True, slots=True)
class _Moved:
    clock: asyncio.Timeout
    seconds: float

    async def __call__(self) -> None:
        """Begin the wait anew, and let others have the loop."""
        self.clock.reschedule(asyncio.get_running_loop().time() + self.seconds)
        await asyncio.sleep(0)


async def _last_word(wire: Wire, target: Target, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        await wire.send(answer(Answer(502, f"{target} broke off the exchange.")))


async def _pass_body(
    wire: Wire, peer: h11.Connection, host: Wire, ours: h11.Connection, moved: _Moved
) -> None:
    while ours.our_state is h11.SEND_BODY:
        while (event := peer.next_event()) is h11.NEED_DATA:
            peer.receive_data(await wire.receive())
        data = ours.send(event if isinstance(event, h11.Data) else h11.EndOfMessage()) or b""
        if not await _sent(host, data):
            return
        await moved()


async def _sent(host: Wire, data: bytes) -> bool:
    try:
        await host.send(data)
    except OSError:
        # It may have answered before it had all: whoever reads the answer finds out.
        return False
    return True


async def _pass_reply(
    host: Wire, ours: h11.Connection, wire: Wire, peer: h11.Connection, moved: _Moved
) -> None:
    while True:
        event = ours.next_event()
        if event is h11.NEED_DATA:
            ours.receive_data(await host.receive())
        elif isinstance(event, h11.InformationalResponse | h11.Response):
            last = [(b"Connection", b"close")] if isinstance(event, h11.Response) else []
            reply = type(event)(
                headers=[*_end_to_end(event.headers), *last],
                status_code=event.status_code,
                reason=event.reason,
            )
            await wire.send(peer.send(reply) or b"")
        elif isinstance(event, h11.Data):
            await wire.send(peer.send(event) or b"")
        else:
            await wire.send(peer.send(h11.EndOfMessage()) or b"")
            return
        await moved()


def _end_to_end(all_headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    headers = list(all_headers)
    named = {
        each.strip().lower()
        for name, value in headers
        if name == b"connection"
        for each in value.split(b",")
    }
    dropped = _HOP_BY_HOP | (named - _FRAMING)
    return [pair for pair in headers if pair[0] not in dropped]


def _ascii(text: str) -> str:
    """A text that fits into the first line of an answer."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)[:500]
