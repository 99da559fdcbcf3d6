"""Our messages and tools, as the chat template of a local model takes them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.messages import ImagePart, Message, TextPart, ToolResult
from ovagent_jupyter.providers.client import AnswerSchema, ModelRequest, ToolSchema

Rendered = dict[str, object]


def template_messages(messages: Sequence[Message]) -> list[Rendered]:
    """A conversation; what was said by the system comes first, as one message.

    Raises:
        ProviderError: There is a picture in it, and the model reads text only.
    """
    system = "\n\n".join(message.text for message in messages if message.role == "system")
    said: list[Rendered] = [{"role": "system", "content": system}] if system else []
    names: dict[str, str] = {}
    for message in messages:
        if any(isinstance(part, ImagePart) for part in message.parts):
            raise ProviderError(
                "A picture cannot be shown to this local model.",
                provider="local",
                fault="bad_request",
                why="The runner takes text only.",
                next_step="Ask without the picture, or choose a model that sees.",
            )
        if message.role == "assistant":
            names |= {call.id: call.name for call in message.tool_calls}
            said.append(_assistant(message))
        elif message.role != "system":
            said.extend(_results(message, names))
            if any(isinstance(part, TextPart) for part in message.parts):
                said.append({"role": message.role, "content": message.text})
    return said


def without_system(said: Sequence[Rendered]) -> list[Rendered]:
    """The same for a template that knows no system: its text stands before the first request."""
    if not said or said[0]["role"] != "system":
        return list(said)
    system, rest = said[0]["content"], [dict(each) for each in said[1:]]
    for each in rest:
        if each["role"] == "user":
            each["content"] = f"{system}\n\n{each['content']}"
            break
    return rest


def template_tools(tools: Sequence[ToolSchema]) -> list[Rendered]:
    """Tools, in the form that all templates share."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": dict(tool.parameters) or {"type": "object", "properties": {}},
            },
        }
        for tool in tools
    ]


def wanted_tools(request: ModelRequest) -> tuple[ToolSchema, ...]:
    """The tools that are shown: a local model cannot be forced, but it calls only what it sees."""
    if request.tool_choice == "none":
        return ()
    named = tuple(tool for tool in request.tools if tool.name == request.tool_choice)
    return named or request.tools


def with_schema(messages: Sequence[Message], schema: AnswerSchema | None) -> tuple[Message, ...]:
    """The conversation with a word on the JSON that the answer has to be."""
    if schema is None:
        return tuple(messages)
    shape = json.dumps(schema.schema, ensure_ascii=False)
    wish = f"Answer with one JSON object and nothing else. It has to fit this schema:\n{shape}"
    return (*messages, Message("system", (TextPart(wish),)))


def _assistant(message: Message) -> Rendered:
    said: Rendered = {"role": "assistant", "content": message.text}
    if message.reasoning:
        # Templates that want earlier thoughts back find them here; the others leave them out.
        said["reasoning_content"] = message.reasoning
    if message.tool_calls:
        said["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": dict(call.arguments)},
            }
            for call in message.tool_calls
        ]
    return said


def _results(message: Message, names: dict[str, str]) -> list[Rendered]:
    return [
        {
            "role": "tool",
            "tool_call_id": part.call_id,
            "name": names.get(part.call_id, ""),
            "content": part.text,
        }
        for part in message.parts
        if isinstance(part, ToolResult)
    ]
