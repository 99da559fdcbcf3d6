"""The chat-completions wire: OpenAI's, which most services speak, Google's included."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, cast

from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.chat_reading import ChatReader
from ovagent_jupyter.providers.chat_rendering import render_chat
from ovagent_jupyter.providers.client import ModelDelta, ModelRequest
from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.providers.exchange import SdkAnswer, Wire, exchange
from ovagent_jupyter.providers.openai_sdk import call_options, make_openai

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class ChatCompletionsClient:
    """Asks one backend.

    Args:
        backend: Whom it asks.
        connections: Where its connections come from.
    """

    def __init__(self, backend: Backend, connections: Connections) -> None:
        self.backend = backend
        self._connections = connections

    def stream(self, request: ModelRequest) -> AsyncIterator[ModelDelta]:
        """The answer as it comes.

        Raises:
            ConfigError: The backend's address cannot be used.
            StreamInterrupted: The stream broke off after a part of the answer; it has that part.
            ProviderError: The service failed before.
        """
        return exchange(_WIRE, self.backend, self._connections, request)


def _send(
    client: AsyncOpenAI, backend: Backend, request: ModelRequest
) -> AbstractAsyncContextManager[SdkAnswer]:
    # All fields go as extra ones: the SDK neither knows what other services take, nor does it
    # then walk through the whole conversation to convert it.
    sending = client.chat.completions.with_streaming_response.create(
        model=request.model,
        messages=[],
        extra_body=render_chat(request, backend),
        **call_options(backend),
    )
    return cast(AbstractAsyncContextManager[SdkAnswer], sending)


_WIRE = Wire(make=make_openai, send=_send, decoder=ChatReader)
