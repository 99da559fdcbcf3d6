"""Every row of the provider table, by its own wire: text, a tool call and JSON, and its quirks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from ovagent_jupyter.messages import Message, TextPart, ToolResult
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.catalog import PROVIDER_REGISTRY
from ovagent_jupyter.providers.client import (
    AnswerSchema,
    ModelClient,
    ModelRequest,
    Reply,
    ToolSchema,
    collect,
)
from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.providers.provider import ModelInfo, ProviderInfo, Quirks, WireAPI
from ovagent_jupyter.providers.resolve import resolve_backend
from ovagent_jupyter.providers.wires import client_for
from ovagent_jupyter.testing.scripted_client import check_model_client
from tests.conformance.provider_answers import SIGNATURE, Answer, Called, Manner, Midway
from tests.conformance.provider_checks import (
    PATHS,
    PLANTED,
    THOUGHT,
    Asked,
    Row,
    check_bounds,
    check_call_and_result,
    check_foreign_call,
    check_nothing_is_null,
    check_strictness,
    check_system_messages,
    check_the_schema_is_told,
    check_thinking_comes_back,
    check_where_it_went,
)  # fmt: skip
from tests.conformance.provider_servers import serving
from tests.providers.local.tiny_model import Dialogue, tiny_model

DECOYS = (
    "OPENAI_API_KEY OPENAI_ADMIN_KEY OPENAI_ORG_ID OPENAI_PROJECT_ID ANTHROPIC_API_KEY"
    " ANTHROPIC_AUTH_TOKEN GOOGLE_API_KEY"
).split()
"""Variables of this process that nobody is to read by himself."""
MANNERS = {
    "google": Manner(call_extra={"extra_content": {"google": {"thought_signature": SIGNATURE}}}),
    "mistral": Manner(content_parts=True),
    "mlx-server": Manner(reasoning_field="reasoning", whole_calls=True),
}
"""How services write that differ in more than the name of a field."""
LOOK = ToolSchema(
    "look",
    "Looks at a table.",
    {
        "type": "object",
        "properties": {"what": {"type": "string"}},
        "required": ["what"],
        "additionalProperties": False,
    },
)
CELL_TYPE = AnswerSchema(
    "cell_type",
    {
        "type": "object",
        "properties": {"cell_type": {"type": "string"}},
        "required": ["cell_type"],
        "additionalProperties": False,
    },
)
QUESTION = Message("user", (TextPart("What is in obs?"),))
SYSTEM = (
    Message("system", (TextPart("You write scanpy code."),)),
    Message("system", (TextPart("Answer in one sentence."),)),
)


def rows() -> Iterator[Row]:
    """Every provider that is asked over HTTP, once by each wire that its models are asked by."""
    for provider in PROVIDER_REGISTRY.values():
        found = {provider.wire_api: "vendor/any-model:latest"}
        for model in provider.models:
            found.setdefault(model.wire_api or provider.wire_api, model.id)
        own = next((m.id for m in provider.models if m.wire_api is None), "")
        found[provider.wire_api] = own or found[provider.wire_api]
        yield from (Row(provider, model, wire) for wire, model in found.items() if wire in PATHS)


@pytest.fixture(params=[True, False], ids=["streamed", "whole"])
def streamed(request: pytest.FixtureRequest) -> bool:
    """Whether the answer streams on the wire."""
    value: bool = request.param
    return value


@pytest.fixture(params=list(rows()), ids=str)
def row(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Row:
    """Each row; the environment has keys that are meant for somebody else."""
    for name in DECOYS:
        monkeypatch.setenv(name, f"decoy-{name.lower()}")
    value: Row = request.param
    return value


@asynccontextmanager
async def asking(row: Row, streamed: bool, *answers: Answer) -> AsyncIterator[Asked]:
    """The provider's client with a server that gives these answers, at the provider's own path."""
    provider = row.provider
    quirks = provider.quirks
    manner = MANNERS.get(
        provider.id, Manner(reasoning_field=quirks.reasoning_field, think_tags=quirks.think_tags)
    )
    connections = Connections()
    async with serving(*answers, manner=manner) as server:
        url = server.url + urlsplit(provider.base_url).path
        environ = {provider.env_key: PLANTED} if provider.env_key else {}
        environ |= dict.fromkeys(provider.base_url_env[:1], url)
        backend = resolve_backend(f"{provider.id}/{row.model}", environ=environ)
        if not provider.base_url_env:
            backend = replace(backend, base_url=url)
        client = client_for(backend, connections)
        yield Asked(row, backend, client, server, streamed)
        for received in server.received:
            check_where_it_went(row, received)
        await connections.aclose()


# -- what every row can do --------------------------------------------------------------------


async def test_it_answers_in_text(row: Row, streamed: bool) -> None:
    async with asking(row, streamed, Answer(text="There are 12 clusters.")) as asked:
        reply = await asked.reply(*SYSTEM, QUESTION)
        assert reply.message.text == "There are 12 clusters."
        assert reply.finish_reason == "stop"
        assert asked.last.body["model"] == row.model
        assert bool(asked.last.body.get("stream")) is streamed
        check_nothing_is_null(asked.last.body)
        check_bounds(asked)
        check_system_messages(asked)


async def test_it_keeps_what_every_client_promises(row: Row) -> None:
    said = Answer(text="Hello, here I am.")
    async with asking(row, True, said, said, said) as asked:
        await check_model_client(lambda: asked.client, row.model)


async def test_it_calls_a_tool_and_reads_the_answer(row: Row, streamed: bool) -> None:
    wish = Answer(thinking=THOUGHT, calls=(Called("abc123XYZ", "look", {"what": "obs"}),))
    done = Answer(text="There is n_genes.")
    async with asking(row, streamed, wish, done) as asked:
        wished = await asked.reply(QUESTION, tools=(LOOK,))
        (call,) = wished.message.tool_calls
        assert (call.id, call.name, dict(call.arguments)) == ("abc123XYZ", "look", {"what": "obs"})
        assert wished.finish_reason == "tool_calls"
        assert wished.message.reasoning.strip() == THOUGHT
        result = Message("tool", (ToolResult(call.id, "columns: n_genes"),))
        reply = await asked.reply(QUESTION, wished.message, result, tools=(LOOK,))
        assert reply.message.text == "There is n_genes."
        check_nothing_is_null(asked.last.body, allowed=("content",))
        check_call_and_result(asked)
        check_thinking_comes_back(asked)
        check_strictness(asked)


async def test_it_answers_in_json(row: Row, streamed: bool) -> None:
    async with asking(row, streamed, Answer(text='{"cell_type": "NK"}')) as asked:
        reply = await asked.reply(QUESTION, answer_schema=CELL_TYPE)
        assert json.loads(reply.message.text) == {"cell_type": "NK"}
        check_the_schema_is_told(asked)


async def test_a_tool_is_forced_only_where_that_is_possible(row: Row) -> None:
    wish = Answer(calls=(Called("call_1", "look", {"what": "obs"}),))
    async with asking(row, True, wish, wish) as asked:
        await asked.reply(QUESTION, tools=(LOOK,), tool_choice="required")
        forced = asked.last.body.get("tool_choice", "auto")
        await asked.reply(QUESTION, tools=(LOOK,), tool_choice="look")
        named = asked.last.body.get("tool_choice", "auto")
        if asked.backend.quirks.supports_forced_tool_choice:
            assert forced in ("required", {"type": "any"})
            assert "look" in json.dumps(named)
        else:
            assert {json.dumps(forced), json.dumps(named)} == {'"auto"'}


async def test_what_another_provider_wants_back_is_not_sent(row: Row) -> None:
    wish = Answer(thinking=THOUGHT, calls=(Called("call_1", "look", {"what": "obs"}),))
    async with asking(row, True, wish, Answer(text="Done.")) as asked:
        wished = await asked.reply(QUESTION, tools=(LOOK,))
        moved = replace(wished.message, provider="somebody-else")
        result = Message("tool", (ToolResult("call_1", "columns: n_genes"),))
        await asked.reply(QUESTION, moved, result, tools=(LOOK,))
        assert SIGNATURE not in asked.last.raw.decode()
        check_foreign_call(asked, "call_1")


async def test_what_comes_is_passed_on_at_once(row: Row) -> None:
    # The server waits for the first half to be heard: a client that buffers would wait as well.
    said = Answer(text="The first half, the second half.", midway=Midway.WAITS)
    async with asking(row, True, said) as asked, asyncio.timeout(60):
        request = ModelRequest(model=row.model, messages=(QUESTION,))
        text = ""
        async for delta in asked.client.stream(request):
            text += delta.text
            if text:
                asked.server.heard.set()
        assert text == "The first half, the second half."


async def test_who_stops_listening_hangs_up(row: Row) -> None:
    said = Answer(text="The first half, the second half.", midway=Midway.WAITS)
    async with asking(row, True, said) as asked, asyncio.timeout(60):
        deltas = asked.client.stream(ModelRequest(model=row.model, messages=(QUESTION,)))
        assert isinstance(deltas, AsyncGenerator)
        async with aclosing(deltas):
            while not (await anext(deltas)).text:
                pass
        while not asked.server.left:  # noqa: ASYNC110 - nobody tells when it has seen it
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("wire", [w for w in PATHS if w is not WireAPI.GEMINI])
async def test_a_service_that_wants_no_key_gets_none(
    wire: WireAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in DECOYS:
        monkeypatch.setenv(name, f"decoy-{name.lower()}")
    info = ProviderInfo(id="mine", display_name="Mine", wire_api=wire)
    connections = Connections()
    async with serving(Answer(text="Hello.")) as server:
        model = ModelInfo(id="any", window=8000)
        backend = Backend(name="mine", provider=info, model=model, base_url=f"{server.url}/v1")
        request = ModelRequest(model="any", messages=(QUESTION,))
        reply = await collect(client_for(backend, connections).stream(request))
        assert reply.message.text == "Hello."
        (received,) = server.received
        assert not {"authorization", "x-api-key", "api-key"} & received.headers.keys()
        assert "decoy" not in str(received.headers)
        await connections.aclose()


async def test_each_row_of_this_process_runs_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the wire ``local``: a real model, trained here to know these answers."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MLX_DISABLE_COMPILE", "1")
    pytest.importorskip("mlx_lm", reason="needs the extra mlx")
    call = '<tool_call>{"name": "look", "arguments": {"what": "obs"}}</tool_call>'
    folder = tiny_model(
        (
            Dialogue("hello", "Hello, I write code."),
            Dialogue("look at obs", call),
            Dialogue("columns: n_genes", "There is n_genes.", role="tool"),
            Dialogue("which type?", '{"cell_type": "NK"}'),
        )
    )
    connections = Connections()
    local = [info for info in PROVIDER_REGISTRY.values() if info.wire_api is WireAPI.LOCAL]
    assert local
    for info in local:
        backend = resolve_backend(f"{info.id}/{folder}", environ={})
        client = client_for(backend, connections)

        async def reply(*messages: Message, asked: ModelClient = client, **more: Any) -> Reply:
            request = ModelRequest(
                model=str(folder), messages=messages, temperature=0.0, max_output_tokens=60, **more
            )
            return await collect(asked.stream(request))

        assert (await reply(_user("hello"))).message.text == "Hello, I write code."
        wished = await reply(_user("look at obs"), tools=(LOOK,))
        (made,) = wished.message.tool_calls
        assert (made.name, dict(made.arguments)) == ("look", {"what": "obs"})
        result = Message("tool", (ToolResult(made.id, "columns: n_genes"),))
        answer = await reply(_user("look at obs"), wished.message, result, tools=(LOOK,))
        assert answer.message.text == "There is n_genes."
        formed = await reply(_user("which type?"), answer_schema=CELL_TYPE)
        assert json.loads(formed.message.text) == {"cell_type": "NK"}
        await client.aclose()  # type: ignore[attr-defined] # local clients have one


def _user(text: str) -> Message:
    return Message("user", (TextPart(text),))


def test_the_rows_differ_in_what_these_tests_look_at() -> None:
    every = [row.provider.quirks for row in rows()]
    for name in Quirks.__slots__:
        if name == "supports_cache_control":
            continue  # looked at by the wire's own tests
        assert len({str(getattr(quirks, name)) for quirks in every}) > 1, name
