"""Counts, times, tokens and cost of each backend: here, and for OpenTelemetry's meters."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from statistics import quantiles
from typing import TYPE_CHECKING

from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.gateway import semconv
from ovagent_jupyter.gateway.layer import Call, Next
from ovagent_jupyter.messages import Usage, dollars
from ovagent_jupyter.providers.client import ModelDelta, Reply

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, MeterProvider

RECENT = 512
"""Times of the latest calls that medians are taken of."""


@dataclass(slots=True)
class Figures:
    """What calls of one kind came to."""

    calls: int = 0
    """How many ended."""
    cached: int = 0
    """Of these, answered by our own cache; they have no part in the times."""
    errors: Counter[str] = field(default_factory=Counter)
    """Failures, by their fault; ``cancelled`` where whoever asked did not wait."""
    usage: Usage = field(default_factory=Usage)
    """Tokens of all."""
    cost: float = 0.0
    """US dollars of those whose price is known."""
    unpriced: int = 0
    """Calls that used tokens whose price is not known."""
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    """Seconds to the end of the latest answers."""
    first_tokens: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    """Seconds to their first content."""

    def add(self, usage: Usage, cost: float | None, fault: str = "") -> None:
        """Take one call that ended."""
        self.calls += 1
        self.usage += usage
        self.cost += cost or 0.0
        self.unpriced += cost is None and usage.input_tokens + usage.output_tokens > 0
        if fault:
            self.errors[fault] += 1

    def line(self) -> str:
        """The figures for a reader."""
        parts = [f"{self.calls:,} calls"]
        if self.errors:
            parts.append("failed: " + ", ".join(f"{n:,} {f}" for f, n in self.errors.most_common()))
        if self.cached:
            parts.append(f"{self.cached:,} from the cache")
        for name, times in (("first token", self.first_tokens), ("whole", self.latencies)):
            if times:
                middle, most = percentile(times, 50), percentile(times, 95)
                parts.append(f"{name} {middle:.2f} s (95 %: {most:.2f} s)")
        read, written = self.usage.input_tokens, self.usage.output_tokens
        sure = "at least " if self.unpriced else ""
        parts.append(f"{read:,} + {written:,} tokens, {sure}{dollars(self.cost)}")
        return "; ".join(parts)


def percentile(times: deque[float], percent: int) -> float:
    """The time within which so many percent of them are; there has to be one.

    Args:
        times: Seconds.
        percent: From 1 to 99.
    """
    if len(times) == 1:
        return times[0]
    return quantiles(times, n=100, method="inclusive")[percent - 1]


class Metrics:
    """Keeps the figures of each backend.

    As a layer it notes every call that passes. Outside of routing that is one call of the user,
    noted for the backend that answered in the end; around an attempt it is each attempt.

    Args:
        label: What a call is counted under; None is its backend.
        provider: Where OpenTelemetry's metrics go; None is the global one.
        clock: Seconds.
    """

    def __init__(
        self,
        *,
        label: Callable[[Call, Reply | None], str] | None = None,
        provider: MeterProvider | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.figures: dict[str, Figures] = {}
        """Backend → what its calls came to."""
        self._label = label or _backend
        self._provider = provider
        self._clock = clock
        self._meters: _Meters | None = None

    async def __call__(self, call: Call, call_next: Next) -> AsyncGenerator[ModelDelta, None]:
        """Pass on the answer and note how it went."""
        began, pieces, noted = self._clock(), 0, False
        first: float | None = None
        try:
            async with aclosing(call_next(call)) as deltas:
                async for delta in deltas:
                    if delta.reply is not None:
                        noted = True
                        self._answered(call, delta.reply, (self._clock() - began, first), pieces)
                    elif first is None and delta.has_content:
                        first = self._clock() - began
                    pieces += first is not None
                    yield delta
        except ProviderError as error:
            noted = True
            usage = error.usage if isinstance(error.usage, Usage) else Usage()
            self._failed(call, error.fault, usage, error.cost, self._clock() - began)
            raise
        except Exception:
            noted = True
            self._failed(call, "other", Usage(), None, self._clock() - began)
            raise
        finally:
            if not noted:
                self._failed(call, "cancelled", Usage(), None, self._clock() - began)

    def lines(self) -> list[str]:
        """The figures for a reader, the busiest first."""
        busiest = sorted(self.figures.items(), key=lambda item: -item[1].calls)
        return [f"{name}: {figures.line()}" for name, figures in busiest]

    def of(self, name: str) -> Figures:
        """The figures of one backend, made when there are none yet."""
        return self.figures.setdefault(name, Figures())

    def _answered(
        self, call: Call, reply: Reply, times: tuple[float, float | None], pieces: int
    ) -> None:
        figures = self.of(self._label(call, reply))
        figures.add(reply.usage, reply.cost)
        if reply.details.get("cached") is True:
            figures.cached += 1
            return
        latency, first = times
        figures.latencies.append(latency)
        if first is not None:
            figures.first_tokens.append(first)
        meters = self._ready()
        attributes = _attributes(call, reply)
        meters.duration.record(latency, attributes)
        _count(meters, reply.usage, attributes)
        if first is not None:
            meters.first_chunk.record(first, attributes)
            # Once a call, its mean: a record for each piece costs more than the piece.
            meters.per_chunk.record((latency - first) / pieces, attributes)

    def _failed(
        self, call: Call, fault: str, usage: Usage, cost: float | None, latency: float
    ) -> None:
        self.of(self._label(call, None)).add(usage, cost, fault)
        meters = self._ready()
        attributes = _attributes(call, None) | {semconv.ERROR_TYPE: fault}
        meters.duration.record(latency, attributes)
        _count(meters, usage, attributes)

    def _ready(self) -> _Meters:
        if self._meters is None:
            self._meters = _meters(self._provider)
        return self._meters


@dataclass(frozen=True, slots=True)
class _Meters:
    """OpenTelemetry's instruments; without an SDK they do nothing."""

    duration: Histogram
    tokens: Histogram
    first_chunk: Histogram
    per_chunk: Histogram


def _meters(provider: MeterProvider | None) -> _Meters:
    from opentelemetry import metrics

    meter = metrics.get_meter("ovagent_jupyter.gateway", meter_provider=provider)
    return _Meters(
        meter.create_histogram(semconv.DURATION, "s", "Time that a call took."),
        meter.create_histogram(semconv.TOKEN_USAGE, "{token}", "Tokens read and written."),
        meter.create_histogram(semconv.TIME_TO_FIRST_CHUNK, "s", "Time to the first piece."),
        meter.create_histogram(semconv.TIME_PER_CHUNK, "s", "Time between pieces, in the mean."),
    )


def _count(meters: _Meters, usage: Usage, attributes: dict[str, str]) -> None:
    kinds = (("input", usage.input_tokens), ("output", usage.output_tokens))
    for kind, tokens in kinds:
        if tokens:
            meters.tokens.record(tokens, attributes | {semconv.TOKEN_TYPE: kind})


def _attributes(call: Call, reply: Reply | None) -> dict[str, str]:
    provider = call.backend.provider.id if call.backend is not None else ""
    provider = (reply.provider if reply is not None else "") or provider
    attributes = {semconv.OPERATION: semconv.CHAT, semconv.REQUEST_MODEL: call.request.model}
    if provider:
        attributes[semconv.PROVIDER] = semconv.PROVIDERS.get(provider, provider)
    if reply is not None and reply.model:
        attributes[semconv.RESPONSE_MODEL] = reply.model
    return attributes


def _backend(call: Call, reply: Reply | None) -> str:
    if reply is not None and reply.backend:
        return reply.backend
    return call.backend.name if call.backend is not None else call.request.model
