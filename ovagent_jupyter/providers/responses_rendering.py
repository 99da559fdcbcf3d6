"""What OpenAI's Responses service is sent: a request as one JSON-able body."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping

from ovagent_jupyter.messages import (
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolResult,
)
from ovagent_jupyter.providers.answer_schemas import in_words, is_strict
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import AnswerSchema, ModelRequest, ToolSchema
from ovagent_jupyter.providers.provider import Quirks

Item = dict[str, object]

ENCRYPTED_REASONING = "reasoning.encrypted_content"

LONGEST_CALL_ID = 64
"""Characters; other services have longer names for a call than this one takes."""

SMALLEST_ANSWER = 16
"""Tokens; the service takes no smaller bound of an answer."""


def body_of(request: ModelRequest, backend: Backend) -> dict[str, object]:
    """The body of a call; nothing of it is kept by the service.

    ``stop`` and ``seed`` are left out: this wire has no place for them. Where to stop is watched
    while the answer is read.
    """
    quirks = backend.quirks
    body: dict[str, object] = {
        "model": request.model,
        "input": list(_items(request.messages, backend)),
        "stream": request.streamed,
        "store": False,
    }
    instructions = [message.text for message in request.messages if message.role == "system"]
    if request.max_output_tokens is not None:
        body["max_output_tokens"] = max(request.max_output_tokens, SMALLEST_ANSWER)
    if request.temperature is not None and quirks.supports_temperature:
        body["temperature"] = request.temperature
    if request.answer_schema is not None and quirks.supports_json_schema:
        body["text"] = {"format": _answer_format(request.answer_schema)}
    elif request.answer_schema is not None:
        instructions.append(in_words(request.answer_schema))
    if any(instructions):
        body["instructions"] = "\n\n".join(filter(None, instructions))
    if request.tools:
        body["tools"] = [_tool(tool, quirks) for tool in request.tools]
        body["tool_choice"] = _tool_choice(request.tool_choice, quirks)
    return body | _reasoning(request.reasoning_effort, backend)


def _reasoning(effort: str, backend: Backend) -> dict[str, object]:
    quirks, abilities = backend.quirks, backend.model.abilities
    # A model that does not think refuses to be asked for it.
    if abilities and "reasoning" not in abilities:
        return {}
    if effort == "none" and quirks.thinking_off:
        return dict(quirks.thinking_off)
    wanted: dict[str, object] = {}
    if effort and quirks.supports_effort:
        wanted["reasoning"] = {"effort": effort}
    if abilities or wanted:
        wanted["include"] = [ENCRYPTED_REASONING]
    return wanted


def _answer_format(answer: AnswerSchema) -> dict[str, object]:
    return {
        "type": "json_schema",
        "name": answer.name,
        "schema": dict(answer.schema),
        "strict": is_strict(answer.schema),
    }


def _tool(tool: ToolSchema, quirks: Quirks) -> dict[str, object]:
    parameters = {"type": "object", "properties": {}} | dict(tool.parameters)
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": parameters,
        # Where nothing is said the service is strict, and refuses optional arguments.
        "strict": quirks.supports_strict_tools and is_strict(parameters),
    }


def _tool_choice(choice: str, quirks: Quirks) -> object:
    if choice in ("auto", "none"):
        return choice
    if not quirks.supports_forced_tool_choice:
        return "auto"
    return choice if choice == "required" else {"type": "function", "name": choice}


def _items(messages: Iterable[Message], backend: Backend) -> Iterator[Item]:
    for message in messages:
        if message.role == "assistant":
            yield from _assistant_items(message, backend)
        elif message.role != "system":
            yield from _given_items(message)


def _given_items(message: Message) -> Iterator[Item]:
    """What a user or a tool gave: answers to calls first, then what is to be read."""
    for part in message.parts:
        if isinstance(part, ToolResult):
            output: Item = {"type": "function_call_output", "call_id": _call_id(part.call_id)}
            yield output | {"output": part.text}
    content = [_content(part) for part in message.parts if isinstance(part, TextPart | ImagePart)]
    if content:
        yield {"type": "message", "role": "user", "content": content}


def _content(part: TextPart | ImagePart) -> dict[str, object]:
    if isinstance(part, TextPart):
        return {"type": "input_text", "text": part.text}
    data = base64.b64encode(part.data).decode("ascii")
    url = f"data:{part.media_type};base64,{data}"
    return {"type": "input_image", "image_url": url, "detail": "auto"}


def _assistant_items(message: Message, backend: Backend) -> Iterator[Item]:
    """What the model said, in its order, with what it thought where that is this service's.

    Thinking that nothing follows is left out: the service refuses it without its answer.
    """
    own = message.provider == backend.provider.id
    thoughts: list[Item] = []
    phase: dict[str, object] = {}
    for part in message.parts:
        if isinstance(part, ReasoningPart):
            if own:
                thoughts += _thought(part, backend.quirks)
                phase = {"phase": part.provider_data.get("phase")} if _has_phase(part) else phase
            continue
        item = _said(part, own=own)
        if item is None:
            continue
        yield from thoughts
        thoughts = []
        yield item | (phase if item["type"] == "message" else {})
        phase = {} if item["type"] == "message" else phase


def _has_phase(part: ReasoningPart) -> bool:
    return isinstance(part.provider_data.get("phase"), str)


def _thought(part: ReasoningPart, quirks: Quirks) -> Iterator[Item]:
    """A thought as the service wants it back.

    One that it did not seal is nothing to it, unless it asks for the words themselves.
    """
    item = part.provider_data.get("item")
    if not isinstance(item, Mapping):
        return
    in_words = item.get("content") and quirks.echo_reasoning != "never"
    if item.get("encrypted_content") or item.get("type") != "reasoning" or in_words:
        yield dict(item)


def _said(part: Part, *, own: bool) -> Item | None:
    if isinstance(part, TextPart) and part.text:
        return {"type": "message", "role": "assistant", "content": part.text}
    if isinstance(part, ToolCall):
        # Unreadable arguments are not sent back: some services read them, and then refuse it all.
        arguments = json.dumps(dict(part.arguments), ensure_ascii=False)
        call = {"type": "function_call", "call_id": _call_id(part.id), "name": part.name}
        namespace = part.provider_data.get("namespace") if own else None
        return call | {"arguments": arguments} | ({"namespace": namespace} if namespace else {})
    return None


def _call_id(name: str) -> str:
    if len(name) <= LONGEST_CALL_ID:
        return name
    return f"call_{hashlib.sha256(name.encode()).hexdigest()[:32]}"
