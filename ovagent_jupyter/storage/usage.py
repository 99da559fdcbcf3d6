"""What models were asked and what it cost: a reading of the logs, by model, day or session."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Literal

from ovagent_jupyter.events import Category
from ovagent_jupyter.messages import Usage, dollars
from ovagent_jupyter.storage.jsonl import Line, read_records
from ovagent_jupyter.storage.session_log import session_file

By = Literal["model", "day", "session"]
"""What a report has a row for."""

_CATEGORIES = frozenset({Category.MODEL_ANSWERED.value, Category.MODEL_FAILED.value})
_NEEDLE = b'"model.'
"""In every line that is read, as the log writes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUse:
    """One time that a model was asked: the data of ``model.answered`` and ``model.failed``."""

    model: str
    """As its service names it."""
    provider: str = ""
    """Id of the provider."""
    backend: str = ""
    """Which of several backends."""
    call_id: str = ""
    """What attempts at the same call have in common."""
    attempt: int = 1
    """Which attempt it was."""
    usage: Usage = field(default_factory=Usage)
    """Tokens."""
    cost: float | None = None
    """US dollars; None when a price is not known."""
    latency: float = 0.0
    """Seconds to the end."""
    first_token: float | None = None
    """Seconds to the first content."""
    finish_reason: str = ""
    """Why the model stopped; empty for a failure."""
    cached: bool = False
    """Whether our own cache answered."""
    fault: str = ""
    """What kind of failure it was; empty for an answer."""
    session_id: str = ""
    """Session, from the event."""
    turn_id: str = ""
    """Turn, from the event."""
    timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))
    """When it ended, from the event."""

    def as_data(self) -> dict[str, object]:
        """The data of its event; what the event itself has is not in it."""
        values = {row.name: getattr(self, row.name) for row in fields(self)[:-3]}
        return values | {"usage": self.usage.as_record()}

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> ModelUse:
        """The use that a line of a session log tells of.

        Raises:
            ValueError: It tells of none.
        """
        data = record.get("data")
        if record.get("category") not in _CATEGORIES or not isinstance(data, Mapping):
            raise ValueError("no event of a model")
        values = {name: data[name] for name in _TYPES if name in data}
        for name, value in values.items():
            if not isinstance(value, _TYPES[name]):
                raise ValueError(f"{name} is {value!r}")
        moment = datetime.fromisoformat(str(record.get("timestamp")))
        return cls(
            **values | {"usage": Usage.from_record(data.get("usage", {}))},
            session_id=str(record.get("session_id", "")),
            turn_id=str(record.get("correlation_id", "")),
            timestamp=moment if moment.tzinfo else moment.replace(tzinfo=UTC),
        )


_NUMBER = (int, float)
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "model": str,
    "provider": str,
    "backend": str,
    "call_id": str,
    "attempt": int,
    "cost": (*_NUMBER, type(None)),
    "latency": _NUMBER,
    "first_token": (*_NUMBER, type(None)),
    "finish_reason": str,
    "cached": bool,
    "fault": str,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """What was used under one name."""

    name: str
    """Model, day (``YYYY-MM-DD``) or session."""
    calls: int = 0
    """Times that a model was asked, failures included and our cache not."""
    failures: int = 0
    """Of these, how many failed."""
    cached: int = 0
    """Answers of our own cache."""
    usage: Usage = field(default_factory=Usage)
    """Tokens of all."""
    cost: float = 0.0
    """US dollars of those whose price is known."""
    unpriced: int = 0
    """Calls that used tokens whose price is not known: ``cost`` is then a lower bound."""
    seconds: float = 0.0
    """Seconds spent in calls, added up."""

    def plus(self, use: ModelUse) -> UsageRow:
        """This and one use more."""
        asked = not use.cached
        unpriced = use.cost is None and use.usage.input_tokens + use.usage.output_tokens > 0
        return UsageRow(
            name=self.name,
            calls=self.calls + asked,
            failures=self.failures + bool(use.fault),
            cached=self.cached + use.cached,
            usage=self.usage + use.usage,
            cost=self.cost + (use.cost or 0.0),
            unpriced=self.unpriced + unpriced,
            seconds=self.seconds + use.latency,
        )

    def line(self) -> str:
        """The row for a reader."""
        sure = "at least " if self.unpriced else ""
        parts = [
            f"{self.calls:,} calls",
            f"{self.usage.input_tokens:,} tokens read, {self.usage.output_tokens:,} written",
            f"{sure}{dollars(self.cost)}",
        ]
        if self.unpriced:
            parts.append(f"{self.unpriced:,} without a known price")
        if self.failures:
            parts.append(f"{self.failures:,} failed")
        if self.cached:
            parts.append(f"{self.cached:,} more from our cache")
        return f"{self.name}: {'; '.join(parts)}"


@dataclass(frozen=True, slots=True)
class UsageReport:
    """What was used, a row for each model, day or session."""

    by: By
    """What the rows are."""
    rows: tuple[UsageRow, ...]
    """The dearest model first; the latest day and session first."""
    total: UsageRow
    """All together."""


def read_uses(directory: Path, session_id: str | None = None) -> Iterator[ModelUse]:
    """All uses that the session logs of a directory tell of, of one session or of all.

    Lines that are torn or not ours are passed over, as is a log that vanishes meanwhile.

    Raises:
        StorageError: A log cannot be read, or the id is none of a session.
    """
    if session_id is None:
        paths = sorted(directory.glob("*.jsonl"))
    else:
        paths = [session_file(directory, session_id, ".jsonl")]
    for path in paths:
        for line in read_records(path, containing=_NEEDLE):
            if isinstance(line, Line) and line.record.get("category") in _CATEGORIES:
                try:
                    yield ModelUse.from_record(line.record)
                except (ValueError, TypeError):
                    continue  # of a newer version, or edited by hand


def usage_report(
    uses: Iterable[ModelUse],
    by: By = "model",
    *,
    since: datetime | None = None,
    zone: tzinfo | None = None,
) -> UsageReport:
    """Uses added up.

    Args:
        uses: What to add up, as ``read_uses`` gives it.
        by: What to have a row for.
        since: Leave out what ended before; with a time zone.
        zone: Whose days they are; None is this machine's.

    Raises:
        StorageError: A log cannot be read.
    """
    total = UsageRow(name="all")
    rows: dict[str, UsageRow] = {}
    latest: dict[str, datetime] = {}
    for use in uses:
        if since is not None and use.timestamp < since:
            continue
        name = _name(use, by, zone)
        rows[name] = rows.get(name, UsageRow(name=name)).plus(use)
        latest[name] = max(use.timestamp, latest.get(name, use.timestamp))
        total = total.plus(use)
    if by == "model":
        ordered = sorted(rows.values(), key=lambda row: (-row.cost, -row.calls, row.name))
    else:
        ordered = sorted(rows.values(), key=lambda row: latest[row.name], reverse=True)
    return UsageReport(by, tuple(ordered), total)


def _name(use: ModelUse, by: By, zone: tzinfo | None) -> str:
    match by:
        case "model":
            return f"{use.provider}/{use.model}" if use.provider else use.model
        case "day":
            return day_of(use.timestamp, zone)
        case "session":
            return use.session_id or "(no session)"


def day_of(moment: datetime, zone: tzinfo | None = None) -> str:
    """The day of a moment, ``YYYY-MM-DD``; by this machine's clock on the wall by default."""
    return moment.astimezone(zone).date().isoformat()
