"""Pieces of an answer, put together: order, calls, ends, and what it cost."""

from __future__ import annotations

import pytest

from ovagent_jupyter.errors import ProviderError, StreamInterrupted
from ovagent_jupyter.messages import (
    ImagePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolResult,
    Usage,
)
from ovagent_jupyter.providers.assembly import Assembly, estimate_request, estimate_tokens
from ovagent_jupyter.providers.client import ModelDelta, Reply, ToolSchema
from tests.providers.asking import ask, backend_at


class Clock:
    """Seconds that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


QUESTION = estimate_request(ask())


@pytest.fixture
def assembly(clock: Clock) -> Assembly:
    return Assembly(ask(), backend_at("http://x/v1"), clock)


def reply_of(deltas: list[ModelDelta]) -> Reply:
    reply = deltas[-1].reply
    assert reply is not None
    return reply


def test_parts_keep_their_order(assembly: Assembly) -> None:
    assembly.reasoning("Hm")
    assembly.reasoning(".")
    assembly.text("A")
    first = assembly.begin_call("f", "c1")
    assembly.text("B")
    assembly.call_arguments(first, '{"a": ')
    assembly.reasoning("So")
    second = assembly.begin_call("g")
    assembly.call_arguments(first, "1}")
    assembly.call_arguments(second, "")
    assembly.finish("tool_calls")
    reply = reply_of(assembly.close())
    call = reply.message.tool_calls[1]
    assert reply.message.parts == (
        ReasoningPart("Hm."),
        TextPart("A"),
        ToolCall("c1", "f", {"a": 1}),
        TextPart("B"),
        ReasoningPart("So"),
        ToolCall(call.id, "g"),
    )
    assert call.id.startswith("call_")
    assert len(call.id) == len("call_") + 12
    assert reply.message.provider == reply.provider == "acme"
    assert reply.backend == "acme/m"


def test_pieces_come_out_as_they_went_in_and_calls_at_the_end(assembly: Assembly) -> None:
    assembly.text("A")
    assert assembly.take() == [ModelDelta(text="A")]
    assert assembly.take() == []
    assembly.reasoning("Hm")
    assert assembly.take() == [ModelDelta(reasoning="Hm")]
    number = assembly.begin_call("f", "c")
    assembly.call_arguments(number, "{}")
    progress = [delta.tool_progress for delta in assembly.take()]
    assert [(p.name, p.arguments) for p in progress if p] == [("f", ""), ("f", "{}")]
    assembly.finish("tool_calls")
    *calls, last = assembly.close()
    assert calls == [ModelDelta(tool_call=ToolCall("c", "f"))]
    assert last.finish_reason == "tool_calls"


def test_seconds_are_counted_from_the_question(assembly: Assembly, clock: Clock) -> None:
    clock.now += 2
    assembly.text("A")
    clock.now += 3
    assembly.text("B")
    assembly.finish("stop")
    reply = reply_of(assembly.close())
    assert (reply.first_token, reply.latency) == (2.0, 5.0)


def test_thinking_keeps_what_goes_back_with_it(assembly: Assembly) -> None:
    assembly.reasoning("one")
    assembly.reasoning_data({"signature": "s1"})
    assembly.end_part()
    assembly.reasoning("two")
    assembly.text("A")
    assembly.reasoning_data({"redacted": "r"})
    assembly.finish("stop")
    deltas = assembly.close()
    assert reply_of(deltas).message.parts == (
        ReasoningPart("one", {"signature": "s1"}),
        ReasoningPart("two"),
        TextPart("A"),
        ReasoningPart("", {"redacted": "r"}),
    )
    assert [delta.reasoning for delta in deltas if delta.reasoning] == ["one", "two"]


@pytest.mark.parametrize("reason", ["length", "refused", "context_full"])
def test_calls_of_a_cut_answer_are_dropped(assembly: Assembly, reason: str) -> None:
    assembly.text("A")
    number = assembly.begin_call("delete", "c")
    assembly.call_arguments(number, "{}")
    assembly.finish(reason)  # type: ignore[arg-type]
    deltas = assembly.close()
    reply = reply_of(deltas)
    assert not any(delta.tool_call for delta in deltas)
    assert reply.message.parts == (TextPart("A"),)
    assert reply.finish_reason == reason
    assert reply.details["dropped_tool_calls"] == ["delete"]


@pytest.mark.parametrize(("told", "calls", "is_"), [
    ("stop", 1, "tool_calls"), ("tool_calls", 1, "tool_calls"), ("tool_calls", 0, "stop"),
])  # fmt: skip
def test_the_reason_agrees_with_the_calls(
    assembly: Assembly, told: str, calls: int, is_: str
) -> None:
    for _ in range(calls):
        assembly.begin_call("f")
    assembly.finish(told)  # type: ignore[arg-type]
    assert reply_of(assembly.close()).finish_reason == is_


@pytest.mark.parametrize(("raw", "arguments", "unreadable"), [
    ("", {}, ""), ("  ", {}, ""), ("null", {}, ""), ('{"a": [1]}', {"a": [1]}, ""),
    ('{"a": ', {}, '{"a": '), ("[1]", {}, "[1]"), ('"x"', {}, '"x"'), ("7", {}, "7"),
    ("[" * 9000, {}, "[" * 9000),
])  # fmt: skip
def test_arguments_are_an_object_or_unreadable(
    assembly: Assembly, raw: str, arguments: dict[str, object], unreadable: str
) -> None:
    assembly.call_arguments(assembly.begin_call("f"), raw)
    assembly.finish("tool_calls")
    (call,) = reply_of(assembly.close()).message.tool_calls
    assert (call.arguments, call.unreadable) == (arguments, unreadable)


def test_arguments_that_come_again_whole_count_once(assembly: Assembly) -> None:
    number = assembly.begin_call("f")
    assembly.call_arguments(number, '{"a"')
    assembly.call_arguments_whole(number, '{"a": 1}')
    progress = "".join(d.tool_progress.arguments for d in assembly.take() if d.tool_progress)
    assert progress == '{"a": 1}'
    assert assembly.calls_are_whole
    assembly.call_arguments_whole(number, '{"b": 2')
    assert not assembly.calls_are_whole


def test_an_answer_without_an_end_is_kept_as_far_as_it_came(assembly: Assembly) -> None:
    assembly.reasoning("Hm.")
    assembly.text("Half an ans")
    assembly.call_arguments(assembly.begin_call("f"), "{}")
    with pytest.raises(StreamInterrupted) as caught:
        assembly.close()
    error = caught.value
    assert isinstance(error.partial, Message)
    assert error.partial.parts == (ReasoningPart("Hm."), TextPart("Half an ans"))
    assert isinstance(error.usage, Usage)
    assert error.usage.estimated
    assert error.usage.output_tokens > 0
    assert error.retryable


def test_an_answer_of_nothing_is_malformed(assembly: Assembly) -> None:
    with pytest.raises(ProviderError) as caught:
        assembly.close()
    assert not isinstance(caught.value, StreamInterrupted)
    assert (caught.value.fault, caught.value.retryable) == ("malformed", True)


def test_a_failure_before_anything_came_stays_what_it_is(assembly: Assembly) -> None:
    cause = ProviderError("no", fault="overloaded", retryable=True, retry_after=3)
    assembly.usage = Usage(5)
    assert assembly.broken(cause) is cause
    assert cause.usage == Usage(5)


def test_a_failure_in_the_middle_tells_its_cause(assembly: Assembly) -> None:
    assembly.text("A")
    cause = ProviderError(
        "Acme is overloaded.", why="Later.", fault="overloaded", retry_after=3, request_id="r1"
    )
    broken = assembly.broken(cause)
    assert isinstance(broken, StreamInterrupted)
    assert broken.why == "Acme is overloaded. Later."
    assert (broken.retry_after, broken.request_id, broken.retryable) == (3, "r1", True)
    assert not assembly.broken(ProviderError("no", fault="policy")).retryable


def test_usage_that_was_only_begun_is_completed_by_an_estimate(assembly: Assembly) -> None:
    assembly.usage, assembly.usage_final = Usage(50, 1, cached_tokens=40), False
    assembly.text("word " * 40)
    broken = assembly.broken(ProviderError("cut"))
    assert broken.usage == Usage(50, 50, cached_tokens=40, estimated=True)


def test_what_was_told_is_not_estimated(assembly: Assembly) -> None:
    assembly.usage = Usage(50, 7)
    assembly.text("word " * 40)
    assembly.finish("stop")
    assert reply_of(assembly.close()).usage == Usage(50, 7)


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        (Usage(), Usage(QUESTION, 50, estimated=True)),
        (Usage(20), Usage(20, 50, estimated=True)),
        (Usage(0, 7), Usage(QUESTION, 7, estimated=True)),
        (Usage(0, 7, cached_tokens=30), Usage(30, 7, cached_tokens=30, estimated=True)),
    ],
)
def test_zeros_that_cannot_be_are_not_told(assembly: Assembly, told: Usage, usage: Usage) -> None:
    assembly.usage = told
    assembly.text("word " * 40)
    assembly.finish("stop")
    assert reply_of(assembly.close()).usage == usage


def test_an_answer_of_nothing_may_have_no_tokens(assembly: Assembly) -> None:
    assembly.usage = Usage(20)
    assembly.finish("refused")
    assert reply_of(assembly.close()).usage == Usage(20)


def test_estimates() -> None:
    assert [estimate_tokens(text) for text in ("", "abc", "abcde", "细胞", "ab细胞")] == [
        0,
        1,
        2,
        1,
        2,
    ]
    plain = estimate_request(ask("word " * 20))
    tool = ToolSchema("f", "does " * 20, {"type": "object"})
    assert estimate_request(ask("word " * 20, tools=(tool,))) > plain + 20
    said = (
        Message("assistant", (ToolCall("c", "f", {"a": "x" * 80}), ReasoningPart("y" * 40))),
        Message("tool", (ToolResult("c", "z" * 40), ImagePart(b"png"))),
    )
    assert 1030 < estimate_request(ask(messages=said)) < 1100
