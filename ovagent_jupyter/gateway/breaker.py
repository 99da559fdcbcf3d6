"""Leaving a backend alone that has failed too often just now."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum

from ovagent_jupyter.config.gateway import BreakerConfig
from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.gateway.layer import Call, Next
from ovagent_jupyter.providers.client import ModelDelta

FAILURES = frozenset(
    {"unreachable", "timeout", "rate_limited", "overloaded", "server", "malformed", "interrupted"}
    | {"other"}
)
"""Faults that say something of a backend, and not of what it was asked."""


class BreakerState(StrEnum):
    """Whether calls pass."""

    CLOSED = "closed"
    """They do."""
    OPEN = "open"
    """They do not."""
    HALF_OPEN = "half_open"
    """A few do, to see."""


@dataclass(frozen=True, slots=True)
class BreakerSnapshot:
    """A breaker at one moment."""

    state: BreakerState
    outcomes: int
    """How many there are in the window."""
    failures: int
    """How many of them failed."""
    opens_in: float
    """Seconds until calls are let through again; 0 where they are."""


class CircuitBreaker:
    """The breaker of one backend: a window of outcomes that slides along.

    Each call that ``admit`` lets through is followed by one ``record`` with its ticket, so that
    a slow call from before it opened is not taken for one that tries it.

    Args:
        config: When it opens and for how long.
        clock: Seconds that only grow.
    """

    def __init__(
        self, config: BreakerConfig, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config
        self._clock = clock
        self._outcomes: deque[tuple[float, bool]] = deque()
        self._failures = 0
        self._opened: float | None = None
        self._probing = 0
        self._passed = 0
        self._era = 0

    @property
    def state(self) -> BreakerState:
        """Whether calls pass now."""
        if self._opened is None:
            return BreakerState.CLOSED
        waited = self._clock() - self._opened
        return BreakerState.HALF_OPEN if waited >= self._config.open_for else BreakerState.OPEN

    def admit(self) -> int | None:
        """Let a call through: its ticket; None where it is not."""
        if self._opened is not None:
            if self.state is BreakerState.OPEN:
                return None
            if self._probing + self._passed >= self._config.half_open_probes:
                return None
            self._probing += 1
        return self._era

    def record(self, ticket: int, *, failed: bool | None) -> None:
        """Take the outcome of a call; None says nothing of the backend."""
        if ticket != self._era:
            return
        if self._opened is not None:
            self._record_probe(failed=failed)
        elif failed is not None:
            self._outcomes.append((self._clock(), failed))
            self._failures += failed
            self._forget()
            if failed and self._too_many():
                self._opened = self._clock()
                self._begin_era()

    def snapshot(self) -> BreakerSnapshot:
        """How it is now, for a reader."""
        self._forget()
        left = 0.0
        if self._opened is not None:
            left = max(0.0, self._opened + self._config.open_for - self._clock())
        return BreakerSnapshot(self.state, len(self._outcomes), self._failures, left)

    def _record_probe(self, *, failed: bool | None) -> None:
        self._probing -= 1
        if failed is not None:
            self._passed += not failed
            done = self._passed >= self._config.half_open_probes
            if failed or done:
                self._opened = self._clock() if failed else None
                self._begin_era()

    def _too_many(self) -> bool:
        total = len(self._outcomes)
        return total >= self._config.minimum and self._failures / total >= self._config.failure_rate

    def _begin_era(self) -> None:
        self._era += 1
        self._outcomes.clear()
        self._failures = self._probing = self._passed = 0

    def _forget(self) -> None:
        before = self._clock() - self._config.window
        while self._outcomes and self._outcomes[0][0] <= before:
            self._failures -= self._outcomes.popleft()[1]


class Breaker:
    """A breaker for each backend; one call is one outcome, however often it was tried inside.

    Args:
        config: When they open and for how long.
        clock: Seconds that only grow.
    """

    def __init__(
        self, config: BreakerConfig, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config
        self._clock = clock
        self._circuits: dict[str, CircuitBreaker] = {}

    def of(self, backend: str) -> CircuitBreaker:
        """The breaker of a backend."""
        if backend not in self._circuits:
            self._circuits[backend] = CircuitBreaker(self._config, clock=self._clock)
        return self._circuits[backend]

    def forget(self, backend: str) -> None:
        """Start anew with a backend."""
        self._circuits.pop(backend, None)

    async def __call__(self, call: Call, call_next: Next) -> AsyncGenerator[ModelDelta, None]:
        """The stream, where the backend is not left alone.

        Raises:
            ProviderError: It is left alone, or it failed.
        """
        name = call.backend.name if call.backend else ""
        circuit = self.of(name)
        ticket = circuit.admit()
        if ticket is None:
            raise _left_alone(call, name, circuit.snapshot())
        failed: bool | None = None
        try:
            async with aclosing(call_next(call)) as deltas:
                async for delta in deltas:
                    if delta.reply is not None:
                        failed = False
                    yield delta
        except ProviderError as error:
            failed = True if error.fault in FAILURES else None
            raise
        finally:
            circuit.record(ticket, failed=failed)


def _left_alone(call: Call, name: str, now: BreakerSnapshot) -> ProviderError:
    return ProviderError(
        f"{name or 'The model'} was not asked.",
        provider=call.backend.provider.id if call.backend else "",
        fault="unhealthy",
        retryable=True,
        retry_after=now.opens_in,
        why="It has failed too often just now.",
        next_step=f"Try again in {now.opens_in:.0f} s, or name a backup.",
    )
