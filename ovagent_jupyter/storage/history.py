"""What was asked and what came of it: one line a turn, over all sessions."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from ovagent_jupyter.events import plain
from ovagent_jupyter.messages import Usage
from ovagent_jupyter.storage.jsonl import (
    Corrupt,
    Line,
    append_record,
    read_records,
    read_records_back,
)
from ovagent_jupyter.storage.paths import history_file
from ovagent_jupyter.storage.redaction import Redactor

CONTEXT_CODE_LIMIT = 2_000
"""Characters of one entry's code that are put before a model."""
CONTEXT_TEXT_LIMIT = 500
"""Characters of one entry's request, result and difference that are put before a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One turn, as it is remembered."""

    session_id: str
    """Session that it belongs to."""
    request: str
    """What the user wrote."""
    timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))
    """When it was recorded, at the end of the turn; with a time zone."""
    generated_code: str = ""
    """The code that ran, or that was to run."""
    result_summary: str = ""
    """What came of it, in a line or two."""
    usage: Usage = field(default_factory=Usage)
    """Tokens."""
    priority_used: int = 1
    """1: the offline planner answered; 2: a model did."""
    success: bool = True
    """Whether the turn did what it set out to do."""
    cell_id: str = ""
    """Notebook cell, where there was one."""
    model: str = ""
    """Who answered."""
    cost: float | None = 0.0
    """US dollars; None when a price is not known."""
    duration: float = 0.0
    """Seconds of wall time."""
    data_diff: str = ""
    """What changed in the data, one paragraph."""
    sandbox: Mapping[str, object] = field(default_factory=dict)
    """Level at which the code ran; after a step down also what was requested, and why."""

    def as_record(self) -> dict[str, object]:
        """The entry as JSON-able values."""
        return {
            "session_id": self.session_id,
            "timestamp": self.timestamp.isoformat(),
            "request": self.request,
            "generated_code": self.generated_code,
            "result_summary": self.result_summary,
            "usage": self.usage.as_record(),
            "priority_used": self.priority_used,
            "success": self.success,
            "cell_id": self.cell_id,
            "model": self.model,
            "cost": self.cost,
            "duration": round(self.duration, 3),
            "data_diff": self.data_diff,
            "sandbox": dict(self.sandbox),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> HistoryEntry:
        """The entry that a record describes; fields of a newer version are left out.

        Raises:
            ValueError: The record is no history entry.
        """
        values = {name: record[name] for name in _TYPES if name in record}
        if not {"session_id", "request", "timestamp"} <= values.keys():
            raise ValueError("a field that every entry has is missing")
        for name, value in values.items():
            if not isinstance(value, _TYPES[name]):
                raise ValueError(f"{name} is {value!r}")
        moment = datetime.fromisoformat(cast(str, values["timestamp"]))
        values["timestamp"] = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        if "usage" in values:
            values["usage"] = _usage(cast(Mapping[str, object], values["usage"]))
        return cls(**values)  # type: ignore[arg-type]  # checked above, field by field


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "session_id": str,
    "timestamp": str,
    "request": str,
    "generated_code": str,
    "result_summary": str,
    "usage": dict,
    "priority_used": int,
    "success": bool,
    "cell_id": str,
    "model": str,
    "cost": (int, float, type(None)),
    "duration": (int, float),
    "data_diff": str,
    "sandbox": dict,
}
"""What each field is in a record."""


class SessionHistory:
    """The history file: append-only, shared by all kernels of a user.

    Args:
        path: The file; None is ``~/.ovagent/history.jsonl``, or below ``OVAGENT_HOME``.
        redactor: Keeps keys out of it; None knows the keys of this process's environment.
    """

    def __init__(self, path: Path | None = None, *, redactor: Redactor | None = None) -> None:
        self.path = history_file(os.environ) if path is None else Path(path)
        self.skipped = 0
        """Lines that the last reading met and could not use: torn ones, or not ours."""
        self._redactor = Redactor(os.environ) if redactor is None else redactor

    def append(self, entry: HistoryEntry) -> None:
        """Add one entry, without keys; safe while other processes do the same.

        Raises:
            StorageError: It cannot be written; the file is as it was.
        """
        append_record(self.path, self._redactor.value(plain(entry.as_record())))

    def get_session(self, session_id: str) -> list[HistoryEntry]:
        """All entries of one session, oldest first.

        Raises:
            StorageError: The file cannot be read.
        """
        records = read_records(self.path, containing=_needle(session_id))
        return self._collect(records, session_id=session_id)

    def get_recent(self, n: int = 10) -> list[HistoryEntry]:
        """The last ``n`` entries of all sessions, oldest first; reads only the file's end.

        Raises:
            StorageError: The file cannot be read.
        """
        return self._collect(read_records_back(self.path), limit=n)[::-1]

    def build_context_for_llm(self, session_id: str, max_entries: int = 5) -> str:
        """The last entries of a session as text for a model; empty when there are none.

        Raises:
            StorageError: The file cannot be read.
        """
        records = read_records_back(self.path, containing=_needle(session_id))
        entries = self._collect(records, session_id=session_id, limit=max_entries)
        return "\n\n".join(_as_context(entry) for entry in reversed(entries))

    def _collect(
        self,
        records: Iterable[Line | Corrupt],
        *,
        session_id: str | None = None,
        limit: int | None = None,
    ) -> list[HistoryEntry]:
        """The entries of a session or of all, in the order of the records."""
        self.skipped = 0
        entries: list[HistoryEntry] = []
        if limit is not None and limit <= 0:
            return entries
        for line in records:
            entry = self._entry(line)
            if entry is None or session_id not in {None, entry.session_id}:
                continue
            entries.append(entry)
            if len(entries) == limit:
                break
        return entries

    def _entry(self, line: Line | Corrupt) -> HistoryEntry | None:
        if isinstance(line, Line):
            try:
                return HistoryEntry.from_record(line.record)
            except ValueError:
                pass  # counted below, like a torn line
        self.skipped += 1
        return None


def _needle(session_id: str) -> bytes:
    """What a line of that session contains, as ``append_record`` writes it."""
    return json.dumps(session_id).encode()


def _usage(record: Mapping[str, object]) -> Usage:
    counts = {each.name: record[each.name] for each in fields(Usage) if each.name in record}
    if not all(isinstance(count, int) for count in counts.values()):
        raise ValueError(f"usage is {record!r}")
    return Usage(**cast(dict[str, int], counts))  # type: ignore[arg-type]  # a bool is an int


def _as_context(entry: HistoryEntry) -> str:
    """One entry for a model: request, code and what came of it."""
    outcome = "Result" if entry.success else "Failed"
    parts = [f"Request: {_shortened(entry.request, CONTEXT_TEXT_LIMIT)}"]
    if entry.generated_code:
        parts.append(f"```python\n{_shortened(entry.generated_code, CONTEXT_CODE_LIMIT)}\n```")
    parts.append(f"{outcome}: {_shortened(entry.result_summary, CONTEXT_TEXT_LIMIT) or '-'}")
    if entry.data_diff:
        parts.append(f"Data: {_shortened(entry.data_diff, CONTEXT_TEXT_LIMIT)}")
    return "\n".join(parts)


def _shortened(text: str, limit: int) -> str:
    text = text.strip()
    return text if len(text) <= limit else f"{text[:limit]} … [{len(text) - limit} more]"
