"""The Responses wire against a real server: what it makes of every answer."""

from __future__ import annotations

import asyncio
import json

import pytest

from ovagent_jupyter.messages import (
    Message,
    ReasoningPart,
    TextPart,
    ToolCall,
    Usage,
)
from ovagent_jupyter.providers.client import (
    ModelDelta,
    ToolSchema,
)
from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.testing.scripted_client import check_model_client
from tests.providers.asking import ask
from tests.providers.replies import named, reply_to
from tests.providers.responses_events import (
    HELLO,
    RUN,
    SEALED,
    USAGE,
    Make,
    added,
    arguments,
    created,
    done,
    ending,
    message,
    responses_at,
    text,
)
from tests.providers.served import HANG, JSON, Served

RUN_CODE = ToolSchema("run", "Runs code.", {"type": "object", "properties": {"code": {}}})


@pytest.fixture
def make(served: Served, connections: Connections) -> Make:
    """A client of the server."""
    return responses_at(served, connections)


async def test_it_keeps_the_promises_of_every_client(served: Served, make: Make) -> None:
    served.always(named(*HELLO))
    await check_model_client(make)


async def test_an_answer_with_all_that_is_told_of_it(served: Served, make: Make) -> None:
    served.answer(*(named(each) for each in HELLO))
    deltas = [delta async for delta in make().stream(ask())]
    assert [delta.text for delta in deltas] == ["Hel", "lo.", ""]
    reply = deltas[-1].reply
    assert reply is not None
    assert reply.message == Message("assistant", (TextPart("Hello."),), "acme")
    assert reply.usage == Usage(20, 9, 8, 4, 5)
    assert (reply.finish_reason, reply.model, reply.response_id) == ("stop", "m-2026", "resp_1")
    assert (reply.provider, reply.backend) == ("acme", "acme/m")
    assert reply.first_token is not None
    assert 0 <= reply.first_token <= reply.latency


async def test_parallel_calls_that_come_interleaved(served: Served, make: Make) -> None:
    second = RUN | {"call_id": "call_2", "name": "look"}
    steps = [
        created(), added(RUN), added(second, 1), arguments('{"co'), arguments('{"key": ', 1),
        arguments('de": "1"}'), arguments("2}", 1), done(second | {"arguments": '{"key": 2}'}, 1),
        done(RUN | {"arguments": '{"code": "1"}'}), ending(),
    ]  # fmt: skip
    served.answer(*(named(step) for step in steps))
    deltas = [delta async for delta in make().stream(ask())]
    wanted = [ToolCall("call_1", "run", {"code": "1"}), ToolCall("call_2", "look", {"key": 2})]
    assert [delta.tool_call for delta in deltas if delta.tool_call] == wanted
    told = [delta.tool_progress for delta in deltas if delta.tool_progress]
    for index, (name, written) in enumerate([("run", '{"code": "1"}'), ("look", '{"key": 2}')]):
        mine = [piece for piece in told if piece.index == index]
        assert {piece.name for piece in mine} == {name}
        assert "".join(piece.arguments for piece in mine) == written


@pytest.mark.parametrize(
    ("told", "call"),
    [
        ("", ToolCall("call_1", "run")),
        ('{"a": 1}', ToolCall("call_1", "run", {"a": 1})),
        ({"a": 1}, ToolCall("call_1", "run", {"a": 1})),
        ("[1]", ToolCall("call_1", "run", unreadable="[1]")),
        ('{"a": ', ToolCall("call_1", "run", unreadable='{"a": ')),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
async def test_arguments(
    served: Served, make: Make, told: object, call: ToolCall, streamed: bool
) -> None:
    item = RUN | {"arguments": told}
    if streamed:
        served.answer(named(created(), added(RUN), done(item), ending()))
    else:
        served.answer(json.dumps({"status": "completed", "output": [item]}).encode(), headers=JSON)
    reply = await reply_to(make(), streamed=streamed)
    assert (reply.finish_reason, reply.message.tool_calls) == ("tool_calls", (call,))


async def test_a_call_without_a_name_for_it_gets_one(served: Served, make: Make) -> None:
    served.answer(named(done({"type": "function_call", "name": "run"}), ending()))
    [call] = (await reply_to(make())).message.tool_calls
    assert call.id.startswith("call_")
    assert len(call.id) == 17


@pytest.mark.parametrize(
    ("why", "finish"), [("max_output_tokens", "length"), ("content_filter", "refused"),
                        ("max_tool_calls", "length")]
)  # fmt: skip
async def test_a_cut_answer_keeps_its_text_and_loses_its_calls(
    served: Served, make: Make, why: str, finish: str
) -> None:
    served.answer(named(
        created(), text("I run "), done(message({"text": "I run "})), added(RUN, 1),
        arguments("{}", 1), done(RUN | {"arguments": "{}"}, 1),
        ending("incomplete", incomplete_details={"reason": why}),
    ))  # fmt: skip
    deltas = [delta async for delta in make().stream(ask())]
    reply = deltas[-1].reply
    assert reply is not None
    assert not any(delta.tool_call for delta in deltas)
    assert (reply.finish_reason, reply.message.text) == (finish, "I run ")
    assert reply.message.tool_calls == ()
    assert reply.details["dropped_tool_calls"] == ["run"]
    assert reply.usage == Usage(20, 9, 8, 4, 5)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_refusal(served: Served, make: Make, streamed: bool) -> None:
    item = message({"type": "refusal", "refusal": "I cannot."})
    if streamed:
        pieces = [{"type": "response.refusal.delta", "delta": piece} for piece in ("I ", "cannot.")]
        served.answer(named(created(), added(item), *pieces, done(item), ending()))
    else:
        served.answer(json.dumps({"status": "completed", "output": [item]}).encode(), headers=JSON)
    reply = await reply_to(make(), streamed=streamed)
    assert (reply.finish_reason, reply.message.text) == ("refused", "")
    assert reply.details["refusal"] == "I cannot."


async def test_what_it_thinks(served: Served, make: Make) -> None:
    kind = "response.reasoning_summary_text.delta"
    part = "response.reasoning_summary_part.added"
    item = SEALED | {"summary": [{"type": "summary_text", "text": "First."}]}
    served.answer(named(
        created(), added(SEALED), {"type": part, "output_index": 0, "summary_index": 0},
        {"type": kind, "output_index": 0, "delta": "First."},
        {"type": part, "output_index": 0, "summary_index": 1},
        {"type": kind, "output_index": 0, "delta": "Then."},
        done(item), text("So.", 1), ending(),
    ))  # fmt: skip
    reply = await reply_to(make())
    assert reply.message.reasoning == "First.\n\nThen."
    assert reply.message.text == "So."


@pytest.mark.parametrize(
    "steps",
    [
        [ending(output=[message({"text": "Hello."})])],
        [done(message({"text": "Hello."})), ending(output=[message({"text": "Hello."})])],
        [
            text("Hello."),
            done(message({"text": "Hello."})),
            ending(output=[SEALED, message({"text": "Hello."})]),
        ],
        [{"type": "response.output_text.delta", "item_id": "a", "delta": "Hello."}, ending()],
        [{"type": "response.new_in_2027", "delta": 1}, text("Hello."), {"type": "x"}, ending()],
    ],
)
async def test_services_that_tell_less_or_other_than_openai(
    served: Served, make: Make, steps: list[dict[str, object]]
) -> None:
    served.answer(named(*steps))
    assert (await reply_to(make())).message.text == "Hello."


async def test_a_call_of_a_service_that_does_not_tell_items_apart(
    served: Served, make: Make
) -> None:
    kind = "response.function_call_arguments.delta"
    said = [text("I run."), {"type": kind, "delta": '{"code": '}, {"type": kind, "delta": '"1"}'}]
    item = RUN | {"arguments": '{"code": "1"}'}
    last = {"type": "response.output_item.done", "output_index": 0, "item": item}
    served.answer(named(*(each | {"output_index": 0} for each in said), last, ending()))
    reply = await reply_to(make())
    assert reply.message.text == "I run."
    assert reply.message.tool_calls == (ToolCall("call_1", "run", {"code": "1"}),)


async def test_two_calls_of_a_service_that_does_not_count_items(served: Served, make: Make) -> None:
    items = [RUN | {"id": f"fc_{n}", "call_id": f"c{n}", "arguments": "{}"} for n in (1, 2)]
    steps = [{"type": "response.output_item.done", "item": item} for item in items]
    served.answer(named(*steps, ending()))
    assert [call.id for call in (await reply_to(make())).message.tool_calls] == ["c1", "c2"]


@pytest.mark.parametrize("told", [None, {"input_tokens": 0, "output_tokens": 0}])
async def test_usage_that_is_not_told_is_estimated(
    served: Served, make: Make, told: object
) -> None:
    served.answer(named(created(), text("12345678"), ending(usage=told)))
    usage = (await reply_to(make())).usage
    assert usage.estimated
    assert (usage.input_tokens > 0, usage.output_tokens) == (True, 2)


async def test_an_answer_in_one_piece(served: Served, make: Make) -> None:
    output = [SEALED, message({"type": "output_text", "text": "Hello."})]
    body = {"id": "resp_1", "model": "m-2026", "status": "completed", "error": None,
            "output": output, "usage": USAGE}  # fmt: skip
    served.answer(json.dumps(body).encode(), headers=JSON)
    reply = await reply_to(make(), streamed=False)
    assert served.requests[0].body["stream"] is False
    assert (reply.message.text, reply.usage) == ("Hello.", Usage(20, 9, 8, 4, 5))
    thought = reply.message.parts[0]
    assert isinstance(thought, ReasoningPart)
    assert "encrypted_content" in str(thought.provider_data)


@pytest.mark.parametrize(
    ("pieces", "said", "met"),
    [
        (["One. E", "N", "D more"], "One. ", "END"),
        (["One. EN", "tity"], "One. ENtity", None),
        (["One. EN"], "One. EN", None),
        (["EN", "EN", "D"], "EN", "END"),
        (["END"], "", "END"),
        (["aSTOPEND"], "a", "STOP"),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
async def test_texts_at_which_it_ends(
    served: Served, make: Make, *, pieces: list[str], said: str, met: str | None, streamed: bool
) -> None:
    if streamed:
        # After a stop the service says more, and is left.
        rest = [named(text(" and more")), HANG] if met else [named(ending())]
        served.answer(named(created()), *(named(text(piece)) for piece in pieces), *rest)
    else:
        output = [message({"text": "".join(pieces)}), message({"text": ""})]
        body = {"status": "completed", "output": output, "usage": USAGE}
        served.answer(json.dumps(body).encode(), headers=JSON)
    deltas = [
        each async for each in make().stream(ask(stop=("END", "", "STOP"), streamed=streamed))
    ]
    reply = deltas[-1].reply
    assert reply is not None
    assert reply.message.text == said == "".join(each.text for each in deltas)
    assert (reply.finish_reason, reply.details.get("stop_sequence")) == ("stop", met)
    assert reply.usage.estimated == bool(streamed and met)


async def test_calls_of_one_client_share_a_connection(served: Served, make: Make) -> None:
    served.always(named(*HELLO))
    for _ in range(3):
        await reply_to(make())
    assert served.connections == 1


async def test_pieces_are_passed_on_as_they_come(served: Served, make: Make) -> None:
    served.answer(named(created()), named(text("Now")), HANG)
    stream = make().stream(ask())
    assert (await anext(stream)) == ModelDelta(text="Now")
    await stream.aclose()
    await served.left()


async def test_cancelling_ends_the_call(served: Served, make: Make) -> None:
    served.answer(named(created()), HANG)
    task = asyncio.create_task(reply_to(make()))
    while not served.requests:  # noqa: ASYNC110 - both are in this loop, and it takes a moment
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await served.left()
