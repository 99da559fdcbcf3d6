"""What a benchmark yields, and how two things are measured side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table."""

    name: str
    """What was measured."""
    value: float
    unit: str
    """``×`` for a ratio, ``s`` only where a person waits."""
    against: str
    """What the ratio is to; for seconds, what the clock ran over."""
    target: str = ""
    """What we want to reach ("≤ 0.1×")."""

    def row(self) -> str:
        """The figure as a row of a Markdown table."""
        value = f"{self.value:.3g} {self.unit}"
        return f"| {self.name} | {value} | {self.against} | {self.target} |"


HEAD = "| figure | value | against | target |\n|---|---|---|---|"


def side_by_side(
    ours: Callable[[], float], other: Callable[[], float], *, rounds: int = 5
) -> tuple[float, float]:
    """Medians of two measurements taken in turn, so that a noisy moment hits both.

    Args:
        ours: Returns one measurement, in any unit.
        other: Returns one measurement in the same unit.
        rounds: How often each is taken, after one round that warms the caches.
    """
    ours()
    other()
    pairs = [(ours(), other()) for _ in range(rounds)]
    return (statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs))


def seconds(action: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


async def side_by_side_async(
    ours: Callable[[], Awaitable[None]], other: Callable[[], Awaitable[None]], *, rounds: int = 5
) -> tuple[float, float]:
    """Median wall times of two coroutines, taken in turn as ``side_by_side`` does."""
    await ours()
    await other()
    pairs = [(await _elapsed(ours), await _elapsed(other)) for _ in range(rounds)]
    return (statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs))


async def _elapsed(action: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await action()
    return time.perf_counter() - began
