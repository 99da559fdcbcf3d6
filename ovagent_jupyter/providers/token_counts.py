"""A count of tokens as a service tells it, or none: one rule for all wires."""

from __future__ import annotations

MOST_TOKENS = 1_000_000_000
"""More than any call can have; what is above it was never counted."""


def count_of(value: object) -> int | None:
    """The count that a service tells; None for what is no count, which is as good as not told.

    Args:
        value: As its JSON has it: perhaps negative, infinite, far too large, or no number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value <= MOST_TOKENS else None
