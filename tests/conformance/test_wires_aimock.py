"""Each wire against aimock: scenarios and faults, streamed or not, and what was really sent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest

from ovagent_jupyter.errors import ProviderError, StreamInterrupted
from ovagent_jupyter.messages import Message, TextPart, ToolCall, ToolResult
from ovagent_jupyter.providers.backend import Backend, Timeouts
from ovagent_jupyter.providers.client import (
    AnswerSchema,
    ModelClient,
    ModelDelta,
    ModelRequest,
    Reply,
    ToolSchema,
)
from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.providers.credentials import Secret
from ovagent_jupyter.providers.provider import ModelInfo, ProviderInfo, WireAPI
from ovagent_jupyter.providers.wires import client_for
from tests.conformance.aimock import Aimock

WIRES = {
    WireAPI.CHAT_COMPLETIONS: ("/v1", "/v1/chat/completions", "gpt-5.2"),
    WireAPI.RESPONSES: ("/v1", "/v1/responses", "gpt-5.2"),
    WireAPI.ANTHROPIC_MESSAGES: ("", "/v1/messages", "claude-opus-5"),
}
"""By wire: what is added to the base URL, the path that is asked, and a model."""
LOOK = ToolSchema(
    "look",
    "Looks at a table.",
    {
        "type": "object",
        "properties": {"what": {"type": "string"}, "rows": {"type": "integer"}},
        "required": ["what"],
    },
)
COUNT = ToolSchema("count", "Counts.", {"type": "object", "properties": {"of": {"type": "string"}}})
CELL_TYPE = AnswerSchema(
    "cell_type",
    {
        "type": "object",
        "properties": {
            "cell_type": {"type": "string"},
            "markers": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["cell_type", "markers"],
        "additionalProperties": False,
    },
)


@dataclass(slots=True)
class Asked:
    """One wire to aimock, streamed or not."""

    server: Aimock
    wire: WireAPI
    streamed: bool
    test_id: str
    key: str
    connections: Connections
    timeouts: Timeouts = field(default_factory=Timeouts)

    @property
    def client(self) -> ModelClient:
        """Our client of the wire."""
        base, _, model = WIRES[self.wire]
        provider = ProviderInfo(id="trial", display_name="Trial", wire_api=self.wire)
        return client_for(
            Backend(
                name="trial",
                provider=provider,
                model=ModelInfo(id=model, window=200_000, abilities=frozenset({"reasoning"})),
                base_url=self.server.url + base,
                key=Secret(self.key),
                headers={"X-Test-Id": self.test_id},
                timeouts=self.timeouts,
            ),
            self.connections,
        )

    def request(self, said: str | tuple[Message, ...], **more: Any) -> ModelRequest:
        """What is asked, of the wire's model."""
        messages = (Message("user", (TextPart(said),)),) if isinstance(said, str) else said
        more = {"max_output_tokens": 2000} | more
        return ModelRequest(
            model=WIRES[self.wire][2], messages=messages, streamed=self.streamed, **more
        )

    async def deltas(self, said: str | tuple[Message, ...], **more: Any) -> list[ModelDelta]:
        """All that streams back."""
        return [delta async for delta in self.client.stream(self.request(said, **more))]

    async def reply(self, said: str | tuple[Message, ...], **more: Any) -> Reply:
        """What it adds up to; the pieces must say the same."""
        deltas = await self.deltas(said, **more)
        assert [d.reply is not None for d in deltas] == [False] * (len(deltas) - 1) + [True]
        reply = deltas[-1].reply
        assert reply is not None
        assert "".join(d.text for d in deltas) == reply.message.text
        assert "".join(d.reasoning for d in deltas) == reply.message.reasoning
        assert tuple(d.tool_call for d in deltas if d.tool_call) == reply.message.tool_calls
        assert deltas[-1].finish_reason == reply.finish_reason
        return reply

    async def failure(self, said: str) -> tuple[ProviderError, str]:
        """How it fails, and the text that came before."""
        came: list[ModelDelta] = []

        async def listen() -> None:
            async for delta in self.client.stream(self.request(said, tools=(LOOK,))):
                came.append(delta)  # noqa: PERF401 - what came before the failure is kept

        with pytest.raises(ProviderError) as failed:
            await listen()
        assert not any(delta.reply or delta.tool_call for delta in came)
        assert self.key not in repr(failed.value) + str(failed.value)
        return failed.value, "".join(delta.text for delta in came)

    def journal(self) -> list[dict[str, Any]]:
        """What was sent; each request to the wire's path, as what it is, the key in its place."""
        entries = self.server.journal(self.test_id)
        for entry in entries:
            assert entry["path"] == WIRES[self.wire][1]
            assert entry["headers"]["x-stainless-retry-count"] == "0"
            assert entry["headers"]["authorization"] == "[REDACTED]"
            assert self.key not in json.dumps(entry)
            assert entry["body"]["model"] == WIRES[self.wire][2]
            assert bool(entry["body"].get("stream")) is self.streamed
        return entries


@pytest.fixture(params=[True, False], ids=["streamed", "whole"])
def streamed(request: pytest.FixtureRequest) -> bool:
    """Whether the answer streams on the wire."""
    value: bool = request.param
    return value


@pytest.fixture(params=list(WIRES), ids=str)
async def asked(
    request: pytest.FixtureRequest, aimock: Aimock, streamed: bool
) -> AsyncIterator[Asked]:
    """Each wire, streamed and not."""
    connections = Connections()
    yield Asked(aimock, request.param, streamed, uuid4().hex, aimock.key, connections)
    await connections.aclose()


# -- what a model says ------------------------------------------------------------------------


async def test_a_text(asked: Asked) -> None:
    reply = await asked.reply("scenario: text")
    text = "Twelve clusters were found, café included, and each has its markers."
    assert reply.message.text == text
    assert reply.message.provider == "trial"
    assert reply.finish_reason == "stop"
    assert reply.model == WIRES[asked.wire][2]
    assert reply.response_id
    (entry,) = asked.journal()
    assert entry["response"]["status"] == 200
    assert entry["body"]["messages"][-1] == {"role": "user", "content": "scenario: text"}


async def test_a_streamed_text_comes_in_pieces(asked: Asked) -> None:
    pieces = [delta.text for delta in await asked.deltas("scenario: text") if delta.text]
    assert len(pieces) >= 4 if asked.streamed else len(pieces) == 1


async def test_what_was_spent_is_known(asked: Asked) -> None:
    usage = (await asked.reply("scenario: text")).usage
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (21, 13, False)


async def test_a_tool_call(asked: Asked) -> None:
    reply = await asked.reply("scenario: tool call", tools=(LOOK, COUNT))
    assert reply.message.text == "I look first."
    (call,) = reply.message.tool_calls
    assert (call.id, call.name) == ("call_look_1", "look")
    assert call.arguments == {"what": "obs", "rows": 5}
    assert reply.finish_reason == "tool_calls"
    (entry,) = asked.journal()
    sent = {tool["function"]["name"]: tool["function"] for tool in entry["body"]["tools"]}
    assert set(sent) == {"look", "count"}
    assert sent["look"]["parameters"]["properties"]["rows"] == {"type": "integer"}


async def test_parallel_tool_calls(asked: Asked) -> None:
    reply = await asked.reply("scenario: parallel tool calls", tools=(LOOK, COUNT))
    calls = {call.id: (call.name, dict(call.arguments)) for call in reply.message.tool_calls}
    assert list(calls.items()) == [
        ("call_look_1", ("look", {"what": "obs", "rows": 5})),
        ("call_count_2", ("count", {"of": "“genes”\n"})),
        ("call_list_3", ("list_layers", {})),
    ]
    assert reply.finish_reason == "tool_calls"


@pytest.mark.parametrize("effort", ["", "low"])
async def test_a_tool_is_answered(asked: Asked, effort: str) -> None:
    # With an effort, aimock refuses an Anthropic conversation whose thinking does not come back.
    question = Message("user", (TextPart("scenario: round trip"),))
    wish = await asked.reply((question,), tools=(LOOK,), reasoning_effort=effort)
    (call,) = wish.message.tool_calls
    assert wish.message.reasoning == "The table has to be seen before it is described."
    result = Message("tool", (ToolResult(call.id, "columns: n_genes"),))
    reply = await asked.reply(
        (question, wish.message, result), tools=(LOOK,), reasoning_effort=effort
    )
    assert reply.message.text == "The table has one column, n_genes."
    assert reply.finish_reason == "stop"
    _, second = asked.journal()
    said, answer = second["body"]["messages"][-2:]
    assert said["role"] == "assistant"
    (sent,) = said["tool_calls"]
    assert sent["id"] == answer["tool_call_id"] == "call_look_1"
    assert json.loads(sent["function"]["arguments"]) == {"what": "obs", "rows": 5}
    assert (answer["role"], answer["content"]) == ("tool", "columns: n_genes")


async def test_thinking(asked: Asked) -> None:
    reply = await asked.reply("scenario: thinking")
    assert reply.message.reasoning == "Two and two. That is four, as far as I can see."
    assert reply.message.text == "Four."


async def test_a_structured_answer(asked: Asked) -> None:
    reply = await asked.reply("scenario: structured", answer_schema=CELL_TYPE)
    assert json.loads(reply.message.text) == {"cell_type": "NK", "markers": ["NKG7", "GNLY"]}
    (entry,) = asked.journal()
    if asked.wire is WireAPI.CHAT_COMPLETIONS:
        assert entry["body"]["response_format"]["type"] == "json_schema"
        assert entry["response"]["fixture"]["match"]["responseFormat"] == "json_schema"


async def test_an_answer_that_is_cut_by_its_length(asked: Asked) -> None:
    reply = await asked.reply("scenario: cut by its length")
    assert reply.message.text == "There are far too many"
    assert reply.finish_reason == "length"


async def test_a_slow_first_token(asked: Asked) -> None:
    reply = await asked.reply("scenario: slow first token")
    assert reply.message.text == "It took a while, and then it came piece after piece to the end."
    assert reply.first_token is not None
    assert 0 < reply.first_token <= reply.latency


# -- how it fails -----------------------------------------------------------------------------


async def test_too_many_requests(asked: Asked) -> None:
    error, text = await asked.failure("fault: 429")
    assert (error.fault, error.status_code, error.retryable) == ("rate_limited", 429, True)
    assert error.retry_after == 7
    assert error.provider == "trial"
    assert "Too many requests for this key." in str(error)
    assert text == ""
    assert len(asked.journal()) == 1


async def test_a_server_that_breaks(asked: Asked) -> None:
    error, _ = await asked.failure("fault: 500")
    assert (error.fault, error.status_code, error.retryable) == ("server", 500, True)
    assert len(asked.journal()) == 1


async def test_a_server_that_is_overloaded(asked: Asked) -> None:
    error, _ = await asked.failure("fault: 529")
    assert (error.fault, error.status_code, error.retryable) == ("overloaded", 529, True)
    assert len(asked.journal()) == 1


async def test_an_answer_that_is_no_json_and_no_stream(asked: Asked) -> None:
    error, text = await asked.failure("fault: malformed")
    assert type(error) is ProviderError
    assert error.fault == "malformed"
    assert text == ""
    assert len(asked.journal()) == 1


async def test_a_connection_that_breaks_before_the_answer(asked: Asked) -> None:
    error, text = await asked.failure("fault: disconnect")
    assert type(error) is ProviderError
    assert error.fault in {"unreachable", "interrupted"}
    assert error.retryable
    assert text == ""
    (entry,) = asked.journal()
    assert entry["response"]["chaosAction"] == "disconnect"


@pytest.mark.parametrize("streamed", [True], indirect=True)
@pytest.mark.parametrize("fault", ["truncation", "break in the middle"])
async def test_a_stream_that_breaks_off(asked: Asked, fault: str) -> None:
    error, text = await asked.failure(f"fault: {fault}")
    assert isinstance(error, StreamInterrupted)
    assert isinstance(error.partial, Message)
    assert error.partial.text == text
    whole = ("This sentence is going to be cut", "The first words come, and the line breaks")
    assert text
    assert any(sentence.startswith(text[:20]) for sentence in whole)
    assert error.retryable
    assert error.usage is not None
    (entry,) = asked.journal()
    assert entry["response"]["interrupted"] is True


@pytest.mark.parametrize("streamed", [True], indirect=True)
async def test_a_tool_call_that_is_cut_is_no_call(asked: Asked) -> None:
    error, _ = await asked.failure("fault: tool call cut")
    assert isinstance(error, StreamInterrupted)
    assert isinstance(error.partial, Message)
    assert error.partial.tool_calls == ()
    assert not any(isinstance(part, ToolCall) for part in error.partial.parts)


async def test_an_answer_that_never_begins(asked: Asked) -> None:
    asked.timeouts = Timeouts(first_byte=0.3)
    error, text = await asked.failure("fault: never begins")
    assert type(error) is ProviderError
    assert (error.fault, error.retryable) == ("timeout", True)
    assert text == ""


async def test_a_key_that_is_wrong(asked: Asked) -> None:
    asked.key = "sk-planted-and-wrong"
    error, _ = await asked.failure("scenario: text")
    assert (error.fault, error.status_code, error.retryable) == ("key", 401, False)
    assert error.next_step
