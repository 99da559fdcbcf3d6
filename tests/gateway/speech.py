"""What a service says on each wire: the same short answers, whole and in pieces that can be cut."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ovagent_jupyter.providers.provider import WireAPI
from tests.providers.responses_events import added, arguments, created, done, ending, message, text
from tests.providers.served import JSON, STREAM, Step, events

HALF, REST = '{"code": "1', ' + 1"}'
"""The arguments of the tool call, in two pieces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """``Hello`` on one wire, and ``Hello`` with a tool call."""

    wire: WireAPI
    text: bytes
    """``Hello``, without an end."""
    text_end: tuple[bytes, ...]
    """The end; the last piece is the mark after which nothing comes."""
    call: bytes
    """``Hello`` and the first half of a call."""
    call_end: tuple[bytes, ...]
    """The second half, and the end."""
    error: bytes
    """An error in the middle."""


def _chunk(delta: dict[str, object], finish: str | None = None) -> dict[str, object]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "r1", "model": "m", "choices": [choice]}


def _call(pieces: str) -> dict[str, object]:
    function = {"name": "run_code", "arguments": pieces}
    return {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]}


_USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
_TOLD = events({"id": "r1", "model": "m", "choices": [], "usage": _USAGE}, done=True)
_MORE = {"tool_calls": [{"index": 0, "function": {"arguments": REST}}]}
_HELLO = events(_chunk({"role": "assistant", "content": "Hel"}), _chunk({"content": "lo"}))

CHAT = Speech(
    wire=WireAPI.CHAT_COMPLETIONS,
    text=_HELLO,
    text_end=(events(_chunk({}, "stop")), _TOLD),
    call=_HELLO + events(_chunk(_call(HALF))),
    call_end=(events(_chunk(_MORE)), events(_chunk({}, "tool_calls")), _TOLD),
    error=events({"error": {"message": "overloaded", "code": 529}}),
)


def named(*rows: dict[str, object]) -> bytes:
    """Events as the messages wire has them, each with its name."""
    return b"".join(b"event: %s\n" % str(row["type"]).encode() + events(row) for row in rows)


def _block(place: int, kind: str, **fields: object) -> dict[str, object]:
    return {"type": "content_block_start", "index": place, "content_block": {"type": kind} | fields}


def _delta(place: int, kind: str, **fields: object) -> dict[str, object]:
    return {"type": "content_block_delta", "index": place, "delta": {"type": kind} | fields}


def _stop(reason: str) -> bytes:
    return named(
        {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 4}}
    )


BEGUN: dict[str, object] = {
    "type": "message_start",
    "message": {
        "id": "r1", "type": "message", "role": "assistant", "model": "m", "content": [],
        "usage": {"input_tokens": 25, "output_tokens": 1},
    },
}  # fmt: skip
OVERLOADED: dict[str, object] = {
    "type": "error",
    "error": {"type": "overloaded_error", "message": "Overloaded"},
}
_SAID = named(
    BEGUN,
    _block(0, "text", text=""),
    _delta(0, "text_delta", text="Hel"),
    _delta(0, "text_delta", text="lo"),
)
_CLOSED = {"type": "content_block_stop", "index": 0}
_END = named({"type": "message_stop"})

MESSAGES = Speech(
    wire=WireAPI.ANTHROPIC_MESSAGES,
    text=_SAID,
    text_end=(named(_CLOSED), _stop("end_turn"), _END),
    call=_SAID
    + named(
        _CLOSED,
        _block(1, "tool_use", id="call_1", name="run_code", input={}),
        _delta(1, "input_json_delta", partial_json=HALF),
    ),
    call_end=(
        named(_delta(1, "input_json_delta", partial_json=REST), _CLOSED | {"index": 1}),
        _stop("tool_use"),
        _END,
    ),
    error=named(OVERLOADED),
)

_RUN = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "run_code"}
_RAN = _RUN | {"arguments": HALF + REST}
_TEXT = message({"type": "output_text", "text": "Hello"})

RESPONSES = Speech(
    wire=WireAPI.RESPONSES,
    text=events(created(), text("Hel"), text("lo")),
    text_end=(events(ending(output=[_TEXT])),),
    call=events(
        created(), text("Hel"), text("lo"), added(_RUN | {"arguments": ""}, 1), arguments(HALF, 1)
    ),
    call_end=(events(arguments(REST, 1), done(_RAN, 1)), events(ending(output=[_TEXT, _RAN]))),
    error=events({"type": "error", "code": "server_error", "message": "overloaded"}),
)

SPEECHES = {speech.wire: speech for speech in (CHAT, MESSAGES, RESPONSES)}


def whole(*, tools: bool = False) -> bytes:
    """The answer in one piece, on the chat wire."""
    said: dict[str, object] = {"role": "assistant", "content": "Hello"}
    if tools:
        said |= _call(HALF + REST)
    choice = {"index": 0, "message": said, "finish_reason": "tool_calls" if tools else "stop"}
    return json.dumps({"id": "r1", "model": "m", "choices": [choice], "usage": _USAGE}).encode()


def good(wire: WireAPI, *, streamed: bool, tools: bool) -> tuple[tuple[Step, ...], dict[str, str]]:
    """What a server does that is well."""
    if not streamed:
        return (whole(tools=tools),), JSON
    speech = SPEECHES[wire]
    if tools:
        return (speech.call, *speech.call_end), STREAM
    return (speech.text, *speech.text_end), STREAM
