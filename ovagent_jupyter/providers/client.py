"""One model call: what is asked, what streams back, and what they add up to."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ovagent_jupyter.messages import Message, Part, TextPart, ToolCall, Usage

FinishReason = Literal["stop", "length", "tool_calls", "refused"]
"""Why a model stopped: done, out of room, waiting for tools, or unwilling."""


@dataclass(frozen=True, slots=True)
class ToolSchema:
    """A tool that a model may call."""

    name: str
    """Its name."""
    description: str
    """What it does and when to use it."""
    parameters: Mapping[str, object] = field(default_factory=dict)
    """JSON schema of its arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """What a model is asked."""

    model: str
    """Id of the model."""
    messages: tuple[Message, ...]
    """The conversation, oldest first."""
    tools: tuple[ToolSchema, ...] = ()
    """What the model may call."""
    max_output_tokens: int | None = None
    """Bound on the answer; None is the model's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDelta:
    """One piece of an answer; every field that is set adds to what came before."""

    text: str = ""
    """The next characters."""
    tool_call: ToolCall | None = None
    """One whole call."""
    usage: Usage | None = None
    """Tokens of the whole call, once known."""
    finish_reason: FinishReason | None = None
    """Set on the last piece, and only there."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    message: Message
    """What was said."""
    usage: Usage
    """Tokens."""
    finish_reason: FinishReason
    """Why it ended."""


class ModelClient(Protocol):
    """Something that answers, piece by piece."""

    def stream(self, request: ModelRequest) -> AsyncIterator[ModelDelta]:
        """The answer as it comes; the last piece, and only that, has a finish reason.

        Closing the iterator early ends the call.

        Raises:
            ProviderError: The service failed.
        """
        ...


async def collect(deltas: AsyncIterable[ModelDelta]) -> Reply:
    """The whole answer of a stream; one that broke off counts as out of room."""
    texts: list[str] = []
    calls: list[Part] = []
    usage = Usage()
    reason: FinishReason = "length"
    async for delta in deltas:
        texts.append(delta.text)
        if delta.tool_call is not None:
            calls.append(delta.tool_call)
        usage = delta.usage or usage
        reason = delta.finish_reason or reason
    text = "".join(texts)
    said: tuple[Part, ...] = (TextPart(text),) if text else ()
    return Reply(Message("assistant", (*said, *calls)), usage, reason)
