"""Everything between a caller and the models: the layers in their order, as one model client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import cast

from ovagent_jupyter.config.gateway import GatewayConfig
from ovagent_jupyter.errors import ConfigError
from ovagent_jupyter.gateway.admission import Admission
from ovagent_jupyter.gateway.breaker import Breaker, BreakerState
from ovagent_jupyter.gateway.deadline import Deadline
from ovagent_jupyter.gateway.health import Health, HealthStatus
from ovagent_jupyter.gateway.layer import Call, Layer, Next, Tell, around, nobody_hears
from ovagent_jupyter.gateway.retry import Retry
from ovagent_jupyter.gateway.routing import Routing
from ovagent_jupyter.gateway.single_flight import SingleFlight
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import ModelClient, ModelDelta, ModelRequest

ORDER = (
    # once a call, whoever answers
    "tracing",  # sees all that follows, the waiting too
    "metrics",
    "deadline",  # gives the call its time, and exactly one outcome
    "replay",  # an answer from a cassette waits for nobody and costs nothing
    "variants",  # names a backend, which is a part of what the cache knows an answer by
    "cache",
    "single_flight",
    "validation",  # may ask once more, which is a call like any other
    "admission",  # whoever comes here needs a service
    "routing",
    # once a backend
    "health",
    "breaker",  # outside of retry: one call is one outcome
    "retry",
    # once an attempt
    "quota",  # around what is paid for, which is each attempt
    "cost",  # by the prices of the backend that was asked
    "transforms",  # next to the wire: all others see the answer as it is used
)
"""The layers, outermost first; those that are off are left out."""

OWN = frozenset({"deadline", "single_flight", "admission", "routing", "health", "breaker", "retry"})
"""Built here from the configuration; the others are handed in by whoever knows their parts."""

Row = tuple[str, str]
"""A line of the status: what, and how it is."""

_HOW: Mapping[HealthStatus, str] = {
    HealthStatus.HEALTHY: "healthy",
    HealthStatus.DEGRADED: "slow, or fails now and then",
    HealthStatus.UNHEALTHY: "fails mostly",
    HealthStatus.UNKNOWN: "not asked lately",
}


class Gateway:
    """A model client that survives what its services do.

    It belongs to one event loop. A client is made when its backend is asked for the first time.

    Args:
        backends: Whom to ask, in order of preference.
        make_client: Makes the client of a backend.
        config: Every layer.
        layers: Further layers by their place in ``ORDER``; one in a place of ours replaces it.
        clock: Seconds that only grow.
        sleep: Waits between attempts.
        tell: Hears what happens to calls that bring no hearer of their own.

    Raises:
        ConfigError: There is no backend, or a layer has no place.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        make_client: Callable[[Backend], ModelClient],
        config: GatewayConfig | None = None,
        *,
        layers: Mapping[str, Layer] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        tell: Tell = nobody_hears,
    ) -> None:
        self.backends = tuple(backends)
        """Whom it asks."""
        self.config = config or GatewayConfig()
        """What was set."""
        self._make_client = make_client
        self._clients: dict[str, ModelClient] = {}
        self._tell = tell
        self._health = Health(self.config.health, clock=clock)
        self._breaker = Breaker(self.config.breaker, clock=clock)
        self._admission = Admission(self.config.concurrency, self.config.rate, clock=clock)
        self._routing = Routing(self.backends, self.config.routing, unhealthy=self._is_unhealthy)
        self._layers = _in_order(self._own_layers(clock, sleep) | dict(layers or {}))
        self._first = _onion(self._layers, self._ask)

    @property
    def order(self) -> tuple[str, ...]:
        """The layers that are on, outermost first."""
        return tuple(self._layers)

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelDelta, None]:
        """The answer as it comes.

        Raises:
            StreamInterrupted: It broke off after a part of it.
            ProviderError: No backend answered.
        """
        return self._first(Call(request=request, tell=self._tell))

    def call(self, call: Call) -> AsyncGenerator[ModelDelta, None]:
        """The same, for a call that says how urgent it is, and of which turn.

        Raises:
            StreamInterrupted: It broke off after a part of it.
            ProviderError: No backend answered.
        """
        return self._first(call)

    def state(self) -> list[Row]:
        """How it is now: a line for all of it, and one for each backend, with what is unusual."""
        running, waiting = self._admission.running, self._admission.waiting
        calls = f"{running} of {self.config.concurrency.max_calls} calls running"
        calls += f", {waiting} waiting" if waiting else ""
        rows = [("gateway", f"{calls}; layers: {' → '.join(self._layers)}")]
        rows.extend((backend.name, self._backend_state(backend)) for backend in self.backends)
        return rows

    def forgive(self, backend: str) -> None:
        """Ask a backend again that was shut out, such as after it got another key."""
        self._health.forget(backend)
        self._breaker.forget(backend)

    def forgive_keys(self) -> None:
        """Ask the backends again that have refused a key: it may have been mended since."""
        for backend in self.backends:
            if self._health.of(backend.name).shut is not None:
                self.forgive(backend.name)

    async def aclose(self) -> None:
        """Close all clients; calls that still run fail."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            close = getattr(client, "aclose", None)
            if close is not None:
                await close()

    def _own_layers(
        self, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> dict[str, Layer]:
        config = self.config
        own: dict[str, Layer] = {
            "deadline": Deadline(config.timeouts.total, clock=clock),
            "admission": self._admission,
            "routing": self._routing,
        }
        if config.single_flight.enabled:
            own["single_flight"] = SingleFlight()
        if config.health.enabled:
            own["health"] = self._health
        if config.breaker.enabled:
            own["breaker"] = self._breaker
        if config.retry.attempts > 1:
            own["retry"] = Retry(config.retry, clock=clock, sleep=sleep)
        return own

    def _ask(self, call: Call) -> AsyncGenerator[ModelDelta, None]:
        """The stream of the backend that the router has chosen: the wire itself."""
        assert call.backend is not None
        client = self._clients.get(call.backend.name)
        if client is None:
            client = self._clients[call.backend.name] = self._make_client(call.backend)
        # Every client's stream is a generator, as ``check_model_client`` requires.
        return cast("AsyncGenerator[ModelDelta, None]", client.stream(call.request))

    def _is_unhealthy(self, backend: str) -> bool:
        return self._health.status(backend) is HealthStatus.UNHEALTHY

    def _backend_state(self, backend: Backend) -> str:
        health = self._health.of(backend.name)
        parts = [_HOW[health.status]] if "health" in self._layers else []
        if health.shut is not None:
            refused = "key refused" if health.shut.fault == "key" else health.shut.what.rstrip(".")
            parts = [refused, "not asked again until the next turn"]
        running = self._routing.in_flight[backend.name]
        if running:
            parts.append(f"{running} running")
        if health.first_content is not None:
            parts.append(f"first words after {health.first_content:.1f} s")
        breaker = self._breaker.of(backend.name).snapshot()
        if breaker.state is BreakerState.OPEN:
            parts.append(f"breaker open for {breaker.opens_in:.0f} s")
        elif breaker.state is BreakerState.HALF_OPEN:
            parts.append("breaker tries it again")
        return ", ".join(parts) or "ready"


def _in_order(layers: Mapping[str, Layer]) -> dict[str, Layer]:
    strangers = sorted(set(layers) - set(ORDER))
    if strangers:
        raise ConfigError(
            f"The layer {strangers[0]!r} has no place.",
            next_step=f"Use one of {', '.join(ORDER)}.",
        )
    return {name: layers[name] for name in ORDER if name in layers}


def _onion(layers: Mapping[str, Layer], innermost: Next) -> Next:
    begin = innermost
    for layer in reversed(list(layers.values())):
        begin = around(layer, begin)
    return begin
