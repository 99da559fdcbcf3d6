"""The Messages wire against a real server that fails in every way."""

from __future__ import annotations

import json

import pytest

from ovagent_jupyter.errors import StreamInterrupted
from ovagent_jupyter.messages import Message, ReasoningPart, TextPart, Usage
from ovagent_jupyter.providers.backend import Timeouts
from ovagent_jupyter.providers.connections import Connections
from tests.providers.asking import KEY
from tests.providers.messages_events import (
    RUN,
    STOP,
    TEXT,
    THINKING,
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
from tests.providers.replies import failure_of, named, reply_to
from tests.providers.served import CUT, FLOOD, HANG, JSON, PAGE, STREAM, Served, Step

HALF = (begun(THINKING), delta("thinking", thinking="Hm."), stopped(), begun(TEXT, 1),
        text("Half an ", 1))  # fmt: skip
SAID = Message("assistant", (ReasoningPart("Hm.", {"signature": ""}), TextPart("Half an ")), "acme")
ENDS = pytest.mark.parametrize("end", [(), (CUT,), (HANG,)], ids=["ends", "cut", "hangs"])
PATIENCE = Timeouts(connect=5, first_byte=5, between=0.3, total=20)


@pytest.fixture
def make(served: Served, connections: Connections) -> Make:
    """A client of the server."""
    return messages_at(served, connections)


def error(kind: str, message: str = "No.") -> dict[str, object]:
    told = {"type": kind, "message": message}
    return {"type": "error", "error": told, "request_id": "req_1"}


FAULTS = pytest.mark.parametrize(
    ("kind", "fault", "again"),
    [
        ("overloaded_error", "overloaded", True),
        ("rate_limit_error", "rate_limited", True),
        ("api_error", "server", True),
        ("timeout_error", "timeout", True),
        ("authentication_error", "key", False),
        ("permission_error", "permission", False),
        ("billing_error", "payment", False),
        ("not_found_error", "unknown_model", False),
        ("request_too_large", "too_large", False),
        ("invalid_request_error", "bad_request", False),
    ],
)


@FAULTS
async def test_an_error_event_before_the_first_words(
    served: Served, make: Make, kind: str, fault: str, again: bool
) -> None:
    served.answer(named(start(), error(kind, f"No, for {KEY}.")))
    failure = await failure_of(make())
    assert (failure.fault, failure.retryable) == (fault, again)
    assert failure.why.startswith("No, for ")
    assert failure.request_id == "req_1"
    assert not isinstance(failure, StreamInterrupted)
    # What was read before it failed has been paid for.
    assert isinstance(failure.usage, Usage)
    assert failure.usage.input_tokens == 22


async def test_an_error_event_after_the_first_words(served: Served, make: Make) -> None:
    served.answer(named(start(), *HALF, error("overloaded_error", "Overloaded")))
    failure = await failure_of(make())
    assert isinstance(failure, StreamInterrupted)
    assert failure.partial == SAID
    assert failure.retryable
    assert "Overloaded" in failure.why
    assert isinstance(failure.usage, Usage)
    assert failure.usage.input_tokens == 22
    assert failure.usage.output_tokens > 1
    assert failure.usage.estimated


async def test_an_error_without_its_name(served: Served, make: Make) -> None:
    served.answer(f"data: {json.dumps(error('overloaded_error'))}\n\n".encode())
    assert (await failure_of(make())).fault == "overloaded"


@ENDS
@pytest.mark.parametrize("last", [(), (ending("end_turn"),)], ids=["open", "told"])
async def test_an_answer_without_its_end(
    served: Served, make: Make, end: tuple[Step, ...], last: tuple[dict[str, object], ...]
) -> None:
    calling = [stopped(1), begun(RUN, 2), delta("input_json", 2, partial_json='{"code": "1"}')]
    served.answer(named(start(), *HALF, *calling, *last), *end)
    failure = await failure_of(make(timeouts=PATIENCE))
    assert isinstance(failure, StreamInterrupted)
    assert failure.partial == SAID
    assert failure.retryable
    assert isinstance(failure.usage, Usage)
    assert failure.usage.output_tokens == 9 if last else failure.usage.output_tokens > 1


async def test_every_place_where_it_may_break_off(served: Served, make: Make) -> None:
    calls = [*calling("run", "t1", 2, '{"code": ', '"1"}'), *calling("run", "t2", 3)]
    steps = [start(), *HALF, stopped(1), *calls, ending("tool_use"), STOP]
    for length in range(len(steps)):
        served.answer(named(*steps[:length]))
        failure = await failure_of(make())
        said = isinstance(failure, StreamInterrupted)
        assert said == (length > 2)
        assert failure.retryable
        if isinstance(failure, StreamInterrupted):
            assert isinstance(failure.partial, Message)
            assert failure.partial.tool_calls == ()
    served.answer(named(*steps))
    assert len((await reply_to(make())).message.tool_calls) == 2


@ENDS
async def test_nothing_of_an_answer(served: Served, make: Make, end: tuple[Step, ...]) -> None:
    served.answer(named(start()), *end)
    failure = await failure_of(make(timeouts=PATIENCE))
    assert not isinstance(failure, StreamInterrupted)
    assert failure.fault in {"malformed", "interrupted", "timeout"}
    assert failure.retryable
    assert isinstance(failure.usage, Usage)


@ENDS
async def test_one_piece_that_is_cut(served: Served, make: Make, end: tuple[Step, ...]) -> None:
    served.answer(b'{"type": "message", "cont', *end, headers=JSON)
    failure = await failure_of(make(timeouts=PATIENCE), streamed=False)
    assert failure.fault in {"malformed", "interrupted", "timeout"}
    assert failure.retryable


async def test_a_service_that_never_answers(served: Served, make: Make) -> None:
    served.answer(HANG, head=False)
    patience = Timeouts(connect=5, first_byte=0.3, between=5, total=20)
    failure = await failure_of(make(timeouts=patience))
    assert (failure.fault, failure.retryable) == ("timeout", True)
    await served.left()


@pytest.mark.parametrize("end", [CUT, HANG])
async def test_what_comes_after_the_end_costs_nothing(
    served: Served, make: Make, end: Step
) -> None:
    served.answer(named(start(), begun(TEXT), text("Whole."), stopped(), ending(), STOP), end)
    reply = await reply_to(make())
    assert reply.message.text == "Whole."
    assert "unclean_end" not in reply.details


@pytest.mark.parametrize(
    ("body", "head", "fault"),
    [
        (json.dumps(error("overloaded_error")).encode(), JSON, "overloaded"),
        (b'{"error": {"message": "Busy.", "type": "overloaded_error"}}', JSON, "overloaded"),
        (b'{"error": "Busy."}', JSON, "server"),
        (b'"Busy."', JSON, "malformed"),
        (b"[]", JSON, "malformed"),
        (b"{}", JSON, "malformed"),
        (b"null", JSON, "malformed"),
        (b"", JSON, "malformed"),
        (b'{"type": "message", "content": null}', JSON, "malformed"),
        (b'{"content": []}', JSON, "malformed"),
        (b"<!DOCTYPE html><title>Sign in</title>", PAGE, "malformed"),
        (b"data: {not json\n\n", STREAM, "malformed"),
        (b"data: [1]\n\n", STREAM, "malformed"),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
async def test_what_is_no_answer(
    served: Served, make: Make, *, body: bytes, head: dict[str, str], fault: str, streamed: bool
) -> None:
    served.answer(body, headers=head)
    failure = await failure_of(make(), streamed=streamed)
    assert failure.fault == fault
    assert not isinstance(failure, StreamInterrupted)


async def test_garbage_in_the_middle(served: Served, make: Make) -> None:
    served.answer(named(start(), *HALF), b"event: content_block_delta\ndata: {not\n\n", HANG)
    failure = await failure_of(make())
    assert isinstance(failure, StreamInterrupted)
    assert failure.partial == SAID
    await served.left()


@pytest.mark.parametrize(
    ("status", "kind", "fault", "again"),
    [
        (400, "invalid_request_error", "bad_request", False),
        (401, "authentication_error", "key", False),
        (403, "permission_error", "permission", False),
        (404, "not_found_error", "unknown_model", False),
        (413, "request_too_large", "too_large", False),
        (429, "rate_limit_error", "rate_limited", True),
        (500, "api_error", "server", True),
        (529, "overloaded_error", "overloaded", True),
    ],
)
async def test_a_status_of_failure(
    served: Served, make: Make, *, status: int, kind: str, fault: str, again: bool
) -> None:
    body = json.dumps(error(kind, f"Not with {KEY}.")).encode()
    served.answer(body, status=status, headers=JSON | {"retry-after": "7"})
    failure = await failure_of(make())
    assert (failure.fault, failure.retryable) == (fault, again)
    assert (failure.status_code, failure.retry_after) == (status, 7)
    assert failure.request_id == "req_1"
    assert len(served.requests) == 1


async def test_a_conversation_that_is_too_long(served: Served, make: Make) -> None:
    why = "prompt is too long: 208310 tokens > 200000 maximum"
    body = json.dumps(error("invalid_request_error", why)).encode()
    served.answer(body, status=400, headers=JSON)
    failure = await failure_of(make())
    assert (failure.fault, failure.retryable) == ("context_full", False)


@pytest.mark.parametrize("body", [b"{}", b"[]", b"null", b'{"content": []}'])
async def test_json_that_is_no_answer_is_not_called_nothing(
    served: Served, make: Make, body: bytes
) -> None:
    served.answer(body, headers=JSON)
    failure = await failure_of(make())
    assert failure.why
    assert "nothing" not in failure.why
    served.answer(headers=JSON)
    assert (await failure_of(make())).why == "It sent nothing."


async def test_an_error_without_an_end_is_ended(served: Served, make: Make) -> None:
    served.answer(b"Overloaded. " * 8192, FLOOD, status=529, headers=PAGE)
    failure = await failure_of(make())
    assert (failure.fault, failure.status_code) == ("overloaded", 529)
    await served.left()


async def test_an_unknown_reason_to_stop_is_told(served: Served, make: Make) -> None:
    served.answer(named(start(), begun(TEXT), text("A"), stopped(), ending("brand_new"), STOP))
    reply = await reply_to(make())
    assert (reply.finish_reason, reply.details["stop_reason"]) == ("stop", "brand_new")
