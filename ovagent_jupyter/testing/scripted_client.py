"""A model that says what a test wrote down, and the checks that every model client passes."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable

from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.messages import Message, TextPart, ToolCall, Usage
from ovagent_jupyter.providers.client import (
    FinishReason,
    ModelClient,
    ModelDelta,
    ModelRequest,
    Reply,
    collect,
)

Scripted = str | ToolCall | Message | ProviderError
"""What one call answers: text, a tool call, a whole message, or a failure."""


class ScriptedClient:
    """Answers one call after the other as scripted, and remembers what it was asked.

    Args:
        replies: One for each call, in order.
    """

    def __init__(self, replies: Iterable[Scripted]) -> None:
        self._replies = list(replies)
        self.requests: list[ModelRequest] = []
        """What was asked, in order."""

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelDelta]:
        """The next reply, word by word.

        Raises:
            ProviderError: The script says so, or has come to its end.
        """
        self.requests.append(request)
        if len(self.requests) > len(self._replies):
            raise ProviderError(
                f"The script has {len(self._replies)} replies, and this is one call more.",
                provider="scripted",
                next_step="Add a reply, or find out why the model is asked again.",
            )
        reply = self._replies[len(self.requests) - 1]
        if isinstance(reply, ProviderError):
            raise reply
        for delta in _pieces(request, reply):
            yield delta


def _pieces(request: ModelRequest, reply: str | ToolCall | Message) -> Iterable[ModelDelta]:
    message = _as_message(reply)
    calls = [part for part in message.parts if isinstance(part, ToolCall)]
    words = re.findall(r"\s*\S+\s*$|\s*\S+|\s+", message.text)
    yield from (ModelDelta(text=word) for word in words)
    yield from (ModelDelta(tool_call=call) for call in calls)
    asked = sum(len(said.text.split()) for said in request.messages)
    reason: FinishReason = "tool_calls" if calls else "stop"
    usage = Usage(asked, len(words))
    whole = Reply(
        message=message, usage=usage, finish_reason=reason, model=request.model, provider="scripted"
    )
    yield ModelDelta(finish_reason=reason, reply=whole)


def _as_message(reply: str | ToolCall | Message) -> Message:
    if isinstance(reply, Message):
        return reply
    return Message("assistant", (TextPart(reply) if isinstance(reply, str) else reply,))


async def check_model_client(make: Callable[[], ModelClient], model: str = "any") -> None:
    """Assert what every model client promises; ``make`` gives a fresh one that will answer.

    Raises:
        AssertionError: A promise is broken; the message names it.
    """
    request = ModelRequest(model=model, messages=(Message("user", (TextPart("Say hello."),)),))
    client = make()
    deltas = [delta async for delta in client.stream(request)]
    _require(bool(deltas), "a stream has at least one piece")
    ends = [number for number, delta in enumerate(deltas) if delta.finish_reason is not None]
    _require(ends == [len(deltas) - 1], "the last piece, and only that, has a finish reason")
    ends = [number for number, delta in enumerate(deltas) if delta.reply is not None]
    _require(ends == [len(deltas) - 1], "the last piece, and only that, has the reply")
    reply = await collect(make().stream(request))
    said = "".join(delta.text for delta in deltas)
    _require(reply.message.text == said, "the pieces add up to the reply")
    _require(bool(reply.message.parts), "an answer says something")
    _require(reply.message.role == "assistant", "an answer is the assistant's")
    stream = make().stream(request)
    _require(isinstance(stream, AsyncGenerator), "a stream can be closed before its end")
    await anext(stream)
    if isinstance(stream, AsyncGenerator):
        await stream.aclose()


def _require(holds: bool, promise: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise AssertionError(f"Not kept: {promise}.")
