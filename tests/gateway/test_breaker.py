"""The breaker: when it opens, when it closes, and that no outcome is counted twice."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovagent_jupyter.config.gateway import BreakerConfig
from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.gateway.breaker import FAILURES, Breaker, BreakerState, CircuitBreaker
from tests.gateway.played import (
    Clock,
    Hang,
    Played,
    answer,
    backend,
    call,
    end,
    fails,
    read,
    said,
    settle,
)

CONFIG = BreakerConfig(window=60, failure_rate=0.5, minimum=4, open_for=30, half_open_probes=2)
CLIENT_FAULTS = ("bad_request", "policy", "context_full", "key", "payment", "budget", "too_large")


def outcome(circuit: CircuitBreaker, *, failed: bool | None) -> None:
    ticket = circuit.admit()
    assert ticket is not None
    circuit.record(ticket, failed=failed)


def opened(clock: Clock) -> CircuitBreaker:
    circuit = CircuitBreaker(CONFIG, clock=clock)
    for _ in range(4):
        outcome(circuit, failed=True)
    return circuit


def test_opens_at_the_share_once_there_are_enough() -> None:
    circuit = CircuitBreaker(CONFIG, clock=Clock())
    for failed in (True, True, False):
        outcome(circuit, failed=failed)
    assert circuit.state is BreakerState.CLOSED
    outcome(circuit, failed=True)
    assert circuit.state is BreakerState.OPEN
    assert circuit.admit() is None


def test_a_success_never_opens_it() -> None:
    circuit = CircuitBreaker(CONFIG, clock=Clock())
    for failed in (True, True, False, False):
        outcome(circuit, failed=failed)
    assert circuit.state is BreakerState.CLOSED


def test_old_outcomes_are_forgotten() -> None:
    clock = Clock()
    circuit = CircuitBreaker(CONFIG, clock=clock)
    for _ in range(3):
        outcome(circuit, failed=True)
    clock.now += 60
    outcome(circuit, failed=True)
    assert circuit.state is BreakerState.CLOSED
    assert circuit.snapshot().outcomes == 1


def test_lets_a_few_through_after_a_while_and_closes_when_all_succeed() -> None:
    clock = Clock()
    circuit = opened(clock)
    clock.now += 30
    assert circuit.state is BreakerState.HALF_OPEN
    tickets = [circuit.admit(), circuit.admit()]
    assert circuit.admit() is None
    assert None not in tickets
    for ticket in tickets:
        assert circuit.state is BreakerState.HALF_OPEN
        circuit.record(ticket or 0, failed=False)
    assert circuit.state is BreakerState.CLOSED
    assert circuit.snapshot().outcomes == 0


def test_one_probe_that_fails_opens_it_again_for_the_whole_time() -> None:
    clock = Clock()
    circuit = opened(clock)
    clock.now += 30
    first, second = circuit.admit(), circuit.admit()
    circuit.record(first or 0, failed=True)
    assert circuit.snapshot().opens_in == 30
    circuit.record(second or 0, failed=False)
    assert circuit.state is BreakerState.OPEN


def test_a_probe_that_says_nothing_makes_room_for_another() -> None:
    clock = Clock()
    circuit = opened(clock)
    clock.now += 30
    for _ in range(10):
        outcome(circuit, failed=None)
    assert circuit.state is BreakerState.HALF_OPEN


def test_a_call_from_before_it_opened_is_no_probe() -> None:
    clock = Clock()
    circuit = CircuitBreaker(CONFIG, clock=clock)
    slow = circuit.admit()
    for _ in range(4):
        outcome(circuit, failed=True)
    clock.now += 30
    for _ in range(2):
        circuit.record(slow or 0, failed=False)
    assert circuit.state is BreakerState.HALF_OPEN


@given(st.lists(st.tuples(st.floats(0.0, 20.0), st.sampled_from([True, False, None])), max_size=60))
def test_never_more_probes_than_allowed_and_never_an_open_one_that_admits(
    steps: list[tuple[float, bool | None]],
) -> None:
    clock = Clock()
    circuit = CircuitBreaker(CONFIG, clock=clock)
    pending: list[int] = []
    for seconds, failed in steps:
        clock.now += seconds
        before = circuit.state
        ticket = circuit.admit()
        if before is BreakerState.OPEN:
            assert ticket is None
        if before is BreakerState.CLOSED:
            assert ticket is not None
        if ticket is not None:
            pending.append(ticket)
        if len(pending) > 3:
            circuit.record(pending.pop(0), failed=failed)
        now = circuit.snapshot()
        assert 0 <= now.failures <= now.outcomes
    assert circuit.state in BreakerState


@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_opens_exactly_when_the_share_is_reached(outcomes: list[bool]) -> None:
    """Against the definition itself, counted anew for each prefix."""
    circuit = CircuitBreaker(CONFIG, clock=Clock())
    for number, failed in enumerate(outcomes, 1):
        ticket = circuit.admit()
        assert ticket is not None
        circuit.record(ticket, failed=failed)
        so_far = outcomes[:number]
        should = failed and number >= 4 and sum(so_far) / number >= 0.5
        assert (circuit.state is BreakerState.OPEN) == should
        if should:
            return


async def asked(layer: Breaker, client: Played) -> None:
    made = call(to=backend("one"))
    await read(layer(made, lambda passed: client.stream(passed.request)))


async def test_layer_leaves_a_failing_backend_alone() -> None:
    clock = Clock()
    layer, client = Breaker(CONFIG, clock=clock), Played([fails()])
    for _ in range(4):
        with pytest.raises(ProviderError, match="overloaded"):
            await asked(layer, client)
    with pytest.raises(ProviderError) as caught:
        await asked(layer, client)
    assert caught.value.fault == "unhealthy"
    assert caught.value.retry_after == 30
    assert len(client.asked) == 4
    client.scripts = [answer("Hello")]
    clock.now += 30
    await asked(layer, client)
    await asked(layer, client)
    assert layer.of("one").state is BreakerState.CLOSED


async def test_layer_keeps_backends_apart() -> None:
    layer = Breaker(CONFIG, clock=Clock())
    for _ in range(4):
        with pytest.raises(ProviderError):
            await asked(layer, Played([fails()]))
    made = call(to=backend("other"))
    await read(layer(made, lambda passed: Played([answer("Hi")]).stream(passed.request)))


@pytest.mark.parametrize("fault", CLIENT_FAULTS)
async def test_what_was_asked_wrongly_is_no_failure_of_the_backend(fault: str) -> None:
    assert fault not in FAILURES
    layer, client = Breaker(CONFIG, clock=Clock()), Played([fails(fault)])
    for _ in range(10):
        with pytest.raises(ProviderError, match=fault):
            await asked(layer, client)
    assert layer.of("one").snapshot().outcomes == 0


async def test_one_call_is_one_outcome_even_when_closed_after_its_end() -> None:
    layer, client = Breaker(CONFIG, clock=Clock()), Played([[*said("Hi"), end("Hi")]])

    async def stop_at_the_end() -> None:
        stream = layer(call(to=backend("one")), lambda passed: client.stream(passed.request))
        async for delta in stream:
            if delta.reply is not None:
                break
        await stream.aclose()

    await stop_at_the_end()
    assert layer.of("one").snapshot().outcomes == 1
    assert layer.of("one").snapshot().failures == 0


async def test_a_cancelled_probe_frees_its_place() -> None:
    clock = Clock()
    layer, client = Breaker(CONFIG, clock=clock), Played([fails()])
    for _ in range(4):
        with pytest.raises(ProviderError):
            await asked(layer, client)
    clock.now += 30
    client.scripts = [[Hang()]]
    for _ in range(5):
        task = asyncio.create_task(asked(layer, client))
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert layer.of("one").state is BreakerState.HALF_OPEN
    assert client.cancelled == 5
