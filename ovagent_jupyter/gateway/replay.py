"""Calls on a cassette: written down as they go, without keys, and answered from it later."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from ovagent_jupyter.errors import ProviderError, StorageError, StreamInterrupted
from ovagent_jupyter.events import Category, Level
from ovagent_jupyter.gateway.layer import Call, Next
from ovagent_jupyter.gateway.recorded import (
    Record,
    delta_from,
    delta_record,
    digest,
    error_from,
    error_record,
    reply_from,
    reply_record,
    request_record,
)
from ovagent_jupyter.messages import Message, TextPart
from ovagent_jupyter.providers.client import ModelDelta
from ovagent_jupyter.storage.jsonl import Line, append_record, read_records
from ovagent_jupyter.storage.redaction import Redactor

VERSION = 1
"""Of a line of a cassette."""

Order = Literal["strict", "loose"]
"""How what is asked is found on a cassette.

``strict``: the calls come in the order in which they were recorded, each once. ``loose``: in any
order; the same call again gets the next recording of it, in the end the last one again.
"""


@dataclass(frozen=True, slots=True)
class Recording:
    """One call on a cassette."""

    key: str
    """Digest of what was asked."""
    request: Record
    """What was asked, without keys."""
    deltas: Sequence[tuple[float, Record]]
    """Seconds from the start, and the piece."""
    reply: Record | None = None
    """The whole answer; None where there was none."""
    error: Record | None = None
    """The failure; None where there was none."""


class Recorder:
    """Writes each call that passes onto a cassette, when it has ended.

    Keys are replaced in all that is written. A cassette that cannot be written ends no call: a
    notice says so, once.

    Args:
        path: The cassette; calls are added at its end.
        redactor: Knows keys.
        clock: Seconds.
    """

    def __init__(
        self,
        path: Path,
        redactor: Redactor,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._redactor = redactor
        self._clock = clock
        self._told = False

    async def __call__(self, call: Call, call_next: Next) -> AsyncGenerator[ModelDelta, None]:
        """Pass on the answer and write it down."""
        began = self._clock()
        pieces: list[tuple[float, Record]] = []
        end: Record = {}
        try:
            async with aclosing(call_next(call)) as deltas:
                async for delta in deltas:
                    pieces.append((round(self._clock() - began, 4), delta_record(delta)))
                    if delta.reply is not None:
                        end = {"reply": reply_record(delta.reply)}
                    yield delta
        except ProviderError as error:
            end = {"error": error_record(error)}
            raise
        finally:
            self._write(call, pieces, end)

    def _write(self, call: Call, pieces: list[tuple[float, Record]], end: Record) -> None:
        request = self._redactor.value(request_record(call.request))
        record = {
            "v": VERSION,
            "key": digest(request),
            "call_id": call.call_id,
            "request": request,
            "deltas": self._redactor.value(_whole_texts(pieces)),
            **cast(Record, self._redactor.value(end)),
        }
        try:
            append_record(self.path, record)
        except StorageError as error:
            if not self._told:
                self._told = True
                told = f"Calls are not recorded: {error.what} {error.why}"
                call.tell(Category.NOTICE, told, level=Level.WARNING)


def _whole_texts(pieces: Sequence[tuple[float, Record]]) -> list[tuple[float, Record]]:
    """The pieces, with those as one between which a key could be divided: no blank is there."""
    joined: list[tuple[float, Record]] = []
    for moment, record in pieces:
        both = _joined(joined[-1][1], record) if joined else None
        if both is None:
            joined.append((moment, record))
        else:
            joined[-1] = (joined[-1][0], both)
    return joined


def _joined(one: Record, other: Record) -> Record | None:
    """Two pieces of the same text as one; None where they are none, or stand apart."""
    if one.keys() != other.keys() or len(one) != 1:
        return None
    ((kind, before),), (after,) = one.items(), other.values()
    if kind == "progress":
        same = (before["index"], before["name"]) == (after["index"], after["name"])
        whole = {**before, "arguments": before["arguments"] + after["arguments"]}
        return {kind: whole} if same else None
    apart = kind not in {"text", "reasoning"} or before[-1:].isspace() or after[:1].isspace()
    return None if apart else {kind: before + after}


class Replay:
    """Answers calls from a cassette; no service is asked, ever.

    An answer has its usage, its pieces and its failures again; it costs nothing and has
    ``details["replayed"]``.

    Args:
        path: The cassette.
        redactor: The one that it was recorded with, or one that knows the same keys.
        order: How calls are found.
        pace: How fast it goes: 1 as recorded, 2 twice as fast; None does not wait.
        sleep: Waits.

    Raises:
        ProviderError: There is no such cassette, or nothing on it.
        StorageError: It cannot be read.
    """

    def __init__(
        self,
        path: Path,
        redactor: Redactor,
        *,
        order: Order = "loose",
        pace: float | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.path = path
        self._redactor = redactor
        self._order = order
        self._pace = pace
        self._sleep = sleep
        self.recordings = tuple(read_cassette(path))
        """What is on it."""
        self._used: set[int] = set()
        if not self.recordings:
            raise ProviderError(
                f"There is nothing to replay in {path}.",
                why="" if path.exists() else "There is no such file.",
                next_step="Record calls into it first, or correct the path.",
            )

    async def __call__(self, call: Call, call_next: Next) -> AsyncGenerator[ModelDelta, None]:
        """The recorded answer.

        Raises:
            ProviderError: It is a failure, or there is none for this call.
            StreamInterrupted: It broke off.
        """
        recording = self._find(call)
        now = 0.0
        texts: list[str] = []
        reply = None if recording.reply is None else reply_from(recording.reply)
        if reply is not None:
            reply = replace(reply, cost=0.0, details={**reply.details, "replayed": True})
        for moment, record in recording.deltas:
            if self._pace is not None and moment > now:
                await self._sleep((moment - now) / self._pace)
                now = moment
            delta = delta_from(record, reply)
            texts.append(delta.text)
            yield delta
        if recording.error is not None:
            raise error_from(recording.error)
        if reply is None:
            said = Message("assistant", (TextPart("".join(texts)),))
            raise StreamInterrupted(
                "The recorded answer has no end.",
                partial=said,
                why="It was stopped while it was recorded.",
            )

    def _find(self, call: Call) -> Recording:
        request = cast(Record, self._redactor.value(request_record(call.request)))
        key = digest(request)
        if self._order == "strict":
            place = len(self._used)
            fits = place < len(self.recordings) and self.recordings[place].key == key
            places = [place] if fits else []
        else:
            places = [n for n, found in enumerate(self.recordings) if found.key == key]
        if not places:
            raise self._miss(request)
        place = next((n for n in places if n not in self._used), places[-1])
        self._used.add(place)
        return self.recordings[place]

    def _miss(self, request: Record) -> ProviderError:
        place = len(self._used)
        if self._order == "loose":
            same = [_same(request, found.request) for found in self.recordings]
            place = same.index(max(same))
        if place >= len(self.recordings):
            why = f"It has {len(self.recordings)} calls, and all are used."
        else:
            where = ", ".join(_differences(request, self.recordings[place].request)) or "its order"
            why = f"Its call {place + 1} comes next, or nearest; it differs in {where}."
        return ProviderError(
            f"The cassette {self.path} has no answer to this call.",
            fault="other",
            why=why,
            next_step="Record it again with replay.mode='record', or ask what was recorded.",
        )


def read_cassette(path: Path) -> Iterator[Recording]:
    """What is on a cassette; lines that are torn or not ours are passed over.

    Raises:
        StorageError: It cannot be read.
    """
    for line in read_records(path):
        if isinstance(line, Line) and line.record.get("v") == VERSION:
            found: Any = line.record
            try:
                deltas = [(float(moment), dict(record)) for moment, record in found["deltas"]]
                recording = Recording(
                    found["key"], found["request"], deltas, found.get("reply"), found.get("error")
                )
                _require_readable(recording)
            except (KeyError, TypeError, ValueError):
                continue
            yield recording


def _require_readable(recording: Recording) -> None:
    """Raises ``ValueError`` for a recording that could not be played to its end."""
    reply = None if recording.reply is None else reply_from(recording.reply)
    for _, record in recording.deltas:
        delta_from(record, reply)
    if recording.error is not None:
        error_from(recording.error)


def _differences(one: Record, other: Record) -> list[str]:
    """The fields in which two requests differ, messages by their number."""
    names = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    if "messages" not in names:
        return names
    ours, theirs = one.get("messages", []), other.get("messages", [])
    if len(ours) != len(theirs):
        where = f"the number of messages ({len(ours)}, recorded: {len(theirs)})"
    else:
        numbers = [
            str(n) for n, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]
        ]
        where = f"message {', '.join(numbers)}"
    return [where if name == "messages" else name for name in names]


def _same(one: Record, other: Record) -> int:
    """How alike two requests are: fields and messages that are the same."""
    fields = sum(1 for name in one.keys() | other.keys() if one.get(name) == other.get(name))
    pairs = zip(one.get("messages", []), other.get("messages", []), strict=False)
    return fields + sum(1 for ours, theirs in pairs if ours == theirs)
