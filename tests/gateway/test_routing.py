"""Routing: who is asked first, who next, and when nobody else is."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace

import pytest

from ovagent_jupyter.config.gateway import RoutingConfig, Strategy
from ovagent_jupyter.errors import BudgetExceeded, ConfigError, ProviderError, StreamInterrupted
from ovagent_jupyter.events import Category
from ovagent_jupyter.gateway.layer import Call
from ovagent_jupyter.gateway.routing import Routing
from ovagent_jupyter.messages import Message, TextPart, Usage
from ovagent_jupyter.providers.client import ModelDelta, ToolProgress
from tests.gateway.played import (
    Ears,
    Hang,
    Played,
    answer,
    backend,
    call,
    end,
    fails,
    read,
    read_until_failure,
    said,
    settle,
)

HI = answer("Hi")


class Trial:
    """A router around played clients."""

    def __init__(
        self,
        clients: Mapping[str, Played],
        config: RoutingConfig | None = None,
        *,
        unhealthy: Callable[[str], bool] = lambda _: False,
        windows: Mapping[str, int] | None = None,
    ) -> None:
        self.clients = clients
        self.ears = Ears()
        self.asked: list[str] = []
        backends = [backend(name, (windows or {}).get(name, 1000)) for name in clients]
        self.layer = Routing(backends, config or RoutingConfig(), unhealthy=unhealthy)

    def stream(self, made: Call | None = None) -> AsyncGenerator[ModelDelta, None]:
        """Ask."""
        return self.layer(made or call(tell=self.ears), self._next)

    def _next(self, made: Call) -> AsyncGenerator[ModelDelta, None]:
        assert made.backend is not None
        self.asked.append(made.backend.name)
        return self.clients[made.backend.name].stream(made.request)


def playing(**scripts: list[object]) -> dict[str, Played]:
    return {name: Played([script]) for name, script in scripts.items()}  # type: ignore[list-item]


async def test_the_first_that_answers() -> None:
    trial = Trial(playing(a=fails(), b=fails("key"), c=answer("Hel", "lo")))
    text, reply = await read(trial.stream())
    assert text == "Hello"
    assert trial.asked == ["a", "b", "c"]
    assert reply.backend == "c"
    assert reply.details["failed_backends"] == ["a", "b"]
    assert [event.data["backend"] for event in trial.ears.of(Category.MODEL_SWITCHED)] == ["b", "c"]
    assert trial.ears.heard[0].message == "a failed (overloaded); asking b."


async def test_each_is_asked_for_its_own_model() -> None:
    trial = Trial(playing(a=fails(), b=HI))
    await read(trial.stream())
    assert trial.clients["a"].asked[0].model == "a-model"
    assert trial.clients["b"].asked[0].model == "b-model"


@pytest.mark.parametrize(
    "piece",
    [
        ModelDelta(text="Hel"),
        ModelDelta(reasoning="Well"),
        ModelDelta(tool_progress=ToolProgress(0, "run", "{")),
    ],
    ids=["text", "reasoning", "half a call"],
)
async def test_nobody_else_once_something_was_passed_on(piece: ModelDelta) -> None:
    trial = Trial(playing(a=[piece, *fails(usage=Usage(5, 1))], b=HI))
    seen, error = await read_until_failure(trial.stream())
    assert seen == [piece]
    assert trial.asked == ["a"]
    assert isinstance(error, StreamInterrupted)
    assert error.usage == Usage(5, 1)
    assert "It is overloaded." in error.why


async def test_the_part_that_came_is_kept() -> None:
    partial = Message("assistant", (TextPart("Hel"),))
    cut = StreamInterrupted("Cut.", partial=partial, usage=Usage(5, 1))

    async def breaks(_: Call) -> AsyncGenerator[ModelDelta, None]:
        yield ModelDelta(text="Hel")
        raise cut

    trial = Trial(playing(a=HI))
    _, error = await read_until_failure(trial.layer(call(), breaks))
    assert error is cut
    assert error.partial == partial


async def test_a_stream_without_an_end_is_a_failure() -> None:
    trial = Trial(playing(a=[ModelDelta()], b=HI))
    assert (await read(trial.stream()))[0] == "Hi"
    trial = Trial(playing(a=said("Hel"), b=HI))
    _, error = await read_until_failure(trial.stream())
    assert isinstance(error, StreamInterrupted)


async def test_what_fails_after_the_end_is_no_failure() -> None:
    trial = Trial(playing(a=[*HI, *fails()], b=HI))
    assert (await read(trial.stream()))[1].backend == "a"
    assert trial.asked == ["a"]


async def test_all_failed_is_one_error_with_a_line_for_each() -> None:
    trial = Trial(
        playing(
            a=fails("rate_limited", usage=Usage(1, 1), after=9.0),
            b=fails("key", retryable=False),
            c=fails(usage=Usage(2, 2), after=4.0),
        )
    )
    _, error = await read_until_failure(trial.stream())
    assert error.what == "None of 3 models answered."
    assert error.why.split("\n") == [
        "a: It is rate_limited.",
        "b: It is key.",
        "c: It is overloaded.",
    ]
    assert (error.fault, error.retryable, error.retry_after) == ("rate_limited", True, 4.0)
    assert error.usage == Usage(3, 3)


async def test_who_was_not_asked_does_not_name_the_failure() -> None:
    trial = Trial(playing(a=fails("unhealthy"), b=fails("server"), c=fails("timeout")))
    assert (await read_until_failure(trial.stream()))[1].fault == "server"


async def test_the_only_one_fails_by_its_own_error() -> None:
    _, error = await read_until_failure(Trial(playing(a=fails("key"))).stream())
    assert (error.what, error.fault) == ("It is key.", "key")


@pytest.mark.parametrize("fault", ["policy", "budget", "busy"])
async def test_some_failures_are_for_no_other(fault: str) -> None:
    trial = Trial(playing(a=fails(fault, retryable=False), b=HI))
    _, error = await read_until_failure(trial.stream())
    assert (error.fault, trial.asked) == (fault, ["a"])


async def test_a_budget_stays_what_it_is() -> None:
    async def spent(_: Call) -> AsyncGenerator[ModelDelta, None]:
        raise BudgetExceeded("All is spent.")
        yield ModelDelta()

    _, error = await read_until_failure(Trial(playing(a=HI, b=HI)).layer(call(), spent))
    assert isinstance(error, BudgetExceeded)


async def test_a_budget_that_ends_it_does_not_hide_what_failed() -> None:
    spent = BudgetExceeded("All is spent.", next_step="Raise budget_turn.")
    trial = Trial(playing(a=fails("server", usage=Usage(5)), b=[spent], c=HI))
    _, error = await read_until_failure(trial.stream())
    assert (error.what, error.fault) == ("It is server.", "server")
    assert error.why == "Not asked again: All is spent."
    assert error.next_step == "Raise budget_turn."
    assert error.usage == Usage(5)
    assert trial.asked == ["a", "b"]
    trial = Trial(playing(a=fails("server"), b=fails("timeout"), c=[spent]))
    _, error = await read_until_failure(trial.stream())
    lines = ["a: It is server.", "b: It is timeout.", "Not asked again: All is spent."]
    assert (error.fault, error.why.split("\n")) == ("server", lines)


async def test_refusals_go_on_only_when_that_is_set() -> None:
    refused = [end("", Usage(7, 0), reason="refused")]
    plain = Trial(playing(a=refused, b=HI))
    assert (await read(plain.stream()))[1].finish_reason == "refused"
    config = RoutingConfig(refusal_fails_over=True)
    allowed = Trial(playing(a=refused, b=fails("policy"), c=HI), config)
    reply = (await read(allowed.stream()))[1]
    assert reply.backend == "c"
    assert reply.usage == Usage(3, 2) + Usage(7, 0)
    last = Trial(playing(a=fails(), b=refused), config)
    assert (await read(last.stream()))[1].finish_reason == "refused"
    begun = Trial(playing(a=[*said("I will"), *refused], b=HI), config)
    assert (await read(begun.stream()))[1].finish_reason == "refused"


async def test_too_long_goes_to_a_larger_window_only() -> None:
    clients = playing(a=fails("context_full", retryable=False), b=HI, c=HI)
    trial = Trial(clients, windows={"a": 1000, "b": 1000, "c": 2000})
    assert (await read(trial.stream()))[1].backend == "c"
    assert trial.asked == ["a", "c"]
    trial = Trial(playing(a=fails("context_full"), b=HI))
    _, error = await read_until_failure(trial.stream())
    assert (error.fault, trial.asked) == ("context_full", ["a"])
    trial = Trial(playing(a=fails(), b=fails("context_full")))
    _, error = await read_until_failure(trial.stream())
    assert error.fault == "context_full"


async def first_choices(strategy: Strategy, times: int, **more: object) -> list[str]:
    config = RoutingConfig(strategy=strategy, **more)  # type: ignore[arg-type]
    trial = Trial(playing(a=HI, b=HI, c=HI), config)
    for _ in range(times):
        await read(trial.stream())
    return trial.asked


async def test_failover_asks_the_first() -> None:
    assert await first_choices("failover", 3) == ["a", "a", "a"]


async def test_round_robin_asks_each_in_turn() -> None:
    assert await first_choices("round_robin", 6) == ["a", "b", "c", "a", "b", "c"]


async def test_weighted_asks_each_as_often_as_it_weighs_and_spreads_them() -> None:
    asked = await first_choices("weighted", 8, weights={"a": 5, "b": 3, "c": 0})
    assert Counter(asked) == {"a": 5, "b": 3}
    assert "aaa" not in "".join(asked)


async def test_a_weight_of_nothing_is_a_reserve() -> None:
    trial = Trial(playing(a=fails(), b=HI), RoutingConfig(strategy="weighted", weights={"b": 0}))
    await read(trial.stream())
    assert trial.asked == ["a", "b"]


async def test_least_connections_asks_who_has_the_fewest_calls() -> None:
    trial = Trial(
        playing(a=[*said("x"), Hang()], b=[*said("x"), Hang()]),
        RoutingConfig(strategy="least_connections"),
    )
    streams = [trial.stream() for _ in range(4)]
    for stream in streams:
        await anext(stream)
    assert trial.asked == ["a", "b", "a", "b"]
    await streams[1].aclose()
    assert trial.layer.in_flight == {"a": 2, "b": 1}
    streams.append(trial.stream())
    await anext(streams[-1])
    assert trial.asked[-1] == "b"
    for stream in streams:
        await stream.aclose()
    assert set(trial.layer.in_flight.values()) == {0}
    assert trial.clients["a"].running == 0


async def test_unhealthy_ones_are_asked_after_the_others_but_not_given_up() -> None:
    trial = Trial(playing(a=HI, b=fails(), c=fails()), unhealthy=lambda name: name == "a")
    await read(trial.stream())
    assert trial.asked == ["b", "c", "a"]


async def test_a_call_may_say_whom_to_ask_first() -> None:
    trial = Trial(playing(a=HI, b=fails()))
    await read(trial.stream(replace(call(), backend=backend("b"))))
    assert trial.asked == ["b", "a"]


async def test_cancellation_passes_at_once() -> None:
    trial = Trial(playing(a=[Hang()], b=HI))
    task = asyncio.create_task(read(trial.stream()))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (trial.clients["a"].cancelled, trial.asked) == (1, ["a"])
    assert trial.layer.in_flight["a"] == 0


async def test_a_bug_is_not_hidden_behind_another_backend() -> None:
    async def broken(_: Call) -> AsyncGenerator[ModelDelta, None]:
        raise KeyError("a bug")
        yield ModelDelta()

    with pytest.raises(KeyError):
        await read(Trial(playing(a=HI, b=HI)).layer(call(), broken))


def test_says_what_is_wrong_with_the_backends() -> None:
    with pytest.raises(ConfigError, match="no backend"):
        Routing([], RoutingConfig())
    with pytest.raises(ConfigError, match="Two backends are called 'a'"):
        Routing([backend("a"), backend("a")], RoutingConfig())
    with pytest.raises(ConfigError, match="weights names 'z'"):
        Routing([backend("a")], RoutingConfig(weights={"z": 1}))


async def test_errors_carry_the_cost_of_all() -> None:
    def priced(cost: float) -> ProviderError:
        error = ProviderError("It failed.", retryable=True, usage=Usage(1, 1))
        error.cost = cost
        return error

    async def costs(made: Call) -> AsyncGenerator[ModelDelta, None]:
        assert made.backend is not None
        if made.backend.name != "c":
            raise priced(0.25)
        yield end("Hi", Usage(1, 1), cost=1.0)

    reply = (await read(Trial(playing(a=HI, b=HI, c=HI)).layer(call(), costs)))[1]
    assert reply.cost == 1.5
    _, error = await read_until_failure(Trial(playing(a=HI, b=HI)).layer(call(), costs))
    assert error.cost == 0.5


async def test_a_backend_that_is_set_up_wrongly_is_one_that_failed() -> None:
    async def sends(made: Call) -> AsyncGenerator[ModelDelta, None]:
        assert made.backend is not None
        if made.backend.name == "a":
            raise ConfigError("The base URL cannot be used.", next_step="Set base_url.")
        yield end("Hi")

    assert (await read(Trial(playing(a=HI, b=HI)).layer(call(), sends)))[1].backend == "b"
    with pytest.raises(ConfigError, match="base URL"):
        await read(Trial(playing(a=HI)).layer(call(), sends))
