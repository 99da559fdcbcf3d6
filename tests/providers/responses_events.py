"""What a server that speaks OpenAI's Responses sends, and who asks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.providers.openai_responses import ResponsesClient
from ovagent_jupyter.providers.provider import WireAPI
from tests.providers.asking import backend_at
from tests.providers.served import Served

USAGE = {
    "input_tokens": 20,
    "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 4},
    "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 5},
}
SEALED = {"type": "reasoning", "id": "rs_1", "status": "completed", "summary": [], "content": None,
          "encrypted_content": "c2VhbGVk"}  # fmt: skip
RUN = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "run"}

Make = Callable[..., ResponsesClient]


def created() -> dict[str, object]:
    head = {"id": "resp_1", "model": "m-2026", "status": "in_progress", "output": []}
    return {"type": "response.created", "response": head}


def text(piece: str, place: int = 0) -> dict[str, object]:
    return {"type": "response.output_text.delta", "output_index": place, "delta": piece}


def arguments(piece: str, place: int = 0) -> dict[str, object]:
    kind = "response.function_call_arguments.delta"
    return {"type": kind, "output_index": place, "delta": piece}


def added(item: dict[str, object], place: int = 0) -> dict[str, object]:
    return {"type": "response.output_item.added", "output_index": place, "item": item}


def done(item: dict[str, object], place: int = 0) -> dict[str, object]:
    return {"type": "response.output_item.done", "output_index": place, "item": item}


def ending(status: str = "completed", **fields: object) -> dict[str, object]:
    response = {"id": "resp_1", "model": "m-2026", "status": status, "usage": USAGE} | fields
    return {"type": f"response.{status}", "response": response}


def message(*content: dict[str, object]) -> dict[str, object]:
    return {"type": "message", "role": "assistant", "content": list(content)}


HELLO = [created(), text("Hel"), text("lo."), ending()]


def responses_at(served: Served, connections: Connections) -> Make:
    """Makes clients of the server."""

    def made(abilities: tuple[str, ...] = (), **fields: object) -> ResponsesClient:
        backend = backend_at(f"{served.url}/v1", WireAPI.RESPONSES, **fields)  # type: ignore[arg-type]
        model = replace(backend.model, abilities=frozenset(abilities))  # type: ignore[arg-type]
        return ResponsesClient(replace(backend, model=model), connections)

    return made
