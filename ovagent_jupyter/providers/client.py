"""One model call: what is asked, what streams back, and what they add up to."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ovagent_jupyter.errors import StreamInterrupted
from ovagent_jupyter.messages import Message, TextPart, ToolCall, Usage

FinishReason = Literal["stop", "length", "tool_calls", "refused", "context_full", "paused"]
"""Why a model stopped.

Done; out of room for its answer; waiting for tools; unwilling, or kept from it by a filter; out of
room for the conversation; to be asked to go on. Only ``tool_calls`` means that calls are whole.
"""


@dataclass(frozen=True, slots=True)
class ToolSchema:
    """A tool that a model may call."""

    name: str
    """Its name."""
    description: str
    """What it does and when to use it."""
    parameters: Mapping[str, object] = field(default_factory=dict)
    """JSON schema of its arguments."""


@dataclass(frozen=True, slots=True)
class AnswerSchema:
    """The JSON that an answer has to be."""

    name: str
    """What it is called, ``[a-zA-Z0-9_-]+``."""
    schema: Mapping[str, object]
    """Its JSON schema; of type object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """What a model is asked."""

    model: str
    """Id of the model as its service knows it, passed on verbatim."""
    messages: tuple[Message, ...]
    """The conversation, oldest first; every tool call of it is answered."""
    tools: tuple[ToolSchema, ...] = ()
    """What the model may call."""
    tool_choice: str = "auto"
    """``auto``, ``none``, ``required``, or the name of the tool it has to call."""
    max_output_tokens: int | None = None
    """Bound on the answer; None is the model's own."""
    temperature: float | None = None
    """None is the service's own; left out where a model takes none."""
    reasoning_effort: str = ""
    """``none``, ``minimal``, ``low``, ``medium``, ``high``, …; empty is the model's own."""
    stop: tuple[str, ...] = ()
    """Texts at which the answer ends."""
    answer_schema: AnswerSchema | None = None
    """JSON that the answer has to be."""
    seed: int | None = None
    """For the same answer again, where a service can."""
    streamed: bool = True
    """False asks the service for the answer in one piece; it still comes as deltas."""


@dataclass(frozen=True, slots=True)
class ToolProgress:
    """A piece of a tool call that is being written."""

    index: int
    """Which call of the answer."""
    name: str
    """Its tool, as far as it is known."""
    arguments: str
    """The next characters of its arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDelta:
    """One piece of an answer; every field that is set adds to what came before."""

    text: str = ""
    """The next characters."""
    reasoning: str = ""
    """The next characters of what it thinks."""
    tool_progress: ToolProgress | None = None
    """A call that is being written; not to be acted upon."""
    tool_call: ToolCall | None = None
    """One whole call."""
    finish_reason: FinishReason | None = None
    """Set on the last piece, and only there."""
    reply: Reply | None = None
    """The whole answer; set on the last piece, and only there."""

    @property
    def has_content(self) -> bool:
        """Whether somebody who reads along has got something of the answer with it."""
        return bool(self.text or self.reasoning or self.tool_progress or self.tool_call)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer, the same whoever gave it."""

    message: Message
    """What was said."""
    usage: Usage = field(default_factory=Usage)
    """Tokens."""
    finish_reason: FinishReason = "stop"
    """Why it ended."""
    model: str = ""
    """Model that answered, as the service names it."""
    provider: str = ""
    """Id of the provider."""
    backend: str = ""
    """Which of several backends answered; the provider's id where there is one."""
    response_id: str = ""
    """The service's name for the answer."""
    latency: float = 0.0
    """Seconds from asking to the end."""
    first_token: float | None = None
    """Seconds from asking to the first content; None when there was none."""
    cost: float | None = None
    """US dollars; None when a price is not known."""
    details: Mapping[str, object] = field(default_factory=dict)
    """What else the service told: JSON-able, not needed for anything."""


class ModelClient(Protocol):
    """Something that answers, piece by piece."""

    def stream(self, request: ModelRequest) -> AsyncIterator[ModelDelta]:
        """The answer as it comes: an asynchronous generator.

        The last piece, and only that, has a finish reason and the reply. Closing the generator
        early ends the call and frees its connection.

        Raises:
            StreamInterrupted: The stream broke off after a part of the answer; it has that part.
            ProviderError: The service failed before.
        """
        ...


async def collect(deltas: AsyncIterable[ModelDelta]) -> Reply:
    """The whole answer of a stream.

    Raises:
        StreamInterrupted: The stream has no last piece.
        ProviderError: The service failed.
    """
    texts: list[str] = []
    reply: Reply | None = None
    async for delta in deltas:
        texts.append(delta.text)
        reply = delta.reply or reply
    if reply is None:
        said = Message("assistant", (TextPart("".join(texts)),))
        raise StreamInterrupted("The answer has no end.", partial=said)
    return reply
