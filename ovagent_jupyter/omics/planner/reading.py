"""A request while it is read: what the grammar took out of it, and the text that is left."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

FactKind = Literal[
    "mention", "path", "param", "rename", "group", "rest", "column", "genes", "number", "name",
    "claim", "unknown",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fact:
    """Something the grammar understood, and where it stands in the request."""

    kind: FactKind
    start: int
    end: int
    text: str
    key: str = ""
    """The concept of a param ("resolution"), the column of a group, the role of a column."""
    value: object = None


@dataclass(slots=True)
class Reading:
    """A request as it is read: what is left of the text, and the facts so far."""

    text: str
    facts: list[Fact] = field(default_factory=list)

    def take(self, kind: FactKind, hit: re.Match[str], key: str = "", value: object = None) -> None:
        """Keep a fact and blank its text, at the same length."""
        self.take_span(kind, hit.start(), hit.end(), key, value)

    def take_span(
        self, kind: FactKind, start: int, end: int, key: str = "", value: object = None
    ) -> None:
        """Keep a fact that stands between two places."""
        self.facts.append(Fact(kind, start, end, self.text[start:end].strip(), key, value))
        self.text = self.text[:start] + " " * (end - start) + self.text[end:]

    def hits(self, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
        """The matches of a pattern that no earlier one has blanked."""
        place = 0
        while hit := pattern.search(self.text, place):
            yield hit
            place = max(hit.end(), place + 1)
