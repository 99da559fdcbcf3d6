"""OpenAI's SDK as both of its wires use it: how its client is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.connections import Address
from ovagent_jupyter.providers.http_client import OF_EACH_CALL, make_http, told_headers

if TYPE_CHECKING:
    from openai import AsyncOpenAI, Timeout

OWN_HEADERS = ("OpenAI-Organization", "OpenAI-Project")
"""Told from the user's environment by the SDK, and nobody's business but OpenAI's."""

CUSTOM_HEADERS = "OPENAI_CUSTOM_HEADERS"
"""Variable of which newer SDKs send what is in it; likewise."""


def make_openai(address: Address) -> AsyncOpenAI:
    """The SDK's client for an address; the first one imports the SDK."""
    import openai

    # Else the first call imports them in the event loop.
    import openai.resources.chat
    import openai.resources.responses

    headers: dict[str, object] = dict(address.headers)
    if address.provider != "openai":
        told = dict(address.headers)
        if address.sends_key_as("Authorization"):
            # Else it would be left out with one that the variable has.
            told["Authorization"] = f"Bearer {address.key.reveal()}"
        headers = dict.fromkeys(OWN_HEADERS, openai.Omit())
        headers |= told_headers(CUSTOM_HEADERS, told, openai.Omit())
    if address.key_header and address.key:
        headers[address.key_header] = address.key.reveal()
    return openai.AsyncOpenAI(
        # Without any the SDK would look for one in the environment.
        api_key=address.key.reveal() or "none",
        base_url=address.url,
        default_headers=headers,  # type: ignore[arg-type]
        default_query=dict(address.query),
        max_retries=0,
        http_client=make_http(openai.DefaultAsyncHttpxClient),
    )


def openai_timeout(seconds: float) -> Timeout:
    """The SDK's own limits: for the connection; what else it waits for is watched by us."""
    import openai

    return openai.Timeout(None, connect=seconds)


def call_options(backend: Backend) -> dict[str, Any]:
    """What every call by the SDK is given besides its body."""
    import openai

    headers: dict[str, object] = dict(OF_EACH_CALL)
    named = {name.lower() for name in (*backend.provider.headers, *backend.headers)}
    bearer = backend.key and not backend.provider.key_header
    if not bearer and "authorization" not in named:
        # Said for each call: the SDK takes it for forgotten otherwise, and refuses.
        headers["Authorization"] = openai.Omit()
    return {"timeout": openai_timeout(backend.timeouts.connect), "extra_headers": headers}
