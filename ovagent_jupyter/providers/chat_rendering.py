"""A request as the chat-completions wire wants it, with all that its services differ in."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from ovagent_jupyter.messages import (
    ImagePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolResult,
)
from ovagent_jupyter.providers.answer_schemas import in_words, is_strict
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import AnswerSchema, ModelRequest, ToolSchema
from ovagent_jupyter.providers.provider import Quirks, WireAPI

_UNSIGNED = {"google": {"thought_signature": "skip_thought_signature_validator"}}
"""Google's own word for a call that another model made; without any, Gemini answers 400."""

_ECHOED = ("extra_content", "reasoning_details")
"""What this wire's services want back; another wire of the same provider keeps other things."""


def render_chat(request: ModelRequest, backend: Backend) -> dict[str, Any]:
    """The body of a request."""
    quirks = backend.quirks
    body: dict[str, Any] = {"model": request.model, "messages": _messages(request, backend)}
    if request.streamed:
        body["stream"] = True
        if quirks.supports_stream_usage:
            body["stream_options"] = {"include_usage": True}
    if request.tools:
        body["tools"] = [_tool(tool, quirks) for tool in request.tools]
        body |= _tool_choice(request.tool_choice, quirks)
    if request.max_output_tokens is not None:
        body[quirks.max_tokens_field] = request.max_output_tokens
    if request.temperature is not None and quirks.supports_temperature:
        body["temperature"] = request.temperature
    if request.stop:
        body["stop"] = list(request.stop)
    if request.seed is not None:
        body["seed"] = request.seed
    if request.answer_schema is not None:
        body["response_format"] = _answer_format(request.answer_schema, quirks)
    return body | _effort(request.reasoning_effort, backend)


def _effort(effort: str, backend: Backend) -> dict[str, Any]:
    quirks, abilities = backend.quirks, backend.model.abilities
    if abilities and "reasoning" not in abilities:
        return {}  # a service refuses it of a model that does not think
    if effort == "none" and quirks.thinking_off:
        return dict(quirks.thinking_off)
    if effort and quirks.supports_effort:
        return {"reasoning_effort": effort}
    return {}


def _tool_choice(choice: str, quirks: Quirks) -> dict[str, Any]:
    if choice == "auto":
        return {}
    if choice == "none":
        return {"tool_choice": "none"}
    if not quirks.supports_forced_tool_choice:
        return {}
    if choice == "required":
        return {"tool_choice": "required"}
    return {"tool_choice": {"type": "function", "function": {"name": choice}}}


def _tool(tool: ToolSchema, quirks: Quirks) -> dict[str, Any]:
    parameters = dict(tool.parameters) or {"type": "object", "properties": {}}
    function: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "parameters": parameters,
    }
    if quirks.supports_strict_tools and is_strict(parameters):
        function["strict"] = True
    return {"type": "function", "function": function}


def _answer_format(answer: AnswerSchema, quirks: Quirks) -> dict[str, Any]:
    if not quirks.supports_json_schema:
        return {"type": "json_object"}
    described: dict[str, Any] = {"name": answer.name, "schema": dict(answer.schema)}
    if is_strict(answer.schema):
        described["strict"] = True
    return {"type": "json_schema", "json_schema": described}


# -- messages --------------------------------------------------------------------------------------


def _messages(request: ModelRequest, backend: Backend) -> list[dict[str, Any]]:
    quirks = backend.quirks
    rendered: list[dict[str, Any]] = []
    if request.answer_schema is not None and not quirks.supports_json_schema:
        words = in_words(request.answer_schema)
        rendered.append({"role": quirks.system_role, "content": words})
    shown: list[ImagePart] = []
    for message in request.messages:
        if shown and message.role != "tool":
            rendered.append({"role": "user", "content": [_image(image) for image in shown]})
            shown = []
        if message.role == "tool":
            # Pictures cannot be part of a result here, nor stand between two results.
            shown += [part for part in message.parts if isinstance(part, ImagePart)]
        rendered += _rendered(message, backend)
    if shown:
        rendered.append({"role": "user", "content": [_image(image) for image in shown]})
    return _one_system_message(rendered, quirks) if quirks.single_system_message else rendered


def _rendered(message: Message, backend: Backend) -> Iterator[dict[str, Any]]:
    for part in message.parts:
        if isinstance(part, ToolResult):
            text = part.text or "(nothing)"
            call_id = _call_id(part.call_id, backend.quirks)
            yield {"role": "tool", "tool_call_id": call_id, "content": text}
    if message.role == "system":
        yield {"role": backend.quirks.system_role, "content": message.text}
    elif message.role == "user":
        if content := _user_content(message):
            yield {"role": "user", "content": content}
    elif message.role == "assistant" and (said := _said(message, backend)):
        yield {"role": "assistant", **said}


def _user_content(message: Message) -> str | list[dict[str, Any]]:
    if not any(isinstance(part, ImagePart) for part in message.parts):
        return message.text
    content: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, TextPart):
            content.append({"type": "text", "text": part.text})
        elif isinstance(part, ImagePart):
            content.append(_image(part))
    return content


def _image(image: ImagePart) -> dict[str, Any]:
    data = base64.b64encode(image.data).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:{image.media_type};base64,{data}"}}


def _said(message: Message, backend: Backend) -> dict[str, Any]:
    """What an assistant said; empty where nothing of it can be told."""
    own = message.provider == backend.provider.id
    calls = [_call(call, backend.quirks, own=own) for call in message.tool_calls]
    if calls and not own and backend.wire_api is WireAPI.GEMINI:
        calls[0].setdefault("extra_content", _UNSIGNED)
    said: dict[str, Any] = {}
    if message.text or calls:
        said["content"] = message.text or None
    if calls:
        said["tool_calls"] = calls
    if own:
        for part in message.parts:
            if isinstance(part, ReasoningPart):
                said |= _echoed(part)
    echo = backend.quirks.echo_reasoning
    if (echo != "never" and calls) or (echo == "always" and message.reasoning):
        # Also when it is empty: services that want the field refuse a call without it.
        said[backend.quirks.reasoning_field] = message.reasoning
    if said:
        said.setdefault("content", "")
    return said


def _echoed(part: ReasoningPart | ToolCall) -> dict[str, Any]:
    return {name: part.provider_data[name] for name in _ECHOED if name in part.provider_data}


def _call(call: ToolCall, quirks: Quirks, *, own: bool) -> dict[str, Any]:
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    function = {"name": call.name, "arguments": arguments}
    rendered: dict[str, Any] = {"id": _call_id(call.id, quirks), "type": "function"}
    rendered["function"] = function
    return rendered | _echoed(call) if own else rendered


def _call_id(call_id: str, quirks: Quirks) -> str:
    """An id as the service takes it: the same for a call and its result."""
    if not quirks.short_call_ids or re.fullmatch(r"[A-Za-z0-9]{9}", call_id):
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:9]


def _one_system_message(rendered: list[dict[str, Any]], quirks: Quirks) -> list[dict[str, Any]]:
    role = quirks.system_role
    system = [message["content"] for message in rendered if message["role"] == role]
    rest = [message for message in rendered if message["role"] != role]
    return [{"role": role, "content": "\n\n".join(system)}, *rest] if system else rest
