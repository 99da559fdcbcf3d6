"""Tokens that a service tells: what is no count is not told, on every wire."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from jiter import from_json

from ovagent_jupyter.messages import Usage
from ovagent_jupyter.providers.anthropic_reading import MessageReader
from ovagent_jupyter.providers.assembly import Assembly, estimate_request
from ovagent_jupyter.providers.chat_reading import ChatReader
from ovagent_jupyter.providers.client import Reply
from ovagent_jupyter.providers.exchange import Decoder
from ovagent_jupyter.providers.responses_reading import ResponseReader
from ovagent_jupyter.providers.token_counts import MOST_TOKENS, count_of
from tests.providers.asking import ask, backend_at

CHAT = """{"model": "m", "choices": [{"message": {"content": "12345678"}, "finish_reason": "stop"}],
           "usage": {"prompt_tokens": %s, "completion_tokens": %s}}"""
MESSAGES = """{"type": "message", "content": [{"type": "text", "text": "12345678"}],
               "stop_reason": "end_turn", "usage": {"input_tokens": %s, "output_tokens": %s}}"""
RESPONSES = """{"status": "completed", "output": [{"type": "message", "content":
                [{"type": "output_text", "text": "12345678"}]}],
                "usage": {"input_tokens": %s, "output_tokens": %s}}"""
WIRES: list[tuple[Callable[[Assembly], Decoder], str]] = [
    (ChatReader, CHAT),
    (MessageReader, MESSAGES),
    (ResponseReader, RESPONSES),
]
NO_COUNTS = ["1" + "0" * 400, "1e999", "-5", "NaN", "1000000001", '"10"', "null", "[1]", "true"]
BAD = (MOST_TOKENS + 1, -1, 10**400, math.inf, -math.inf, math.nan, True, "7", None, [7])
QUESTION = estimate_request(ask())


def told(make: Callable[[Assembly], Decoder], body: str) -> Reply:
    """The answer that a body is."""
    assembly = Assembly(ask(), backend_at("http://127.0.0.1:9/v1"))
    make(assembly).whole(from_json(body.encode()))
    reply = assembly.close()[-1].reply
    assert reply is not None
    return reply


@pytest.mark.parametrize(
    ("value", "count"),
    [(0, 0), (7, 7), (7.0, 7), (MOST_TOKENS, MOST_TOKENS), *((bad, None) for bad in BAD)],
)
def test_what_is_a_count(value: object, count: int | None) -> None:
    assert count_of(value) == count


@pytest.mark.parametrize(("make", "body"), WIRES)
@pytest.mark.parametrize("bad", [*NO_COUNTS, "0"])
def test_what_is_no_count_is_estimated(
    make: Callable[[Assembly], Decoder], body: str, bad: str
) -> None:
    assert told(make, body % (bad, bad)).usage == Usage(QUESTION, 2, estimated=True)
    assert told(make, body % (30, bad)).usage == Usage(30, 2, estimated=True)
    assert told(make, body % (bad, 9)).usage == Usage(QUESTION, 9, estimated=True)


@pytest.mark.parametrize(("make", "body"), WIRES)
def test_what_is_told_stays(make: Callable[[Assembly], Decoder], body: str) -> None:
    assert told(make, body % (30, 9)).usage == Usage(30, 9)


@pytest.mark.parametrize("bad", NO_COUNTS)
def test_the_finer_counts_are_not_told_either(bad: str) -> None:
    usage = f"""{{"input_tokens": 30, "output_tokens": 9, "cached_tokens": {bad},
                  "reasoning_tokens": {bad}, "total_tokens": {bad},
                  "cache_read_input_tokens": {bad}, "cache_creation_input_tokens": {bad},
                  "output_tokens_details": {{"reasoning_tokens": {bad}, "thinking_tokens": {bad}}},
                  "input_tokens_details": {{"cached_tokens": {bad}}}}}"""
    for make, body in WIRES:
        head = body[: body.index('"usage"')]
        assert told(make, f'{head}"usage": {usage}}}').usage == Usage(30, 9)
