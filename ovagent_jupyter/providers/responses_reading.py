"""What OpenAI's Responses service answers, read event by event."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from ovagent_jupyter.errors import ProviderFault
from ovagent_jupyter.messages import Usage
from ovagent_jupyter.providers.assembly import Assembly
from ovagent_jupyter.providers.client import FinishReason
from ovagent_jupyter.providers.failures import failure_of_answer, make_failure
from ovagent_jupyter.providers.stop_texts import StopTexts
from ovagent_jupyter.providers.token_counts import count_of

_Object = Mapping[str, object]

_NOTHING: _Object = {}

_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})

_REASONS: dict[str, FinishReason] = {
    "max_output_tokens": "length",
    "content_filter": "refused",
    "model_context_window_exceeded": "context_full",
}
"""Why an answer is incomplete; any other reason is told in the details, and cut it as well."""

_BAD_INPUT = ("invalid_", "image_", "unsupported_", "empty_", "failed_to_")
"""How the codes begin by which it says that it cannot read what it was given."""

_CALLS = ("function_call", "custom_tool_call")


class ResponseReader:
    """Reads one answer into an assembly.

    Args:
        assembly: Where its pieces go.
    """

    __slots__ = (
        "_assembly",
        "_begun",
        "_calls",
        "_done",
        "_refusals",
        "_stops",
        "_streamed",
        "ended",
    )

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._stops = StopTexts(assembly.text, assembly.request.stop)
        self._begun: set[object] = set()
        """Which items have begun, each by its place in the answer."""
        self._done: set[object] = set()
        self._streamed: set[object] = set()
        """Items whose words came piece by piece."""
        self._calls: dict[object, int] = {}
        """The number that the assembly gave to each call."""
        self._refusals: dict[object, str] = {}
        """What it says in place of an answer, by the item."""
        self.ended = False
        """Whether the service said that this is all."""

    def event(self, name: str, data: object) -> None:
        """One event of a stream; what is not known is passed over.

        Raises:
            ProviderError: The service says that it failed.
        """
        event = _object(data)
        kind = _text(event.get("type")) or name
        place = _place(event)
        if kind.endswith(".delta"):
            self._delta(kind, place, _text(event.get("delta")))
        elif kind == "response.output_item.added":
            self._item_begins(place, _object(event.get("item")))
        elif kind == "response.output_item.done":
            self._item_ends(place, _object(event.get("item")))
        elif kind == "response.reasoning_summary_part.added":
            if event.get("summary_index"):
                self._assembly.reasoning("\n\n")
        elif kind in _ENDS:
            self._end(_object(event.get("response")), kind.removeprefix("response."))
        elif kind == "response.created":
            self._named(_object(event.get("response")))
        elif kind == "error" or (not kind and event.get("error")):
            raise self._failure(event)

    def end(self) -> None:
        """The body is at its end; only an event that says so ends an answer of this wire."""

    def whole(self, data: object) -> None:
        """An answer that came in one piece.

        Raises:
            ProviderError: It is a failure, or no answer.
        """
        response = _object(data)
        status = _text(response.get("status")) or "completed"
        output = response.get("output")
        if response.get("error") and status != "failed" and not output:
            raise self._failure(response)
        ended = f"response.{status}" in _ENDS and (isinstance(output, list) or status == "failed")
        if not ended:
            why = f"No whole response, but: {data}"
            raise make_failure(self._assembly.backend, "malformed", why=why)
        self._end(response, status)

    def _named(self, response: _Object) -> None:
        self._assembly.model = _text(response.get("model")) or self._assembly.model
        self._assembly.response_id = _text(response.get("id")) or self._assembly.response_id

    def _delta(self, kind: str, place: object, piece: str) -> None:
        assembly = self._assembly
        if kind == "response.output_text.delta":
            self._say(piece)
        elif kind == "response.refusal.delta":
            self._refusals[place] = self._refusals.get(place, "") + piece
        elif kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            assembly.reasoning(piece)
        elif kind in (
            "response.function_call_arguments.delta",
            "response.custom_tool_call_input.delta",
        ):
            if place not in self._calls:
                self._calls[place] = assembly.begin_call()
            assembly.call_arguments(self._calls[place], piece)
        if piece and kind != "response.refusal.delta":
            self._streamed.add(place)
        self._begun.add(place)

    def _say(self, piece: str) -> None:
        if not self._assembly.request.stop:
            self._assembly.text(piece)
            return
        self._stops.feed(piece)
        if self._stops.met:
            # The service knows nothing of it: what it goes on to say is not waited for.
            self._assembly.details["stop_sequence"] = self._stops.met
            self._assembly.finish("stop")
            self.ended = True

    def _item_begins(self, place: object, item: _Object) -> None:
        if place in self._begun:
            return
        self._begun.add(place)
        assembly = self._assembly
        assembly.end_part()
        if item.get("type") in _CALLS:
            self._calls[place] = assembly.begin_call(
                _text(item.get("name")), _text(item.get("call_id")), _sent_back(item)
            )
        elif item.get("type") == "message" and isinstance(item.get("phase"), str):
            # Wanted back with the text, which is a part of its own.
            assembly.reasoning_data({"phase": item["phase"]})

    def _item_ends(self, place: object, item: _Object) -> None:
        """An item is whole: what of it did not come in pieces comes now."""
        if place in self._done:
            return
        self._item_begins(place, item)
        self._done.add(place)
        assembly = self._assembly
        kind = item.get("type")
        if place in self._calls:
            self._call_ends(self._calls[place], item)
        elif kind == "message":
            parts = list(_parts(item.get("content")))
            if refusal := "".join(_text(part.get("refusal")) for part in parts):
                self._refusals[place] = refusal
            if place not in self._streamed:
                self._say("".join(_text(part.get("text")) for part in parts))
            self._stops.end()
        elif kind == "reasoning":
            if place not in self._streamed:
                thoughts = (*_parts(item.get("summary")), *_parts(item.get("content")))
                assembly.reasoning("\n\n".join(_text(each.get("text")) for each in thoughts))
            assembly.reasoning_data({"item": _kept(item)})
        elif kind == "compaction":
            assembly.reasoning_data({"item": _kept(item)})
        assembly.end_part()

    def _call_ends(self, number: int, item: _Object) -> None:
        name, call_id = _text(item.get("name")), _text(item.get("call_id"))
        self._assembly.call_named(number, name=name, call_id=call_id, data=_sent_back(item))
        arguments = item.get("arguments", item.get("input"))
        if isinstance(arguments, Mapping):
            arguments = json.dumps(arguments)
        if isinstance(arguments, str) and arguments:
            self._assembly.call_arguments_whole(number, arguments)

    def _end(self, response: _Object, status: str) -> None:
        self._named(response)
        self._assembly.usage = _usage(_object(response.get("usage")))
        status = _text(response.get("status")) or status
        if status == "failed":
            raise self._failure(response)
        output = response.get("output")
        # The last event repeats what came, and not every service counts it the same way again.
        if isinstance(output, list) and not self._begun:
            for place, item in enumerate(output):
                if not self.ended:
                    self._item_ends(place, _object(item))
        self._stops.end()
        if self.ended:
            return
        self.ended = True
        reason = _text(_object(response.get("incomplete_details")).get("reason"))
        if reason:
            self._assembly.details["incomplete"] = reason
        if status == "incomplete" or reason:
            self._assembly.finish(_REASONS.get(reason, "length"))
        else:
            self._assembly.finish("refused" if self._refusals else "stop")
        if self._refusals:
            self._assembly.details["refusal"] = "".join(self._refusals.values())

    def _failure(self, told: _Object) -> Exception:
        code = _text(_object(told.get("error")).get("code")) or _text(told.get("code"))
        default: ProviderFault = "bad_request" if code.startswith(_BAD_INPUT) else "server"
        body = {"error": told["error"]} if told.get("error") else told
        return failure_of_answer(self._assembly.backend, body, default=default)


def _place(event: _Object) -> object:
    """Where in the answer an item is; a service that does not count them names them."""
    if "output_index" in event:
        return event["output_index"]
    item = _object(event.get("item"))
    return event.get("item_id") or item.get("id") or item.get("call_id") or 0


def _usage(usage: _Object) -> Usage | None:
    """Tokens; what is not told is 0, and estimated by the assembly."""
    read, written = _count(usage, "input_tokens"), _count(usage, "output_tokens")
    if not read and not written:
        return None
    given = _object(usage.get("input_tokens_details"))
    return Usage(
        input_tokens=read,
        output_tokens=written,
        cached_tokens=_count(given, "cached_tokens"),
        cache_write_tokens=_count(given, "cache_write_tokens"),
        reasoning_tokens=_count(_object(usage.get("output_tokens_details")), "reasoning_tokens"),
    )


def _kept(item: _Object) -> dict[str, object]:
    """An item as it is sent back: where it was never stored its name means nothing."""
    kept = {name: value for name, value in item.items() if name not in ("id", "status") and value}
    return kept | (
        {"summary": item.get("summary") or []} if item.get("type") == "reasoning" else {}
    )


def _sent_back(call: _Object) -> dict[str, object]:
    return {"namespace": call["namespace"]} if call.get("namespace") else {}


def _parts(content: object) -> Iterator[_Object]:
    if isinstance(content, str):
        yield {"text": content}
    elif isinstance(content, list):
        yield from filter(None, map(_object, content))


def _count(counts: _Object, name: str) -> int:
    return count_of(counts.get(name)) or 0


def _object(value: object) -> _Object:
    return value if isinstance(value, dict) else _NOTHING


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
