"""Tells apart what a local model writes in one stream: thoughts, calls of tools, and its answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ovagent_jupyter.providers.local.runner import Marks

Mode = Literal["text", "thought", "call"]
UNREADABLE = "\ufffd"
"""What stands for the bytes of a character that is not whole."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The next characters of one kind."""

    kind: Literal["text", "thought", "call", "call_end"]
    """``call`` is text of a call that is being written; ``call_end`` comes once it is whole."""
    text: str = ""


class TextFilter:
    """Takes the text as it is made and gives it on by kind, as soon as its kind is certain.

    A piece is held back only while it may be the beginning of a mark or of a stop text, half a
    character, or white space before a call.

    Args:
        marks: What the model writes around its thoughts and calls.
        stop: Texts at which the answer ends; looked for in the answer, not in thoughts and calls.
        thinking: Whether it begins with a thought, without a mark.
    """

    def __init__(self, marks: Marks, stop: Sequence[str] = (), *, thinking: bool = False) -> None:
        self._marks = marks
        self._stops = tuple(text for text in stop if text)
        self._buffer = ""
        self._spaces = ""
        # White space between a thought or a call and the answer belongs to neither.
        self._at_start = thinking
        self.mode: Mode = "thought" if thinking else "text"
        self.stopped: str | None = None
        """The stop text that was met; then nothing more comes."""

    def feed(self, text: str) -> Iterator[Piece]:
        """What is certain after the next characters."""
        if self.stopped is not None:
            return
        self._buffer += text
        while (found := self._first_mark()) is not None:
            at, mark = found
            before, self._buffer = self._buffer[:at], self._buffer[at + len(mark) :]
            yield from self._say(before)
            yield from self._turn(mark)
        certain = len(self._buffer) - self._held()
        before, self._buffer = self._buffer[:certain], self._buffer[certain:]
        yield from self._say(before)

    def end(self) -> Iterator[Piece]:
        """What was held back, once nothing more comes; half a character is dropped."""
        if self.stopped is not None:
            return
        rest, self._buffer = self._buffer.rstrip(UNREADABLE), ""
        yield from self._say(rest)
        if self._spaces:
            yield Piece("text", self._spaces)
            self._spaces = ""

    def _wanted(self) -> tuple[str, ...]:
        """Marks that mean something now."""
        marks = self._marks
        if self.mode == "thought":
            return (marks.think_end,)
        if self.mode == "call":
            return (marks.call_end,) if marks.call_end else ()
        return tuple(mark for mark in (marks.think_start, marks.call_start) if mark) + self._stops

    def _first_mark(self) -> tuple[int, str] | None:
        """Where the first mark is; of two at one place the longer one."""
        if not self._buffer:
            return None
        places = [(self._buffer.find(mark), -len(mark), mark) for mark in self._wanted()]
        found = min((place for place in places if place[0] >= 0), default=None)
        return None if found is None else (found[0], found[2])

    def _held(self) -> int:
        """Length of the end that may belong to a mark or is no whole character."""
        held = len(self._buffer) - len(self._buffer.rstrip(UNREADABLE))
        for mark in self._wanted():
            for length in range(min(len(mark) - 1, len(self._buffer)), held, -1):
                if self._buffer.endswith(mark[:length]):
                    held = length
                    break
        return held

    def _say(self, text: str) -> Iterator[Piece]:
        """Text of the present kind."""
        if self.mode != "text":
            if text:
                yield Piece(self.mode, text)
            return
        if self._at_start:
            text = text.lstrip()
        if not text:
            return
        self._at_start = False
        shown = (self._spaces + text).rstrip()
        self._spaces = (self._spaces + text)[len(shown) :]
        if shown:
            yield Piece("text", shown)

    def _turn(self, mark: str) -> Iterator[Piece]:
        """Change the kind at a mark."""
        if self.mode == "call":
            yield Piece("call_end")
            self.mode, self._at_start = "text", True
        elif self.mode == "thought":
            self.mode, self._at_start = "text", True
        elif mark in (self._marks.think_start, self._marks.call_start):
            self._spaces = ""
            self.mode = "call" if mark == self._marks.call_start else "thought"
        else:
            if self._spaces:
                yield Piece("text", self._spaces)
            self.stopped, self._buffer = mark, ""
