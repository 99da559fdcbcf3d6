"""The Responses wire against a real server that fails in every way."""

from __future__ import annotations

import json

import pytest

from ovagent_jupyter.errors import StreamInterrupted
from ovagent_jupyter.messages import Message, TextPart, Usage
from ovagent_jupyter.providers.backend import Timeouts
from ovagent_jupyter.providers.connections import Connections
from tests.providers.asking import KEY
from tests.providers.replies import failure_of, named, reply_to
from tests.providers.responses_events import (
    RUN,
    USAGE,
    Make,
    added,
    arguments,
    created,
    done,
    ending,
    responses_at,
    text,
)
from tests.providers.served import CUT, HANG, JSON, PAGE, Served, Step

SAID = Message("assistant", (TextPart("Half an "),), "acme")
BIO = {"code": "bio_policy", "message": "This looks like a pathogen."}


@pytest.fixture
def make(served: Served, connections: Connections) -> Make:
    """A client of the server."""
    return responses_at(served, connections)


@pytest.mark.parametrize(
    ("code", "fault", "again"),
    [
        ("bio_policy", "policy", False),
        ("misalignment_policy_violation", "policy", False),
        ("image_content_policy_violation", "policy", False),
        ("invalid_prompt", "policy", False),
        ("rate_limit_exceeded", "rate_limited", True),
        ("server_error", "server", True),
        ("vector_store_timeout", "server", True),
        ("invalid_image", "bad_request", False),
        ("image_too_large", "bad_request", False),
        ("context_length_exceeded", "context_full", False),
        ("insufficient_quota", "payment", False),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_failed_answer(
    served: Served, make: Make, *, code: str, fault: str, again: bool, streamed: bool
) -> None:
    failed = ending("failed", error={"code": code, "message": f"No, for {KEY}."})
    if streamed:
        served.answer(named(created(), failed))
    else:
        served.answer(json.dumps(failed["response"]).encode(), headers=JSON)
    failure = await failure_of(make(), streamed=streamed)
    assert (failure.fault, failure.retryable) == (fault, again)
    assert failure.why.startswith("No, for ")
    assert failure.usage == Usage(20, 9, 8, 4, 5)
    assert not isinstance(failure, StreamInterrupted)


async def test_a_policy_that_stops_it_after_the_first_words(served: Served, make: Make) -> None:
    served.answer(named(created(), text("Half an "), ending("failed", error=BIO)))
    failure = await failure_of(make())
    assert isinstance(failure, StreamInterrupted)
    assert failure.partial == SAID
    assert failure.usage == Usage(20, 9, 8, 4, 5)
    assert "pathogen" in failure.why
    assert not failure.retryable


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "rate_limit_exceeded", "message": "Slower.", "param": None},
        {"type": "error", "error": {"code": "rate_limit_exceeded", "message": "Slower."}},
    ],
)
@pytest.mark.parametrize("in_words", [True, False])
async def test_an_error_event(
    served: Served, make: Make, event: dict[str, object], in_words: bool
) -> None:
    data = f"data: {json.dumps(event)}\n\n".encode()
    served.answer(named(created()), data if in_words else named(event))
    served.answer(named(created(), text("Half an ")), data if in_words else named(event))
    first, second = await failure_of(make()), await failure_of(make())
    assert (first.fault, first.retryable) == ("rate_limited", True)
    assert not isinstance(first, StreamInterrupted)
    assert isinstance(second, StreamInterrupted)
    assert second.partial == SAID
    assert "Slower." in second.why


@pytest.mark.parametrize("end", [(), (CUT,), (HANG,)], ids=["ends", "cut", "hangs"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_an_answer_without_its_end(
    served: Served, make: Make, end: tuple[Step, ...], streamed: bool
) -> None:
    patience = Timeouts(connect=5, first_byte=5, between=0.3, total=20)
    if not streamed:
        served.answer(b'{"status": "comple', *end, headers=JSON)
        failure = await failure_of(make(timeouts=patience), streamed=False)
        assert failure.fault in {"malformed", "interrupted", "timeout"}
        assert failure.retryable
        return
    calling = [added(RUN, 1), arguments('{"code": ', 1)]
    served.answer(named(created(), text("Half an "), *calling), *end)
    failure = await failure_of(make(timeouts=patience))
    assert isinstance(failure, StreamInterrupted)
    assert failure.partial == SAID
    assert failure.retryable
    assert isinstance(failure.usage, Usage)
    assert failure.usage.estimated
    assert failure.usage.output_tokens > 0


async def test_every_place_where_it_may_break_off(served: Served, make: Make) -> None:
    second = RUN | {"call_id": "call_2"}
    steps = [
        created(), text("Half an "), added(RUN, 1), added(second, 2), arguments("{}", 1),
        arguments("{}", 2), done(RUN | {"arguments": "{}"}, 1),
        done(second | {"arguments": "{}"}, 2), ending(),
    ]  # fmt: skip
    for length in range(len(steps)):
        served.answer(named(*steps[:length]))
        failure = await failure_of(make())
        said = isinstance(failure, StreamInterrupted)
        assert said == (length > 1)
        assert failure.retryable
        if isinstance(failure, StreamInterrupted):
            assert failure.partial == SAID
    served.answer(named(*steps))
    assert len((await reply_to(make())).message.tool_calls) == 2


@pytest.mark.parametrize("end", [(), (CUT,), (HANG,)], ids=["ends", "cut", "hangs"])
async def test_nothing_of_an_answer(served: Served, make: Make, end: tuple[Step, ...]) -> None:
    patience = Timeouts(connect=5, first_byte=5, between=0.3, total=20)
    served.answer(named(created()), *end)
    failure = await failure_of(make(timeouts=patience))
    assert not isinstance(failure, StreamInterrupted)
    assert failure.fault in {"malformed", "interrupted", "timeout"}
    assert failure.retryable


@pytest.mark.parametrize(
    ("body", "head", "fault"),
    [
        (b'{"error": {"message": "Busy.", "code": "overloaded"}}', JSON, "overloaded"),
        (b'{"error": "Busy."}', JSON, "server"),
        (b'"Busy."', JSON, "malformed"),
        (b"[]", JSON, "malformed"),
        (b"{}", JSON, "malformed"),
        (b"null", JSON, "malformed"),
        (b"", JSON, "malformed"),
        (b'{"status": "in_progress", "output": []}', JSON, "malformed"),
        (b'{"status": "completed", "output": null}', JSON, "malformed"),
        (b"<!DOCTYPE html><title>Sign in</title>", PAGE, "malformed"),
        (b"data: {not json\n\n", {"content-type": "text/event-stream"}, "malformed"),
        (b"data: 5\n\n", {"content-type": "text/event-stream"}, "malformed"),
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


@pytest.mark.parametrize(
    ("status", "error", "fault", "again"),
    [
        (401, {"message": f"Wrong key {KEY}.", "code": "invalid_api_key"}, "key", False),
        (404, {"message": "No model m.", "code": "model_not_found"}, "unknown_model", False),
        (400, {"message": "Too long.", "code": "context_length_exceeded"}, "context_full", False),
        (429, {"message": "Slow.", "code": "rate_limit_exceeded"}, "rate_limited", True),
        (500, {"message": "Oh."}, "server", True),
    ],
)
async def test_a_status_of_failure(
    served: Served, make: Make, *, status: int, error: object, fault: str, again: bool
) -> None:
    headers = JSON | {"retry-after": "7", "x-request-id": "req_1"}
    served.answer(json.dumps({"error": error}).encode(), status=status, headers=headers)
    failure = await failure_of(make())
    assert (failure.fault, failure.retryable) == (fault, again)
    assert (failure.status_code, failure.request_id) == (status, "req_1")
    assert failure.retry_after == 7
    assert len(served.requests) == 1


@pytest.mark.parametrize("end", [CUT, HANG])
async def test_what_comes_after_the_end_costs_nothing(
    served: Served, make: Make, end: Step
) -> None:
    served.answer(named(created(), text("Whole."), ending(usage=USAGE)), end)
    reply = await reply_to(make())
    assert reply.message.text == "Whole."
    assert "unclean_end" not in reply.details
