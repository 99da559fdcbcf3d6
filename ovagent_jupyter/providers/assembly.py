"""An answer put together from pieces: what streams on, and what it adds up to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from uuid import uuid4

from ovagent_jupyter.errors import ProviderError, StreamInterrupted
from ovagent_jupyter.messages import (
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    ToolCall,
    Usage,
)
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import (
    FinishReason,
    ModelDelta,
    ModelRequest,
    Reply,
    ToolProgress,
)

_IMAGE_TOKENS = 1000
"""About what services count for a picture."""

_FINAL = frozenset({"too_large", "policy", "payment", "key", "permission", "context_full"})
"""Faults that a second attempt meets again, also when they come in the middle."""


_SET_TEXT, _SET_REASONING, *_SET_OTHERS = (
    ModelDelta.__dict__[name].__set__ for name in ModelDelta.__slots__
)


def _piece(text: str, reasoning: str) -> ModelDelta:
    """``ModelDelta(text=…)`` for less than half of its cost: one is made for every token.

    A frozen dataclass looks up how to set a field for each field again.
    """
    delta = object.__new__(ModelDelta)
    _SET_TEXT(delta, text)
    _SET_REASONING(delta, reasoning)
    for set_field in _SET_OTHERS:
        set_field(delta, None)
    return delta


class _OpenPart:
    """A part that may still grow."""

    __slots__ = ("call_id", "data", "kind", "name", "number", "pieces")

    def __init__(self, kind: str, data: Mapping[str, object] | None = None) -> None:
        self.kind = kind
        self.pieces: list[str] = []
        self.data = dict(data or {})
        self.call_id = ""
        self.name = ""
        self.number = 0


class Assembly:
    """Takes the pieces of one answer in the order in which they come.

    A wire pushes what it reads; ``take`` gives what is to be passed on. Whole calls come with
    ``close`` only: before the service has said why it stopped, a call that was cut looks whole.

    Args:
        request: What was asked.
        backend: Who answers.
        clock: Seconds, rising.
    """

    def __init__(
        self, request: ModelRequest, backend: Backend, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.request = request
        self.backend = backend
        self.model = ""
        """Model that answers, as the service names it."""
        self.response_id = ""
        """The service's name for the answer."""
        self.usage: Usage | None = None
        """What the service told so far."""
        self.usage_final = True
        """False while ``usage`` is only the beginning of it, as Anthropic's first event."""
        self.details: dict[str, object] = {}
        """What else it told."""
        self.told_done = False
        """Whether ``[DONE]`` came, which not all services send."""
        self.passed_on = False
        """Whether somebody got something of the answer."""
        self.finish_reason: FinishReason | None = None
        """Why it stopped; None until the service says so."""
        self._clock = clock
        self._began = clock()
        self._first: float | None = None
        self._parts: list[_OpenPart] = []
        self._calls: list[_OpenPart] = []
        self._open: _OpenPart | None = None
        self._ready: list[ModelDelta] = []

    # -- what comes in -------------------------------------------------------------------------

    def text(self, piece: str) -> None:
        """The next characters of the answer."""
        if not piece:
            return
        part = self._open
        if part is None or part.kind != "text":
            part = self._begin("text")
        part.pieces.append(piece)
        self._ready.append(_piece(piece, ""))

    def reasoning(self, piece: str) -> None:
        """The next characters of what it thinks."""
        if not piece:
            return
        part = self._open
        if part is None or part.kind != "reasoning":
            part = self._begin("reasoning")
        part.pieces.append(piece)
        self._ready.append(_piece("", piece))

    def reasoning_data(self, data: Mapping[str, object]) -> None:
        """What the service wants back with the thinking that is open, or with none."""
        part = self._open
        if part is None or part.kind != "reasoning":
            part = self._begin("reasoning", streamed=False)
        part.data.update(data)

    def end_part(self) -> None:
        """What comes next is a part of its own, also when it is of the same kind."""
        self._open = None

    def begin_call(
        self, name: str = "", call_id: str = "", data: Mapping[str, object] | None = None
    ) -> int:
        """A call begins; its number is what further pieces name it by."""
        part = self._begin("call")
        part.name, part.call_id, part.number = name, call_id, len(self._calls)
        part.data.update(data or {})
        self._calls.append(part)
        self._open = None
        self._progress(part, "")
        return part.number

    def call_named(
        self,
        number: int,
        *,
        name: str = "",
        call_id: str = "",
        data: Mapping[str, object] | None = None,
    ) -> None:
        """What is told of a call after it began; what is empty changes nothing."""
        part = self._calls[number]
        part.name = name or part.name
        part.call_id = call_id or part.call_id
        part.data.update(data or {})

    def call_arguments(self, number: int, piece: str) -> None:
        """The next characters of a call's arguments."""
        if piece:
            part = self._calls[number]
            part.pieces.append(piece)
            self._progress(part, piece)

    def call_arguments_whole(self, number: int, arguments: str) -> None:
        """All of a call's arguments, whatever came of them before."""
        part = self._calls[number]
        before = "".join(part.pieces)
        part.pieces = [arguments]
        if arguments.startswith(before):
            self._progress(part, arguments[len(before) :])

    def call_so_far(self, number: int) -> tuple[str, str, str]:
        """Name, id and arguments of a call, as far as they came."""
        part = self._calls[number]
        return part.name, part.call_id, "".join(part.pieces)

    @property
    def has_begun(self) -> bool:
        """Whether something of the answer has come."""
        return self.passed_on or bool(self._ready)

    @property
    def call_count(self) -> int:
        """How many calls have begun."""
        return len(self._calls)

    def finish(self, reason: FinishReason) -> None:
        """The service says why it stopped."""
        self.finish_reason = reason

    # -- what goes out -------------------------------------------------------------------------

    def take(self) -> list[ModelDelta]:
        """What has come since the last time, to be passed on."""
        ready = self._ready
        if ready:
            self._ready = []
            self.passed_on = True
        return ready

    def close(self) -> list[ModelDelta]:
        """The end of an answer that has one: its whole calls, and the last piece.

        Raises:
            StreamInterrupted: The service never said that it ended, and something had come.
            ProviderError: The same, and nothing had come.
        """
        reason = self.finish_reason
        if reason is None:
            raise self.broken(self._endless())
        calls = [_whole(part) for part in self._calls]
        if reason in {"stop", "tool_calls"}:
            reason = "tool_calls" if calls else "stop"
        elif calls:
            self.details["dropped_tool_calls"] = [call.name for call in calls]
            calls = []
        message = self._message(calls)
        reply = Reply(
            message=message,
            usage=self._spent(message),
            finish_reason=reason,
            model=self.model or self.request.model,
            provider=self.backend.provider.id,
            backend=self.backend.name,
            response_id=self.response_id,
            latency=self._clock() - self._began,
            first_token=None if self._first is None else self._first - self._began,
            details=self.details,
        )
        whole = [ModelDelta(tool_call=call) for call in calls]
        return [*self.take(), *whole, ModelDelta(finish_reason=reason, reply=reply)]

    def broken(self, cause: ProviderError) -> ProviderError:
        """The failure of this answer: what had come is kept, what was spent is known."""
        if not self.has_begun:
            cause.usage = cause.usage or self.usage
            return cause
        partial = self._message(())
        interrupted = StreamInterrupted(
            "The answer broke off.",
            partial=partial,
            provider=self.backend.provider.id,
            usage=self._spent(partial),
            why=" ".join(filter(None, (cause.what, cause.why))),
            next_step=cause.next_step or "Run it again; what had come is kept.",
        )
        interrupted.status_code = cause.status_code
        interrupted.request_id = cause.request_id
        interrupted.retry_after = cause.retry_after
        interrupted.retryable = cause.fault not in _FINAL
        return interrupted

    @property
    def calls_are_whole(self) -> bool:
        """Whether there are calls and each has a name and arguments that can be read."""
        calls = [_whole(part) for part in self._calls]
        return bool(calls) and all(call.name and not call.unreadable for call in calls)

    # -- inside --------------------------------------------------------------------------------

    def _begin(self, kind: str, *, streamed: bool = True) -> _OpenPart:
        if streamed and self._first is None:
            self._first = self._clock()
        part = self._open = _OpenPart(kind)
        self._parts.append(part)
        return part

    def _progress(self, part: _OpenPart, piece: str) -> None:
        progress = ToolProgress(part.number, part.name, piece)
        self._ready.append(ModelDelta(tool_progress=progress))

    def _message(self, calls: list[ToolCall] | tuple[()]) -> Message:
        parts: list[Part] = []
        for part in self._parts:
            if part.kind == "text":
                parts.append(TextPart("".join(part.pieces)))
            elif part.kind == "reasoning":
                parts.append(ReasoningPart("".join(part.pieces), part.data))
            elif calls:
                parts.append(calls[part.number])
        return Message("assistant", tuple(parts), self.backend.provider.id)

    def _spent(self, message: Message) -> Usage:
        """What was told; the rest is estimated, and so are zeros that cannot be.

        A question has tokens, and so has an answer with words: services that count neither would
        fill no budget.
        """
        told = self.usage or Usage()
        final = self.usage is not None and self.usage_final
        read, written = told.input_tokens, told.output_tokens
        if not read:
            read = told.cached_tokens + told.cache_write_tokens or estimate_request(self.request)
        if not final or not written:
            written = max(written, self._estimate_written(message))
        if final and (read, written) == (told.input_tokens, told.output_tokens):
            return told
        return replace(told, input_tokens=read, output_tokens=written, estimated=True)

    def _estimate_written(self, message: Message) -> int:
        written = estimate_message(message)
        # Also what was dropped has been paid for.
        written += sum(estimate_tokens("".join(part.pieces)) for part in self._calls)
        return written - sum(_arguments(call) for call in message.tool_calls)

    def _endless(self) -> ProviderError:
        return ProviderError(
            f"{self.backend.provider.display_name} did not end its answer.",
            provider=self.backend.provider.id,
            retryable=True,
            fault="interrupted" if self.has_begun else "malformed",
            why="The stream stopped without its last event.",
            next_step="Run it again; if it stays, check the base URL or a proxy in between.",
        )


def _whole(part: _OpenPart) -> ToolCall:
    """A call as it came; arguments that are no JSON object are kept as they are."""
    from jiter import from_json

    raw = "".join(part.pieces)
    call_id = part.call_id or f"call_{uuid4().hex[:12]}"
    try:
        arguments = from_json(raw.encode()) if raw.strip() else {}
    except ValueError:
        arguments = None
    if arguments is None and raw.strip() == "null":
        arguments = {}
    if isinstance(arguments, dict):
        return ToolCall(call_id, part.name, arguments, provider_data=part.data)
    return ToolCall(call_id, part.name, unreadable=raw, provider_data=part.data)


# -- tokens, where a service does not count them -------------------------------------------------


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has: 4 characters a token, 2 of other scripts."""
    if text.isascii():
        return -(-len(text) // 4)
    plain = len(text.encode("ascii", "ignore"))
    return -(-plain // 4) + -(-(len(text) - plain) // 2)


def estimate_message(message: Message) -> int:
    """About how many tokens a message has."""
    return sum(map(_estimate_part, message.parts))


def estimate_request(request: ModelRequest) -> int:
    """About how many tokens a request has, its tools included."""
    said = sum(4 + estimate_message(message) for message in request.messages)
    tools = (f"{tool.name}{tool.description}{dict(tool.parameters)}" for tool in request.tools)
    return said + sum(map(estimate_tokens, tools))


def _estimate_part(part: Part) -> int:
    if isinstance(part, ImagePart):
        return _IMAGE_TOKENS
    if isinstance(part, ToolCall):
        return estimate_tokens(part.name) + _arguments(part)
    return estimate_tokens(part.text)


def _arguments(call: ToolCall) -> int:
    return estimate_tokens(call.unreadable or (str(dict(call.arguments)) if call.arguments else ""))
