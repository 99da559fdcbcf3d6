"""What happened: one frozen record for everything, and how it is passed on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from os import PathLike
from typing import Protocol


class Level(StrEnum):
    """How much an event matters to a reader."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Category(StrEnum):
    """Every kind of event; a reporter shows kinds it does not know by their message."""

    TURN_STARTED = "turn.started"
    TURN_FINISHED = "turn.finished"
    TURN_FAILED = "turn.failed"
    DATA_DESCRIBED = "data.described"
    PLAN_READY = "plan.ready"
    CHILD_STARTING = "child.starting"
    CHILD_READY = "child.ready"
    CHILD_DIED = "child.died"
    SANDBOX_FALLBACK = "sandbox.fallback"
    SANDBOX_DENIED = "sandbox.denied"
    HANDOVER_SENT = "handover.sent"
    HANDOVER_RECEIVED = "handover.received"
    STEP_STARTED = "step.started"
    STEP_FINISHED = "step.finished"
    CODE_OUTPUT = "code.output"
    MODEL_ASKED = "model.asked"
    MODEL_DELTA = "model.delta"
    MODEL_ANSWERED = "model.answered"
    MODEL_RETRIED = "model.retried"
    MODEL_SWITCHED = "model.switched"
    MODEL_FAILED = "model.failed"
    NOTICE = "notice"


MAX_DEPTH = 20
"""How deep the data of a recorded event may nest; what holds itself ends there too."""

TERMINAL = frozenset({Category.TURN_FINISHED, Category.TURN_FAILED})
"""Each turn ends with exactly one of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEvent:
    """One thing that happened in a turn."""

    category: Category
    message: str
    """One line for a reader."""
    level: Level = Level.INFO
    data: Mapping[str, object] = field(default_factory=dict)
    """What the kind of event carries; objects stay in memory, ``as_record`` drops them."""
    session_id: str = ""
    correlation_id: str = ""
    """Id of the turn."""
    seq: int = 0
    """Number within the turn, from 0."""
    timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))

    def as_record(self) -> dict[str, object]:
        """The event as JSON-able values; what is not plain is named by its type."""
        return {
            "timestamp": self.timestamp.isoformat(),
            "level": self.level.value,
            "category": self.category.value,
            "message": self.message,
            "data": plain(self.data),
            "session_id": self.session_id,
            "correlation_id": self.correlation_id,
            "seq": self.seq,
        }


def plain(value: object, depth: int = 0) -> object:
    """A JSON-able copy of a value; anything else becomes ``<TypeName>``.

    Scalars of numpy become numbers, what JSON has no number for (NaN, infinities) becomes None,
    and nesting deeper than ``MAX_DEPTH`` is cut. An object may say how it is recorded by a
    method ``as_record``.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if depth == MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, PathLike):
        return str(value)
    record = getattr(value, "as_record", None)
    if callable(record):
        return plain(record(), depth + 1)
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        return plain(item(), depth + 1)
    return f"<{type(value).__name__}>"


class Reporter(Protocol):
    """Something that is told of events; it must not raise and must not block for long."""

    def report(self, event: AgentEvent) -> None:
        """Take one event."""
        ...


Emit = Callable[[AgentEvent], None]
"""How the rooms pass an event upward."""


class Emitter:
    """Makes the events of one turn: numbers them and stamps the ids.

    Args:
        emit: Where the finished events go.
        session_id: Id of the session.
        correlation_id: Id of the turn.
    """

    def __init__(self, emit: Emit, session_id: str, correlation_id: str) -> None:
        self._emit = emit
        self._session_id = session_id
        self.correlation_id = correlation_id
        self._seq = 0

    def __call__(
        self, category: Category, message: str, *, level: Level = Level.INFO, **data: object
    ) -> AgentEvent:
        """Emit one event and return it."""
        event = AgentEvent(
            category=category,
            message=message,
            level=level,
            data=data,
            session_id=self._session_id,
            correlation_id=self.correlation_id,
            seq=self._seq,
        )
        return self._send(event)

    def pass_on(self, event: AgentEvent) -> AgentEvent:
        """Emit an event that somebody else made as one of this turn."""
        return self._send(
            replace(
                event,
                session_id=self._session_id,
                correlation_id=self.correlation_id,
                seq=self._seq,
            )
        )

    def _send(self, event: AgentEvent) -> AgentEvent:
        self._seq += 1
        self._emit(event)
        return event
