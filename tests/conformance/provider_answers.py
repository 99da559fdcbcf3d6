"""One answer of a model in the words of each wire, whole and as the events of a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

Json = dict[str, Any]
SIGNATURE = "signature-that-has-to-come-back"
USAGE = (30, 12)
"""Tokens that every answer tells of: read, written."""


@dataclass(frozen=True, slots=True)
class Called:
    """A tool call of an answer."""

    id: str
    name: str
    arguments: Mapping[str, object]

    @property
    def written(self) -> str:
        """The arguments as JSON."""
        return json.dumps(self.arguments)


class Midway(Enum):
    """What a server does in the middle of a text."""

    BREAKS = "breaks the connection"
    WAITS = "waits until it is told that the client has heard the first half"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says."""

    text: str = ""
    thinking: str = ""
    calls: tuple[Called, ...] = ()
    midway: Midway | None = None
    """What happens in the middle of a streamed text."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a service says instead of an answer."""

    status: int
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manner:
    """How a service writes chat completions."""

    reasoning_field: str = "reasoning_content"
    think_tags: bool = False
    content_parts: bool = False
    """Whether thinking and text come as a list of parts."""
    whole_calls: bool = False
    """Whether a stream has each tool call in one piece."""
    call_extra: Mapping[str, object] = field(default_factory=dict)
    """Added to each tool call."""


def halves(text: str) -> tuple[str, str]:
    """A text in two pieces."""
    return text[: len(text) // 2], text[len(text) // 2 :]


# -- chat completions -------------------------------------------------------------------------


def chat_whole(answer: Answer, manner: Manner, model: str) -> Json:
    """A chat completion."""
    message: Json = {"role": "assistant", "content": _chat_content(answer, manner) or None}
    if answer.thinking and not (manner.think_tags or manner.content_parts):
        message[manner.reasoning_field] = answer.thinking
    if answer.calls:
        message["tool_calls"] = [_chat_call(call, manner) for call in answer.calls]
    return _completion("chat.completion", model) | {
        "choices": [{"index": 0, "message": message, "finish_reason": _chat_end(answer)}],
        "usage": _chat_usage(),
    }


def chat_events(answer: Answer, manner: Manner, model: str, *, usage: bool) -> Iterator[str]:
    """The events of a streamed chat completion."""
    head = _completion("chat.completion.chunk", model)

    def event(delta: Json, end: str | None = None) -> str:
        choices = [{"index": 0, "delta": delta, "finish_reason": end}]
        return f"data: {json.dumps(head | {'choices': choices})}\n\n"

    yield ": the model is awake\n\n"
    yield event({"role": "assistant", "content": ""})
    for delta in _chat_deltas(answer, manner):
        yield event(delta)
    yield event({}, _chat_end(answer))
    if usage:
        yield f"data: {json.dumps(head | {'choices': [], 'usage': _chat_usage()})}\n\n"
    yield "data: [DONE]\n\n"


def _chat_deltas(answer: Answer, manner: Manner) -> Iterator[Json]:
    if manner.content_parts:
        for part in _chat_content(answer, manner):
            yield {"content": [part]}
    else:
        for piece in halves(answer.thinking if not manner.think_tags else ""):
            yield {manner.reasoning_field: piece}
        for piece in halves(str(_chat_content(answer, manner))):
            yield {"content": piece}
    for index, call in enumerate(answer.calls):
        made: Json = {"index": index} | _chat_call(call, manner)
        if not manner.whole_calls:
            made["function"]["arguments"] = ""
        yield {"tool_calls": [made]}
        for piece in () if manner.whole_calls else halves(call.written):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _chat_content(answer: Answer, manner: Manner) -> Any:
    if manner.content_parts:
        thought = [{"type": "text", "text": answer.thinking}]
        parts: list[Json] = [{"type": "thinking", "thinking": thought}] if answer.thinking else []
        return parts + ([{"type": "text", "text": answer.text}] if answer.text else [])
    if manner.think_tags and answer.thinking:
        return f"<think>\n{answer.thinking}\n</think>\n\n{answer.text}"
    return answer.text


def _chat_call(call: Called, manner: Manner) -> Json:
    function = {"name": call.name, "arguments": call.written}
    return {"id": call.id, "type": "function", "function": function} | dict(manner.call_extra)


def _chat_end(answer: Answer) -> str:
    return "tool_calls" if answer.calls else "stop"


def _chat_usage() -> Json:
    read, written = USAGE
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _completion(kind: str, model: str) -> Json:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": model}


# -- responses --------------------------------------------------------------------------------


def responses_whole(answer: Answer, model: str) -> Json:
    """A response."""
    items = [item for item, _ in _items(answer)]
    return _response(model, "completed") | {"output": items, "usage": _responses_usage()}


def responses_events(answer: Answer, model: str) -> Iterator[str]:
    """The events of a streamed response."""
    yield _named("response.created", {"response": _response(model, "in_progress")})
    for index, (item, deltas) in enumerate(_items(answer)):
        where = {"output_index": index, "item_id": item["id"]}
        begun = {k: v for k, v in item.items() if k != "encrypted_content"} | {
            "status": "in_progress"
        }
        emptied = {"content": [], "summary": [], "arguments": ""}
        begun |= {name: empty for name, empty in emptied.items() if name in begun}
        yield _named("response.output_item.added", where | {"item": begun})
        for kind, data in deltas:
            yield _named(kind, where | data)
        yield _named("response.output_item.done", where | {"item": item})
    yield _named("response.completed", {"response": responses_whole(answer, model)})


def _items(answer: Answer) -> Iterator[tuple[Json, list[tuple[str, Json]]]]:
    if answer.thinking:
        summary = [{"type": "summary_text", "text": answer.thinking}]
        yield (
            {"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": SIGNATURE},
            [
                ("response.reasoning_summary_text.delta", {"summary_index": 0, "delta": piece})
                for piece in halves(answer.thinking)
            ],
        )
    if answer.text:
        content = [{"type": "output_text", "text": answer.text, "annotations": []}]
        yield (
            {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
             "content": content},
            [
                ("response.output_text.delta", {"content_index": 0, "delta": piece})
                for piece in halves(answer.text)
            ],
        )  # fmt: skip
    for number, call in enumerate(answer.calls):
        yield (
            {"type": "function_call", "id": f"fc_{number}", "call_id": call.id, "name": call.name,
             "arguments": call.written, "status": "completed"},
            [
                ("response.function_call_arguments.delta", {"delta": piece})
                for piece in halves(call.written)
            ],
        )  # fmt: skip


def _response(model: str, status: str) -> Json:
    return {"id": "resp_1", "object": "response", "created_at": 1, "model": model,
            "status": status, "output": []}  # fmt: skip


def _responses_usage() -> Json:
    read, written = USAGE
    return {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}


def _named(kind: str, data: Json) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | data)}\n\n"


# -- messages ---------------------------------------------------------------------------------


def messages_whole(answer: Answer, model: str) -> Json:
    """A message."""
    return _message(model) | {
        "content": [block for block, _ in _blocks(answer)],
        "stop_reason": _messages_end(answer),
        "usage": {"input_tokens": USAGE[0], "output_tokens": USAGE[1]},
    }


def messages_events(answer: Answer, model: str) -> Iterator[str]:
    """The events of a streamed message."""
    begun = _message(model) | {"usage": {"input_tokens": USAGE[0], "output_tokens": 1}}
    yield _named("message_start", {"message": begun})
    yield _named("ping", {})
    emptied = {"thinking": "", "signature": "", "text": "", "input": {}}
    for index, (block, deltas) in enumerate(_blocks(answer)):
        start = block | {name: empty for name, empty in emptied.items() if name in block}
        yield _named("content_block_start", {"index": index, "content_block": start})
        for delta in deltas:
            yield _named("content_block_delta", {"index": index, "delta": delta})
        yield _named("content_block_stop", {"index": index})
    end = {"stop_reason": _messages_end(answer), "stop_sequence": None}
    yield _named("message_delta", {"delta": end, "usage": {"output_tokens": USAGE[1]}})
    yield _named("message_stop", {})


def _blocks(answer: Answer) -> Iterator[tuple[Json, list[Json]]]:
    if answer.thinking:
        thought = halves(answer.thinking)
        yield (
            {"type": "thinking", "thinking": answer.thinking, "signature": SIGNATURE},
            [{"type": "thinking_delta", "thinking": piece} for piece in thought]
            + [{"type": "signature_delta", "signature": SIGNATURE}],
        )
    if answer.text:
        said = halves(answer.text)
        yield (
            {"type": "text", "text": answer.text},
            [{"type": "text_delta", "text": piece} for piece in said],
        )
    for call in answer.calls:
        yield (
            {"type": "tool_use", "id": call.id, "name": call.name, "input": dict(call.arguments)},
            [{"type": "input_json_delta", "partial_json": part} for part in halves(call.written)],
        )


def _message(model: str) -> Json:
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [],
            "stop_reason": None, "stop_sequence": None}  # fmt: skip


def _messages_end(answer: Answer) -> str:
    return "tool_use" if answer.calls else "end_turn"
