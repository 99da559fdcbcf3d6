"""Thinking that is written into the text between ``<think>`` and ``</think>``."""

from __future__ import annotations

from collections.abc import Callable

_OPEN = "<think>"
_CLOSE = "</think>"


class ThinkTags:
    """Sorts a text that comes in pieces into what was thought and what was said.

    Thinking stands at the beginning, or follows other thinking: a tag in the middle of an answer
    is part of it, such as code that speaks of one. A tag may be cut anywhere.

    Args:
        said: Takes the next characters of the answer.
        thought: Takes the next characters of the thinking.
    """

    __slots__ = ("_held", "_said", "_thought", "_where")

    def __init__(self, said: Callable[[str], None], thought: Callable[[str], None]) -> None:
        self._said = said
        self._thought = thought
        self._where = "before"
        self._held = ""

    def feed(self, piece: str) -> None:
        """The next characters."""
        if self._where == "answer":
            self._said(piece)
            return
        self._held += piece
        # One step for each tag that is whole; a step that holds back ends it.
        while self._held and (self._inside() if self._where == "inside" else self._before()):
            pass

    def end(self) -> None:
        """Nothing more comes: what was held back is what it looks like."""
        held, self._held = self._held, ""
        (self._thought if self._where == "inside" else self._said)(held)

    def _before(self) -> bool:
        start = self._held.lstrip()
        if start.startswith(_OPEN):
            self._where, self._held = "inside", start[len(_OPEN) :]
            return True
        if not _OPEN.startswith(start):
            after = self._where == "after"
            self._where, held, self._held = "answer", self._held, ""
            self._said(held.lstrip() if after else held)
        return False

    def _inside(self) -> bool:
        thought, tag, rest = self._held.partition(_CLOSE)
        if tag:
            self._thought(thought)
            self._where, self._held = "after", rest
            return True
        keep = next((n for n in range(len(_CLOSE) - 1, 0, -1) if thought.endswith(_CLOSE[:n])), 0)
        self._thought(thought[: len(thought) - keep])
        self._held = thought[len(thought) - keep :]
        return False
