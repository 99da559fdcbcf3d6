"""Each wire with the SDKs of this environment, and the layers with their libraries, as JSON.

Run in an environment that has the package; its argument is the address of a server.
"""

from __future__ import annotations

import asyncio
import json
import sys
from importlib.metadata import version
from typing import Any

from ovagent_jupyter.config.gateway import GatewayConfig, RateConfig, RetryConfig
from ovagent_jupyter.errors import ProviderError, StreamInterrupted
from ovagent_jupyter.gateway.cache import MemoryStore, ResponseCache
from ovagent_jupyter.gateway.cost import Prices, Pricing
from ovagent_jupyter.gateway.gateway import Gateway
from ovagent_jupyter.gateway.metrics import Metrics
from ovagent_jupyter.gateway.tracing import Tracing
from ovagent_jupyter.messages import Message, TextPart, ToolResult
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import (
    AnswerSchema,
    ModelClient,
    ModelRequest,
    ToolSchema,
    collect,
)
from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.providers.credentials import Secret
from ovagent_jupyter.providers.provider import ModelInfo, ProviderInfo, WireAPI
from ovagent_jupyter.providers.wires import client_for

LIBRARIES = "aiolimiter anthropic cachetools genai-prices jiter openai opentelemetry-api".split()
"""What wires and layers are made with."""
WIRES = (WireAPI.CHAT_COMPLETIONS, WireAPI.RESPONSES, WireAPI.ANTHROPIC_MESSAGES)
LOOK = ToolSchema("look", "Looks.", {"type": "object", "properties": {"what": {"type": "string"}}})
SCHEMA = AnswerSchema(
    "cell_type",
    {
        "type": "object",
        "properties": {"cell_type": {"type": "string"}},
        "required": ["cell_type"],
        "additionalProperties": False,
    },
)


def client(wire: WireAPI, url: str, connections: Connections) -> ModelClient:
    """Our client of a wire."""
    provider = ProviderInfo(id="trial", display_name="Trial", wire_api=wire, base_url=f"{url}/v1")
    model = ModelInfo(id="small", window=8000, abilities=frozenset({"tools", "reasoning"}))
    backend = Backend(name="trial", provider=provider, model=model, key=Secret("sk-planted-key"))
    return client_for(backend, connections)


async def conversation(asked: ModelClient, *, streamed: bool) -> dict[str, Any]:
    """A tool call, its answer, an answer as JSON, and two failures."""
    question = Message("user", (TextPart("What is in obs?"),))

    def request(*messages: Message, **more: Any) -> ModelRequest:
        return ModelRequest(
            model="small",
            messages=(question, *messages),
            tools=(LOOK,),
            streamed=streamed,
            max_output_tokens=200,
            temperature=0.0,
            reasoning_effort="low",
            **more,
        )

    wish = await collect(asked.stream(request()))
    (call,) = wish.message.tool_calls
    result = Message("tool", (ToolResult(call.id, "n_genes"),))
    done = await collect(asked.stream(request(wish.message, result)))
    formed = await collect(asked.stream(request(answer_schema=SCHEMA)))
    failed: list[list[object]] = []
    for _ in range(2):
        try:
            await collect(asked.stream(request()))
        except ProviderError as error:
            partial = error.partial if isinstance(error, StreamInterrupted) else None
            said = partial.text if isinstance(partial, Message) else ""
            failed.append([error.fault, error.status_code, error.retry_after, said])
    return {
        "thinking": wish.message.reasoning,
        "call": [call.name, dict(call.arguments), wish.finish_reason],
        "text": [done.message.text, done.finish_reason],
        "json": json.loads(formed.message.text),
        "usage": [done.usage.input_tokens, done.usage.output_tokens],
        "failed": failed,
    }


async def layers(url: str, connections: Connections) -> dict[str, Any]:
    """One question twice, through layers that use each library: a failure, an answer, the cache."""
    provider = ProviderInfo(
        id="openai", display_name="Trial", wire_api=WireAPI.CHAT_COMPLETIONS, base_url=f"{url}/v1"
    )
    model = ModelInfo(id="gpt-5", window=8000)
    backend = Backend(name="trial", provider=provider, model=model, key=Secret("sk-planted-key"))
    gateway = Gateway(
        [backend],
        lambda where: client_for(where, connections),
        GatewayConfig(retry=RetryConfig(base=0.01), rate=RateConfig(requests_per_minute=600)),
        layers={
            "tracing": Tracing(),
            "metrics": Metrics(),
            "cache": ResponseCache(MemoryStore()),
            "cost": Pricing(Prices()),
        },
    )
    question = Message("user", (TextPart("What is in obs?"),))
    request = ModelRequest(model="gpt-5", messages=(question,), temperature=0.0)
    asked = await collect(gateway.stream(request))
    again = await collect(gateway.stream(request))
    await gateway.aclose()
    return {
        "text": [asked.message.text, again.message.text],
        "priced": asked.cost is not None and asked.cost > 0,
        "cached": [reply.details.get("cached") is True for reply in (asked, again)],
    }


async def main(url: str) -> None:
    """Every wire, streamed and not."""
    told: dict[str, Any] = {"versions": {name: version(name) for name in LIBRARIES}}
    connections = Connections()
    for wire in WIRES:
        asked = client(wire, url, connections)
        for streamed in (True, False):
            name = f"{wire} {'streamed' if streamed else 'whole'}"
            told[name] = await conversation(asked, streamed=streamed)
    told["layers"] = await layers(url, connections)
    await connections.aclose()
    print(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
