"""OpenAI's Responses: the wire of its own models, and of some services that speak it too."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import ModelRequest
from ovagent_jupyter.providers.exchange import SdkAnswer, Wire, WireClient
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


class ResponsesClient(WireClient):
    """A model behind the Responses wire."""

    wire = Wire(make=make_openai, send=_send, decoder=ResponseReader)
