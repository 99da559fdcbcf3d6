"""Requests, answers and failures as JSON and back, and the digest that requests are known by."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import fields
from hashlib import sha256
from typing import Any, cast

from ovagent_jupyter.errors import ProviderError, StreamInterrupted
from ovagent_jupyter.messages import (
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolResult,
    Usage,
)
from ovagent_jupyter.providers.client import ModelDelta, ModelRequest, Reply, ToolProgress
from ovagent_jupyter.storage.signing import canonical

Record = dict[str, Any]
"""A JSON object: its values are checked where it is read."""

SCHEMA = 1
"""Raised when a record changes its meaning: older ones are then not read."""

_KINDS: Mapping[str, type[Part]] = {
    "text": TextPart,
    "reasoning": ReasoningPart,
    "tool_call": ToolCall,
    "tool_result": ToolResult,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def digest(value: object) -> str:
    """What a JSON-able value is known by."""
    return sha256(canonical(value)).hexdigest()


def _fields(thing: Any) -> Record:
    return {row.name: getattr(thing, row.name) for row in fields(thing)}


def _exact(value: object) -> Any:
    """A JSON-able copy at any depth: what differs must stay different."""
    if isinstance(value, Mapping):
        return {str(name): _exact(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_exact(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


# -- what is asked -------------------------------------------------------------------------------


def request_record(request: ModelRequest) -> Record:
    """A request as what its answer depends on.

    Pictures are there by their digest. What a service wants back with the next request is left
    out, and calls are numbered in the order of the conversation: their ids are made anew each time.
    """
    ids: dict[str, str] = {}
    record: Record = {
        "schema": SCHEMA,
        "model": request.model,
        "messages": [_asked(message, ids) for message in request.messages],
    }
    if request.tools:
        record["tools"] = [_exact(_fields(tool)) for tool in request.tools]
        record["tool_choice"] = request.tool_choice
    if request.answer_schema is not None:
        record["answer_schema"] = _exact(_fields(request.answer_schema))
    settings = {name: getattr(request, name) for name in _SETTINGS}
    return record | {
        name: _exact(value) for name, value in settings.items() if value not in (None, "", ())
    }


_SETTINGS = ("max_output_tokens", "reasoning_effort", "stop", "seed", "temperature")


def _asked(message: Message, ids: dict[str, str]) -> Record:
    return {"role": message.role, "parts": [_asked_part(part, ids) for part in message.parts]}


def _asked_part(part: Part, ids: dict[str, str]) -> Record:
    match part:
        case ImagePart():
            return {"kind": "image", "type": part.media_type, "sha256": _hash(part.data)}
        case ToolCall():
            number = ids.setdefault(part.id, str(len(ids)))
            record: Record = {"kind": "tool_call", "id": number, "name": part.name}
            return record | {"arguments": _exact(part.arguments), "unreadable": part.unreadable}
        case ToolResult():
            number = ids.setdefault(part.call_id, str(len(ids)))
            record = {"kind": "tool_result", "id": number, "text": part.text}
            return record | {"is_error": part.is_error}
        case _:
            return {"kind": _NAMES[type(part)], "text": part.text}


def _hash(data: bytes) -> str:
    return sha256(data).hexdigest()


# -- what is answered ----------------------------------------------------------------------------


def message_record(message: Message) -> Record:
    """A message with all that it has."""
    parts = [_part_record(part) for part in message.parts]
    return {"role": message.role, "parts": parts, "provider": message.provider}


def message_from(record: Record) -> Message:
    """The message of a record.

    Raises:
        ValueError: It is none.
    """
    try:
        parts = tuple(_part_from(part) for part in record["parts"])
        return Message(record["role"], parts, record["provider"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"no message: {error!r}") from error


def _part_record(part: Part) -> Record:
    if isinstance(part, ImagePart):
        data = base64.b64encode(part.data).decode()
        return {"kind": "image", "data": data, "media_type": part.media_type}
    return {"kind": _NAMES[type(part)], **_exact(_fields(part))}


def _part_from(record: Record) -> Part:
    values = dict(record)
    kind = values.pop("kind")
    if kind == "image":
        return ImagePart(base64.b64decode(values["data"]), values["media_type"])
    return _KINDS[kind](**values)


def reply_record(reply: Reply) -> Record:
    """A whole answer."""
    values = _fields(reply) | {"usage": reply.usage.as_record()}
    return cast(Record, _exact(values | {"message": message_record(reply.message)}))


def reply_from(record: Record) -> Reply:
    """The answer of a record.

    Raises:
        ValueError: It is none.
    """
    values = dict(record)
    try:
        values["message"] = message_from(values["message"])
        values["usage"] = Usage.from_record(values["usage"])
        return Reply(**values)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no answer: {error!r}") from error


def delta_record(delta: ModelDelta) -> Record:
    """One piece of an answer; the last one without the reply, which is kept beside it."""
    record: Record = {}
    if delta.text:
        record["text"] = delta.text
    if delta.reasoning:
        record["reasoning"] = delta.reasoning
    if delta.tool_progress is not None:
        record["progress"] = _fields(delta.tool_progress)
    if delta.tool_call is not None:
        record["call"] = _part_record(delta.tool_call)
    if delta.finish_reason is not None:
        record["finish_reason"] = delta.finish_reason
    return record


def delta_from(record: Record, reply: Reply | None = None) -> ModelDelta:
    """The piece of a record; a last one gets its reply.

    Raises:
        ValueError: It is none.
    """
    reason = record.get("finish_reason")
    try:
        progress, call = record.get("progress"), record.get("call")
        return ModelDelta(
            text=record.get("text", ""),
            reasoning=record.get("reasoning", ""),
            tool_progress=None if progress is None else ToolProgress(**progress),
            tool_call=None if call is None else cast(ToolCall, _part_from(call)),
            finish_reason=reason,
            reply=reply if reason is not None else None,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"no piece of an answer: {error!r}") from error


def reply_deltas(reply: Reply, piece: int = 256) -> Sequence[ModelDelta]:
    """A whole answer as the pieces of a stream, in the order of its parts.

    Args:
        reply: The answer.
        piece: Characters of a text at a time.
    """
    deltas: list[ModelDelta] = []
    for part in reply.message.parts:
        if isinstance(part, ToolCall):
            deltas.append(ModelDelta(tool_call=part))
        elif isinstance(part, TextPart | ReasoningPart):
            cuts = range(0, len(part.text), piece)
            texts = [part.text[start : start + piece] for start in cuts]
            if isinstance(part, TextPart):
                deltas += [ModelDelta(text=text) for text in texts]
            else:
                deltas += [ModelDelta(reasoning=text) for text in texts]
    deltas.append(ModelDelta(finish_reason=reply.finish_reason, reply=reply))
    return deltas


# -- failures ------------------------------------------------------------------------------------

_TOLD = ("provider", "status_code", "retryable", "fault", "retry_after", "request_id")


def error_record(error: ProviderError) -> Record:
    """A failure."""
    record: Record = {"what": error.what, "why": error.why, "next_step": error.next_step}
    record |= {name: getattr(error, name) for name in _TOLD}
    record |= {"interrupted": isinstance(error, StreamInterrupted), "cost": error.cost}
    if isinstance(error.usage, Usage):
        record["usage"] = error.usage.as_record()
    if isinstance(error.partial, Message):
        record["partial"] = message_record(error.partial)
    return record


def error_from(record: Record) -> ProviderError:
    """The failure of a record.

    Raises:
        ValueError: It is none.
    """
    usage = Usage.from_record(record["usage"]) if "usage" in record else None
    partial = message_from(record["partial"]) if "partial" in record else None
    try:
        texts: Record = {name: record[name] for name in ("why", "next_step")}
        if record["interrupted"]:
            error: ProviderError = StreamInterrupted(
                record["what"], partial=partial, provider=record["provider"], usage=usage, **texts
            )
        else:
            told = {name: record[name] for name in _TOLD}
            error = ProviderError(record["what"], usage=usage, **told, **texts)
            error.partial = partial
    except (KeyError, TypeError) as wrong:
        raise ValueError(f"no failure: {wrong!r}") from wrong
    error.cost = record.get("cost")
    return error
