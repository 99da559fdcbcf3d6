"""Looks that take long, taken a slice at a time, with a rest after each.

Imported by the supervisor: cheap modules only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator

RESTS = 20
"""How many times as long as a round took there is none: what looking may cost."""


class Rounds:
    """Runs a look again and again, never for long at once.

    Args:
        begin: Makes one round; it yields wherever it can be held up.
        rest: Seconds between two rounds, at least.
    """

    def __init__(self, begin: Callable[[], Generator[None]], rest: float) -> None:
        self._begin = begin
        self._rest = rest
        self._round: Generator[None] | None = None
        self._took = 0.0
        self._next = 0.0

    def go_on(self, now: float, budget: float, *, hurry: bool = False) -> None:
        """Look on for ``budget`` seconds of CPU, about; in a hurry also without the rest."""
        if self._round is None:
            if now < self._next and not hurry:
                return
            self._round = self._begin()
            self._took = 0.0
        # Not by the wall clock: on a busy machine most of it would be waiting for the CPU.
        began = time.process_time()
        done = False
        while not done and time.process_time() - began < budget:
            done = next(self._round, self) is self
        took = time.process_time() - began
        self._took += took
        if done:
            self._round = None
            self._next = now + took + max(self._rest, RESTS * self._took)

    def close(self) -> None:
        """Let go of what a round holds open."""
        if self._round is not None:
            self._round.close()
            self._round = None
