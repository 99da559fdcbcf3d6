"""Answers of the chat-completions wire, in whatever dialect, read into an assembly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jiter import from_json

from ovagent_jupyter.errors import ProviderError, ProviderFault
from ovagent_jupyter.providers.assembly import Assembly
from ovagent_jupyter.providers.chat_usage import read_usage, uncounted, usage_of_chunk
from ovagent_jupyter.providers.client import FinishReason
from ovagent_jupyter.providers.failures import failure_of_answer, make_failure
from ovagent_jupyter.providers.think_tags import ThinkTags

_REASONS: dict[FinishReason, str] = {
    "stop": "stop eos end_turn end stop_sequence completed complete",
    "length": "length max_tokens max_output_tokens model_length max_length",
    "tool_calls": "tool_calls tool_call function_call tool_use function_calls",
    "refused": """
        content_filter refusal safety recitation sensitive blocklist prohibited_content spii
        moderation content_filtered guardrail_intervened
    """,
    "context_full": "model_context_window_exceeded context_length_exceeded context_window_exceeded",
    "paused": "pause_turn",
}

_BY_WORD: dict[str, FinishReason] = {
    word: reason for reason, words in _REASONS.items() for word in words.split()
}

_FAILED = frozenset({
    "error", "abort", "aborted", "cancelled", "canceled", "insufficient_system_resource",
    "network_error", "malformed_function_call", "failed", "timeout",
})  # fmt: skip
"""Reasons to stop that are failures: the answer is not whole."""


class ChatReader:
    """Reads chunks of a stream, or a whole answer; of several choices the first.

    Args:
        assembly: Takes what is read.
    """

    __slots__ = (
        "_assembly", "_begun", "_by_id", "_details", "_numbers", "_refusal", "_say", "_tags",
        "ended",
    )  # fmt: skip

    def __init__(self, assembly: Assembly) -> None:
        self.ended = False
        self._assembly = assembly
        self._begun = False
        self._refusal: list[str] = []
        self._details: list[dict[str, Any]] = []
        self._numbers: dict[object, int] = {}
        self._by_id: dict[str, int] = {}
        quirks = assembly.backend.quirks
        self._tags = ThinkTags(assembly.text, assembly.reasoning) if quirks.think_tags else None
        self._say = self._tags.feed if self._tags else assembly.text

    def event(self, name: str, data: Any) -> None:
        """One chunk.

        Raises:
            ProviderError: The service reports a failure.
        """
        if not self._begun:
            self._begin(data)
        if data.get("error"):
            self._tell_usage(data)
            raise failure_of_answer(self._assembly.backend, data)
        choices = data.get("choices")
        if not choices:
            if not self._tell_usage(data) and (data.get("message") or data.get("detail")):
                raise failure_of_answer(self._assembly.backend, data)
            return
        choice = choices[0]
        if "usage" in data or "x_groq" in data or "usage" in choice:
            self._tell_usage(data)
            if told := (data.get("x_groq") or {}).get("error"):
                raise failure_of_answer(self._assembly.backend, {"error": told})
        if choice.get("index"):
            choice = next((each for each in choices if not each.get("index")), {})
        delta = choice.get("delta")
        if delta is None:
            # Not beside a delta: there it is all that came so far.
            delta = choice.get("message") or {"content": choice.get("text")}
        if delta:
            content = delta.get("content")
            if content and len(delta) == 1 and isinstance(content, str):
                self._say(content)
            else:
                self._delta(delta)
        if choice.get("finish_reason"):
            self._finish(choice)

    def whole(self, data: Any) -> None:
        """A whole answer.

        Raises:
            ProviderError: The service reports a failure, or this is no answer.
        """
        backend = self._assembly.backend
        if isinstance(data, list) and data and isinstance(data[0], Mapping):
            data = data[0]  # Google's errors
        if not isinstance(data, Mapping) or data.get("error"):
            default: ProviderFault = "server" if isinstance(data, Mapping) else "malformed"
            raise failure_of_answer(backend, data, default=default)
        self._begin(data)
        self._tell_usage(data)
        choices = data.get("choices")
        if not choices:
            raise self._no_answer(data, "It has no choices.")
        choice = choices[0]
        message = choice.get("message")
        if message is None and "text" in choice:
            message = {"content": choice["text"]}
        if message is None and _reason_of(choice.get("finish_reason")) != "refused":
            raise self._no_answer(data, "Its choice has no message.")
        if message:
            self._delta(message)
        if choice.get("finish_reason"):
            self._finish(choice)
        if self._assembly.finish_reason is None:
            # One piece that is whole JSON cannot have been cut.
            self._assembly.finish("stop")
        self.end()

    def end(self) -> None:
        """The body is at its end, or ``[DONE]`` came."""
        if self._tags:
            self._tags.end()
        assembly = self._assembly
        # It says that it is done and not why: so be it, unless a call was cut.
        whole = assembly.calls_are_whole if assembly.call_count else assembly.has_begun
        if assembly.finish_reason is None and assembly.told_done and whole:
            assembly.finish("stop")
        if self._refusal:
            assembly.details["refusal"] = "".join(self._refusal)
            assembly.finish("refused")
        self.ended = True

    # -- what a chunk has ----------------------------------------------------------------------

    def _begin(self, data: Mapping[str, Any]) -> None:
        self._begun = True
        self._assembly.model = str(data.get("model") or "")
        self._assembly.response_id = str(data.get("id") or "")

    def _tell_usage(self, data: Mapping[str, Any]) -> bool:
        told = usage_of_chunk(data)
        if told is None:
            return False
        usage = self._assembly.usage = read_usage(told)
        if hidden := uncounted(told, usage):
            self._assembly.details["uncounted_tokens"] = hidden
        return True

    def _delta(self, delta: Mapping[str, Any]) -> None:
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(thought, str):
            self._assembly.reasoning(thought)
        if delta.get("reasoning_details"):
            self._keep_details(delta["reasoning_details"])
        if delta.get("extra_content"):
            self._assembly.reasoning_data({"extra_content": delta["extra_content"]})
        content = delta.get("content")
        if isinstance(content, str):
            self._say(content)
        elif content:
            self._parts(content)
        self._refuse(delta.get("refusal"))
        for call in delta.get("tool_calls") or ():
            self._call(call)
        if delta.get("function_call"):
            self._call({"index": 0, "function": delta["function_call"]})

    def _parts(self, content: Any) -> None:
        """Content as a list of parts, as Mistral sends thinking."""
        for part in [content] if isinstance(content, Mapping) else content:
            if isinstance(part, str):
                self._say(part)
            elif part.get("type") in {"thinking", "reasoning"}:
                thought = part.get("thinking") or part.get("text") or ""
                pieces = [thought] if isinstance(thought, str) else thought
                for each in pieces:
                    self._assembly.reasoning(each if isinstance(each, str) else each["text"])
            elif part.get("type") == "refusal":
                self._refuse(part.get("refusal"))
            elif isinstance(part.get("text"), str):
                self._say(part["text"])

    def _refuse(self, words: object) -> None:
        if isinstance(words, str) and words:
            self._refusal.append(words)

    def _keep_details(self, details: list[Any]) -> None:
        """OpenRouter's thinking, to be sent back: pieces of one text are joined."""
        kept = self._details
        if not kept:
            self._assembly.reasoning_data({"reasoning_details": kept})
        for each in details:
            last = kept[-1] if kept else {}
            grows = next((k for k in ("text", "summary") if isinstance(each.get(k), str)), "")
            same = all(last.get(key) == each.get(key) for key in ("type", "index"))
            if same and isinstance(last.get(grows), str):
                more = {key: value for key, value in each.items() if value is not None}
                last.update(more | {grows: last[grows] + each[grows]})
            else:
                kept.append(dict(each))

    def _finish(self, choice: Mapping[str, Any]) -> None:
        assembly = self._assembly
        if choice.get("error"):
            raise failure_of_answer(assembly.backend, choice)
        word = str(choice["finish_reason"])
        reason = _reason_of(word)
        if reason is None and any(each in word.lower() for each in _FAILED):
            raise make_failure(assembly.backend, "interrupted", why=f"It stopped with {word!r}.")
        if reason is None or word not in _REASONS:
            assembly.details["finish_reason"] = word
        if reason is None:
            # The name that it has on all wires.
            assembly.details["stop_reason"] = word
        assembly.finish(reason or "stop")

    def _no_answer(self, data: Mapping[str, Any], why: str) -> ProviderError:
        failure = failure_of_answer(self._assembly.backend, data, default="malformed")
        if failure.fault == "malformed":
            failure.retryable = True
            failure.why = f"{why} {failure.why}".strip()
        return failure

    # -- calls ---------------------------------------------------------------------------------

    def _call(self, told: Mapping[str, Any]) -> None:
        function = told.get("function") or told
        name = function.get("name") or ""
        call_id = str(told.get("id") or "")
        arguments = _as_text(function.get("arguments"))
        extra = told.get("extra_content")
        data = {"extra_content": extra} if extra else {}
        number = self._number_of(told.get("index"), call_id, name, arguments)
        if number is None:
            number = self._assembly.begin_call(name, call_id, data)
            self._numbers[told.get("index")] = number
        else:
            known_name, known_id, _ = self._assembly.call_so_far(number)
            name, call_id = "" if known_name else name, "" if known_id else call_id
            self._assembly.call_named(number, name=name, call_id=call_id, data=data)
        if call_id:
            self._by_id[call_id] = number
        self._assembly.call_arguments(number, arguments)

    def _number_of(self, index: object, call_id: str, name: str, arguments: str) -> int | None:
        """Which call a piece belongs to; None for a new one.

        An index may be missing, or the same for all calls; then a name after whole arguments, or
        with another id, begins a new one. An id alone does not: some make one for each piece.
        """
        if call_id in self._by_id:
            return self._by_id[call_id]
        number = self._numbers.get(index)
        if number is None:
            if index is not None or not self._assembly.call_count:
                return None
            number = self._assembly.call_count - 1
        known_name, known_id, so_far = self._assembly.call_so_far(number)
        other = name != known_name or arguments or (call_id and known_id)
        if name and known_name and other and (not so_far.strip() or _is_object(so_far)):
            return None
        return number


def _reason_of(word: object) -> FinishReason | None:
    return _BY_WORD.get(str(word).lower())


def _is_object(text: str) -> bool:
    try:
        return isinstance(from_json(text.encode()), dict)
    except ValueError:
        return False


def _as_text(arguments: object) -> str:
    """Arguments as JSON text; some services send the object itself."""
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return json.dumps(arguments, ensure_ascii=False)
