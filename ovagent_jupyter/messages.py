"""What is said between a user, a model and tools, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class TextPart:
    """Prose or code."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningPart:
    """What a model thought before it answered."""

    text: str
    provider_data: Mapping[str, object] = field(default_factory=dict)
    """What the service wants back unchanged with the next request, such as a signature."""


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A picture."""

    data: bytes = field(repr=False)
    media_type: str = "image/png"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish to call a tool."""

    id: str
    """Names the call in its answer; made by us where a service gives none."""
    name: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    unreadable: str = ""
    """The arguments as they came, where they are no JSON object; then there are none."""
    provider_data: Mapping[str, object] = field(default_factory=dict)
    """What the service wants back unchanged with the next request."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The answer to one tool call."""

    call_id: str
    text: str
    is_error: bool = False


Part = TextPart | ReasoningPart | ImagePart | ToolCall | ToolResult


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of speech."""

    role: Role
    parts: tuple[Part, ...]
    provider: str = ""
    """Who said it: ``provider_data`` of its parts goes back to this provider only."""

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def reasoning(self) -> str:
        """What was thought, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, ReasoningPart))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls that it wishes for."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens a turn or a call used; all zero when no model was asked."""

    input_tokens: int = 0
    """All that was read, also what came from a cache."""
    output_tokens: int = 0
    """All that was written, also what was thought."""
    cached_tokens: int = 0
    """Of the input: read from the service's cache."""
    cache_write_tokens: int = 0
    """Of the input: put into the service's cache."""
    reasoning_tokens: int = 0
    """Of the output: thought."""
    estimated: bool = False
    """Whether the service told nothing, or a part was never told, and we counted."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.estimated or other.estimated,
        )

    def as_record(self) -> dict[str, int | bool]:
        """As JSON-able values; of the finer ones, what is not zero."""
        record: dict[str, int | bool] = {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
        }
        finer = {each.name: getattr(self, each.name) for each in fields(self)[2:]}
        return record | {name: value for name, value in finer.items() if value}

    @classmethod
    def from_record(cls, record: object) -> Usage:
        """The tokens of a record; counts of a newer version are left out.

        Raises:
            ValueError: It is no record of tokens.
        """
        if not isinstance(record, Mapping):
            raise ValueError(f"usage is {record!r}")
        counts = {each.name: record[each.name] for each in fields(cls) if each.name in record}
        if not all(isinstance(count, int) for count in counts.values()):
            raise ValueError(f"usage is {record!r}")
        return cls(**counts)


def dollars(amount: float) -> str:
    """An amount of US dollars for a reader; small ones with two digits that count."""
    if amount == 0:
        return "$0"
    if amount >= 1:
        return f"${amount:,.2f}"
    return f"${amount:.2g}" if amount >= 0.0001 else "less than $0.0001"  # noqa: PLR2004
