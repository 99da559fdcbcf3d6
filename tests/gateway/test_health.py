"""Health: what it makes of outcomes, and whom it shuts out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress

import pytest

from ovagent_jupyter.config.gateway import HealthConfig
from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.gateway.health import Health, HealthStatus
from ovagent_jupyter.gateway.layer import Call
from ovagent_jupyter.messages import Usage
from ovagent_jupyter.providers.client import ModelDelta
from tests.gateway.played import Clock, Played, Script, answer, backend, call, fails, read

CONFIG = HealthConfig(window=10, minimum=3, slow=5.0, forget_after=100.0)


async def ask(health: Health, *scripts: Script) -> None:
    """Ask once for each script; failures are looked at in what becomes of the health."""
    client = Played(list(scripts))
    for _ in scripts:
        with suppress(ProviderError):
            await read(health(call(to=backend("one")), lambda made: client.stream(made.request)))


@pytest.mark.parametrize(
    ("good", "bad", "status"),
    [
        (0, 0, HealthStatus.UNKNOWN),
        (1, 0, HealthStatus.HEALTHY),
        (9, 1, HealthStatus.HEALTHY),
        (8, 2, HealthStatus.DEGRADED),
        (4, 6, HealthStatus.UNHEALTHY),
        (0, 2, HealthStatus.DEGRADED),
        (0, 3, HealthStatus.UNHEALTHY),
    ],
)
async def test_status_by_outcomes(good: int, bad: int, status: HealthStatus) -> None:
    health = Health(CONFIG, clock=Clock())
    await ask(health, *[answer("Hi")] * good, *[fails()] * bad)
    assert health.status("one") is status


async def test_only_the_last_outcomes_count_and_only_for_a_while() -> None:
    clock = Clock()
    health = Health(CONFIG, clock=clock)
    await ask(health, *[fails()] * 10, *[answer("Hi")] * 10)
    assert health.status("one") is HealthStatus.HEALTHY
    clock.now += 100
    assert health.status("one") is HealthStatus.UNKNOWN


async def test_slow_is_degraded() -> None:
    clock = Clock()
    health = Health(CONFIG, clock=clock)

    async def slow(_: Call) -> AsyncGenerator[ModelDelta, None]:
        clock.now += 6
        for delta in answer("Hi"):
            assert isinstance(delta, ModelDelta)
            yield delta
            clock.now += 50  # what comes later says nothing of how soon it began

    await read(health(call(to=backend("one")), slow))
    assert health.of("one").first_content == 6
    assert health.status("one") is HealthStatus.DEGRADED


@pytest.mark.parametrize("fault", ["bad_request", "context_full", "policy"])
async def test_what_was_asked_wrongly_says_nothing(fault: str) -> None:
    health = Health(CONFIG, clock=Clock())
    await ask(health, *[fails(fault, retryable=False)] * 5)
    assert health.status("one") is HealthStatus.UNKNOWN


@pytest.mark.parametrize("fault", ["key", "permission"])
async def test_who_is_not_let_in_does_not_knock_again(fault: str) -> None:
    clock = Clock()
    health, client = Health(CONFIG, clock=clock), Played([fails(fault, usage=Usage(1, 1))])

    def stream() -> AsyncGenerator[ModelDelta, None]:
        return health(call(to=backend("one")), lambda made: client.stream(made.request))

    raised = []
    for _ in range(3):
        with pytest.raises(ProviderError) as caught:
            await read(stream())
        raised.append(caught.value)
        clock.now += 1000
    assert len(client.asked) == 1
    assert [error.fault for error in raised] == [fault] * 3
    assert [error.usage for error in raised] == [Usage(1, 1), None, None]
    assert len({id(error) for error in raised}) == 3
    assert health.status("one") is HealthStatus.UNHEALTHY
    health.forget("one")
    client.scripts = [answer("Hi")]
    assert (await read(stream()))[0] == "Hi"
