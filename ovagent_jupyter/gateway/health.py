"""How well each backend does, by what it did last."""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from ovagent_jupyter.config.gateway import HealthConfig
from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.gateway.breaker import FAILURES
from ovagent_jupyter.gateway.layer import Call, Next
from ovagent_jupyter.providers.client import ModelDelta

SHUTS = frozenset({"key", "permission"})
"""Faults after which a backend is not asked again: the same key gets the same answer."""
FAILS = FAILURES | {"payment", "unknown_model", "runner"}
"""Faults that count against a backend."""


class HealthStatus(StrEnum):
    """How a backend does."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """It fails now and then, or is slow."""
    UNHEALTHY = "unhealthy"
    """It mostly fails, or does not let us in."""
    UNKNOWN = "unknown"
    """It was not asked lately."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one call went."""

    at: float
    """When it ended."""
    failed: bool
    first_content: float | None
    """Seconds until something came; None where nothing did."""


class BackendHealth:
    """The last outcomes of one backend.

    Args:
        config: How many count, for how long, and what they mean.
        clock: Seconds that only grow.
    """

    def __init__(self, config: HealthConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._outcomes: deque[Outcome] = deque(maxlen=config.window)
        self.shut: ProviderError | None = None
        """Why it is not asked again; None where it is."""

    def add(self, outcome: Outcome) -> None:
        """Take one outcome."""
        self._outcomes.append(outcome)

    @property
    def status(self) -> HealthStatus:
        """How it does."""
        if self.shut is not None:
            return HealthStatus.UNHEALTHY
        recent = self._recent()
        if not recent:
            return HealthStatus.UNKNOWN
        rate = sum(outcome.failed for outcome in recent) / len(recent)
        if rate >= self._config.unhealthy_rate and len(recent) >= self._config.minimum:
            return HealthStatus.UNHEALTHY
        slow = self.first_content or 0.0
        if rate >= self._config.degraded_rate or slow >= self._config.slow:
            return HealthStatus.DEGRADED
        return HealthStatus.HEALTHY

    @property
    def first_content(self) -> float | None:
        """Seconds until something came, in the median; None where nothing did."""
        times = [each.first_content for each in self._recent() if each.first_content is not None]
        return median(times) if times else None

    def _recent(self) -> list[Outcome]:
        since = self._clock() - self._config.forget_after
        return [outcome for outcome in self._outcomes if outcome.at > since]


class Health:
    """Watches every backend, and keeps calls from one that does not let us in.

    Args:
        config: How many outcomes count, for how long, and what they mean.
        clock: Seconds that only grow.
    """

    def __init__(
        self, config: HealthConfig, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config
        self._clock = clock
        self._backends: dict[str, BackendHealth] = {}

    def of(self, backend: str) -> BackendHealth:
        """The health of a backend."""
        if backend not in self._backends:
            self._backends[backend] = BackendHealth(self._config, self._clock)
        return self._backends[backend]

    def status(self, backend: str) -> HealthStatus:
        """How a backend does."""
        return self.of(backend).status

    def forget(self, backend: str) -> None:
        """Start anew with a backend, such as after it got another key."""
        self._backends.pop(backend, None)

    async def __call__(self, call: Call, call_next: Next) -> AsyncGenerator[ModelDelta, None]:
        """The stream, watched.

        Raises:
            ProviderError: It failed, or did so before in a way that does not pass.
        """
        health = self.of(call.backend.name if call.backend else "")
        if health.shut is not None:
            raise copy.copy(health.shut)
        begun = self._clock()
        first: float | None = None
        try:
            async with aclosing(call_next(call)) as deltas:
                async for delta in deltas:
                    if first is None and (delta.has_content or delta.reply is not None):
                        first = self._clock() - begun
                    if delta.reply is not None:
                        health.add(Outcome(self._clock(), False, first))
                    yield delta
        except ProviderError as error:
            if error.fault in SHUTS:
                health.shut = _kept(error)
            if error.fault in FAILS:
                health.add(Outcome(self._clock(), True, first))
            raise


def _kept(error: ProviderError) -> ProviderError:
    """The error for the calls that are not made: they have spent nothing."""
    kept = copy.copy(error)
    kept.usage = None
    return kept
