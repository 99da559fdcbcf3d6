"""A span for each call, in OpenTelemetry's conventions for generative AI; free without its SDK."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.gateway import semconv
from ovagent_jupyter.gateway.layer import Call, Next
from ovagent_jupyter.messages import (
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    ToolCall,
    ToolResult,
    Usage,
)
from ovagent_jupyter.providers.client import ModelDelta, ModelRequest, Reply
from ovagent_jupyter.storage.redaction import Redactor

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider

SCOPE = "ovagent_jupyter.gateway"
"""What our spans and metrics are known by."""

Attributes = dict[str, Any]


class Tracing:
    """A span ``chat {model}`` around a call: ids, sizes and times; what was said only if asked.

    Spans go to the tracer provider that the user has set. Where there is none, or it does not
    record this call, the layer hands on the stream of the next one as it is.

    Args:
        content: Put what was said into the span, without keys; it may be private.
        redactor: Knows keys.
        provider: Where spans go; None is the global one, asked at each call.
        clock: Seconds, for the time to the first piece.
    """

    def __init__(
        self,
        *,
        content: bool = False,
        redactor: Redactor | None = None,
        provider: TracerProvider | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._content = content
        self._redactor = redactor or Redactor({})
        self._provider = provider
        self._clock = clock
        self._tracer: Tracer | None = None

    def __call__(self, call: Call, call_next: Next) -> AsyncGenerator[ModelDelta, None]:
        """Pass on the answer, in a span where one is recorded."""
        from opentelemetry.trace import SpanKind

        if self._provider is None and not _somebody_listens():
            return call_next(call)
        if self._tracer is None:
            self._tracer = _tracer(self._provider)
        span = self._tracer.start_span(
            f"{semconv.CHAT} {call.request.model}",
            kind=SpanKind.CLIENT,
            attributes=_asked(call),
        )
        if not span.is_recording():
            return call_next(call)
        return self._traced(span, call, call_next)

    async def _traced(
        self, span: Span, call: Call, call_next: Next
    ) -> AsyncGenerator[ModelDelta, None]:
        from opentelemetry.trace import Status, StatusCode

        began, first, ended = self._clock(), True, False
        if self._content:
            span.set_attributes(self._said(call.request))
        try:
            async with aclosing(_inside(span, call, call_next)) as deltas:
                async for delta in deltas:
                    if first and delta.has_content:
                        first = False
                        span.set_attribute(semconv.FIRST_CHUNK, self._clock() - began)
                    if delta.reply is not None:
                        self._answered(span, delta.reply)
                        ended = True
                    yield delta
        except ProviderError as error:
            ended = True
            self._failed(span, error)
            raise
        except Exception as error:
            ended = True
            span.set_attribute(semconv.ERROR_TYPE, type(error).__name__)
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            if not ended:
                span.set_attribute(semconv.ERROR_TYPE, "cancelled")
            span.end()

    def _answered(self, span: Span, reply: Reply) -> None:
        attributes: Attributes = {
            semconv.FINISH_REASONS: [reply.finish_reason],
            semconv.RESPONSE_MODEL: reply.model,
            semconv.RESPONSE_ID: reply.response_id,
            semconv.PROVIDER: semconv.PROVIDERS.get(reply.provider, reply.provider),
            semconv.BACKEND: reply.backend,
            semconv.COST: reply.cost,
            semconv.CACHED: reply.details.get("cached") is True,
        }
        told = {name: value for name, value in attributes.items() if value not in (None, "")}
        span.set_attributes(told | _spent(reply.usage))
        if self._content:
            said = [{**_message(reply.message), "finish_reason": reply.finish_reason}]
            span.set_attribute(semconv.OUTPUT_MESSAGES, self._json(said))

    def _failed(self, span: Span, error: ProviderError) -> None:
        from opentelemetry.trace import Status, StatusCode

        span.set_attribute(semconv.ERROR_TYPE, str(error.status_code or error.fault))
        if isinstance(error.usage, Usage):
            span.set_attributes(_spent(error.usage))
        if error.cost is not None:
            span.set_attribute(semconv.COST, error.cost)
        # Not record_exception: its stack trace shows the arguments of whoever called.
        told = self._redactor.text(f"{error.what} {error.why}".strip())
        span.set_status(Status(StatusCode.ERROR, told))

    def _said(self, request: ModelRequest) -> Attributes:
        system = [message for message in request.messages if message.role == "system"]
        others = [message for message in request.messages if message.role != "system"]
        attributes = {semconv.INPUT_MESSAGES: self._json([_message(said) for said in others])}
        if system:
            parts = [_part(part) for message in system for part in message.parts]
            attributes[semconv.SYSTEM_INSTRUCTIONS] = self._json(parts)
        if request.tools:
            tools = [_tool(tool.name, tool.description, tool.parameters) for tool in request.tools]
            attributes[semconv.TOOL_DEFINITIONS] = self._json(tools)
        return attributes

    def _json(self, value: object) -> str:
        return json.dumps(self._redactor.value(value), ensure_ascii=False, default=str)


def _somebody_listens() -> bool:
    """Whether a tracer provider was set for this process."""
    from opentelemetry import trace

    nobody = (trace.ProxyTracerProvider, trace.NoOpTracerProvider)
    return not isinstance(trace.get_tracer_provider(), nobody)


def _tracer(provider: TracerProvider | None) -> Tracer:
    from opentelemetry import trace

    # The global one may be set later: the API's own proxy then begins to record.
    return trace.get_tracer(SCOPE, tracer_provider=provider)


async def _inside(span: Span, call: Call, call_next: Next) -> AsyncGenerator[ModelDelta, None]:
    """The stream, begun with the span as the current one, so that spans of HTTP are its children.

    Only up to the first piece: a context that is entered in a generator cannot be left reliably
    after a ``yield``, as it may be closed from elsewhere.
    """
    from opentelemetry.trace import use_span

    async with aclosing(call_next(call)) as deltas:
        with use_span(
            span, end_on_exit=False, record_exception=False, set_status_on_exception=False
        ):
            try:
                first = await anext(deltas)
            except StopAsyncIteration:
                return
        yield first
        async for delta in deltas:
            yield delta


def _asked(call: Call) -> Attributes:
    """What is known before: also what samplers decide by."""
    request, backend = call.request, call.backend
    attributes: Attributes = {
        semconv.OPERATION: semconv.CHAT,
        semconv.REQUEST_MODEL: request.model,
        semconv.REQUEST_STREAM: request.streamed,
        semconv.REQUEST_MAX_TOKENS: request.max_output_tokens,
        semconv.REQUEST_TEMPERATURE: request.temperature,
        semconv.REQUEST_STOP: request.stop or None,
        semconv.REQUEST_SEED: request.seed,
        semconv.REQUEST_REASONING: request.reasoning_effort or None,
        semconv.OUTPUT_TYPE: "json" if request.answer_schema is not None else "text",
        semconv.CONVERSATION: call.session_id or None,
        semconv.TURN: call.turn_id or None,
        semconv.CALL: call.call_id,
    }
    if backend is not None:
        provider = backend.provider.id
        place = urlsplit(backend.url)
        attributes[semconv.PROVIDER] = semconv.PROVIDERS.get(provider, provider)
        attributes[semconv.BACKEND] = backend.name
        attributes[semconv.SERVER_ADDRESS] = place.hostname
        attributes[semconv.SERVER_PORT] = place.port
    return {name: value for name, value in attributes.items() if value is not None}


def _spent(usage: Usage) -> Attributes:
    attributes: Attributes = {
        semconv.INPUT_TOKENS: usage.input_tokens,
        semconv.OUTPUT_TOKENS: usage.output_tokens,
    }
    finer: Attributes = {
        semconv.CACHE_READ: usage.cached_tokens,
        semconv.CACHE_CREATION: usage.cache_write_tokens,
        semconv.REASONING_TOKENS: usage.reasoning_tokens,
        semconv.ESTIMATED: usage.estimated,
    }
    return attributes | {name: value for name, value in finer.items() if value}


def _message(message: Message) -> dict[str, object]:
    return {"role": message.role, "parts": [_part(part) for part in message.parts]}


def _part(part: Part) -> dict[str, object]:
    """A part as the conventions write it; a picture by its size."""
    match part:
        case ImagePart():
            size = f"{len(part.data)} bytes"
            return {"type": "blob", "mime_type": part.media_type, "content": size}
        case ToolCall():
            call = {"type": "tool_call", "id": part.id, "name": part.name}
            return {**call, "arguments": dict(part.arguments)}
        case ToolResult():
            return {"type": "tool_call_response", "id": part.call_id, "response": part.text}
        case ReasoningPart():
            return {"type": "reasoning", "content": part.text}
        case _:
            return {"type": "text", "content": part.text}


def _tool(name: str, description: str, parameters: Mapping[str, object]) -> dict[str, object]:
    return {
        "type": "function",
        "name": name,
        "description": description,
        "parameters": dict(parameters),
    }
