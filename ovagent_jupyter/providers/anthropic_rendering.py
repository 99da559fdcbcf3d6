"""What Anthropic's Messages service is sent: a request as one JSON-able body."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from ovagent_jupyter.messages import (
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolResult,
)
from ovagent_jupyter.providers.answer_schemas import in_words
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import ModelRequest, ToolSchema
from ovagent_jupyter.providers.provider import Quirks

Block = dict[str, object]

CloseSchema = Callable[[dict[str, object]], dict[str, object]]
"""Puts a JSON schema in the part of the language that the service takes; the SDK has one."""

USUAL_ANSWER = 8192
"""Tokens of an answer where neither request nor model has a bound; the service wants one."""

LONGEST_UNSTREAMED = 8192
"""Tokens of an answer above which it is streamed on the wire even when nobody asks for that.

A silent connection does not live as long as a long answer takes, and the SDK refuses to try.
"""

SMALLEST_BUDGET = 1024
"""Tokens of thinking; the service takes no smaller budget."""

BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384}
"""Tokens of thinking for models that take a budget and no effort; any other effort is ``MOST``."""

MOST = 32768
"""Tokens of thinking at the greatest effort."""


def body_of(request: ModelRequest, backend: Backend, close: CloseSchema) -> dict[str, object]:
    """The body of a call.

    ``seed`` is left out: this wire has no place for it.

    Args:
        request: What is asked.
        backend: Whom.
        close: Makes the schema of an answer one that the service takes.
    """
    quirks = backend.quirks
    longest = longest_answer(request, backend)
    body: dict[str, object] = {
        "model": request.model,
        "max_tokens": longest,
        "messages": _turns(request.messages, backend),
        "stream": request.streamed or longest > LONGEST_UNSTREAMED,
    }
    system = [message.text for message in request.messages if message.role == "system"]
    if request.answer_schema is not None and not quirks.supports_json_schema:
        system.append(in_words(request.answer_schema))
    if any(text.strip() for text in system):
        body["system"] = "\n\n".join(filter(str.strip, system))
    if request.temperature is not None and quirks.supports_temperature:
        body["temperature"] = request.temperature
    if stops := [text for text in request.stop if text.strip()]:
        body["stop_sequences"] = stops
    if quirks.supports_cache_control:
        body["cache_control"] = {"type": "ephemeral"}
    body |= _tools(request, quirks)
    return body | _thinking(request, backend, longest) | _output(request, backend, close)


def longest_answer(request: ModelRequest, backend: Backend) -> int:
    """Tokens that the answer may have; by itself never more than half of the window."""
    if request.max_output_tokens is not None:
        return request.max_output_tokens
    longest = backend.model.max_output or USUAL_ANSWER
    return min(longest, backend.model.window // 2 or longest)


def _output(request: ModelRequest, backend: Backend, close: CloseSchema) -> dict[str, object]:
    wanted: dict[str, object] = {}
    effort = request.reasoning_effort if _thinks(backend) else ""
    if effort not in ("", "none") and backend.quirks.supports_effort:
        wanted["effort"] = "low" if effort == "minimal" else effort
    if request.answer_schema is not None and backend.quirks.supports_json_schema:
        schema = _closed(request.answer_schema.schema, close)
        wanted["format"] = {"type": "json_schema", "schema": schema}
    return {"output_config": wanted} if wanted else {}


def _thinks(backend: Backend) -> bool:
    """Whether a model can think, as far as its abilities are known."""
    abilities = backend.model.abilities
    return "reasoning" in abilities or not abilities


def _closed(schema: Mapping[str, object], close: CloseSchema) -> dict[str, object]:
    try:
        return close(dict(schema))
    except ValueError:
        # The service says better than its SDK what is wrong with a schema.
        return dict(schema)


def _thinking(request: ModelRequest, backend: Backend, longest: int) -> dict[str, object]:
    effort = request.reasoning_effort if _thinks(backend) else ""
    quirks = backend.quirks
    if effort == "none":
        return dict(quirks.thinking_off) or {"thinking": {"type": "disabled"}}
    # The service refuses to think where it is forced to call a tool.
    if not effort or _is_forced(request, quirks):
        return {}
    if quirks.supports_effort:
        return {"thinking": {"type": "adaptive", "display": "summarized"}}
    budget = min(BUDGETS.get(effort, MOST), longest - SMALLEST_BUDGET)
    if budget < SMALLEST_BUDGET or _calls_without_thought(request.messages, backend.provider.id):
        return {}
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def _calls_without_thought(messages: Iterable[Message], provider: str) -> bool:
    """Whether tools are being answered that were called without thinking of this service.

    That is so after a change of models; it then refuses to think within a budget.
    """
    said = [message for message in messages if message.role in ("user", "assistant")]
    if not said or not said[-1].tool_calls:
        return False
    thoughts = (part for part in said[-1].parts if isinstance(part, ReasoningPart))
    return said[-1].provider != provider or not any(part.provider_data for part in thoughts)


def _is_forced(request: ModelRequest, quirks: Quirks) -> bool:
    free = request.tool_choice in ("auto", "none")
    return bool(request.tools) and not free and quirks.supports_forced_tool_choice


def _tools(request: ModelRequest, quirks: Quirks) -> dict[str, object]:
    if not request.tools:
        return _former_tools(request.messages)
    choice: dict[str, object] = {"type": "auto"}
    if request.tool_choice == "none":
        choice = {"type": "none"}
    elif _is_forced(request, quirks):
        choice = {"type": "any"}
        if request.tool_choice != "required":
            choice = {"type": "tool", "name": request.tool_choice}
    return {"tools": [_tool(tool) for tool in request.tools], "tool_choice": choice}


def _former_tools(messages: Iterable[Message]) -> dict[str, object]:
    """Tools that were called before: the service wants them named, also where none is offered."""
    names = dict.fromkeys(call.name for message in messages for call in message.tool_calls)
    if not names:
        return {}
    tools = [_tool(ToolSchema(name, "No longer offered.")) for name in names]
    return {"tools": tools, "tool_choice": {"type": "none"}}


def _tool(tool: ToolSchema) -> dict[str, object]:
    schema = {"type": "object", "properties": {}} | dict(tool.parameters)
    return {"name": tool.name, "description": tool.description, "input_schema": schema}


def _turns(messages: Iterable[Message], backend: Backend) -> list[dict[str, object]]:
    """The conversation in turns that alternate; what tools answered is the user's."""
    turns: list[tuple[str, list[Block]]] = []
    for message in messages:
        if message.role == "system":
            continue
        role = "assistant" if message.role == "assistant" else "user"
        own = message.provider == backend.provider.id
        blocks = [block for part in message.parts for block in _blocks(part, backend.quirks, own)]
        if not blocks:
            continue
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        else:
            turns.append((role, blocks))
    return [{"role": role, "content": _results_first(blocks)} for role, blocks in turns]


def _results_first(blocks: list[Block]) -> list[Block]:
    """In one turn the answers of tools come before what else is said."""
    return sorted(blocks, key=lambda block: block["type"] != "tool_result")


def _blocks(part: Part, quirks: Quirks, own: bool) -> Iterator[Block]:  # noqa: FBT001 - private
    if isinstance(part, TextPart):
        if part.text.strip():
            yield {"type": "text", "text": part.text}
    elif isinstance(part, ReasoningPart):
        if own:
            yield from _thought(part, quirks)
    elif isinstance(part, ToolCall):
        arguments = dict(part.arguments)
        call: Block = {"type": "tool_use", "id": _call_id(part.id), "name": part.name}
        yield call | {"input": arguments}
    elif isinstance(part, ToolResult):
        result: Block = {"type": "tool_result", "tool_use_id": _call_id(part.call_id)}
        yield result | {"content": part.text} | ({"is_error": True} if part.is_error else {})
    else:
        yield _image(part)


def _call_id(name: str) -> str:
    """The name of a call in the characters that the service takes; others' have more."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def _thought(part: ReasoningPart, quirks: Quirks) -> Iterator[Block]:
    """A thought as it came, signature and all.

    One that was cut has none and is left out; a whole one without goes to a service that asks.
    """
    block = part.provider_data.get("block")
    signature = part.provider_data.get("signature")
    if isinstance(block, Mapping):
        yield dict(block)
    elif isinstance(signature, str) and (
        signature or (part.text and quirks.echo_reasoning != "never")
    ):
        yield {"type": "thinking", "thinking": part.text, "signature": signature}


def _image(part: ImagePart) -> Block:
    data = base64.b64encode(part.data).decode("ascii")
    source = {"type": "base64", "media_type": part.media_type, "data": data}
    return {"type": "image", "source": source}
