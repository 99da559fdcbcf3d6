"""What was spent today by all kernels of a user: one small file a day, a line or two a call.

The session logs have it too, but a budget must hold where a log is switched off or kept elsewhere,
and before each call: this is read from where the last reading ended, not searched.

A call may be written before it is made, by what it is likely to take, and corrected once it has
ended. A correction is a line whose amounts may be negative; a process that is killed in between
leaves what was promised counted.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

from ovagent_jupyter.storage.jsonl import Line, append_record, parse
from ovagent_jupyter.storage.paths import storage_error
from ovagent_jupyter.storage.usage import day_of

MOST = 1_000_000_000
"""More requests, tokens or US dollars than any call takes."""
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

    def bounded(self) -> Spent:
        """The same within what is possible: numbers, and less than nothing in corrections only.

        A line with a request is that of a call; a correction has none, or takes one back.
        """
        least = 0 if self.requests > 0 else -MOST
        return Spent(*(_within(getattr(self, name), least) for name in Spent.__slots__))

    def floored(self) -> Spent:
        """The same, and no amount below nothing."""
        return Spent(max(0, self.requests), max(0, self.tokens), max(0.0, self.money))


def _within(amount: Any, least: int) -> Any:
    if amount != amount or amount in (math.inf, -math.inf):  # noqa: PLR0124 - not a number
        return 0
    return max(least, min(amount, MOST))


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
        return self._file_of(day_of(self._now(), self._zone))

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
            self._spent = (self._spent + _spent_of(raw)).floored()
        return self._spent

    def add(self, spent: Spent, day: str = "") -> str:
        """Add what a call takes, or correct what was added for it; what is impossible is clamped.

        Args:
            spent: What it takes. With no request, or less than none, it is a correction.
            day: To whose file; empty is today's. A call is all in that of the day it began in.

        Returns:
            The day.

        Raises:
            StorageError: It cannot be written.
        """
        path = self._file_of(day) if day else self.path
        if not path.exists():
            self._remove_old()
        real = spent.bounded()
        record = {"requests": real.requests, "tokens": real.tokens, "money": real.money}
        append_record(path, {"at": self._now().isoformat(), **record}, patience=PATIENCE)
        return path.stem

    def _file_of(self, day: str) -> Path:
        return self._directory / f"{day}.jsonl"

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
    if not all(isinstance(value, int | float) for value in values):
        return Spent()
    return Spent(*values).bounded()  # type: ignore[arg-type]  # numbers, as just checked
