"""A server that speaks all three wires at whatever path, and remembers what it was sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.conformance import provider_answers as say
from tests.conformance.provider_answers import Answer, Json, Manner, Midway, Refusal


@dataclass(frozen=True, slots=True)
class Received:
    """One request."""

    method: str
    target: str
    """Path and query."""
    headers: dict[str, str]
    """By their names in small letters."""
    raw: bytes
    """The body."""

    @property
    def path(self) -> str:
        """The path alone."""
        return self.target.partition("?")[0]

    @property
    def body(self) -> Json:
        """The body, read."""
        read: Json = json.loads(self.raw)
        return read


@dataclass(slots=True)
class ProviderServer:
    """Gives one answer after the other, to whichever wire asks."""

    manner: Manner = field(default_factory=Manner)
    answers: list[Answer | Refusal] = field(default_factory=list)
    """Those still to be given."""
    received: list[Received] = field(default_factory=list)
    """What it was sent, in order."""
    port: int = 0
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by who has heard the first half of a text."""
    left: int = 0
    """How many clients have gone in the middle of a text."""
    connections: dict[asyncio.Task[Any], asyncio.StreamWriter] = field(default_factory=dict)
    """Those that are open."""

    @property
    def url(self) -> str:
        """Where it is, without a path."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until the client is done with it."""
        task = asyncio.current_task()
        assert task is not None
        self.connections[task] = writer
        try:
            while (request := await _read(reader)) is not None:
                self.received.append(request)
                for piece in self._reply(request):
                    if piece is Midway.BREAKS or (
                        piece is Midway.WAITS and await self._left(reader)
                    ):
                        return
                    if isinstance(piece, bytes):
                        writer.write(piece)
                        await writer.drain()
        except ConnectionError:
            pass  # the client has gone, which is its right
        finally:
            writer.close()
            del self.connections[task]

    async def _left(self, reader: asyncio.StreamReader) -> bool:
        """Wait until the first half was heard; true when the client has gone instead."""
        gone = asyncio.create_task(reader.read(1))
        heard = asyncio.create_task(self.heard.wait())
        await asyncio.wait({gone, heard}, return_when=asyncio.FIRST_COMPLETED)
        self.left += gone.done()
        for task in (gone, heard):
            task.cancel()
        await asyncio.gather(gone, heard, return_exceptions=True)
        return gone.done() and not gone.cancelled()

    async def hang_up(self) -> None:
        """End all connections."""
        for writer in self.connections.values():
            writer.close()
        await asyncio.gather(*self.connections, return_exceptions=True)

    def _reply(self, request: Received) -> Iterable[bytes | Midway]:
        """What is sent, and what happens midway."""
        if request.method != "POST" or not self.answers:
            return [_refused(Refusal(404, "Nothing is here."))]
        answer, body = self.answers.pop(0), request.body
        if isinstance(answer, Refusal):
            return [_refused(answer)]
        made = _rendered(request.path, answer, self.manner, body)
        if made is None:
            return [_refused(Refusal(404, "No such path."))]
        whole, events = made
        if not body.get("stream"):
            return [_plain(200, whole)]
        return _streamed(events, answer)


@asynccontextmanager
async def serving(
    *answers: Answer | Refusal, manner: Manner | None = None
) -> AsyncIterator[ProviderServer]:
    """A server on loopback, for as long as the block runs.

    Args:
        answers: What it says, one after the other.
        manner: How it writes chat completions.
    """
    made = ProviderServer(manner or Manner(), list(answers))
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await made.hang_up()


def _rendered(path: str, answer: Answer, manner: Manner, body: Json) -> Any:
    model = str(body.get("model", ""))
    if path.endswith("/chat/completions"):
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        return (
            say.chat_whole(answer, manner, model),
            say.chat_events(answer, manner, model, usage=usage),
        )
    if path.endswith("/responses"):
        return say.responses_whole(answer, model), say.responses_events(answer, model)
    if path.endswith("/messages"):
        return say.messages_whole(answer, model), say.messages_events(answer, model)
    return None


async def _read(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    method, target, _ = first.split(" ", 2)
    raw = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, target, headers, raw)


def _refused(refusal: Refusal) -> bytes:
    error = {"message": refusal.message, "type": "refused"}
    return _plain(refusal.status, {"type": "error", "error": error}, refusal.headers)


def _plain(status: int, body: Json, headers: Mapping[str, str] | None = None) -> bytes:
    text = json.dumps(body).encode()
    told = {"Content-Type": "application/json", "Content-Length": len(text)} | dict(headers or {})
    lines = [f"HTTP/1.1 {status} Answer", *(f"{name}: {value}" for name, value in told.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + text


def _streamed(events: Iterable[str], answer: Answer) -> Iterable[bytes | Midway]:
    first_half = say.halves(answer.text)[0]
    midway = answer.midway
    yield (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for event in events:
        data = event.encode()
        yield f"{len(data):x}\r\n".encode() + data + b"\r\n"
        if midway is not None and first_half in event:
            yield midway
            midway = None
    yield b"0\r\n\r\n"
