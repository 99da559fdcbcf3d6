"""Whom tests of the wires ask, and what."""

from __future__ import annotations

from ovagent_jupyter.messages import Message, TextPart
from ovagent_jupyter.providers.backend import Backend, Timeouts
from ovagent_jupyter.providers.client import ModelRequest
from ovagent_jupyter.providers.credentials import Secret
from ovagent_jupyter.providers.provider import ModelInfo, ProviderInfo, Quirks, WireAPI

KEY = "sk-planted-0123456789abcdef"
"""A key that must turn up in the header and nowhere else."""


def backend_at(
    url: str,
    wire: WireAPI = WireAPI.CHAT_COMPLETIONS,
    *,
    quirks: Quirks | None = None,
    timeouts: Timeouts | None = None,
    provider: ProviderInfo | None = None,
    **fields: object,
) -> Backend:
    """A backend of a provider called ``acme``."""
    info = provider or ProviderInfo(
        id="acme", display_name="Acme", wire_api=wire, quirks=quirks or Quirks()
    )
    given: dict[str, object] = {"key": Secret(KEY, "ACME_API_KEY")} | fields
    return Backend(
        name="acme/m",
        provider=info,
        model=ModelInfo(id="m", window=1000),
        base_url=url,
        timeouts=timeouts or Timeouts(connect=5, first_byte=5, between=5, total=20),
        **given,  # type: ignore[arg-type]
    )


def ask(text: str = "Say hello.", **fields: object) -> ModelRequest:
    """A request with one message."""
    messages = (Message("user", (TextPart(text),)),)
    return ModelRequest(**({"model": "m", "messages": messages} | fields))  # type: ignore[arg-type]
