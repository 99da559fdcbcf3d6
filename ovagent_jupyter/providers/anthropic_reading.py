"""What Anthropic's Messages service answers, read event by event."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ovagent_jupyter.messages import Usage
from ovagent_jupyter.providers.assembly import Assembly
from ovagent_jupyter.providers.client import FinishReason
from ovagent_jupyter.providers.failures import failure_of_answer, make_failure
from ovagent_jupyter.providers.token_counts import count_of

_Object = Mapping[str, object]

_NOTHING: _Object = {}

_FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "pause_turn": "paused",
    "refusal": "refused",
    "model_context_window_exceeded": "context_full",
}

_INPUT_COUNTS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


class MessageReader:
    """Reads one answer into an assembly.

    Args:
        assembly: Where its pieces go.
    """

    __slots__ = ("_assembly", "_blocks", "_counts", "_stop_reason", "ended")

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._blocks: dict[object, _Block] = {}
        self._counts: dict[str, int] = {}
        self._stop_reason = ""
        self.ended = False
        """Whether the service said that this is all."""

    def event(self, name: str, data: object) -> None:
        """One event of a stream; what is not known is passed over.

        Raises:
            ProviderError: The service says that it failed.
        """
        event = _object(data)
        kind = event.get("type") or name
        if kind == "content_block_delta":
            self._delta(event.get("index", 0), _object(event.get("delta")))
        elif kind == "content_block_start":
            self._start(event.get("index", 0), _object(event.get("content_block")))
        elif kind == "content_block_stop":
            self._stop(event.get("index", 0))
        elif kind == "message_start":
            self._message(_object(event.get("message")))
        elif kind == "message_delta":
            self._ending(_object(event.get("delta")), _object(event.get("usage")))
        elif kind == "message_stop":
            self._end()
        elif kind == "error" or (not kind and event.get("error")):
            raise failure_of_answer(self._assembly.backend, event)

    def end(self) -> None:
        """The body is at its end; only ``message_stop`` ends an answer of this wire."""

    def whole(self, data: object) -> None:
        """An answer that came in one piece.

        Raises:
            ProviderError: It is a failure, or no answer.
        """
        message = _object(data)
        content = message.get("content")
        backend = self._assembly.backend
        if message.get("type") == "error" or (content is None and message.get("error")):
            raise failure_of_answer(backend, message)
        ended = message.get("type") == "message" or _text(message.get("stop_reason"))
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if not isinstance(content, list) or not ended:
            raise make_failure(backend, "malformed", why=f"No message, but: {data}")
        self._message(message)
        for index, block in enumerate(content):
            self._start(index, _object(block))
            self._stop(index)
        self._ending(message, _object(message.get("usage")))
        self._end()

    def _message(self, message: _Object) -> None:
        self._assembly.model = _text(message.get("model"))
        self._assembly.response_id = _text(message.get("id"))
        self._assembly.usage_final = False
        self._count(_object(message.get("usage")))

    def _start(self, index: object, block: _Object) -> None:
        """A part begins; what of it is told already comes first."""
        kind = block.get("type")
        assembly = self._assembly
        assembly.end_part()
        begun = self._blocks[index] = _Block(block)
        if kind == "text":
            assembly.text(_text(block.get("text")))
        elif kind == "thinking":
            assembly.reasoning(_text(block.get("thinking")))
            begun.signature = _text(block.get("signature"))
        elif kind == "tool_use":
            begun.number = assembly.begin_call(_text(block.get("name")), _text(block.get("id")))

    def _delta(self, index: object, delta: _Object) -> None:
        kind = delta.get("type")
        if kind == "text_delta":
            self._assembly.text(_text(delta.get("text")))
            return
        if kind == "thinking_delta":
            self._assembly.reasoning(_text(delta.get("thinking")))
            return
        block = self._blocks.get(index)
        if block is None:
            return
        if kind == "input_json_delta":
            piece = _text(delta.get("partial_json"))
            if block.number is None:
                block.pieces.append(piece)
            else:
                block.has_arguments = block.has_arguments or bool(piece)
                self._assembly.call_arguments(block.number, piece)
        elif kind == "signature_delta":
            block.signature += _text(delta.get("signature"))
        elif kind not in ("citations_delta", None):
            # Of blocks that are carried along unread, such as a compaction.
            block.told.update({name: value for name, value in delta.items() if name != "type"})

    def _stop(self, index: object) -> None:
        """A part is whole: what the service wants back with it is kept."""
        block = self._blocks.pop(index, None)
        if block is None:
            return
        kind = block.told.get("type")
        assembly = self._assembly
        if kind == "thinking":
            # Also an empty one says something: that the thought is whole.
            assembly.reasoning_data({"signature": block.signature})
        elif kind == "tool_use" and block.number is not None:
            arguments = block.told.get("input")
            if arguments and not block.has_arguments:
                whole = arguments if isinstance(arguments, str) else json.dumps(arguments)
                assembly.call_arguments_whole(block.number, whole)
        elif kind != "text" and isinstance(kind, str):
            assembly.reasoning_data({"block": block.whole()})
        assembly.end_part()

    def _ending(self, delta: _Object, usage: _Object) -> None:
        self._count(usage)
        self._assembly.usage_final = count_of(usage.get("output_tokens")) is not None
        self._stop_reason = _text(delta.get("stop_reason")) or self._stop_reason
        for name in ("stop_sequence", "stop_details"):
            if delta.get(name):
                self._assembly.details[name] = delta[name]
        if refusal := _text(_object(delta.get("stop_details")).get("explanation")):
            self._assembly.details["refusal"] = refusal

    def _end(self) -> None:
        self.ended = True
        # A reason that is not known yet says at least that this is all.
        self._assembly.finish(_FINISH.get(self._stop_reason, "stop"))
        if self._stop_reason not in _FINISH:
            self._assembly.details["stop_reason"] = self._stop_reason

    def _count(self, usage: _Object) -> None:
        """Tokens, each count replacing the one before.

        Zero input is none told: services that are compatible only nearly say so at one end.
        """
        details = _object(usage.get("output_tokens_details"))
        told = {**usage, "thinking_tokens": details.get("thinking_tokens")}
        counts = {name: count for name in told if (count := count_of(told[name])) is not None}
        if not any(counts.get(name) for name in _INPUT_COUNTS):
            counts = {name: value for name, value in counts.items() if name not in _INPUT_COUNTS}
        self._counts |= counts
        read, cached, written = (self._counts.get(name, 0) for name in _INPUT_COUNTS)
        if not read + cached + written + self._counts.get("output_tokens", 0):
            return
        self._assembly.usage = Usage(
            input_tokens=read + cached + written,
            output_tokens=self._counts.get("output_tokens", 0),
            cached_tokens=cached,
            cache_write_tokens=written,
            reasoning_tokens=self._counts.get("thinking_tokens", 0),
        )


class _Block:
    """A part of the answer between its start and its stop."""

    __slots__ = ("has_arguments", "number", "pieces", "signature", "told")

    def __init__(self, told: _Object) -> None:
        self.told = dict(told)
        self.number: int | None = None
        """Of a call: its number in the assembly."""
        self.has_arguments = False
        self.signature = ""
        self.pieces: list[str] = []
        """Of a call that the service makes itself: its input."""

    def whole(self) -> dict[str, object]:
        """The block as the service wants it back."""
        written = "".join(self.pieces)
        if not written.strip():
            return self.told
        from jiter import from_json

        try:
            return self.told | {"input": from_json(written.encode())}
        except ValueError:
            return self.told


def _object(value: object) -> _Object:
    return value if isinstance(value, dict) else _NOTHING


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
