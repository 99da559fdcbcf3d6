"""What was spent today by all kernels of a user: one small file a day, one line a call.

The session logs have it too, but a budget must hold where a log is switched off or kept elsewhere,
and before each call: this is read from where the last reading ended, not searched.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path

from ovagent_jupyter.storage.jsonl import Line, append_record, parse
from ovagent_jupyter.storage.paths import storage_error
from ovagent_jupyter.storage.usage import day_of

KEPT_DAYS = 31
"""Older files are removed when a new one is begun."""
PATIENCE = 0.5
"""Seconds to wait for another kernel that writes its line, which takes microseconds."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What calls have taken."""

    requests: int = 0
    """Calls of a service."""
    tokens: int = 0
    """Read and written."""
    money: float = 0.0
    """US dollars, as far as prices are known."""

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.requests + other.requests, self.tokens + other.tokens, self.money + other.money
        )

    def __sub__(self, other: Spent) -> Spent:
        return Spent(
            self.requests - other.requests, self.tokens - other.tokens, self.money - other.money
        )


def _now() -> datetime:
    return datetime.now(UTC)


class DayLedger:
    """The spending of each day, ``<directory>/<YYYY-MM-DD>.jsonl``.

    Args:
        directory: Where it is kept.
        now: The time.
        zone: Whose days they are; None is this machine's.
    """

    def __init__(
        self, directory: Path, *, now: Callable[[], datetime] = _now, zone: tzinfo | None = None
    ) -> None:
        self._directory = directory
        self._now = now
        self._zone = zone
        self._day = ""
        self._offset = 0
        self._spent = Spent()

    @property
    def path(self) -> Path:
        """Today's file; made by the first call."""
        return self._directory / f"{day_of(self._now(), self._zone)}.jsonl"

    def spent(self) -> Spent:
        """What was spent today so far, by all kernels.

        Raises:
            StorageError: The file cannot be read.
        """
        path = self.path
        if path.stem != self._day:
            self._day, self._offset, self._spent = path.stem, 0, Spent()
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._offset:  # somebody has cut it
                    self._offset, self._spent = 0, Spent()
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            self._offset, self._spent = 0, Spent()
            return self._spent
        except OSError as error:
            raise storage_error("The file", path, "cannot be read", error) from error
        whole = new[: new.rfind(b"\n") + 1]  # a line that is being written is read next time
        self._offset += len(whole)
        for raw in whole.splitlines():
            self._spent += _spent_of(raw)
        return self._spent

    def add(self, spent: Spent) -> None:
        """Add what a call took.

        Raises:
            StorageError: It cannot be written.
        """
        path = self.path
        if not path.exists():
            self._remove_old()
        record = {"requests": spent.requests, "tokens": spent.tokens, "money": spent.money}
        append_record(path, {"at": self._now().isoformat(), **record}, patience=PATIENCE)

    def _remove_old(self) -> None:
        for path in sorted(self._directory.glob("????-??-??.jsonl"))[: -KEPT_DAYS + 1]:
            with suppress(OSError):  # another kernel has removed it, or it is not ours to remove
                path.unlink()


def _spent_of(raw: bytes) -> Spent:
    """What a line says; a torn one says nothing."""
    line = parse(raw)
    if not isinstance(line, Line):
        return Spent()
    values = [line.record.get(name) for name in Spent.__slots__]
    if not all(isinstance(value, int | float) and value >= 0 for value in values):
        return Spent()
    return Spent(*values)  # type: ignore[arg-type]  # numbers, as just checked
