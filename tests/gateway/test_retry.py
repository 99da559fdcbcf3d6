"""Asking again: when, how long it waits, and what it never does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from ovagent_jupyter.config.gateway import RetryConfig
from ovagent_jupyter.errors import BudgetExceeded, ProviderError
from ovagent_jupyter.events import Category
from ovagent_jupyter.gateway.layer import Call
from ovagent_jupyter.gateway.retry import NEVER, Retry
from ovagent_jupyter.messages import Usage
from ovagent_jupyter.providers.client import ModelDelta, ToolProgress
from tests.gateway.played import (
    Clock,
    Ears,
    Played,
    Script,
    answer,
    call,
    end,
    fails,
    read,
    read_until_failure,
    said,
)


class Trial:
    """A retry layer around a played client."""

    def __init__(
        self, *scripts: Script, config: RetryConfig | None = None, luck: float = 0.0
    ) -> None:
        self.client = Played(list(scripts))
        self.clock = Clock()
        self.ears = Ears()
        self.attempts: list[int] = []
        self.layer = Retry(
            config or RetryConfig(), clock=self.clock, sleep=self.clock.sleep, random=lambda: luck
        )

    def stream(self, deadline: float | None = None) -> AsyncGenerator[ModelDelta, None]:
        """Ask."""
        return self.layer(call(deadline=deadline, tell=self.ears), self._next)

    def _next(self, asked: Call) -> AsyncGenerator[ModelDelta, None]:
        self.attempts.append(asked.attempt)
        return self.client.stream(asked.request)


async def test_asks_again_until_there_is_an_answer() -> None:
    trial = Trial(fails(), fails("server"), answer("Hel", "lo"))
    text, reply = await read(trial.stream())
    assert text == "Hello"
    assert trial.attempts == [1, 2, 3]
    assert trial.clock.slept == [0.25, 0.5]
    assert reply.details["attempts"] == 3


async def test_gives_up_after_the_last_attempt() -> None:
    trial = Trial(fails(), config=RetryConfig(attempts=2))
    with pytest.raises(ProviderError, match="overloaded"):
        await read(trial.stream())
    assert trial.attempts == [1, 2]


async def test_waits_grow_to_the_cap_and_are_spread() -> None:
    config = RetryConfig(attempts=5, base=1, cap=3)
    calm, lucky = Trial(fails(), config=config), Trial(fails(), config=config, luck=1.0)
    for trial in (calm, lucky):
        with pytest.raises(ProviderError):
            await read(trial.stream())
    assert calm.clock.slept == [0.5, 1, 1.5, 1.5]
    assert lucky.clock.slept == [1, 2, 3, 3]


@pytest.mark.parametrize(
    ("asked", "luck", "waits"), [(2.0, 0.0, 2.0), (2.0, 1.0, 2.2), (0.0, 1.0, 0.0)]
)
async def test_waits_as_long_as_the_service_asks(asked: float, luck: float, waits: float) -> None:
    trial = Trial(fails("rate_limited", after=asked), answer("Yes"), luck=luck)
    await read(trial.stream())
    assert trial.clock.slept == pytest.approx([waits])


@pytest.mark.parametrize(("after", "deadline"), [(61.0, None), (10.0, 105.0), (None, 100.1)])
async def test_a_wait_that_is_too_long_is_not_begun(
    after: float | None, deadline: float | None
) -> None:
    trial = Trial(fails("rate_limited", after=after), answer("never asked"))
    with pytest.raises(ProviderError, match="rate_limited"):
        await read(trial.stream(deadline))
    assert trial.clock.slept == []
    assert trial.attempts == [1]


@pytest.mark.parametrize("fault", sorted(NEVER))
async def test_what_fails_again_is_not_asked_again(fault: str) -> None:
    trial = Trial(fails(fault))
    with pytest.raises(ProviderError):
        await read(trial.stream())
    assert trial.attempts == [1]


async def test_a_budget_that_ends_it_does_not_hide_the_failure() -> None:
    spent = BudgetExceeded("All is spent.", why="1 of 1.", next_step="Raise budget_turn.")
    trial = Trial(fails("server", usage=Usage(5)), fails(usage=Usage(2)), [spent])
    _, error = await read_until_failure(trial.stream())
    assert (error.what, error.fault) == ("It is server.", "server")
    assert error.why == "Not asked again: All is spent."
    assert error.next_step == "Raise budget_turn."
    assert error.usage == Usage(7)
    assert not error.retryable
    assert trial.attempts == [1, 2, 3]


async def test_a_wire_can_forbid_it() -> None:
    trial = Trial(fails("server", retryable=False))
    with pytest.raises(ProviderError):
        await read(trial.stream())
    assert trial.attempts == [1]


@pytest.mark.parametrize(
    "piece",
    [
        ModelDelta(text="Hel"),
        ModelDelta(reasoning="Well"),
        ModelDelta(tool_progress=ToolProgress(0, "run", "{")),
        end("Hello"),
    ],
    ids=["text", "reasoning", "half a call", "end"],
)
async def test_never_once_something_was_passed_on(piece: ModelDelta) -> None:
    trial = Trial([piece, *fails()], answer("again"))
    seen, _ = await read_until_failure(trial.stream())
    assert seen == [piece]
    assert trial.attempts == [1]


async def test_a_piece_without_content_does_not_count() -> None:
    trial = Trial([ModelDelta(), *fails()], answer("Hello"))
    assert (await read(trial.stream()))[0] == "Hello"


async def test_what_failed_attempts_spent_is_not_lost() -> None:
    trial = Trial(
        fails(usage=Usage(10, 1)), fails(usage=Usage(10, 2)), answer("Hi", usage=Usage(10, 5))
    )
    reply = (await read(trial.stream()))[1]
    assert reply.usage == Usage(30, 8)
    assert reply.details["failed_usage"] == Usage(20, 3).as_record()
    trial = Trial(fails(usage=Usage(10, 1)))
    with pytest.raises(ProviderError) as caught:
        await read(trial.stream())
    assert caught.value.usage == Usage(30, 3)


async def test_a_first_attempt_is_passed_on_as_it_is() -> None:
    script = answer("Hel", "lo")
    assert [delta async for delta in Trial(script).stream()] == script


async def test_says_so() -> None:
    trial = Trial(fails(), answer("Hello"))
    await read(trial.stream())
    (event,) = trial.ears.of(Category.MODEL_RETRIED)
    assert event.message == "The model failed (overloaded); asking again in 0.2 s."
    assert event.data["attempt"] == 2


async def test_closing_early_closes_what_is_inside() -> None:
    trial = Trial([*said("Hel", "lo"), end("Hello")])
    stream = trial.stream()
    await anext(stream)
    await stream.aclose()
    assert (trial.client.closed, trial.client.running) == (1, 0)


async def test_cancellation_ends_the_wait() -> None:
    trial = Trial(fails())
    waiting = asyncio.Event()

    async def sleep(_: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    trial.layer = Retry(RetryConfig(), clock=trial.clock, sleep=sleep)
    task = asyncio.create_task(read(trial.stream()))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert trial.attempts == [1]


async def test_a_bug_is_not_tried_again() -> None:
    trial = Trial(answer("never"))

    async def broken(_: Call) -> AsyncGenerator[ModelDelta, None]:
        trial.attempts.append(1)
        raise KeyError("a bug")
        yield ModelDelta()

    with pytest.raises(KeyError):
        await read(trial.layer(call(), broken))
    assert trial.attempts == [1]
