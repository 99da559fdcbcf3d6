"""What a call that failed, or broke off, has brought and spent all the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ovagent_jupyter.errors import ProviderError, StreamInterrupted
from ovagent_jupyter.messages import Message, Part, ReasoningPart, TextPart, Usage
from ovagent_jupyter.providers.client import ModelDelta, ModelRequest


class Spending:
    """What several failures have spent together.

    Args:
        errors: Those known already.
    """

    __slots__ = ("cost", "usage")

    def __init__(self, errors: Iterable[ProviderError] = ()) -> None:
        self.usage: Usage | None = None
        self.cost: float | None = None
        for error in errors:
            self.add(error)

    def add(self, error: ProviderError) -> None:
        """Take one more."""
        if isinstance(error.usage, Usage):
            self.usage = error.usage if self.usage is None else self.usage + error.usage
        if error.cost is not None:
            self.cost = error.cost + (self.cost or 0.0)

    def charge(self, error: ProviderError) -> None:
        """Let an error tell of all."""
        error.usage, error.cost = self.usage, self.cost

    def signed(self, delta: ModelDelta, **details: object) -> ModelDelta:
        """The last piece of the answer that came in the end, with what was spent before.

        Its usage and cost are those of all; ``details["failed_usage"]`` is the part of failures.
        """
        reply = delta.reply
        if reply is None:
            return delta
        usage, cost = reply.usage, reply.cost
        if self.usage is not None:
            earlier = reply.details.get("failed_usage")
            failed = Usage(**earlier) if isinstance(earlier, dict) else Usage()
            details["failed_usage"] = (failed + self.usage).as_record()
            usage += self.usage
        if self.cost is not None and cost is not None:
            cost += self.cost
        more = {**reply.details, **details}
        return replace(delta, reply=replace(reply, usage=usage, cost=cost, details=more))


def with_budget(error: ProviderError, budget: ProviderError) -> ProviderError:
    """A failure after which a budget allowed no other attempt: it stays what the caller reads."""
    error.why = "\n".join(filter(None, (error.why, f"Not asked again: {budget.what}")))
    error.next_step = budget.next_step
    error.retryable = False
    error.__cause__ = budget
    return error


def ended_by_budget(error: ProviderError) -> bool:
    """Whether a budget allows no other attempt, of this backend or another."""
    cause = error.__cause__
    return error.fault == "budget" or (isinstance(cause, ProviderError) and cause.fault == "budget")


def broken_off(error: ProviderError) -> StreamInterrupted:
    """The same failure, for an answer of which a part was passed on."""
    if isinstance(error, StreamInterrupted):
        return error
    broken = StreamInterrupted(
        "The answer broke off.",
        partial=error.partial,
        provider=error.provider,
        usage=error.usage,
        why=" ".join(filter(None, (error.what, error.why))),
        next_step=error.next_step,
    )
    for name in ("cost", "request_id", "retry_after", "retryable", "status_code"):
        setattr(broken, name, getattr(error, name))
    return broken


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has: one for 4 ASCII characters, or for 2 others."""
    wide = 0 if text.isascii() else sum(not each.isascii() for each in text)
    return (len(text) - wide) // 4 + wide // 2 + bool(text)


def estimated_input(request: ModelRequest) -> int:
    """About how many tokens a request has; a picture counts as a thousand."""
    total = 0
    for message in request.messages:
        for part in message.parts:
            text = getattr(part, "text", None)
            arguments = getattr(part, "arguments", None)
            total += 1000 if text is None and arguments is None else 0
            total += estimated_tokens(text or "") + (len(str(arguments)) // 4 if arguments else 0)
    return total + sum(
        estimated_tokens(tool.description) + len(str(tool.parameters)) // 4
        for tool in request.tools
    )


class Heard:
    """What of an answer was passed on; half tool calls are no part of it."""

    __slots__ = ("_thoughts", "_wrote_calls", "texts")

    def __init__(self) -> None:
        self.texts: list[str] = []
        """Its text, in pieces."""
        self._thoughts: list[str] = []
        self._wrote_calls = False

    @property
    def begun(self) -> bool:
        """Whether that is anything at all."""
        return bool(self.texts or self._thoughts or self._wrote_calls)

    def add(self, delta: ModelDelta) -> None:
        """Take one piece."""
        if delta.text:
            self.texts.append(delta.text)
        elif delta.has_content:
            self._wrote_calls = True
        if delta.reasoning:
            self._thoughts.append(delta.reasoning)

    def message(self) -> Message:
        """What it says so far."""
        parts: list[Part] = []
        if thought := "".join(self._thoughts):
            parts.append(ReasoningPart(thought))
        if text := "".join(self.texts):
            parts.append(TextPart(text))
        return Message("assistant", tuple(parts))

    def usage(self, request: ModelRequest) -> Usage:
        """What it has cost, estimated."""
        written = sum(map(estimated_tokens, ("".join(self.texts), "".join(self._thoughts))))
        return Usage(estimated_input(request), written, estimated=True)

    def interrupted(self, error: ProviderError, request: ModelRequest) -> StreamInterrupted:
        """The same failure, for an answer of which a part was passed on."""
        broken = broken_off(error)
        if broken.partial is None:
            broken.partial = self.message()
        if broken.usage is None:
            broken.usage = self.usage(request)
        return broken
