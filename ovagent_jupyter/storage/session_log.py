"""The log of one session: every event as one line, without keys, images and floods."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ovagent_jupyter.errors import StorageError
from ovagent_jupyter.events import AgentEvent
from ovagent_jupyter.storage.jsonl import Line, append_record, read_records
from ovagent_jupyter.storage.redaction import Redactor

TEXT_LIMIT = 20_000
"""Characters of one text in a log line; the rest is cut, and the line says so."""

_SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class LogReading:
    """What a log holds."""

    records: tuple[Mapping[str, object], ...]
    """The events, oldest first, as ``AgentEvent.as_record`` made them."""
    skipped: int = 0
    """Lines that were torn or are not ours."""


class SessionLog:
    """One session's log, ``<directory>/<session_id>.jsonl``; made by the first event.

    Args:
        directory: Where logs are kept.
        session_id: Id of the session: letters, digits, dots, dashes and underscores.
        redactor: Keeps keys out of it.

    Raises:
        StorageError: The id could not be the name of a file.
    """

    def __init__(self, directory: Path, session_id: str, redactor: Redactor) -> None:
        self.path = session_file(directory, session_id, ".jsonl")
        self._redactor = redactor

    def append(self, event: AgentEvent) -> None:
        """Add one event.

        Raises:
            StorageError: It cannot be written; the log is as it was. The turn can go on.
        """
        data = {name: _logged(value) for name, value in event.data.items()}
        # Keys go before the cut, which could leave half of one.
        record = self._redactor.value(replace(event, data=data).as_record())
        append_record(self.path, _bounded(record))

    def read(self) -> LogReading:
        """All events so far.

        Raises:
            StorageError: The log cannot be read.
        """
        lines = tuple(read_records(self.path))
        records = tuple(line.record for line in lines if isinstance(line, Line))
        return LogReading(records, skipped=len(lines) - len(records))


def session_file(directory: Path, session_id: str, suffix: str) -> Path:
    """The path of a file of a session.

    Raises:
        StorageError: The id could not be the name of a file.
    """
    if _SESSION_ID.fullmatch(session_id) is None:
        raise StorageError(
            f"{session_id!r} is not the id of a session.",
            next_step="Use letters, digits, dots, dashes and underscores, 100 at most.",
        )
    return directory / f"{session_id}{suffix}"


def session_ids(directory: Path) -> tuple[str, ...]:
    """The sessions that have a log in a directory, the latest first."""
    logs = [path for path in directory.glob("*.jsonl") if _SESSION_ID.fullmatch(path.stem)]
    return tuple(path.stem for path in sorted(logs, key=_modified, reverse=True))


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process has just removed it
        return 0.0


def _logged(value: object) -> object:
    """What the log keeps of one value: outputs of code by their text and the size of the rest."""
    kind, text, data = (getattr(value, name, None) for name in ("kind", "text", "data"))
    if not (isinstance(kind, str) and isinstance(text, str) and isinstance(data, Mapping)):
        return value
    return {
        "kind": kind,
        "stream": getattr(value, "stream", ""),
        "text": text or data.get("text/plain", ""),
        "kept_elsewhere": {
            mime: f"{len(str(content))} characters"
            for mime, content in data.items()
            if mime != "text/plain"
        },
    }


def _bounded(value: object) -> object:
    """A copy of a JSON-able value in which no text is longer than the limit."""
    if isinstance(value, str) and len(value) > TEXT_LIMIT:
        return f"{value[:TEXT_LIMIT]}… [cut: {len(value) - TEXT_LIMIT} more characters]"
    if isinstance(value, Mapping):
        return {name: _bounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_bounded(item) for item in value]
    return value
