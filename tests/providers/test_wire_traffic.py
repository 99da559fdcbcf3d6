"""Recorded answers of model services, served whole and in tiny pieces: each as it is expected.

The recordings are not part of the project; ``OVAGENT_WIRE_TRAFFIC`` names their folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ovagent_jupyter.errors import ProviderError, StreamInterrupted
from ovagent_jupyter.messages import Message, Usage
from ovagent_jupyter.providers.client import Reply, collect
from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.providers.provider import WireAPI
from ovagent_jupyter.providers.wires import client_for
from tests.providers.asking import ask, backend_at
from tests.providers.served import Served, in_chunks


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How answers to one kind of path are read, and what their expectations mean."""

    wire: WireAPI
    base: str
    """Path of the base URL."""
    finishes: Mapping[str, str] = field(default_factory=dict)
    """The service's words for why it stopped, and ours; of the same name where not given."""
    cache_apart: bool = False
    """Whether its ``input`` leaves out what came from, or went to, the cache."""


ROWS = {
    "/chat/completions": Row(
        wire=WireAPI.CHAT_COMPLETIONS, base="/v1", finishes={"content_filter": "refused"}
    ),
    "/responses": Row(wire=WireAPI.RESPONSES, base="/v1", finishes={"completed": "stop"}),
    "/messages": Row(
        wire=WireAPI.ANTHROPIC_MESSAGES,
        base="",
        finishes={"end_turn": "stop", "refusal": "refused"},
        cache_apart=True,
    ),
}
"""By the end of the recorded path."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded exchange."""

    name: str
    row: Row
    response: Mapping[str, Any]
    expect: Mapping[str, Any]


def recorded() -> Iterator[Recorded]:
    """All exchanges of the folder that a row reads."""
    folder = os.environ.get("OVAGENT_WIRE_TRAFFIC", "")
    for path in sorted(Path(folder).glob("*.json")) if folder else ():
        if path.name == "INDEX.json":
            continue
        for number, each in enumerate(json.loads(path.read_text("utf-8"))["interactions"]):
            row = next(
                (r for end, r in ROWS.items() if each["request"]["path"].endswith(end)), None
            )
            if row is not None and not each["expect"].get("raw"):
                yield Recorded(f"{path.stem}-{number}", row, each["response"], each["expect"])


RECORDED = tuple(recorded())


async def asked(
    server: Served, connections: Connections, each: Recorded, size: int
) -> Reply | ProviderError:
    """The reply, or the failure, that an exchange ends in."""
    body = each.response["body"].encode()
    pieces = in_chunks(body, size) if size else [body]
    server.answer(*pieces, status=each.response["status"], headers=each.response["headers"])
    backend = backend_at(server.url + each.row.base, each.row.wire)
    client = client_for(backend, connections)
    streamed = bool(each.expect.get("stream"))
    try:
        return await collect(client.stream(ask(streamed=streamed)))
    except ProviderError as error:
        return error


@pytest.mark.skipif(not RECORDED, reason="OVAGENT_WIRE_TRAFFIC names no folder with recordings")
@pytest.mark.parametrize("size", [0, 5], ids=["whole", "5-bytes"])
@pytest.mark.parametrize("each", RECORDED, ids=lambda each: each.name)
async def test_recorded_exchange(
    served: Served, connections: Connections, each: Recorded, size: int
) -> None:
    got = await asked(served, connections, each, size)
    expect = each.expect
    if expect.get("malformed"):
        assert isinstance(got, ProviderError)
        assert got.fault == "malformed"
        assert not isinstance(got, StreamInterrupted)
    elif expect["status"] != 200:
        assert isinstance(got, ProviderError)
        assert got.status_code == expect["status"]
        assert not got.retryable
        assert expect["error"]["message"][:100] in got.why
    elif "error" in expect:
        assert isinstance(got, StreamInterrupted)
        assert expect["error"]["message"][:100] in got.why
        assert isinstance(got.partial, Message)
        assert_said(got.partial, expect)
        assert isinstance(got.usage, Usage)
        assert_usage(got.usage, each)
    else:
        assert isinstance(got, Reply), got
        assert_said(got.message, expect)
        assert_usage(got.usage, each)
        assert got.finish_reason == finish_of(each)
        # Anthropic's reason for a refusal is told beside the answer, and not recorded apart.
        assert got.details.get("refusal") == expect.get("refusal") or got.details["stop_details"]


def finish_of(each: Recorded) -> str:
    """Our word for why it stopped."""
    if each.expect.get("refusal"):
        return "refused"
    if each.expect["tool_calls"]:
        return "tool_calls"
    told = each.expect["finish"]
    return each.row.finishes.get(told, told)


def assert_said(message: Message, expect: Mapping[str, Any]) -> None:
    """Text, calls and thinking are what was recorded."""
    assert message.text == expect["text"]
    calls = [(call.name, dict(call.arguments)) for call in message.tool_calls]
    assert calls == [
        (call["name"], json.loads(call["arguments"] or "{}")) for call in expect["tool_calls"]
    ]
    assert all(call.id and not call.unreadable for call in message.tool_calls)
    assert len({call.id for call in message.tool_calls}) == len(calls)
    assert len(message.reasoning) == expect.get("reasoning_chars", 0)


def assert_usage(usage: Usage, each: Recorded) -> None:
    """Tokens are what was recorded; estimated where nothing was."""
    told = each.expect["usage"]
    if told["input"] is None:
        assert usage.estimated
        assert usage.input_tokens > 0
        return
    cached, stored = told.get("cached") or 0, told.get("cache_write") or 0
    apart = cached + stored if each.row.cache_apart else 0
    assert not usage.estimated
    assert usage.input_tokens == told["input"] + apart
    assert usage.output_tokens == told["output"]
    assert usage.cached_tokens == cached
    assert usage.cache_write_tokens == stored or "cache_write" not in told
    assert usage.reasoning_tokens == (told.get("reasoning") or 0) or "reasoning" not in told
