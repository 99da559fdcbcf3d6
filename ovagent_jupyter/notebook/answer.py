"""The answer of a model in a cell: one display that grows, as markup that can only show."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

LEAST_PAUSE = 0.1
"""Seconds between two paintings."""
MOST_SHOWN = 500_000
"""Characters of an answer that are shown: each painting sends all of them."""
SHARE = 10
"""A painting may take this part of the time: what is long is painted less often."""


class Publisher(Protocol):
    """IPython's display publisher, as far as it is used here."""

    def publish(self, data: dict[str, Any], metadata: dict[str, Any], **kwargs: Any) -> None:
        """Send one display to the front end."""
        ...


class Answer:
    """Paints what a model says while it says it; used from the main thread only.

    What a model writes is no more trusted than what code displays: its Markdown is rendered and
    sanitised here, so that no picture is fetched and no script runs.

    Args:
        publisher: IPython's display publisher.
        display_id: Id of the display; unique to the cell's turn.
        redact: Takes keys out of a text: what is shown is saved with the notebook.
    """

    def __init__(
        self, publisher: Publisher, display_id: str, redact: Callable[[str], str] = str
    ) -> None:
        self._publisher = publisher
        self._redact = redact
        self._display_id = display_id
        self._text: list[str] = []
        self._thought: list[str] = []
        self._length = 0
        self._record: dict[str, object] = {}
        self._painted = False
        self._dirty = False
        self._next_at = 0.0

    def add(self, text: str, thought: str) -> None:
        """Take the next pieces."""
        room = max(0, MOST_SHOWN - self._length)
        self._length += len(text) + len(thought)
        if room:
            self._text.append(text[:room])
            self._thought.append(thought[:room])
            self._dirty = True

    def paint(self, *, whole: bool = False) -> None:
        """Paint what is new, if it is time to; at the end, ``whole``, in any case."""
        now = time.monotonic()
        if not self._dirty or (now < self._next_at and not whole):
            return
        self._publisher.publish(
            self._bundle(), {}, transient={"display_id": self._display_id}, update=self._painted
        )
        self._painted, self._dirty = True, False
        painted = time.monotonic()
        self._next_at = painted + max(LEAST_PAUSE, SHARE * (painted - now))

    def end(self, record: Mapping[str, object]) -> None:
        """Paint all of it, with the record of the turn."""
        self._record = dict(record)
        self._dirty = True
        self.paint(whole=True)

    def _bundle(self) -> dict[str, object]:
        from ovagent_jupyter.execution.markup import clean_markdown

        text, thought = (self._redact("".join(each)) for each in (self._text, self._thought))
        if self._length > MOST_SHOWN:
            text += f"\n\n… {self._length:,} characters in all: `turn.answer` has them."
        shown = clean_markdown(text)
        # Too long or too deep to be rendered safely: as it was written, then.
        markup = f"<pre>{html.escape(text)}</pre>" if shown is None else shown
        if thought:
            folded = f"<summary>Thought</summary><pre>{html.escape(thought)}</pre>"
            markup = f"<details>{folded}</details>{markup}"
        return {"text/html": markup, "text/plain": text} | self._record
