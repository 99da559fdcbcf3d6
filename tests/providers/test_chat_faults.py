"""What is no answer, and answers that do not end: each has one outcome, on the chat wire."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import ExitStack

import pytest

from ovagent_jupyter.errors import ProviderError, StreamInterrupted
from ovagent_jupyter.messages import Message, Usage
from ovagent_jupyter.providers.backend import Timeouts
from ovagent_jupyter.providers.client import ModelClient, collect
from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.providers.wires import client_for
from tests.providers.asking import ask, backend_at
from tests.providers.served import CUT, FLOOD, HANG, JSON, PAGE, STREAM, Pause, Served, Step, events
from tests.providers.test_openai_chat import USAGE, call, delta, failure_of, whole

QUICK = Timeouts(connect=5, first_byte=0.5, between=0.5, total=10)
TEXT = events(delta(content="Half an"), delta(content=" ans"))


@pytest.fixture
def client(served: Served, connections: Connections) -> ModelClient:
    return client_for(backend_at(served.url + "/v1"), connections)


@pytest.fixture
def quick(served: Served, connections: Connections) -> ModelClient:
    return client_for(backend_at(served.url + "/v1", timeouts=QUICK), connections)


NO_ANSWERS: list[tuple[bytes, str, bool]] = [
    (b'{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}', "rate_limited", True),
    (b'{"error": {"message": "Key limit", "code": 402}}', "payment", False),
    (b'{"error": "model is loading"}', "overloaded", True),
    (b'[{"error": {"code": 503, "message": "busy"}}]', "overloaded", True),
    (b'{"object": "error", "message": "no", "type": "BadRequestError"}', "malformed", True),
    (b'"just words"', "malformed", False),
    (b"just words", "malformed", False),
    (b"null", "malformed", False),
    (b"[]", "malformed", False),
    (b"{}", "malformed", True),
    (b"", "malformed", True),
    (b"   ", "malformed", True),
    (b'{"choices": []}', "malformed", True),
    (b'{"choices": null}', "malformed", True),
    (b'{"choices": [null]}', "malformed", True),
    (b'{"choices": {"a": 1}}', "malformed", True),
    (b'{"choices": [{"finish_reason": "stop"}]}', "malformed", True),
    (b'{"choices": [{"message": "text"}]}', "malformed", True),
    (b'{"choices": [{"message": {"content": 7}}]}', "malformed", True),
    (b'{"choices": [{"message": {"tool_calls": [null]}}]}', "malformed", True),
    (b'{"choices": [{"message": {"content"', "malformed", True),
    (b"\xff\xfe\x00", "malformed", False),
    (b'{"choices": [{"error": {"message": "x", "code": 502}, "finish_reason": "error", '
     b'"message": {"content": ""}}]}', "server", True),
]  # fmt: skip


@pytest.mark.parametrize("expected", NO_ANSWERS)
@pytest.mark.parametrize("streamed", [False, True])
async def test_success_that_is_no_answer(
    served: Served, client: ModelClient, expected: tuple[bytes, str, bool], streamed: bool
) -> None:
    body, fault, again = expected
    served.answer(*([body] if body else []), headers=JSON)
    deltas, error = await failure_of(client, streamed=streamed)
    assert deltas == []
    assert (error.fault, error.retryable) == (fault, again)
    assert not isinstance(error, StreamInterrupted)
    assert error.what


@pytest.mark.parametrize(
    ("body", "fault"), [(body, fault) for body, fault, _ in NO_ANSWERS if body.strip()]
)
async def test_the_same_said_to_be_a_stream(
    served: Served, client: ModelClient, body: bytes, fault: str
) -> None:
    served.answer(body, headers=STREAM)
    _, error = await failure_of(client)
    assert error.fault == fault


@pytest.mark.parametrize(("event", "fault"), [
    (b'data: {"error": {"message": "slow", "type": "rate_limit_error"}}\n\n', "rate_limited"),
    (b'event: error\ndata: {"message": "slow", "code": "rate_limit_exceeded"}\n\n', "rate_limited"),
    (b'data: {"error": "CUDA out of memory"}\n\n', "server"),
    (b'data: {"object": "error", "message": "overloaded", "code": 503}\n\n', "overloaded"),
    (b'data: {"error": "bad input", "error_type": "validation"}\n\n', "bad_request"),
    (b'data: {"choices": [{"delta": {}}], "x_groq": {"error": "stopped"}}\n\n', "server"),
    (b"data: {not json\n\n", "malformed"),
    (b"data: [1]\n\n", "malformed"),
    (b"data: 7\n\n", "malformed"),
    (b'data: {"choices": [{"delta": {"content": 7}}]}\n\n', "malformed"),
    (b'data: {"choices": [{"delta": {"tool_calls": [7]}}]}\n\n', "malformed"),
    (b'data: {"choices": [{"delta": {}, "finish_reason": "error"}]}\n\n', "interrupted"),
    (b"data: [DONE]\n\n", "malformed"),
    (b": only a comment\n\n", "malformed"),
])  # fmt: skip
async def test_errors_in_a_stream(
    served: Served, client: ModelClient, event: bytes, fault: str
) -> None:
    served.answer(event)
    deltas, error = await failure_of(client)
    assert (deltas, error.fault) == ([], fault)
    if b"DONE" in event or b"comment" in event:
        return
    for pieces in ([TEXT, event], [TEXT + event]):
        served.answer(*pieces)
        deltas, error = await failure_of(client)
        assert [each.text for each in deltas] == ["Half an", " ans"]
        assert_kept(error)


def assert_kept(error: ProviderError) -> None:
    """The part that came is kept, and what it cost."""
    assert isinstance(error, StreamInterrupted)
    assert isinstance(error.partial, Message)
    assert error.partial.text == "Half an ans"
    assert isinstance(error.usage, Usage)
    assert error.usage.output_tokens > 0
    assert error.why


@pytest.mark.parametrize("steps", [(TEXT,), (TEXT, CUT), (TEXT, b": comment\n\n")])
async def test_a_stream_without_its_end(
    served: Served, client: ModelClient, steps: tuple[Step, ...]
) -> None:
    served.answer(*steps)
    deltas, error = await failure_of(client)
    assert len(deltas) == 2
    assert_kept(error)
    assert error.retryable


async def test_a_call_without_its_end_is_no_call(served: Served, client: ModelClient) -> None:
    served.answer(TEXT, events(call("{}", index=0, name="f")), CUT)
    deltas, error = await failure_of(client)
    assert not any(each.tool_call for each in deltas)
    assert_kept(error)


END = events(delta("stop", content="All."))


@pytest.mark.parametrize("steps", [
    (END,), (END, CUT), (END, events(done=True), CUT), (END, events(done=True), HANG),
    (events(delta(content="All."), done=True),),
])  # fmt: skip
async def test_an_answer_that_said_that_it_ended_is_whole(
    served: Served, client: ModelClient, steps: tuple[Step, ...]
) -> None:
    served.answer(*steps)
    assert (await collect(client.stream(ask()))).message.text == "All."


async def test_a_refusal_that_was_cut_after_its_end_is_one(
    served: Served, client: ModelClient
) -> None:
    served.answer(events(delta("stop", refusal="No.")), CUT)
    reply = await collect(client.stream(ask()))
    assert (reply.finish_reason, reply.details["refusal"]) == ("refused", "No.")


async def test_nothing_after_the_end_is_not_waited_for(served: Served, quick: ModelClient) -> None:
    served.answer(END, HANG)
    reply = await collect(quick.stream(ask()))
    assert reply.message.text == "All."
    assert reply.details["unclean_end"] == "TimeoutError"


@pytest.mark.slow
async def test_what_may_follow_the_end_is_not_waited_for_as_long_as_an_answer(
    served: Served, connections: Connections
) -> None:
    patient = Timeouts(connect=5, first_byte=5, between=3600, total=7200)
    client = client_for(backend_at(served.url, timeouts=patient), connections)
    served.answer(END, HANG)
    assert (await collect(client.stream(ask()))).message.text == "All."


# -- hanging --------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("steps", [
    pytest.param((HANG,), id="before-the-head"),
    pytest.param((b"HTTP/1.1 200 OK\r\ncontent-", HANG), id="in-the-head"),
    pytest.param((b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", HANG), id="before-the-body"),
])  # fmt: skip
async def test_a_server_that_hangs_before_its_answer(
    served: Served, quick: ModelClient, steps: tuple[Step, ...], streamed: bool
) -> None:
    served.answer(*steps, head=False)
    deltas, error = await failure_of(quick, streamed=streamed)
    assert (deltas, error.fault, error.retryable) == ([], "timeout", True)
    assert "Nothing came for 0." in error.why
    await served.left()


async def test_a_server_that_hangs_in_mid_sentence(served: Served, quick: ModelClient) -> None:
    served.answer(TEXT, HANG)
    _, error = await failure_of(quick)
    assert_kept(error)
    await served.left()
    served.answer(b'{"choices": [', HANG, headers=JSON)
    _, error = await failure_of(quick, streamed=False)
    assert error.fault == "timeout"
    await served.left(2)


async def test_an_answer_that_never_ends_is_ended(served: Served, connections: Connections) -> None:
    brief = Timeouts(connect=5, first_byte=5, between=5, total=0.2)
    client = client_for(backend_at(served.url, timeouts=brief), connections)
    served.answer(TEXT, *[b": wait\n\n", Pause(0.02)] * 400)
    _, error = await failure_of(client)
    assert_kept(error)
    assert "did not end within 0.2 s" in error.why
    await served.left()


async def test_a_flood_is_ended_at_the_cap(served: Served, connections: Connections) -> None:
    client = client_for(backend_at(served.url, answer_cap=1 << 20), connections)
    served.answer(events(delta(content="word ")), FLOOD)
    deltas, error = await failure_of(client)
    assert isinstance(error, StreamInterrupted)
    assert "larger than 1 MiB" in error.why
    assert not error.retryable
    assert len(deltas) < 20_000
    served.answer(b'{"choices": [' + b" " * 4096, FLOOD, headers=JSON)
    _, error = await failure_of(client, streamed=False)
    assert error.fault == "too_large"
    await served.left(2)


async def test_one_event_is_ended_at_its_cap(served: Served, connections: Connections) -> None:
    client = client_for(backend_at(served.url, event_cap=1 << 16), connections)
    served.answer(TEXT, b'data: {"choices": "', b"x" * 4096, FLOOD)
    _, error = await failure_of(client)
    assert_kept(error)
    await served.left()


async def test_a_flood_without_pauses_ends_in_time(
    served: Served, connections: Connections
) -> None:
    brief = Timeouts(connect=5, first_byte=5, between=5, total=0.3)
    client = client_for(backend_at(served.url, timeouts=brief, answer_cap=1 << 40), connections)
    served.answer(b": comment\n\n", FLOOD)
    _, error = await failure_of(client)
    assert error.fault == "timeout"
    await served.left()


# -- connections and statuses ---------------------------------------------------------------------


async def test_nobody_listens(connections: Connections) -> None:
    async with Served() as server:
        url = server.url
    _, error = await failure_of(client_for(backend_at(url), connections))
    assert (error.fault, error.retryable) == ("unreachable", True)
    assert "start the server" in error.next_step


async def test_a_connection_that_never_comes(connections: Connections) -> None:
    brief = Timeouts(connect=0.2, first_byte=5, between=5, total=20)
    with socket.socket() as full, ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        # Who comes when nobody is let in any more gets no answer at all.
        for _ in range(4):
            other = waiting.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        url = "http://{}:{}".format(*full.getsockname())
        _, error = await failure_of(client_for(backend_at(url, timeouts=brief), connections))
    assert (error.fault, error.retryable) == ("unreachable", True)
    assert "0.2 s" in error.why


@pytest.mark.parametrize("steps", [(CUT,), (b"HTTP/1.1 200", CUT), (b"hello\r\n\r\n", CUT)])
async def test_a_connection_that_is_dropped_before_the_head(
    served: Served, client: ModelClient, steps: tuple[Step, ...]
) -> None:
    served.answer(*steps, head=False)
    _, error = await failure_of(client)
    assert error.fault == "interrupted"
    assert error.retryable


@pytest.mark.parametrize("streamed", [True, False])
async def test_statuses(served: Served, client: ModelClient, streamed: bool) -> None:
    told = json.dumps({"error": {"message": "slow", "type": "rate_limit_error"}}).encode()
    head = JSON | {"retry-after": "7", "x-request-id": "r7"}
    served.answer(told, status=429, headers=head)
    _, error = await failure_of(client, streamed=streamed)
    assert (error.fault, error.retry_after, error.request_id) == ("rate_limited", 7.0, "r7")
    assert error.status_code == 429
    listed = b'[{"error": {"code": 400, "message": "API key not valid."}}]'
    served.answer(listed, status=400, headers=JSON)
    _, error = await failure_of(client, streamed=streamed)
    assert (error.fault, error.retryable, error.why) == ("key", False, "API key not valid.")
    served.answer(b"<html><title>Blocked</title></html>", status=403, headers=PAGE)
    _, error = await failure_of(client, streamed=streamed)
    assert error.why == "a web page: Blocked"
    # Not one attempt more: the SDK does not try again by itself.
    assert len(served.requests) == 3


# -- cancelling -----------------------------------------------------------------------------------


async def test_the_first_piece_is_out_while_the_server_still_writes(
    served: Served, client: ModelClient
) -> None:
    served.answer(TEXT, HANG)
    stream = client.stream(ask())
    assert (await anext(stream)).text == "Half an"
    await stream.aclose()  # type: ignore[attr-defined]
    await served.left()


@pytest.mark.parametrize("steps", [(HANG,), (TEXT, HANG)])
async def test_cancelling_closes_the_connection(
    served: Served, client: ModelClient, steps: tuple[Step, ...]
) -> None:
    served.answer(*steps)
    task = asyncio.create_task(collect(client.stream(ask())))
    await served.came()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await served.left()


async def test_a_slow_consumer_is_waited_for(served: Served, quick: ModelClient) -> None:
    served.answer(TEXT, Pause(0.05), END, events({"choices": [], "usage": USAGE}, done=True))
    said = []
    async for each in quick.stream(ask()):
        said.append(each.text)
        await asyncio.sleep(0.15)
    assert "".join(said) == "Half an ansAll."


async def test_many_at_once_are_not_mixed(served: Served, client: ModelClient) -> None:
    for number in range(40):
        pieces = (events(delta(content=f"{number} ")) for _ in range(20))
        served.answer(*(step for piece in pieces for step in (piece, Pause(0.001))), END)
    replies = await asyncio.gather(*(collect(client.stream(ask())) for _ in range(40)))
    texts = sorted(reply.message.text for reply in replies)
    assert texts == sorted(f"{number} " * 20 + "All." for number in range(40))


async def test_a_filtered_choice_without_a_message_is_a_refusal(
    served: Served, client: ModelClient
) -> None:
    body = json.dumps({"choices": [{"finish_reason": "content_filter"}], "usage": USAGE}).encode()
    served.answer(body, headers=JSON)
    reply = await collect(client.stream(ask()))
    assert (reply.finish_reason, reply.usage) == ("refused", Usage(10, 5))
    served.answer(whole({"content": ""}), headers=JSON)
    assert (await collect(client.stream(ask()))).message.parts == ()
