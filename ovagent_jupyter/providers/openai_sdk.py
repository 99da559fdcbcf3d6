"""OpenAI's SDK as both of its wires use it: how its client is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.connections import Address

if TYPE_CHECKING:
    from openai import AsyncOpenAI, Timeout

OWN_HEADERS = ("OpenAI-Organization", "OpenAI-Project")
"""Told from the user's environment by the SDK, and nobody's business but OpenAI's."""


def make_openai(address: Address) -> AsyncOpenAI:
    """The SDK's client for an address; the first one imports the SDK."""
    import openai

    # Else the first call imports them in the event loop.
    import openai.resources.chat
    import openai.resources.responses

    headers: dict[str, object] = dict(address.headers)
    if address.provider != "openai":
        headers = dict.fromkeys(OWN_HEADERS, openai.Omit()) | headers
    if address.key_header and address.key:
        headers[address.key_header] = address.key.reveal()
    return openai.AsyncOpenAI(
        # Without any the SDK would look for one in the environment.
        api_key=address.key.reveal() or "none",
        base_url=address.url,
        default_headers=headers,  # type: ignore[arg-type]
        default_query=dict(address.query),
        max_retries=0,
    )


def openai_timeout(seconds: float) -> Timeout:
    """The SDK's own limits: for the connection; what else it waits for is watched by us."""
    import openai

    return openai.Timeout(None, connect=seconds)


def call_options(backend: Backend) -> dict[str, Any]:
    """What every call by the SDK is given besides its body."""
    import openai

    options: dict[str, Any] = {"timeout": openai_timeout(backend.timeouts.connect)}
    named = {name.lower() for name in (*backend.provider.headers, *backend.headers)}
    bearer = backend.key and not backend.provider.key_header
    if not bearer and "authorization" not in named:
        # Said for each call: the SDK takes it for forgotten otherwise, and refuses.
        options["extra_headers"] = {"Authorization": openai.Omit()}
    return options
