"""A model service for benchmarks: answers as fast as a socket takes them, in its own process.

Run as a program it prints its port. It speaks chat completions, responses and messages.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

PIECES = 2000
"""Pieces of text in a streamed answer."""
HELD = "held"
"""Name of the model that stops after each piece until the client says that it has heard one."""
PATIENCE = 0.1
"""Seconds that it waits before it sends the next all the same."""
WORDS = [f" cluster{number}" for number in range(PIECES)]
"""All different: LiteLLM ends an answer that repeats itself."""
TEXT = "".join(WORDS)

Json = dict[str, Any]


class Server:
    """Answers every request."""

    def __init__(self) -> None:
        self._heard = asyncio.Event()
        self._sent_unheard = 0
        self._streams = {wire: _streamed(wire) for wire in PIECE}
        self._wholes = {wire: _whole(wire) for wire in PIECE}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until the client is done with it."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode()
                body = await reader.readexactly(_length(head))
                await self._answer(path, body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, path: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        if path == "/heard":
            self._heard.set()
            writer.write(_plain({"sent": self._sent_unheard}))
            self._sent_unheard = 0
            return
        wire, asked = path.rsplit("/", 1)[1], json.loads(body)
        if not asked.get("stream"):
            writer.write(self._wholes[wire])
            return
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        begin, pieces, end = self._streams[wire]
        writer.write(begin)
        if asked["model"] == HELD:
            await self._hold_back(pieces, writer)
        else:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
        writer.write(end)

    async def _hold_back(self, pieces: list[bytes], writer: asyncio.StreamWriter) -> None:
        """Send piece after piece, and count how many it takes until the client hears one."""
        self._heard.clear()
        for number, piece in enumerate(pieces[:50], 1):
            self._sent_unheard = number
            writer.write(piece)
            await writer.drain()
            try:
                await asyncio.wait_for(self._heard.wait(), PATIENCE)
            except TimeoutError:
                continue
            return


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def _plain(body: Json) -> bytes:
    text = json.dumps(body).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(text)}"
    return f"{head}\r\n\r\n".encode() + text


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _data(event: Json | str) -> bytes:
    text = event if isinstance(event, str) else json.dumps(event, separators=(",", ":"))
    return _chunk(f"data: {text}\n\n".encode())


def _named(event: Json) -> bytes:
    text = json.dumps(event, separators=(",", ":"))
    return _chunk(f"event: {event['type']}\ndata: {text}\n\n".encode())


def _chat_chunk(delta: Json, end: str | None = None) -> Json:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": end}
    return {"id": "chatcmpl-9Zb1kQ3yV0m7", "object": "chat.completion.chunk", "created": 1,
            "model": "gpt-5.2", "service_tier": "default", "choices": [choice]}  # fmt: skip


CHAT_USAGE = {"prompt_tokens": 20, "completion_tokens": PIECES, "total_tokens": 20 + PIECES}
USAGE = {"input_tokens": 20, "output_tokens": PIECES}
DELTA = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
ITEM = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
SAID = {"type": "output_text", "text": WORDS[0], "annotations": []}
RESPONSE = {"id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-5.2",
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}  # fmt: skip
MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-5"}

PIECE: dict[str, Callable[[str], bytes]] = {
    "completions": lambda word: _data(_chat_chunk({"content": word})),
    "responses": lambda word: _named(
        {"type": "response.output_text.delta", "delta": word, "sequence_number": 7, "logprobs": []}
        | DELTA
    ),
    "messages": lambda word: _named(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
    ),
}


def _streamed(wire: str) -> tuple[bytes, list[bytes], bytes]:
    """How a stream begins, its pieces, and how it ends."""
    begin, end = {
        "completions": (
            _data(_chat_chunk({"role": "assistant", "content": ""})),
            _data(_chat_chunk({}, "stop"))
            + _data(_chat_chunk({}) | {"choices": [], "usage": CHAT_USAGE})
            + _data("[DONE]"),
        ),
        "responses": (
            _named({"type": "response.created", "sequence_number": 0,
                    "response": RESPONSE | {"status": "in_progress", "output": []}})
            + _named({"type": "response.output_item.added", "sequence_number": 1,
                      "output_index": 0, "item": ITEM | {"content": []}}),
            _named({"type": "response.output_item.done", "sequence_number": 8, "output_index": 0,
                    "item": ITEM | {"content": [SAID | {"text": TEXT}]}})
            + _named({"type": "response.completed", "sequence_number": 9,
                      "response": RESPONSE | {
                          "status": "completed", "usage": USAGE,
                          "output": [ITEM | {"content": [SAID | {"text": TEXT}]}]}}),
        ),
        "messages": (
            _named({"type": "message_start", "message": MESSAGE | {
                "content": [], "stop_reason": None, "stop_sequence": None, "usage": USAGE}})
            + _named({"type": "content_block_start", "index": 0,
                      "content_block": {"type": "text", "text": ""}}),
            _named({"type": "content_block_stop", "index": 0})
            + _named({"type": "message_delta", "usage": USAGE,
                      "delta": {"stop_reason": "end_turn", "stop_sequence": None}})
            + _named({"type": "message_stop"}),
        ),
    }[wire]  # fmt: skip
    return begin, [PIECE[wire](word) for word in WORDS], end + _chunk(b"")


def _whole(wire: str) -> bytes:
    """An answer in one piece."""
    said = {"role": "assistant", "content": WORDS[0], "refusal": None}
    choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": "stop"}
    answers: dict[str, Json] = {
        "completions": {"id": "chatcmpl-1", "object": "chat.completion", "created": 1,
                        "model": "gpt-5.2", "choices": [choice], "usage": CHAT_USAGE},
        "responses": RESPONSE | {"status": "completed", "usage": USAGE,
                                 "output": [ITEM | {"content": [SAID]}]},
        "messages": MESSAGE | {"content": [{"type": "text", "text": WORDS[0]}], "usage": USAGE,
                               "stop_reason": "end_turn", "stop_sequence": None},
    }  # fmt: skip
    return _plain(answers[wire])


async def main() -> None:
    """Serve until the process is ended."""
    server = await asyncio.start_server(Server().serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
