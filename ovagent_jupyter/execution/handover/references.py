"""Parts of an answer that the parent has already: told by their number, not sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ovagent_jupyter.execution.handover.baseline import Border, SentBuffer
from ovagent_jupyter.execution.handover.blob import SMALL
from ovagent_jupyter.execution.handover.codec import same_bytes
from ovagent_jupyter.execution.handover.fields import Node
from ovagent_jupyter.execution.handover.segment import Buffer

MOST_TIMES = 8
"""How often an answer may name the same buffer: each time is another map in the parent."""
_START = 1 << 12
"""Bytes that are compared before all are."""
_TRIES = 4
"""How many that begin alike are compared with one buffer."""


class References:
    """Finds among new buffers those that are copies of what was received.

    Args:
        border: What was received.
    """

    def __init__(self, border: Border) -> None:
        self._places = border.places
        self._named: Counter[int] = Counter()
        self._alike: dict[int, dict[int, SentBuffer]] = {}
        for baseline in border.objects.values():
            for slot in baseline.slots.values():
                for buffer in slot.buffers:
                    if buffer.number is not None:
                        sizes = self._alike.setdefault(buffer.content.nbytes, {})
                        sizes[buffer.number] = buffer

    def replace(self, buffers: Sequence[Buffer]) -> tuple[list[Buffer], list[Node]]:
        """The buffers with known ones left empty, and what these are: position and number."""
        known: list[Node] = []
        rest = list(buffers)
        for position, buffer in enumerate(buffers):
            number = self._number(buffer)
            if number is not None:
                known.append([position, number])
                rest[position] = memoryview(b"")
        return rest, known

    def _number(self, buffer: Buffer) -> int | None:
        if buffer.nbytes < SMALL:
            return None
        number = self._places.number(buffer)
        if number is None:
            number = self._copied(buffer)
        if number is None or self._named[number] == MOST_TIMES:
            return None
        self._named[number] += 1
        return number

    def _copied(self, buffer: Buffer) -> int | None:
        # Different ones most often differ at once; a table of a hundred columns costs little.
        start = bytes(buffer[:_START])
        alike = self._alike.get(buffer.nbytes, {}).items()
        likely = [(n, sent) for n, sent in alike if sent.content[:_START].tobytes() == start]
        return next((n for n, sent in likely[:_TRIES] if same_bytes(buffer, sent.content)), None)
