"""What may be set between us and a model service, a group for each layer of the gateway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, TypeVar, get_args, get_type_hints

from ovagent_jupyter.config.values import (
    bad,
    count,
    members,
    pair_of_amounts,
    require_bool,
    seconds,
    set_field,
    weights,
)

Strategy = Literal["failover", "round_robin", "least_connections", "weighted"]
"""How one of several backends is chosen.

In the order given; each in turn; the one with the fewest calls; each as often as it weighs.
"""

ReplayMode = Literal["off", "record", "replay"]
"""Whether calls are written to a cassette, or answered from one."""

Transform = Literal["strip", "extract_code", "extract_json", "plain_text"]
"""What is done to an answer once it is whole."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryConfig:
    """Asking the same backend again, as long as nothing of an answer has come."""

    attempts: int = 3
    """How often one backend is asked at most; 1 never asks again."""
    base: float = 0.5
    """Seconds before the second attempt; twice as long before each further one."""
    cap: float = 8.0
    """Longest wait of our own choice, in seconds."""
    longest_wait: float = 60.0
    """A service that asks for a longer wait is left for the next backend at once."""

    def __post_init__(self) -> None:
        set_field(self, "attempts", count("retry.attempts", self.attempts, 1))
        set_field(self, "base", seconds("retry.base", self.base))
        set_field(self, "cap", seconds("retry.cap", self.cap, self.base, "It is below base."))
        set_field(self, "longest_wait", seconds("retry.longest_wait", self.longest_wait))


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    """Leaving a backend alone that has failed too often just now."""

    enabled: bool = True
    """Whether there is a breaker for each backend."""
    window: float = 60.0
    """Seconds that an outcome counts."""
    failure_rate: float = 0.5
    """Share of failures at which it opens, above 0 and up to 1."""
    minimum: int = 5
    """Outcomes that there must be before a share means something."""
    open_for: float = 30.0
    """Seconds that a backend is left alone."""
    half_open_probes: int = 1
    """Calls that are let through then, at the same time; all must succeed to close it."""

    def __post_init__(self) -> None:
        require_bool("breaker.enabled", self.enabled)
        set_field(self, "window", seconds("breaker.window", self.window))
        set_field(self, "failure_rate", share("breaker.failure_rate", self.failure_rate))
        set_field(self, "minimum", count("breaker.minimum", self.minimum, 1))
        set_field(self, "open_for", seconds("breaker.open_for", self.open_for))
        set_field(
            self, "half_open_probes", count("breaker.half_open_probes", self.half_open_probes, 1)
        )


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """How well a backend does, by what it did last; unhealthy ones are asked after the others."""

    enabled: bool = True
    """Whether health changes the order in which backends are asked."""
    window: int = 20
    """How many of its last outcomes are looked at."""
    minimum: int = 3
    """Outcomes that there must be before a backend is unhealthy."""
    degraded_rate: float = 0.2
    """Share of failures from which it is degraded."""
    unhealthy_rate: float = 0.6
    """Share of failures from which it is unhealthy."""
    slow: float = 30.0
    """Seconds to the first content, in the median, from which it is degraded."""
    forget_after: float = 300.0
    """Seconds after which an outcome says nothing any more."""

    def __post_init__(self) -> None:
        require_bool("health.enabled", self.enabled)
        set_field(self, "window", count("health.window", self.window, 1))
        set_field(self, "minimum", count("health.minimum", self.minimum, 1))
        set_field(self, "degraded_rate", share("health.degraded_rate", self.degraded_rate))
        set_field(self, "unhealthy_rate", share("health.unhealthy_rate", self.unhealthy_rate))
        if self.unhealthy_rate < self.degraded_rate:
            raise bad("health.unhealthy_rate", self.unhealthy_rate, "Use degraded_rate or more.")
        set_field(self, "slow", seconds("health.slow", self.slow))
        set_field(self, "forget_after", seconds("health.forget_after", self.forget_after))


@dataclass(frozen=True, slots=True)
class RoutingConfig:
    """Which backend is asked, and which next when it fails."""

    strategy: Strategy = "failover"
    """``failover``, ``round_robin``, ``least_connections`` or ``weighted``."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """For ``weighted``: name of a backend to its weight; 1 where there is none, 0 is a reserve."""
    refusal_fails_over: bool = False
    """Ask the next backend what one has refused to answer by its policy."""

    def __post_init__(self) -> None:
        one_of("routing.strategy", self.strategy, get_args(Strategy))
        set_field(self, "weights", weights("routing.weights", self.weights))
        require_bool("routing.refusal_fails_over", self.refusal_fails_over)


@dataclass(frozen=True, slots=True)
class RateConfig:
    """How fast calls may begin."""

    requests_per_minute: int | None = None
    """Calls a minute; None is no limit."""
    tokens_per_minute: int | None = None
    """Estimated tokens that are sent and may be answered, a minute; None is no limit."""

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None:
                set_field(self, name, count(f"rate.{name}", value, 1))


@dataclass(frozen=True, slots=True)
class PricesConfig:
    """What you pay, where the price lists do not know it."""

    own: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Model, or name of a backend → US dollars for a million tokens read, and written."""
    allow_unknown: bool = False
    """Ask models whose price is not known although there is a budget of money."""

    def __post_init__(self) -> None:
        remedy = 'Use a table such as { "groq/llama" = [0.1, 0.4] }: read, and written.'
        if not isinstance(self.own, Mapping):
            raise bad("prices.own", self.own, remedy)
        found = {name: pair_of_amounts(pair) for name, pair in self.own.items()}
        if not all(isinstance(name, str) and pair for name, pair in found.items()):
            raise bad("prices.own", self.own, remedy)
        set_field(self, "own", found)
        require_bool("prices.allow_unknown", self.allow_unknown)


@dataclass(frozen=True, slots=True)
class ConcurrencyConfig:
    """How many calls run at once, and who waits."""

    max_calls: int = 8
    """Calls at the same time."""
    queue: int = 100
    """Calls that may wait; one more is refused at once."""
    aging: float = 10.0
    """Seconds of waiting that raise a call by one priority, so that none starves."""

    def __post_init__(self) -> None:
        set_field(self, "max_calls", count("concurrency.max_calls", self.max_calls, 1))
        set_field(self, "queue", count("concurrency.queue", self.queue))
        set_field(self, "aging", seconds("concurrency.aging", self.aging))


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """Answers that are kept for the same request again."""

    enabled: bool = False
    """Whether answers are kept."""
    ttl: float = 3600.0
    """Seconds that an answer is kept."""
    size: int = 256
    """Answers that are kept in memory."""
    on_disk: bool = False
    """Keep them for the next kernel too."""
    sampled: bool = False
    """Keep also answers that were drawn by chance: those without ``temperature = 0``."""

    def __post_init__(self) -> None:
        require_bool("cache.enabled", self.enabled)
        set_field(self, "ttl", seconds("cache.ttl", self.ttl))
        set_field(self, "size", count("cache.size", self.size, 1))
        require_bool("cache.on_disk", self.on_disk)
        require_bool("cache.sampled", self.sampled)


@dataclass(frozen=True, slots=True)
class SingleFlightConfig:
    """Identical calls at the same time."""

    enabled: bool = False
    """Whether they share one answer."""

    def __post_init__(self) -> None:
        require_bool("single_flight.enabled", self.enabled)


@dataclass(frozen=True, slots=True)
class TimeoutsConfig:
    """Seconds that a service may take, where its backend says nothing else."""

    connect: float = 10.0
    """For a connection, name and TLS included."""
    first_byte: float = 120.0
    """Until something of the answer comes."""
    between: float = 60.0
    """Between two pieces of a streamed answer."""
    total: float = 900.0
    """For the whole call: waiting, retries and all backends included."""

    def __post_init__(self) -> None:
        for row in fields(self):
            set_field(self, row.name, seconds(f"timeouts.{row.name}", getattr(self, row.name)))


@dataclass(frozen=True, slots=True)
class TraceConfig:
    """Spans in OpenTelemetry's GenAI conventions; they cost next to nothing without its SDK."""

    enabled: bool = True
    """Whether there is a span for each call."""
    content: bool = False
    """Whether spans hold what was said; it may be private."""

    def __post_init__(self) -> None:
        require_bool("trace.enabled", self.enabled)
        require_bool("trace.content", self.content)


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Counts and times of calls."""

    enabled: bool = True
    """Whether they are kept."""

    def __post_init__(self) -> None:
        require_bool("metrics.enabled", self.enabled)


@dataclass(frozen=True, slots=True)
class ReplayConfig:
    """Calls written to a file, or answered from it, to repeat a session."""

    mode: ReplayMode = "off"
    """``off``, ``record`` or ``replay``."""
    path: Path | None = None
    """The cassette."""

    def __post_init__(self) -> None:
        one_of("replay.mode", self.mode, get_args(ReplayMode))
        path: object = self.path  # a file says it as text
        if not (path is None or isinstance(path, str | Path)) or not str(path):
            raise bad("replay.path", path, "Use the path of a file.")
        set_field(self, "path", None if path is None else Path(path).expanduser())
        if self.mode != "off" and self.path is None:
            raise bad("replay.path", self.path, f"Name the file to {self.mode}.")


@dataclass(frozen=True, slots=True)
class VariantsConfig:
    """A trial of several backends side by side, the same one for the same session."""

    experiment: str = ""
    """Its name; empty is no trial."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Name of a backend to its share of the sessions."""

    def __post_init__(self) -> None:
        if not isinstance(self.experiment, str):
            raise bad("variants.experiment", self.experiment, "Use a name.")
        set_field(self, "shares", weights("variants.shares", self.shares))
        if self.experiment and not any(self.shares.values()):
            raise bad("variants.shares", self.shares, "Give one backend a share above 0.")


@dataclass(frozen=True, slots=True)
class TransformsConfig:
    """What is done to an answer once it is whole."""

    answer: tuple[Transform, ...] = ()
    """In order, of ``strip``, ``extract_code``, ``extract_json`` and ``plain_text``."""

    def __post_init__(self) -> None:
        names = members("transforms.answer", self.answer, "Use a list of names.")
        for name in names:
            one_of("transforms.answer", name, get_args(Transform))
        set_field(self, "answer", names)


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Every layer between us and a model service; one that is off is not there at all."""

    retry: RetryConfig = field(default_factory=RetryConfig)
    """Asking again."""
    breaker: BreakerConfig = field(default_factory=BreakerConfig)
    """Leaving alone what fails."""
    health: HealthConfig = field(default_factory=HealthConfig)
    """Asking sick ones last."""
    routing: RoutingConfig = field(default_factory=RoutingConfig)
    """Which backend is asked."""
    rate: RateConfig = field(default_factory=RateConfig)
    """How fast."""
    prices: PricesConfig = field(default_factory=PricesConfig)
    """What it costs."""
    concurrency: ConcurrencyConfig = field(default_factory=ConcurrencyConfig)
    """How many at once."""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """Answers that are kept."""
    single_flight: SingleFlightConfig = field(default_factory=SingleFlightConfig)
    """Identical calls."""
    timeouts: TimeoutsConfig = field(default_factory=TimeoutsConfig)
    """How long."""
    trace: TraceConfig = field(default_factory=TraceConfig)
    """Spans."""
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    """Counts."""
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    """Cassettes."""
    variants: VariantsConfig = field(default_factory=VariantsConfig)
    """Trials."""
    transforms: TransformsConfig = field(default_factory=TransformsConfig)
    """What becomes of an answer."""

    def __post_init__(self) -> None:
        for name, kind in GROUPS.items():
            value = getattr(self, name)
            if isinstance(value, Mapping):
                set_field(self, name, from_mapping(kind, value, name))
            elif not isinstance(value, kind):
                raise bad(f"gateway.{name}", value, f"Use a {kind.__name__} or a table.")


GROUPS: dict[str, type] = {
    name: kind for name, kind in get_type_hints(GatewayConfig).items() if isinstance(kind, type)
}
"""The groups of ``GatewayConfig``, each with its class."""


def from_mapping(kind: type[T], values: Mapping[str, object], name: str = "gateway") -> T:
    """A group of settings from what a file says; a group of groups takes tables.

    Raises:
        ConfigError: A name or a value cannot be used.
    """
    known = [row.name for row in fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise bad(f"{name}.{key}", values[key], f"Use one of {', '.join(known)}.")
    return kind(**values)


def share(name: str, value: object) -> float:
    """A number above 0, up to 1.

    Raises:
        ConfigError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise bad(name, value, "Use a number above 0, up to 1.")
    return float(value)


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Check that it is one of a few words.

    Raises:
        ConfigError: It is not.
    """
    if value not in allowed:
        raise bad(name, value, f"Use one of {', '.join(allowed)}.")
