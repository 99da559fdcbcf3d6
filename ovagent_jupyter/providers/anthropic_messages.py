"""Anthropic's Messages: the wire of Claude, and of the services that imitate it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from ovagent_jupyter.providers.anthropic_reading import MessageReader
from ovagent_jupyter.providers.anthropic_rendering import body_of
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import ModelRequest
from ovagent_jupyter.providers.connections import Address
from ovagent_jupyter.providers.exchange import SdkAnswer, Wire, WireClient
from ovagent_jupyter.providers.http_client import OF_EACH_CALL, make_http, told_headers

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
        told = dict(address.headers)
        if address.sends_key_as("Authorization"):
            # Else it would be left out with one that the variable has.
            told["Authorization"] = f"Bearer {address.key.reveal()}"
        headers = told_headers(CUSTOM_HEADERS, told, anthropic.Omit())
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
        http_client=make_http(anthropic.DefaultAsyncHttpxClient),
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
        extra_headers=OF_EACH_CALL,
        extra_body=body,
        timeout=anthropic.Timeout(None, connect=backend.timeouts.connect),
    )


class AnthropicMessagesClient(WireClient):
    """A model behind the Messages wire."""

    wire = Wire(make=_make, send=_send, decoder=MessageReader)
