"""Anthropic's Messages: the wire of Claude, and of the services that imitate it."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from ovagent_jupyter.providers.anthropic_reading import MessageReader
from ovagent_jupyter.providers.anthropic_rendering import body_of
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import ModelDelta, ModelRequest
from ovagent_jupyter.providers.connections import Address, Connections
from ovagent_jupyter.providers.exchange import SdkAnswer, Wire, exchange

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic


CUSTOM_HEADERS = "ANTHROPIC_CUSTOM_HEADERS"
"""Variable of which the SDK sends what is in it; nobody's business but Anthropic's."""


def _make(address: Address) -> AsyncAnthropic:
    import anthropic

    # Else the first call would import it, in the event loop.
    import anthropic.resources.messages

    headers: dict[str, object] = dict(address.headers)
    if address.provider != "anthropic":
        custom = os.environ.get(CUSTOM_HEADERS, "").split("\n")
        names = (line.partition(":")[0].strip() for line in custom if ":" in line)
        headers = dict.fromkeys(names, anthropic.Omit()) | headers
    if address.key_header or not address.key:
        headers = {"Authorization": anthropic.Omit(), "X-Api-Key": anthropic.Omit()} | headers
    if address.key_header and address.key:
        headers[address.key_header] = address.key.reveal()
    return anthropic.AsyncAnthropic(
        # Without any the SDK would look for one in the environment and in files.
        api_key=address.key.reveal() or "none",
        base_url=address.url,
        default_headers=headers,  # type: ignore[arg-type]
        default_query=dict(address.query),
        max_retries=0,
        open_telemetry=False,
    )


def _send(
    client: AsyncAnthropic, backend: Backend, request: ModelRequest
) -> AbstractAsyncContextManager[SdkAnswer]:
    import anthropic

    body = body_of(request, backend, anthropic.transform_schema)
    return client.messages.with_streaming_response.create(
        # The body replaces these: by name the SDK warns of models that it holds for old, and
        # refuses fields that older models and other services take.
        model="",
        max_tokens=0,
        messages=(),
        stream=bool(body["stream"]),
        extra_body=body,
        timeout=anthropic.Timeout(None, connect=backend.timeouts.connect),
    )


_WIRE = Wire(make=_make, send=_send, decoder=MessageReader)


class AnthropicMessagesClient:
    """A model behind the Messages wire.

    Args:
        backend: Whom it asks.
        connections: Where its connections are kept.
    """

    def __init__(self, backend: Backend, connections: Connections) -> None:
        self._backend = backend
        self._connections = connections

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelDelta, None]:
        """The answer as it comes; closing it ends the call.

        Raises:
            ConfigError: The backend's address cannot be used.
            StreamInterrupted: The answer broke off after a part of it had come.
            ProviderError: The service failed before.
        """
        return exchange(_WIRE, self._backend, self._connections, request)
