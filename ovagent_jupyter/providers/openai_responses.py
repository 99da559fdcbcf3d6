"""OpenAI's Responses: the wire of its own models, and of some services that speak it too."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import ModelDelta, ModelRequest
from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.providers.exchange import SdkAnswer, Wire, exchange
from ovagent_jupyter.providers.openai_sdk import call_options, make_openai
from ovagent_jupyter.providers.responses_reading import ResponseReader
from ovagent_jupyter.providers.responses_rendering import body_of

if TYPE_CHECKING:
    from openai import AsyncOpenAI


def _send(
    client: AsyncOpenAI, backend: Backend, request: ModelRequest
) -> AbstractAsyncContextManager[SdkAnswer]:
    return client.responses.with_streaming_response.create(
        stream=request.streamed, extra_body=body_of(request, backend), **call_options(backend)
    )


_WIRE = Wire(make=make_openai, send=_send, decoder=ResponseReader)


class ResponsesClient:
    """A model behind the Responses wire.

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
