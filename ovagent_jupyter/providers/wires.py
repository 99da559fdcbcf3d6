"""The table of wires: how a service is spoken to, and the client that does."""

from __future__ import annotations

from collections.abc import Callable

from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import ModelClient
from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.providers.provider import WireAPI
from ovagent_jupyter.registry import Registry

MakeClient = Callable[[Backend, Connections], ModelClient]
"""What a wire's class is called with."""

_HERE = "ovagent_jupyter.providers"

WIRES: Registry[MakeClient] = Registry("wire")
"""By the values of ``WireAPI``; each is imported when it is first needed."""

WIRES.register_lazy(WireAPI.CHAT_COMPLETIONS, f"{_HERE}.openai_chat:ChatCompletionsClient")
WIRES.register_lazy(WireAPI.GEMINI, f"{_HERE}.openai_chat:ChatCompletionsClient")
WIRES.register_lazy(WireAPI.RESPONSES, f"{_HERE}.openai_responses:ResponsesClient")
WIRES.register_lazy(
    WireAPI.ANTHROPIC_MESSAGES, f"{_HERE}.anthropic_messages:AnthropicMessagesClient"
)
WIRES.register_lazy(WireAPI.LOCAL, f"{_HERE}.local.client:LocalClient")


def client_for(backend: Backend, connections: Connections) -> ModelClient:
    """The client that speaks to a backend.

    Args:
        backend: Whom it asks.
        connections: Shared by all clients, and closed by who made it.

    Raises:
        RegistryError: Its wire is not known here, or a package of it is missing.
    """
    return WIRES.get(backend.wire_api)(backend, connections)
