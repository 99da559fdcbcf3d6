"""The Messages wire against a real server: what it makes of every answer."""

from __future__ import annotations

import asyncio
import json

import pytest

from ovagent_jupyter.messages import Message, ReasoningPart, TextPart, ToolCall, Usage
from ovagent_jupyter.providers.client import ModelDelta
from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.testing.scripted_client import check_model_client
from tests.providers.asking import ask
from tests.providers.messages_events import (
    HELLO,
    PING,
    RUN,
    STOP,
    TEXT,
    THINKING,
    USAGE,
    Make,
    begun,
    calling,
    delta,
    ending,
    messages_at,
    start,
    stopped,
    text,
)
from tests.providers.replies import named, reply_to
from tests.providers.served import HANG, JSON, Served


@pytest.fixture
def make(served: Served, connections: Connections) -> Make:
    """A client of the server."""
    return messages_at(served, connections)


async def test_it_keeps_the_promises_of_every_client(served: Served, make: Make) -> None:
    served.always(named(*HELLO))
    await check_model_client(make)


async def test_an_answer_with_all_that_is_told_of_it(served: Served, make: Make) -> None:
    served.answer(*(named(each) for each in HELLO))
    deltas = [each async for each in make().stream(ask())]
    assert [each.text for each in deltas] == ["Hel", "lo.", ""]
    reply = deltas[-1].reply
    assert reply is not None
    assert reply.message == Message("assistant", (TextPart("Hello."),), "acme")
    assert reply.usage == Usage(22, 9, 8, 4, 5)
    assert (reply.finish_reason, reply.model, reply.response_id) == ("stop", "m-2026", "msg_1")
    assert (reply.provider, reply.backend) == ("acme", "acme/m")


@pytest.mark.parametrize(
    ("told", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("pause_turn", "paused"),
        ("refusal", "refused"),
        ("model_context_window_exceeded", "context_full"),
        ("new_in_2027", "stop"),
        (None, "stop"),
    ],
)
async def test_why_it_stopped(served: Served, make: Make, told: str | None, finish: str) -> None:
    served.answer(named(start(), begun(TEXT), text("Half."), stopped(), ending(told), STOP))
    reply = await reply_to(make())
    assert (reply.finish_reason, reply.message.text) == (finish, "Half.")


async def test_why_it_refused(served: Served, make: Make) -> None:
    told = {"type": "refusal", "category": "bio", "explanation": "It could do harm."}
    served.answer(
        named(start(), ending(delta={"stop_reason": "refusal", "stop_details": told}), STOP)
    )
    reply = await reply_to(make())
    assert reply.finish_reason == "refused"
    assert reply.details["stop_details"] == told
    assert reply.details["refusal"] == "It could do harm."


async def test_parallel_calls_with_arguments_in_pieces(served: Served, make: Make) -> None:
    steps = [start(), *calling("run", "t1", 0, '{"code"', ': "1"}'), *calling("look", "t2", 1),
             ending("tool_use"), STOP]  # fmt: skip
    served.answer(*(named(step) for step in steps))
    deltas = [each async for each in make().stream(ask())]
    wanted = (ToolCall("t1", "run", {"code": "1"}), ToolCall("t2", "look"))
    assert tuple(each.tool_call for each in deltas if each.tool_call) == wanted
    told = [each.tool_progress for each in deltas if each.tool_progress]
    assert [(each.index, each.name, each.arguments) for each in told] == [
        (0, "run", ""), (0, "run", '{"code"'), (0, "run", ': "1"}'), (1, "look", "")
    ]  # fmt: skip
    reply = deltas[-1].reply
    assert reply is not None
    assert (reply.finish_reason, reply.message.tool_calls) == ("tool_calls", wanted)


@pytest.mark.parametrize(
    ("steps", "call"),
    [
        ([begun(RUN), stopped()], ToolCall("toolu_1", "run")),
        ([begun(RUN | {"input": {"a": 1}}), stopped()], ToolCall("toolu_1", "run", {"a": 1})),
        ([begun(RUN | {"input": '{"a": 1}'}), stopped()], ToolCall("toolu_1", "run", {"a": 1})),
        (calling("run", "toolu_1", 0, "[1]"), ToolCall("toolu_1", "run", unreadable="[1]")),
        (calling("run", "toolu_1", 0, '{"a'), ToolCall("toolu_1", "run", unreadable='{"a')),
    ],
)
async def test_arguments(
    served: Served, make: Make, steps: list[dict[str, object]], call: ToolCall
) -> None:
    served.answer(named(start(), *steps, ending("tool_use"), STOP))
    assert (await reply_to(make())).message.tool_calls == (call,)


@pytest.mark.parametrize("told", ["max_tokens", "refusal", "model_context_window_exceeded"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_call_that_was_cut_looks_whole_and_is_dropped(
    served: Served, make: Make, told: str, streamed: bool
) -> None:
    call = RUN | {"input": {"code": "rm"}}
    if streamed:
        words = [begun(TEXT), text("I run "), stopped()]
        cut = calling("run", "toolu_1", 1, '{"code": "rm"}')
        served.answer(named(start(), *words, *cut, ending(told), STOP))
    else:
        content = [{"type": "text", "text": "I run "}, call]
        body = {"type": "message", "content": content, "stop_reason": told, "usage": USAGE}
        served.answer(json.dumps(body).encode(), headers=JSON)
    deltas = [each async for each in make().stream(ask(streamed=streamed))]
    reply = deltas[-1].reply
    assert reply is not None
    assert not any(each.tool_call for each in deltas)
    assert (reply.message.text, reply.message.tool_calls) == ("I run ", ())
    assert reply.details["dropped_tool_calls"] == ["run"]
    assert reply.finish_reason in {"length", "refused", "context_full"}


async def test_thinking(served: Served, make: Make) -> None:
    redacted = {"type": "redacted_thinking", "data": "c2VhbGVk"}
    steps = [
        start(), begun(THINKING), delta("thinking", thinking="It is "),
        delta("thinking", thinking="a cell."), delta("signature", signature="c2ln"), stopped(),
        begun(redacted, 1), stopped(1), begun(TEXT, 2), text("A cell.", 2), stopped(2),
        ending(), STOP,
    ]  # fmt: skip
    served.answer(*(named(step) for step in steps))
    deltas = [each async for each in make().stream(ask())]
    assert [each.reasoning for each in deltas if each.reasoning] == ["It is ", "a cell."]
    reply = deltas[-1].reply
    assert reply is not None
    assert reply.message.parts == (
        ReasoningPart("It is a cell.", {"signature": "c2ln"}),
        ReasoningPart("", {"block": redacted}),
        TextPart("A cell."),
    )
    assert reply.usage.reasoning_tokens == 5


async def test_blocks_that_are_not_known_are_carried_along(served: Served, make: Make) -> None:
    summary = {"type": "compaction", "content": None}
    search = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}
    found = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []}
    served.answer(named(
        start(), begun(summary), delta("compaction", content="So far."), stopped(),
        begun(search, 1), delta("input_json", 1, partial_json='{"q": 1}'), stopped(1),
        begun(found, 2), stopped(2), {"type": "new_in_2027"}, ending("pause_turn"), STOP,
    ))  # fmt: skip
    reply = await reply_to(make())
    assert reply.finish_reason == "paused"
    assert [part.provider_data["block"] for part in reply.message.parts] == [  # type: ignore[union-attr]
        {"type": "compaction", "content": "So far."}, search | {"input": {"q": 1}}, found
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("first", "last", "usage"),
    [
        ({"input_tokens": 7, "output_tokens": 1}, {"output_tokens": 9}, Usage(7, 9)),
        ({"input_tokens": 612}, {"input_tokens": 28, "output_tokens": 9}, Usage(28, 9)),
        ({"input_tokens": 0}, {"input_tokens": 28, "output_tokens": 9}, Usage(28, 9)),
        ({"input_tokens": 28}, {"input_tokens": 0, "output_tokens": 9}, Usage(28, 9)),
        ({"input_tokens": 3, "cache_read_input_tokens": 40}, {"output_tokens": 0},
         Usage(43, 2, cached_tokens=40, estimated=True)),
        ({"input_tokens": 3, "cache_creation_input_tokens": 40}, {"output_tokens": 2},
         Usage(43, 2, cache_write_tokens=40)),
        ({"input_tokens": 3, "output_tokens": 1}, {}, Usage(3, 2, estimated=True)),
    ],
)  # fmt: skip
async def test_usage(
    served: Served, make: Make, first: dict[str, object], last: dict[str, object], usage: Usage
) -> None:
    said = [begun(TEXT), text("12345678"), stopped()]
    served.answer(named(start(first), *said, ending(usage=last), STOP))
    assert (await reply_to(make())).usage == usage


async def test_usage_that_is_not_told_is_estimated(served: Served, make: Make) -> None:
    said = [begun(TEXT), text("12345678"), stopped()]
    served.answer(named(start({}), *said, ending(usage={}), STOP))
    usage = (await reply_to(make())).usage
    assert usage.estimated
    assert (usage.input_tokens > 0, usage.output_tokens) == (True, 2)


async def test_an_answer_in_one_piece(served: Served, make: Make) -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
    content = [thought, {"type": "text", "text": "I run it."}, RUN | {"input": {"code": "1"}}]
    body = {"id": "msg_1", "type": "message", "model": "m-2026", "content": content,
            "stop_reason": "tool_use", "usage": USAGE | {"output_tokens": 9}}  # fmt: skip
    served.answer(json.dumps(body).encode(), headers=JSON)
    reply = await reply_to(make(), streamed=False)
    assert served.requests[0].body["stream"] is False
    assert reply.message.parts == (
        ReasoningPart("Hm.", {"signature": "c2ln"}),
        TextPart("I run it."),
        ToolCall("toolu_1", "run", {"code": "1"}),
    )
    assert (reply.finish_reason, reply.usage) == ("tool_calls", Usage(22, 9, 8, 4))


async def test_an_empty_answer(served: Served, make: Make) -> None:
    served.answer(named(start(), PING, ending(), STOP))
    reply = await reply_to(make())
    assert (reply.finish_reason, reply.message.parts) == ("stop", ())


async def test_calls_of_one_client_share_a_connection(served: Served, make: Make) -> None:
    served.always(named(*HELLO))
    for _ in range(3):
        await reply_to(make())
    assert served.connections == 1


async def test_pieces_are_passed_on_as_they_come(served: Served, make: Make) -> None:
    served.answer(named(start()), named(begun(TEXT), text("Now")), HANG)
    stream = make().stream(ask())
    assert (await anext(stream)) == ModelDelta(text="Now")
    await stream.aclose()
    await served.left()


async def test_cancelling_ends_the_call(served: Served, make: Make) -> None:
    served.answer(named(start()), HANG)
    task = asyncio.create_task(reply_to(make()))
    while not served.requests:  # noqa: ASYNC110 - both are in this loop, and it takes a moment
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await served.left()
