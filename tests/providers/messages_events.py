"""What a server that speaks Anthropic's Messages sends, and who asks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ovagent_jupyter.providers.anthropic_messages import AnthropicMessagesClient
from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.providers.provider import WireAPI
from tests.providers.asking import backend_at
from tests.providers.served import Served

Make = Callable[..., AnthropicMessagesClient]

USAGE = {
    "input_tokens": 10,
    "cache_read_input_tokens": 8,
    "cache_creation_input_tokens": 4,
    "output_tokens": 1,
}
TEXT = {"type": "text", "text": ""}
THINKING = {"type": "thinking", "thinking": "", "signature": ""}
RUN = {"type": "tool_use", "id": "toolu_1", "name": "run", "input": {}}
STOP = {"type": "message_stop"}
PING = {"type": "ping"}


def start(usage: dict[str, object] | None = None) -> dict[str, object]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m-2026",
               "content": [], "usage": USAGE if usage is None else usage}  # fmt: skip
    return {"type": "message_start", "message": message}


def begun(block: dict[str, object], index: int = 0) -> dict[str, object]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(kind: str, index: int = 0, **fields: object) -> dict[str, object]:
    told = {"type": f"{kind}_delta"} | fields
    return {"type": "content_block_delta", "index": index, "delta": told}


def stopped(index: int = 0) -> dict[str, object]:
    return {"type": "content_block_stop", "index": index}


def text(piece: str, index: int = 0) -> dict[str, object]:
    return delta("text", index, text=piece)


def ending(reason: str | None = "end_turn", **fields: object) -> dict[str, object]:
    usage = {"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 5}}
    told = {"stop_reason": reason, "stop_sequence": None}
    return {"type": "message_delta", "delta": told, "usage": usage} | fields


def calling(name: str, call_id: str, index: int, *pieces: str) -> list[dict[str, object]]:
    block = RUN | {"name": name, "id": call_id}
    written = [delta("input_json", index, partial_json=piece) for piece in ("", *pieces)]
    return [begun(block, index), *written, stopped(index)]


HELLO = [start(), begun(TEXT), PING, text("Hel"), text("lo."), stopped(), ending(), STOP]
"""An answer."""


def messages_at(served: Served, connections: Connections) -> Make:
    """Makes clients of the server."""

    def made(
        abilities: tuple[str, ...] = (), model: dict[str, object] | None = None, **fields: object
    ) -> AnthropicMessagesClient:
        backend = backend_at(served.url, WireAPI.ANTHROPIC_MESSAGES, **fields)  # type: ignore[arg-type]
        told = {"abilities": frozenset(abilities)} | (model or {})
        known = replace(backend.model, **told)  # type: ignore[arg-type]
        return AnthropicMessagesClient(replace(backend, model=known), connections)

    return made
