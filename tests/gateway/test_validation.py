"""Answers that have to be JSON: some are, some are when they are asked for again, some never."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ovagent_jupyter.errors import ConfigError, ProviderError
from ovagent_jupyter.gateway.layer import Call
from ovagent_jupyter.gateway.validation import Validation
from ovagent_jupyter.messages import Message, ReasoningPart, TextPart, ToolCall, Usage
from ovagent_jupyter.providers.client import (
    AnswerSchema,
    FinishReason,
    ModelDelta,
    Reply,
    ToolSchema,
)
from tests.gateway.layered import ask, through
from tests.gateway.played import Played, Step, answer, end, fails, read, read_until_failure, said

SCHEMA = AnswerSchema(
    "clusters",
    {
        "type": "object",
        "properties": {
            "n": {"type": "integer"},
            "names": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["n"],
        "additionalProperties": False,
    },
)


def asked(**settings: object) -> Call:
    """A call for JSON."""
    return ask("How many clusters?", answer_schema=SCHEMA, **settings)


def priced(text: str, cost: float | None = 0.5, reason: FinishReason = "stop") -> list[Step]:
    """A whole answer of 3 + 2 tokens and a price."""
    return [*said(text), end(text, cost=cost, reason=reason)]


async def test_json_that_fits_is_passed_on_as_it_is() -> None:
    client = Played([[*said('{"n"', ": 3}"), end('{"n": 3}')]])
    text, reply = await read(through(Validation(), client, asked()))
    assert text == reply.message.text == '{"n": 3}'
    assert reply.details["json"] == {"n": 3}
    assert "repaired" not in reply.details


async def test_json_is_taken_out_of_what_is_around_it() -> None:
    client = Played([answer('Sure!\n```json\n{"n": 3}\n```')])
    text, reply = await read(through(Validation(), client, asked()))
    assert text == reply.message.text == '{"n": 3}'


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ('{"n": "three"}', "$.n: 'three' is not of type 'integer'"),
        ('{"m": 3}', "required property"),
        ('{"n": 3', "it is no JSON"),
        ("[3]", "is not of type 'object'"),
        ("three", "it is no JSON"),
        ("", "it is empty"),
    ],
)
async def test_what_does_not_fit_is_asked_for_once_more(bad: str, why: str) -> None:
    client = Played([priced(bad), priced('{"n": 3}', 0.25)])
    text, reply = await read(through(Validation(), client, asked()))
    assert text == '{"n": 3}'
    assert reply.usage == Usage(6, 4)
    assert reply.cost == 0.75
    assert why in str(reply.details["repaired"])
    again = client.asked[1].messages
    assert why in again[-1].text
    assert again[-1].role == "user"
    assert [message.text for message in again[:-1]] == ["How many clusters?"] + [bad] * bool(bad)
    assert client.asked[1].answer_schema == SCHEMA


async def test_what_does_not_fit_twice_is_an_error_with_all_that_it_took() -> None:
    client = Played([priced("no"), priced('{"n": null}'), priced('{"n": 3}')])
    with pytest.raises(ProviderError) as caught:
        await read(through(Validation(), client, asked()))
    error = caught.value
    assert (error.fault, error.retryable) == ("malformed", False)
    assert (error.usage, error.cost) == (Usage(6, 4), 1.0)
    assert isinstance(error.partial, Message)
    assert error.partial.text == '{"n": null}'
    assert "$.n" in error.why
    assert len(client.asked) == 2


async def test_an_answer_that_was_cut_is_not_asked_for_again() -> None:
    client = Played([priced('{"n": 3, "names": ["T', reason="length")])
    with pytest.raises(ProviderError, match="JSON") as caught:
        await read(through(Validation(), client, asked()))
    assert "max_output_tokens" in caught.value.next_step
    assert len(client.asked) == 1


async def test_an_answer_that_was_cut_behind_its_json_is_good() -> None:
    client = Played([priced('{"n": 3}\n\nThis means', reason="length")])
    text, _ = await read(through(Validation(), client, asked()))
    assert text == '{"n": 3}'


async def test_without_a_price_of_one_the_price_is_not_known() -> None:
    client = Played([priced("no", None), priced('{"n": 3}')])
    _, reply = await read(through(Validation(), client, asked()))
    assert reply.cost is None


async def test_a_second_call_that_fails_tells_what_the_first_took() -> None:
    client = Played([priced("no"), fails(usage=Usage(10, 0))])
    _, error = await read_until_failure(through(Validation(), client, asked()))
    assert error.fault == "overloaded"
    assert error.usage == Usage(13, 2)
    assert isinstance(error.partial, Message)
    assert error.partial.text == "no"


async def test_calls_and_refusals_are_not_answers_yet() -> None:
    call = ToolCall("c", "run", {})
    reply = Reply(message=Message("assistant", (TextPart("So"), call)), finish_reason="tool_calls")
    client = Played(
        [
            [
                *said("So"),
                ModelDelta(tool_call=call),
                ModelDelta(finish_reason="tool_calls", reply=reply),
            ],
            [*said("No."), end("No.", reason="refused")],
        ]
    )
    for expected in ("So", "No."):
        text, got = await read(through(Validation(), client, asked()))
        assert text == got.message.text == expected


async def test_thoughts_stream_and_are_sent_back_with_the_repair() -> None:
    message = Message("assistant", (ReasoningPart("hm", {"signature": "s"}), TextPart("no")), "p")
    last = ModelDelta(finish_reason="stop", reply=Reply(message=message))
    client = Played([[ModelDelta(reasoning="hm"), *said("no"), last], priced('{"n": 1}')])
    stream = through(Validation(), client, asked())
    assert (await anext(stream)).reasoning == "hm"
    assert len(client.asked) == 1
    await read(stream)
    assert client.asked[1].messages[-2] == message


async def test_tools_are_not_called_by_a_repair() -> None:
    client = Played([priced("no"), priced('{"n": 1}')])
    await read(through(Validation(), client, asked(tools=(ToolSchema("t", "d"),))))
    assert [request.tool_choice for request in client.asked] == ["auto", "none"]


async def test_a_schema_that_is_none_costs_nothing() -> None:
    client = Played([priced('{"n": 3}')])
    wrong = [
        {"type": "no such type"},
        {"type": "object", "$ref": "http://127.0.0.1:9/schema.json"},
        {"properties": {"n": {"$ref": "#/nowhere"}}, "$ref": "#/nowhere"},
    ]
    for schema in wrong:
        call = asked()
        request = replace(call.request, answer_schema=AnswerSchema("wrong", schema))
        with pytest.raises(ConfigError, match="'wrong'"):
            await read(through(Validation(), client, replace(call, request=request)))
    assert client.asked == []


async def test_other_calls_pass_untouched_and_repairs_can_be_off() -> None:
    client = Played([priced("no")])
    stream = client.stream(ask().request)
    assert Validation()(ask(), lambda _: stream) is stream
    await stream.aclose()
    with pytest.raises(ProviderError, match="JSON"):
        await read(through(Validation(repairs=0), client, asked()))
    assert len(client.asked) == 1


async def test_stopping_closes_the_call_below() -> None:
    client = Played([[ModelDelta(reasoning="hm"), *priced("{}")]])
    stream = through(Validation(), client, asked())
    await anext(stream)
    await stream.aclose()
    assert client.closed == 1
