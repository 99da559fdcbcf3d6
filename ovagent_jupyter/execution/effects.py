"""What a piece of code does to the user's work, in words for a card. Advice, never a boundary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class EffectKind(StrEnum):
    """What is affected."""

    OVERWRITE = "overwrite"
    IN_PLACE = "in_place"
    DROP = "drop"
    READ_OUTSIDE = "read_outside"
    WRITE_OUTSIDE = "write_outside"
    NETWORK = "network"
    SHELL = "shell"
    INSTALL = "install"
    DELETE = "delete"
    CODE_FROM_DATA = "code_from_data"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, order=True)
class Effect:
    """One thing that the code does."""

    line: int
    """Line of the code as it was given, from 1."""
    kind: EffectKind
    text: str
    """A few words; may quote the code."""


def effects_line(effects: Iterable[Effect]) -> str:
    """All of it in one line; empty when there is nothing to say."""
    lines: dict[str, list[int]] = {}
    for effect in effects:
        lines.setdefault(effect.text, []).append(effect.line)
    parts = [f"{text} ({_numbered(sorted(set(found)))})" for text, found in lines.items()]
    return f"Effects: {' · '.join(parts)}" if parts else ""


def _numbered(lines: list[int]) -> str:
    return f"line{'s' if len(lines) > 1 else ''} {', '.join(map(str, lines))}"
