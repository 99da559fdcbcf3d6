"""The chat-completions wire: OpenAI's, which most services speak, Google's included."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, cast

from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.chat_reading import ChatReader
from ovagent_jupyter.providers.chat_rendering import render_chat
from ovagent_jupyter.providers.client import ModelRequest
from ovagent_jupyter.providers.exchange import SdkAnswer, Wire, WireClient
from ovagent_jupyter.providers.openai_sdk import call_options, make_openai

if TYPE_CHECKING:
    from openai import AsyncOpenAI


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


class ChatCompletionsClient(WireClient):
    """A model behind the chat-completions wire."""

    wire = Wire(make=make_openai, send=_send, decoder=ChatReader)
