"""Our ways to ask a model, to be measured beside those of others."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import cast

from benchmarks.model_clients import KEY, PROMPT, Way
from benchmarks.model_server import HELD
from ovagent_jupyter.events import AgentEvent, Category, Emitter
from ovagent_jupyter.gateway.cost import Prices, Pricing
from ovagent_jupyter.gateway.gateway import Gateway
from ovagent_jupyter.gateway.metrics import Metrics
from ovagent_jupyter.gateway.tracing import Tracing
from ovagent_jupyter.messages import Message, TextPart
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import ModelClient, ModelDelta, ModelRequest, collect
from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.providers.credentials import Secret
from ovagent_jupyter.providers.provider import ModelInfo, ProviderInfo, WireAPI
from ovagent_jupyter.providers.wires import client_for

WIRES = {
    "ours-chat": (WireAPI.CHAT_COMPLETIONS, "/v1"),
    "ours-responses": (WireAPI.RESPONSES, "/v1"),
    "ours-messages": (WireAPI.ANTHROPIC_MESSAGES, ""),
    "ours-gateway": (WireAPI.CHAT_COMPLETIONS, "/v1"),
}


class Ours:
    """Our clients of both models.

    Args:
        clients: What is asked, by the id of the model.
        emit: Tells of each piece, as a turn does.
    """

    def __init__(self, clients: Mapping[str, ModelClient], emit: Emitter | None = None) -> None:
        self._clients = clients
        self._emit = emit

    async def stream(self, model: str) -> AsyncIterator[object]:
        """Pass on each text."""
        deltas = cast(
            "AsyncGenerator[ModelDelta, None]", self._clients[model].stream(_request(model))
        )
        async with aclosing(deltas):
            async for delta in deltas:
                if delta.text:
                    if self._emit is not None:
                        self._emit(Category.MODEL_DELTA, "", text=delta.text, reasoning="")
                    yield delta.text

    async def call(self) -> object:
        """Read the answer."""
        request = _request("fast", streamed=False)
        return (await collect(self._clients["fast"].stream(request))).message.text


def _request(model: str, *, streamed: bool = True) -> ModelRequest:
    asked = (Message("user", (TextPart(PROMPT),)),)
    return ModelRequest(model=model, messages=asked, streamed=streamed, max_output_tokens=4096)


def _client(name: str, model: str, url: str, connections: Connections) -> ModelClient:
    wire, path = WIRES[name]
    backend = Backend(
        name="measured",
        provider=ProviderInfo(id="measured", display_name="Measured", wire_api=wire),
        model=ModelInfo(id=model, window=1_000_000),
        base_url=url + path,
        key=Secret(KEY),
    )
    if name != "ours-gateway":
        return client_for(backend, connections)
    # All layers that are on unless somebody turns them off.
    return Gateway(
        [backend],
        lambda where: client_for(where, connections),
        layers={"tracing": Tracing(), "metrics": Metrics(), "cost": Pricing(Prices())},
    )


def way(name: str, url: str) -> Way:
    """One of ours by its name: a wire alone, or all default layers around it."""
    connections = Connections()
    emit = Emitter(_heard, "session", "turn") if name == "ours-gateway" else None
    clients = {model: _client(name, model, url, connections) for model in ("fast", HELD)}
    return Ours(clients, emit)


def _heard(event: AgentEvent) -> None:
    """Somebody who does nothing with an event."""
