"""The shape of a layer: it is given a call and what is next, and passes on what streams back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from enum import IntEnum
from secrets import token_hex
from typing import Protocol

from ovagent_jupyter.events import AgentEvent, Category, Level
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import ModelDelta, ModelRequest


class Priority(IntEnum):
    """Who goes first when many wait."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    CRITICAL = 3


class Tell(Protocol):
    """Takes an event of a call, as ``events.Emitter`` does."""

    def __call__(
        self, category: Category, message: str, *, level: Level = Level.INFO, **data: object
    ) -> AgentEvent | None:
        """Tell of one event."""
        ...


def nobody_hears(
    category: Category, message: str, *, level: Level = Level.INFO, **data: object
) -> None:
    """Hears events where nobody does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call on its way through the layers; a layer that changes it passes on a new one."""

    request: ModelRequest
    backend: Backend | None = None
    """Where it goes; None until the router has chosen."""
    priority: Priority = Priority.NORMAL
    deadline: float | None = None
    """By the clock of the gateway, until when an answer is of use; None for no limit."""
    session_id: str = ""
    turn_id: str = ""
    call_id: str = field(default_factory=lambda: token_hex(6))
    """The same in every layer and for every attempt: what logs and traces are joined by."""
    attempt: int = 1
    """Which attempt at this backend it is."""
    tell: Tell = nobody_hears
    """Hears what happens to it."""


Next = Callable[[Call], AsyncGenerator[ModelDelta, None]]
"""The rest of the onion: makes the stream of a call."""


class Layer(Protocol):
    """One behaviour around a call.

    A layer is an asynchronous generator that closes what it has begun, also when it is closed
    itself: ``async with aclosing(call_next(call)) as deltas``. It holds back no delta.
    """

    def __call__(self, call: Call, call_next: Next) -> AsyncGenerator[ModelDelta, None]:
        """Pass on a call and what streams back."""
        ...


def around(layer: Layer, call_next: Next) -> Next:
    """The next of the layer outside of this one."""

    def begin(call: Call) -> AsyncGenerator[ModelDelta, None]:
        return layer(call, call_next)

    return begin
