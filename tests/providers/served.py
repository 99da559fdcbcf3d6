"""A small HTTP server for tests: it answers what it was told, in pieces, with pauses and cuts.

>>> async with Served() as server:
...     server.answer(events('{"choices": []}'), CUT)      # one answer, of steps
...     server.url                                         # http://127.0.0.1:PORT
...     server.requests[0].body                            # what came, decoded

Each request takes the next answer; ``server.always(…)`` is for those after the last. Steps are
bytes (one chunk of the body each), ``Pause(seconds)``, ``CUT`` (the connection is dropped),
``HANG`` (nothing more until the client goes away) and ``FLOOD`` (the piece before, for ever).
``server.gone`` counts clients that went away before their answer had ended.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

GONE = (ConnectionError, asyncio.IncompleteReadError)


@dataclass(frozen=True, slots=True)
class Pause:
    """A wait between two pieces."""

    seconds: float


CUT: Literal["cut"] = "cut"
HANG: Literal["hang"] = "hang"
FLOOD: Literal["flood"] = "flood"
Step = bytes | Pause | Literal["cut", "hang", "flood"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer."""

    steps: tuple[Step, ...] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    head: bool = True
    """False: the steps are all that is sent, for what happens before there is a head."""


@dataclass(frozen=True, slots=True)
class Received:
    """One request."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: Any
    connection: int
    """Which of the server's connections it came by."""


class Served:
    """The server; see the top of this module."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self.gone = 0
        self._someone_came = asyncio.Event()
        self._someone_left = asyncio.Event()
        self._answers: list[Answer] = []
        self._always: Answer | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    def answer(
        self,
        *steps: Step,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        head: bool = True,
    ) -> Self:
        """Add an answer."""
        self._answers.append(
            Answer(steps=steps, status=status, headers=headers or STREAM, head=head)
        )
        return self

    def always(
        self, *steps: Step, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Self:
        """What is answered when there is nothing else."""
        self._always = Answer(steps=steps, status=status, headers=headers or STREAM)
        return self

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", 0, backlog=1000)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def came(self, count: int = 1) -> None:
        """Wait until that many requests have come."""
        while len(self.requests) < count:
            self._someone_came.clear()
            await self._someone_came.wait()

    async def left(self, count: int = 1) -> None:
        """Wait until that many clients have gone before their answer had ended, or all have.

        One that gave up before its request was read has no answer that could have ended.
        """
        while self.gone < count and self._tasks:
            self._someone_left.clear()
            await self._someone_left.wait()

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: that of asyncio complains of being cancelled.
        task = asyncio.create_task(self._accept(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._someone_left.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            while await self._one(number, reader, writer):
                pass
        except GONE:
            self._note_gone()
        finally:
            writer.close()
            with suppress(*GONE):
                await writer.wait_closed()

    def _note_gone(self) -> None:
        self.gone += 1
        self._someone_left.set()

    async def _one(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except GONE:
            return False  # no request was under way
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        said = json.loads(body) if body else None
        self.requests.append(Received(method, path, headers, said, number))
        self._someone_came.set()
        answer = self._answers.pop(0) if self._answers else self._always
        answer = answer or Answer(status=418, steps=(b'{"error": "no answer is left"}',))
        return await self._play(answer, reader, writer)

    async def _play(
        self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if answer.head:
            lines = [f"HTTP/1.1 {answer.status} Answer", "transfer-encoding: chunked"]
            lines += [f"{name}: {value}" for name, value in answer.headers.items()]
            writer.write("\r\n".join([*lines, "\r\n"]).encode("latin-1"))
        last = b""
        for step in answer.steps:
            if isinstance(step, bytes):
                last = step
                writer.write(_chunk(step) if answer.head else step)
                await writer.drain()
            elif isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
            elif step == "cut":
                return False
            elif step == "hang":
                await self._until_gone(reader)
                return False
            else:
                while True:
                    writer.write(_chunk(last))
                    await writer.drain()
        if not answer.head:
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _until_gone(self, reader: asyncio.StreamReader) -> None:
        while await reader.read(1024):
            pass
        self._note_gone()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


STREAM = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json"}
PAGE = {"content-type": "text/html"}


def events(*values: object, done: bool = False) -> bytes:
    """A stream of events, one for each value: text as it is, all else as JSON."""
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return "".join(f"data: {text}\n\n" for text in [*texts, *(["[DONE]"] if done else [])]).encode()


def in_chunks(body: bytes, size: int) -> Iterable[bytes]:
    """A body in pieces of that size."""
    return [body[start : start + size] for start in range(0, len(body), size)]
