"""The whole onion: its order, its deadline, its one outcome, its state, and how it is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import replace
from random import Random

import pytest

from ovagent_jupyter.config.gateway import (
    BreakerConfig,
    ConcurrencyConfig,
    GatewayConfig,
    HealthConfig,
    RetryConfig,
    SingleFlightConfig,
    TimeoutsConfig,
)
from ovagent_jupyter.errors import ConfigError, ProviderError, StreamInterrupted
from ovagent_jupyter.events import Category
from ovagent_jupyter.gateway.deadline import Deadline
from ovagent_jupyter.gateway.gateway import ORDER, OWN, Gateway
from ovagent_jupyter.gateway.layer import Call, Layer, Next, Priority
from ovagent_jupyter.messages import Usage
from ovagent_jupyter.providers.client import ModelDelta, ToolProgress
from ovagent_jupyter.testing.scripted_client import ScriptedClient, check_model_client
from tests.gateway.played import (
    Clock,
    Ears,
    Hang,
    Played,
    answer,
    backend,
    call,
    end,
    fails,
    gateway,
    read,
    read_until_failure,
    request,
    said,
    settle,
)

SHORT = GatewayConfig(timeouts=TimeoutsConfig(total=0.05), retry=RetryConfig(attempts=1))
OFF = GatewayConfig(
    retry=RetryConfig(attempts=1),
    breaker=BreakerConfig(enabled=False),
    health=HealthConfig(enabled=False),
)


class Noted:
    """A layer that writes down when a call passes in and out."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    async def __call__(self, made: Call, call_next: Next) -> AsyncGenerator[ModelDelta, None]:
        self.notes.append(f"+{self.name}")
        try:
            async with aclosing(call_next(made)) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            self.notes.append(f"-{self.name}")


def test_the_order_is_this() -> None:
    assert (
        " ".join(ORDER) == "tracing metrics deadline replay variants cache single_flight "
        "validation admission routing health breaker retry quota cost transforms"
    )
    assert set(ORDER) >= OWN


def test_layers_that_are_off_are_not_there() -> None:
    plain = gateway({"a": Played([answer("Hi")])})
    assert plain.order == ("deadline", "admission", "routing", "health", "breaker", "retry")
    assert gateway({"a": Played([])}, OFF).order == ("deadline", "admission", "routing")
    shared = GatewayConfig(single_flight=SingleFlightConfig(enabled=True))
    assert gateway({"a": Played([])}, shared).order[1] == "single_flight"


async def test_a_call_passes_them_in_order_and_back() -> None:
    notes: list[str] = []
    layers: dict[str, Layer] = {
        name: Noted(name, notes) for name in reversed(ORDER) if name != "routing"
    }
    client = Played([answer("Hi")])
    made = Gateway([backend("a")], lambda _: client, layers=layers)
    assert made.order == ORDER
    await read(made.stream(request()))
    expected = [name for name in ORDER if name != "routing"]
    assert notes == [f"+{name}" for name in expected] + [f"-{name}" for name in reversed(expected)]


def test_a_layer_without_a_place_is_refused() -> None:
    with pytest.raises(ConfigError, match="'onion' has no place"):
        Gateway([backend("a")], lambda _: Played([]), layers={"onion": Noted("onion", [])})


async def test_is_a_model_client_itself() -> None:
    def make() -> Gateway:
        return Gateway([backend("a")], lambda _: ScriptedClient(["Hello there."] * 4))

    await check_model_client(make)


async def test_a_client_is_made_when_it_is_needed_and_kept() -> None:
    made: list[str] = []
    clients = {"a": Played([fails("key", retryable=False)]), "b": Played([answer("Hi")])}
    survivor = Gateway(
        [backend("a"), backend("b"), backend("c")],
        lambda asked: made.append(asked.name) or clients[asked.name],  # type: ignore[func-returns-value]
    )
    assert made == []
    for _ in range(3):
        assert (await read(survivor.stream(request())))[1].backend == "b"
    assert made == ["a", "b"]
    assert len(clients["a"].asked) == 1  # a key that is not accepted is not tried again


async def test_retries_then_fails_over_and_nothing_spent_is_lost() -> None:
    ears = Ears()
    survivor = gateway(
        {"a": Played([fails(usage=Usage(5, 0))]), "b": Played([fails(), answer("Hi")])}, tell=ears
    )
    text, reply = await read(survivor.stream(request()))
    assert (text, reply.backend, reply.usage) == ("Hi", "b", Usage(18, 2))
    assert reply.details["failed_usage"] == Usage(15, 0).as_record()
    assert len(ears.of(Category.MODEL_RETRIED)) == 3
    assert len(ears.of(Category.MODEL_SWITCHED)) == 1
    assert {event.data["call_id"] for event in ears.heard} == {ears.heard[0].data["call_id"]}


async def test_an_open_breaker_fails_over_without_asking() -> None:
    clients = {"a": Played([fails()]), "b": Played([answer("Hi")])}
    config = GatewayConfig(breaker=BreakerConfig(minimum=2), health=HealthConfig(enabled=False))
    survivor = gateway(clients, config)
    for _ in range(5):
        await read(survivor.stream(request()))
    assert len(clients["a"].asked) == 6  # two calls of three attempts
    assert "breaker open for" in dict(survivor.state())["a"]


async def test_an_unhealthy_backend_is_asked_last() -> None:
    clients = {"a": Played([fails()]), "b": Played([answer("Hi")])}
    survivor = gateway(clients, GatewayConfig(retry=RetryConfig(attempts=1)))
    ears = Ears()
    for _ in range(6):
        await read(survivor.call(call(tell=ears)))
    assert len(clients["a"].asked) == 3
    assert len(ears.of(Category.MODEL_SWITCHED)) == 3


async def test_state_says_how_it_is() -> None:
    clients = {
        "a": Played([fails("key", retryable=False)]),
        "b": Played([[*said("Hi"), Hang()]]),
    }
    survivor = gateway(clients, GatewayConfig(concurrency=ConcurrencyConfig(max_calls=2)))
    stream = survivor.stream(request())
    await anext(stream)
    waiting = asyncio.create_task(read(survivor.stream(request())))
    third = asyncio.create_task(read(survivor.stream(request())))
    await settle()
    assert survivor.state() == [
        (
            "gateway",
            "2 of 2 calls running, 1 waiting; "
            "layers: deadline → admission → routing → health → breaker → retry",
        ),
        ("a", "key refused, not asked again until the next turn"),
        ("b", "not asked lately, 2 running"),
    ]
    for task in (waiting, third):
        task.cancel()
    await stream.aclose()
    await settle()
    survivor.forgive("a")
    assert dict(survivor.state())["a"] == "not asked lately"
    assert dict(survivor.state())["gateway"].startswith("0 of 2 calls running; layers: ")


async def test_state_of_one_that_does_well_says_how_soon_it_answers() -> None:
    survivor = gateway({"a": Played([answer("Hi")]), "b": Played([])})
    await read(survivor.stream(request()))
    assert dict(survivor.state())["a"].startswith("healthy, first words after ")
    assert dict(gateway({"a": Played([])}, OFF).state())["a"] == "ready"


# -- in time, and with one outcome ---------------------------------------------------------------


@pytest.mark.parametrize("before", [[], said("Hel")], ids=["before", "after"])
async def test_a_call_that_takes_too_long_is_ended(before: list[ModelDelta]) -> None:
    client = Played([[*before, Hang()]])
    pieces, error = await read_until_failure(gateway({"a": client}, SHORT).stream(request()))
    assert pieces == before
    assert client.running == 0
    assert "too long" in str(error)
    if before:
        assert isinstance(error, StreamInterrupted)
        assert error.partial is not None
        assert error.partial.text == "Hel"  # type: ignore[attr-defined]
        assert error.usage == Usage(3, 1, estimated=True)
    else:
        assert (error.fault, error.retryable) == ("timeout", True)


async def test_waiting_for_a_place_counts() -> None:
    config = replace(SHORT, concurrency=ConcurrencyConfig(max_calls=1))
    client = Played([[Hang()]])
    survivor = gateway({"a": client}, config)
    survivor._admission.running = 1
    _, error = await read_until_failure(survivor.stream(request()))
    assert error.fault == "timeout"
    assert client.asked == []
    assert survivor._admission.waiting == 0


async def test_who_reads_slowly_is_not_interrupted_between_two_pieces() -> None:
    async def pieces(_: Call) -> AsyncGenerator[ModelDelta, None]:
        for delta in said("a", "b", "c"):
            yield delta

    stream = Deadline(0.01)(call(), lambda _: Played([[end("Hi")]]).stream(request()))
    async for _ in stream:
        await asyncio.sleep(0.03)  # the answer is whole: no failure follows
    stream = Deadline(0.01)(call(), pieces)
    assert (await anext(stream)).text == "a"
    await asyncio.sleep(0.05)  # not interrupted, though the time is up meanwhile
    with pytest.raises(StreamInterrupted, match=r"too long|broke off") as caught:
        await anext(stream)
    assert getattr(caught.value.partial, "text", "") == "a"


async def test_an_earlier_deadline_of_the_call_counts() -> None:
    clock = Clock()
    seen: list[float | None] = []

    async def look(made: Call) -> AsyncGenerator[ModelDelta, None]:
        seen.append(made.deadline)
        yield end("Hi")

    for own in (None, 105.0, 500.0):
        await read(Deadline(60, clock=clock)(call(deadline=own), look))
    assert seen == [160, 105, 160]
    hanging = Played([[Hang()]])
    late = Deadline(60, clock=clock)(call(deadline=99.0), lambda made: hanging.stream(made.request))
    assert (await read_until_failure(late))[1].fault == "timeout"


async def test_somebody_elses_cancellation_stays_one() -> None:
    client = Played([[Hang()]])
    survivor = gateway({"a": client}, GatewayConfig())
    task = asyncio.create_task(read(survivor.stream(request())))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (client.cancelled, client.running) == (1, 0)
    assert dict(survivor.state())["gateway"].startswith("0 of 8 calls running;")


async def test_cancelled_in_the_moment_the_time_is_up_is_still_cancelled() -> None:
    async def stubborn(_: Call) -> AsyncGenerator[ModelDelta, None]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()  # somebody else, while the alarm's own is on its way
            raise
        yield ModelDelta()

    task = asyncio.create_task(read(Deadline(0.01)(call(), stubborn)))
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_time_is_up_for_one_call_and_its_task_goes_on() -> None:
    survivor = gateway({"a": Played([[Hang()], answer("Hi")])}, SHORT)
    _, error = await read_until_failure(survivor.stream(request()))
    assert error.fault == "timeout"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert (await read(survivor.stream(request())))[0] == "Hi"


async def test_an_interruption_that_is_swallowed_inside_leaves_no_trace() -> None:
    async def deaf(_: Call) -> AsyncGenerator[ModelDelta, None]:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        yield end("Hi")

    pieces = [delta async for delta in Deadline(0.01)(call(), deaf)]
    assert len(pieces) == 1
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_any_failure_after_a_part_is_one_interruption_with_that_part() -> None:
    thought = ModelDelta(reasoning="Well")
    half = ModelDelta(tool_progress=ToolProgress(0, "run", '{"a'))
    client = Played([[thought, *said("Hel"), half, *fails("server")]])
    pieces, error = await read_until_failure(gateway({"a": client, "b": client}).stream(request()))
    assert len(pieces) == 3
    assert len(client.asked) == 1
    assert isinstance(error, StreamInterrupted)
    assert error.partial is not None
    assert error.partial.reasoning == "Well"  # type: ignore[attr-defined]
    assert error.partial.text == "Hel"  # type: ignore[attr-defined]
    assert error.partial.tool_calls == ()  # type: ignore[attr-defined]
    assert isinstance(error.usage, Usage)
    assert error.usage.estimated


async def test_closing_clients() -> None:
    closed: list[str] = []

    class Closing(Played):
        async def aclose(self) -> None:
            closed.append("a")

    survivor = Gateway([backend("a")], lambda _: Closing([answer("Hi")]))
    await survivor.aclose()
    await read(survivor.stream(request()))
    await survivor.aclose()
    await survivor.aclose()
    assert closed == ["a"]


async def test_an_error_of_the_gateway_reads_well() -> None:
    _, error = await read_until_failure(
        gateway({"a": Played([fails("key", retryable=False)])}).stream(request())
    )
    assert isinstance(error, ProviderError)
    assert str(error) == "It is key."


@pytest.mark.parametrize("seed", range(5))
async def test_a_storm_leaves_nothing_behind(seed: int) -> None:
    """Hundreds of calls, many the same, that fail, break off, are cancelled or closed early."""
    luck = Random(seed)
    scripts = [
        answer("Hel", "lo"), fails(), fails("server"), [*said("Hel"), *fails("server")],
        fails("bad_request", retryable=False), [*said("Hel"), Hang()], [Hang()],
    ]  # fmt: skip
    clients = {name: Played([luck.choice(scripts) for _ in range(900)]) for name in "abc"}
    config = GatewayConfig(
        single_flight=SingleFlightConfig(enabled=True),
        concurrency=ConcurrencyConfig(max_calls=5, queue=60),
        breaker=BreakerConfig(minimum=10),
    )
    survivor = gateway(clients, config)
    ends: list[str] = []

    async def ask(number: int) -> None:
        ends.append("begun")
        made = call(f"question {number % 40}", priority=luck.choice(list(Priority)))
        try:
            async with aclosing(survivor.call(made)) as deltas:
                async for delta in deltas:
                    if delta.reply is not None or luck.random() < 0.1:
                        break
        except ProviderError:
            ends.append("failed")
        else:
            ends.append("read")

    tasks = [asyncio.create_task(ask(number)) for number in range(300)]
    while not all(task.done() for task in tasks):
        for task in luck.sample(tasks, 10):
            task.cancel()
        await settle()
    assert len(ends) > 100
    assert [client.running for client in clients.values()] == [0, 0, 0]
    state = dict(survivor.state())
    assert state["gateway"].startswith("0 of 5 calls running;")
    assert not any("running" in state[name] for name in "abc")
    assert all(client.most <= 5 for client in clients.values())
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert others == set()
