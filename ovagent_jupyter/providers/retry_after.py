"""How long a service asks to wait: its headers, or the words of its error."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_UNIT = r"(?:milliseconds?|ms|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s)"
_SPAN = rf"((?:\d+(?:\.\d+)?\s*{_UNIT}?[\s,]*)+)"
_IN_WORDS = re.compile(
    r"(?:(?:try\s+again|retry|wait|reset\w*)\s+(?:again\s+)?(?:in|after|for)|retryDelay\W+)"
    rf"\s*(?:about\s+)?{_SPAN}",
    re.IGNORECASE,
)
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)


def read_retry_after(
    headers: Mapping[str, str], text: str = "", now: datetime | None = None
) -> float | None:
    """Seconds that a service asks to wait; None where it does not say.

    A date is compared with the answer's own ``Date``, so that a wrong clock here does no harm.

    Args:
        headers: Of its answer, whatever the case of their names.
        text: Its error.
        now: The time here, for an answer that does not say its own.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    milliseconds = _number(lower.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    value = lower.get("retry-after", "").strip()
    seconds = _number(value)
    if seconds is not None:
        return seconds
    until = _date(value)
    if until is not None:
        told = _date(lower.get("date", "")) or now or datetime.now(UTC)
        return max(0.0, (until - told).total_seconds())
    return _in_words(text)


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (TypeError, ValueError, IndexError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _in_words(text: str) -> float | None:
    """``try again in 6m0.5s``, ``retry after 26 seconds``, ``"retryDelay": "37s"``."""
    found = _IN_WORDS.search(text[:4000])
    if found is None:
        return None
    return sum(float(number) * _unit(unit) for number, unit in _AMOUNT.findall(found[1]))


def _unit(word: str) -> float:
    word = word.lower()
    return _SECONDS["ms"] if word.startswith(("ms", "mil")) else _SECONDS.get(word[:1], 1.0)
