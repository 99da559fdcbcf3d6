"""One layer around a played client, and backends whose prices are known."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace

from ovagent_jupyter.gateway.layer import Call, Layer
from ovagent_jupyter.messages import Message, TextPart
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import ModelDelta, ModelRequest
from ovagent_jupyter.providers.provider import ModelInfo, ProviderInfo, WireAPI
from tests.gateway.played import Played

KEY = "sk-planted-0123456789abcdefghij"
"""A key that must be found nowhere."""


def through(layer: Layer, client: Played, asked: Call) -> AsyncGenerator[ModelDelta, None]:
    """The stream of a client behind a layer."""
    return layer(asked, lambda call: client.stream(call.request))


def service(
    provider: str = "made-up",
    model: str = "made-up-1",
    *,
    prices: tuple[float, float] | None = None,
    local: bool = False,
    url: str = "http://127.0.0.1:9/v1",
    max_output: int | None = None,
) -> Backend:
    """A backend of some provider and model."""
    info = ProviderInfo(
        id=provider,
        display_name=provider,
        wire_api=WireAPI.CHAT_COMPLETIONS,
        base_url=url,
        local=local,
    )
    read, written = prices or (None, None)
    return Backend(
        name=f"{provider}/{model}",
        provider=info,
        model=ModelInfo(
            id=model, window=1000, input_price=read, output_price=written, max_output=max_output
        ),
    )


def ask(text: str = "Say hello.", to: Backend | None = None, **settings: object) -> Call:
    """A call with settings of its request, of session ``s`` and turn ``t``."""
    request = ModelRequest(model="any", messages=(Message("user", (TextPart(text),)),))
    request = replace(request, **settings)  # type: ignore[arg-type]
    return Call(request=request, backend=to, session_id="s", turn_id="t")
