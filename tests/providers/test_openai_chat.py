"""Answers of the chat-completions wire, from a server of ours: dialects, and what is no answer."""

from __future__ import annotations

import gzip
import json
import traceback
from typing import Any

import pytest

from ovagent_jupyter.errors import ProviderError, StreamInterrupted
from ovagent_jupyter.messages import Message, ReasoningPart, TextPart, ToolCall, Usage
from ovagent_jupyter.providers.client import ModelClient, ModelDelta, Reply, collect
from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.providers.provider import Quirks, WireAPI
from ovagent_jupyter.providers.wires import client_for
from ovagent_jupyter.testing.scripted_client import check_model_client
from tests.providers.asking import KEY, ask, backend_at
from tests.providers.served import CUT, JSON, PAGE, STREAM, Served, events


def delta(finish: str | None = None, **fields: object) -> dict[str, Any]:
    """A chunk of the first choice."""
    choice = {"index": 0, "delta": fields, "finish_reason": finish}
    return {"id": "r1", "model": "m-2026", "choices": [choice]}


def call(arguments: object = "", **fields: object) -> dict[str, Any]:
    """A chunk with a piece of a tool call."""
    name = fields.pop("name", None)
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return delta(tool_calls=[fields | {"function": function}])


def whole(message: object, finish: str | None = "stop", **fields: object) -> bytes:
    """An answer in one piece."""
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return json.dumps({"id": "r1", "model": "m-2026", "choices": [choice]} | fields).encode()


USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


@pytest.fixture
def client(served: Served, connections: Connections) -> ModelClient:
    return client_for(backend_at(served.url + "/v1"), connections)


async def failure_of(
    client: ModelClient, **fields: object
) -> tuple[list[ModelDelta], ProviderError]:
    """What a failing answer passes on, and how it fails."""
    deltas: list[ModelDelta] = []
    try:
        async for each in client.stream(ask(**fields)):
            deltas.append(each)  # noqa: PERF401 - what came before the failure is wanted
    except ProviderError as error:
        return deltas, error
    raise AssertionError(f"It did not fail: {deltas}")


async def test_it_keeps_the_promises_of_every_client(
    served: Served, connections: Connections
) -> None:
    served.always(events(delta(content="Hel"), delta(content="lo"), delta("stop"), done=True))
    await check_model_client(lambda: client_for(backend_at(served.url), connections))


async def test_an_answer(served: Served, client: ModelClient) -> None:
    served.answer(
        events(delta(role="assistant", content=""), delta(content="Hel"), delta(content="lo")),
        events(delta("stop"), {"choices": [], "usage": USAGE}, done=True),
        headers=STREAM | {"x-request-id": "req-7"},
    )
    deltas = [each async for each in client.stream(ask())]
    assert [each.text for each in deltas] == ["Hel", "lo", ""]
    reply = deltas[-1].reply
    assert reply is not None
    assert reply.message == Message("assistant", (TextPart("Hello"),), "acme")
    assert reply.usage == Usage(10, 5)
    assert (reply.model, reply.response_id, reply.finish_reason) == ("m-2026", "r1", "stop")
    assert reply.details == {"request_id": "req-7"}
    assert reply.first_token is not None
    assert 0 < reply.first_token <= reply.latency


async def test_a_whole_answer_is_the_same(served: Served, client: ModelClient) -> None:
    served.answer(whole({"content": "Hello", "reasoning": "Hm"}, usage=USAGE), headers=JSON)
    reply = await collect(client.stream(ask(streamed=False)))
    assert reply.message.parts == (ReasoningPart("Hm"), TextPart("Hello"))
    assert reply.usage == Usage(10, 5)
    assert "stream" not in served.requests[0].body


async def test_what_was_asked_for_in_pieces_may_come_whole(
    served: Served, client: ModelClient
) -> None:
    served.answer(whole({"content": "Hello"}), headers=JSON)
    served.answer(events(delta("stop", content="Hello")), headers={"content-type": "text/plain"})
    served.answer(gzip.compress(events(delta("stop", content="Hello"))),
                  headers=STREAM | {"content-encoding": "gzip"})  # fmt: skip
    for _ in range(3):
        assert (await collect(client.stream(ask()))).message.text == "Hello"


async def test_the_connection_serves_the_next_call(served: Served, client: ModelClient) -> None:
    served.always(events(delta("stop", content="A"), done=True))
    for _ in range(3):
        await collect(client.stream(ask()))
    assert [request.connection for request in served.requests] == [1, 1, 1]


async def answered(served: Served, client: ModelClient, *chunks: object) -> Reply:
    served.answer(events(*chunks, done=True))
    return await collect(client.stream(ask()))


END = delta("tool_calls")


@pytest.mark.parametrize("chunks", [
    pytest.param([call(index=0, id="a", name="f"), call('{"x":', index=0), call(" 1}", index=0),
                  call(index=1, id="b", name="g"), call('{"y": 2}', index=1)], id="as-openai"),
    pytest.param([call(index=0, id="a", name="f"), call(index=1, id="b", name="g"),
                  call('{"y": 2}', index=1), call('{"x": 1}', index=0)], id="interleaved"),
    pytest.param([call('{"x": 1}', id="a", name="f"), call('{"y": 2}', id="b", name="g")],
                 id="no-index"),
    pytest.param([call(id="a", name="f"), call('{"x"'), call(": 1}"),
                  call('{"y": 2}', id="b", name="g")], id="no-index-in-pieces"),
    pytest.param([call('{"x": 1}', index=0, id="a", name="f"),
                  call('{"y": 2}', index=0, id="b", name="g")], id="one-index-for-all"),
    pytest.param([call('{"x": 1}', index=0, id="", name="f"),
                  call('{"y": 2}', index=0, id="", name="g")], id="one-index-no-id"),
    pytest.param([call('{"x": 1}', name="f"), call('{"y": 2}', name="g")], id="no-index-no-id"),
    pytest.param([call({"x": 1}, index=0, name="f"), call({"y": 2}, index=1, name="g")],
                 id="objects"),
    pytest.param([call('{"x":', index=0, id="a", name="f"), call(" 1}", index=0, id="a", name="f"),
                  call('{"y": 2}', index=1, id="b", name="g")], id="name-and-id-repeated"),
    pytest.param([call('{"x":', index=0, id="a1", name="f"), call(" 1}", index=0, id="a2"),
                  call('{"y": 2}', index=1, id="b", name="g")], id="an-id-for-each-piece"),
    pytest.param([call("", id="a", name="f"), call("", id="b", name="g"),
                  call('{"x": 1}', id="a"), call('{"y": 2}', id="b")], id="told-apart-by-id"),
    pytest.param([delta(tool_calls=[
        {"index": 0, "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"index": 1, "function": {"name": "g", "arguments": '{"y": 2}'}}])], id="in-one-chunk"),
])  # fmt: skip
@pytest.mark.parametrize("finish", ["tool_calls", "stop", None])
async def test_two_calls(
    served: Served, client: ModelClient, chunks: list[object], finish: str | None
) -> None:
    reply = await answered(served, client, *chunks, delta(finish))
    calls = reply.message.tool_calls
    assert [(c.name, c.arguments) for c in calls] == [("f", {"x": 1}), ("g", {"y": 2})]
    assert len({c.id for c in calls}) == 2
    assert reply.finish_reason == "tool_calls"


async def test_calls_of_other_shapes(served: Served, client: ModelClient) -> None:
    reply = await answered(served, client, call(None, index=0, name="f"), END)
    assert reply.message.tool_calls[0].arguments == {}
    reply = await answered(served, client, call("{oops", index=0, name="f"), END)
    assert reply.message.tool_calls[0].unreadable == "{oops"
    reply = await answered(
        served,
        client,
        delta(function_call={"name": "f", "arguments": "{}"}),
        delta("function_call"),
    )
    assert reply.message.tool_calls[0].name == "f"
    served.answer(whole({"tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}),
                  headers=JSON)  # fmt: skip
    reply = await collect(client.stream(ask(streamed=False)))
    assert reply.message.tool_calls[0].arguments == {"x": 1}


async def test_a_call_cut_by_the_limit_is_not_one(served: Served, client: ModelClient) -> None:
    reply = await answered(
        served, client, delta(content="I will."), call("{}", index=0, name="rm"), delta("length")
    )
    assert reply.message.parts == (TextPart("I will."),)
    assert (reply.finish_reason, reply.details["dropped_tool_calls"]) == ("length", ["rm"])


async def test_a_cut_call_with_a_done_and_no_reason_is_none(
    served: Served, client: ModelClient
) -> None:
    served.answer(events(call('{"x": ', index=0, name="f"), done=True))
    _, error = await failure_of(client)
    assert isinstance(error, StreamInterrupted)
    assert error.partial == Message("assistant", (), "acme")


async def test_signatures_are_kept_to_be_sent_back(
    served: Served, connections: Connections
) -> None:
    signed = {"google": {"thought_signature": "s1"}}
    served.answer(events(call("{}", index=0, name="f", extra_content=signed), END))
    client = client_for(backend_at(served.url, WireAPI.GEMINI), connections)
    reply = await collect(client.stream(ask()))
    assert reply.message.tool_calls[0].provider_data == {"extra_content": signed}
    served.answer(whole({"content": "A", "extra_content": signed}), headers=JSON)
    reply = await collect(client.stream(ask()))
    assert reply.message.parts == (ReasoningPart("", {"extra_content": signed}), TextPart("A"))


@pytest.mark.parametrize("thought", [
    {"reasoning_content": "Hm."}, {"reasoning": "Hm."},
    {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]},
    {"content": [{"type": "thinking", "thinking": "Hm."}]},
])  # fmt: skip
async def test_thinking(served: Served, client: ModelClient, thought: dict[str, object]) -> None:
    reply = await answered(
        served, client, delta(**thought), delta(content=[{"type": "text", "text": "A"}]),
        delta("stop", content="B"),
    )  # fmt: skip
    assert reply.message.parts == (ReasoningPart("Hm."), TextPart("AB"))


async def test_thinking_of_many_pieces_is_kept_as_one(served: Served, client: ModelClient) -> None:
    def piece(**told: object) -> dict[str, object]:
        return {"reasoning": told.get("text", ""), "reasoning_details": [told]}

    text = {"type": "reasoning.text", "index": 0}
    reply = await answered(
        served, client, delta(**piece(**text, text="H")), delta(**piece(**text, text="m.")),
        delta(**piece(**text, text="", signature="s")),
        delta(**piece(type="reasoning.encrypted", index=1, data="e")), delta("stop", content="A"),
    )  # fmt: skip
    assert reply.message.parts[0] == ReasoningPart("Hm.", {"reasoning_details": [
        text | {"text": "Hm.", "signature": "s"},
        {"type": "reasoning.encrypted", "index": 1, "data": "e"},
    ]})  # fmt: skip


@pytest.mark.parametrize("sorted_", [
    ("<think>Hm.</think>\n\nA <think> tag", "Hm.", "A <think> tag"),
    ("\n<think>Hm.</think><think>So.</think>A", "Hm.So.", "A"),
    ("A < b and <thin", "", "A < b and <thin"),
    ("<thin", "", "<thin"),
    ("<think>no end </thi", "no end </thi", ""),
    ("<think></think>A", "", "A"),
])  # fmt: skip
@pytest.mark.parametrize("size", [1, 3, 100])
async def test_think_tags(
    served: Served, connections: Connections, sorted_: tuple[str, str, str], size: int
) -> None:
    text, thought, said = sorted_
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    served.always(events(*(delta(content=piece) for piece in pieces), delta("stop"), done=True))
    quirks = Quirks(think_tags=True)
    reply = await collect(
        client_for(backend_at(served.url, quirks=quirks), connections).stream(ask())
    )
    assert (reply.message.reasoning, reply.message.text) == (thought, said)
    plain = await collect(client_for(backend_at(served.url), connections).stream(ask()))
    assert plain.message.text == text


@pytest.mark.parametrize(("told", "usage"), [
    ({"usage": {"prompt_tokens": 9, "completion_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 1}}}, Usage(9, 4, 3, 2, 1)),
    ({"usage": {"prompt_tokens": 9, "completion_tokens": 4, "prompt_cache_hit_tokens": 3}},
     Usage(9, 4, 3)),
    ({"usage": {"prompt_tokens": 9, "completion_tokens": 4, "cached_tokens": 3}}, Usage(9, 4, 3)),
    ({"usage": {"input_tokens": 9, "output_tokens": 4, "cache_read_input_tokens": 3,
                "cache_creation_input_tokens": 2}}, Usage(9, 4, 3, 2)),
    ({"usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 20,
                "completion_tokens_details": {"reasoning_tokens": 7}}}, Usage(9, 11, 0, 0, 7)),
    ({"x_groq": {"usage": {"prompt_tokens": 9, "completion_tokens": 4}}}, Usage(9, 4)),
])  # fmt: skip
async def test_usage_by_other_names(
    served: Served, client: ModelClient, told: dict[str, object], usage: Usage
) -> None:
    reply = await answered(served, client, delta("stop", content="A"), {"choices": []} | told)
    assert reply.usage == usage
    reply = await answered(served, client, delta("stop", content="A") | told)
    assert reply.usage == usage


async def test_usage_inside_the_choice(served: Served, client: ModelClient) -> None:
    chunk = delta("stop", content="A")
    chunk["choices"][0]["usage"] = USAGE
    assert (await answered(served, client, chunk)).usage == Usage(10, 5)


async def test_the_first_of_several_choices_counts(served: Served, client: ModelClient) -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "length"}]}
    both = delta(content="B")
    both["choices"] = other["choices"] + both["choices"]
    reply = await answered(served, client, delta(content="A"), other, both, delta("stop"), other)
    assert (reply.message.text, reply.finish_reason) == ("AB", "stop")


async def test_all_that_came_so_far_beside_what_is_new(served: Served, client: ModelClient) -> None:
    chunks = [delta(content="A"), delta(content="B"), delta("stop")]
    for chunk, so_far in zip(chunks, ("A", "AB", "AB"), strict=True):
        chunk["choices"][0]["message"] = {"content": so_far}
    assert (await answered(served, client, *chunks)).message.text == "AB"
    plain = {"choices": [{"text": "A", "index": 0, "finish_reason": "stop"}]}
    assert (await answered(served, client, plain)).message.text == "A"


async def test_a_refusal_is_an_answer(served: Served, client: ModelClient) -> None:
    reply = await answered(
        served, client, delta(refusal="I "), delta(refusal="won't."), delta("stop")
    )
    assert (reply.finish_reason, reply.details["refusal"]) == ("refused", "I won't.")
    assert reply.message.text == ""


@pytest.mark.parametrize(("word", "reason"), [
    ("eos", "stop"), ("max_tokens", "length"), ("content_filter", "refused"), ("STOP", "stop"),
    ("sensitive", "refused"), ("model_context_window_exceeded", "context_full"), ("new", "stop"),
])  # fmt: skip
async def test_other_words_for_the_end(
    served: Served, client: ModelClient, word: str, reason: str
) -> None:
    reply = await answered(served, client, delta(word, content="A"))
    assert (reply.finish_reason, reply.details["finish_reason"]) == (reason, word)


async def test_the_key_is_in_the_header_and_nowhere_else(
    served: Served, client: ModelClient
) -> None:
    told = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode()
    served.answer(told, status=401, headers=JSON)
    served.answer(events(delta(content="A"), {"error": {"message": f"bad {KEY}"}}))
    served.answer(events(delta(content="A")), CUT)
    for _ in range(3):
        _, error = await failure_of(client)
        shown = [str(error), repr(error), repr(vars(error)), *traceback.format_exception(error)]
        assert KEY not in "".join(shown)
    assert served.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert not any(KEY in json.dumps(request.body) for request in served.requests)
    assert KEY not in repr(client)


async def test_calls_have_a_part_of_the_message_each(served: Served, client: ModelClient) -> None:
    reply = await answered(
        served, client, delta(content="A"), call("{}", index=0, id="c", name="f"), END
    )
    assert reply.message.parts == (TextPart("A"), ToolCall("c", "f"))


async def test_a_page_where_an_answer_should_be(served: Served, client: ModelClient) -> None:
    served.answer(b"<!doctype html><title>Welcome</title>", headers=PAGE)
    _, error = await failure_of(client)
    assert (error.fault, error.retryable) == ("malformed", False)
    assert "web page" in error.next_step
