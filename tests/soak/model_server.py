"""A model service that repeats what it is told, word by word, and fails now and then.

``python -m tests.soak.model_server 0.05`` prints its port, and at the end of its input what it has
done, as JSON. The text of the last message says what is to be repeated: ``name words``; the answer
is ``name.0 name.1 …``, so that an answer that was mixed with another is known by its words.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections import Counter
from contextlib import suppress

FAULTS = ("429", "529", "500", "cut at once", "cut in the middle", "hang")
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PAUSE = 0.1
"""Seconds between two words."""


def words(name: str, count: int) -> list[str]:
    """The answer."""
    return [f"{name}.{number} " for number in range(count)]


class ModelServer:
    """Answers, or fails.

    Args:
        faults: Share of the requests that fail.
    """

    def __init__(self, faults: float) -> None:
        self.done: Counter[str] = Counter()
        self.running = 0
        self.most = 0
        self._faults = faults
        self._random = random.Random(7)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._answer(reader, writer):
                    pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        said = json.loads(await reader.readexactly(length))["messages"][-1]["content"]
        name, _, count = said.partition(" ")
        fault = self._random.choice(FAULTS) if self._random.random() < self._faults else ""
        self.done[fault or "answered"] += 1
        if fault.isdigit():
            body = b'{"error": {"message": "not now"}}'
            writer.write(
                b"HTTP/1.1 %s No\r\ncontent-length: %d\r\n\r\n%s"
                % (fault.encode(), len(body), body)
            )
            await writer.drain()
            return True
        if fault == "hang":
            await reader.read(1)
        if fault in {"hang", "cut at once"}:
            return False
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await self._speak(writer, words(name, int(count)), cut=bool(fault))
        finally:
            self.running -= 1

    async def _speak(self, writer: asyncio.StreamWriter, said: list[str], *, cut: bool) -> bool:
        writer.write(HEAD)
        for number, word in enumerate(said):
            if cut and number == len(said) // 2:
                return False
            writer.write(_event({"content": word}))
            await writer.drain()
            await asyncio.sleep(PAUSE)
        writer.write(_event({}, "stop"))
        usage = {
            "prompt_tokens": 10,
            "completion_tokens": len(said),
            "total_tokens": 10 + len(said),
        }
        writer.write(_chunk(f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n"))
        writer.write(_chunk("data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()
        return True


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return _chunk(f"data: {json.dumps({'id': 'r', 'model': 'm', 'choices': [choice]})}\n\n")


def _chunk(text: str) -> bytes:
    data = text.encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


async def serve(faults: float) -> None:
    """Serve until the input ends; then tell what was done."""
    model = ModelServer(faults)
    server = await asyncio.start_server(model.accept, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(json.dumps({"done": model.done, "most": model.most}), flush=True)
    server.close()
    os._exit(0)  # what is still connected is waited for by nobody


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
