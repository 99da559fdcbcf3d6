"""What a client makes of an answer, and how named events are sent."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.providers.client import ModelClient, Reply, collect
from tests.providers.asking import KEY, ask


def named(*values: Mapping[str, object]) -> bytes:
    """Events with their type in front, as OpenAI and Anthropic send them."""
    return "".join(f"event: {v['type']}\ndata: {json.dumps(v)}\n\n" for v in values).encode()


async def reply_to(client: ModelClient, **fields: object) -> Reply:
    """The reply to a request."""
    return await collect(client.stream(ask(**fields)))  # type: ignore[arg-type]


async def failure_of(client: ModelClient, **fields: object) -> ProviderError:
    """The failure that a request ends in; it does not tell the key."""
    with pytest.raises(ProviderError) as caught:
        await reply_to(client, **fields)
    assert KEY not in "".join(caught.value.lines())
    return caught.value
