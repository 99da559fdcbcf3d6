"""Admission: how many at once, who goes first, how fast, and what a caller that left leaves."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from ovagent_jupyter.config.gateway import ConcurrencyConfig, RateConfig
from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.gateway.admission import Admission
from ovagent_jupyter.gateway.layer import Priority
from tests.gateway.played import Clock, Played, answer, call, fails, read, request, settle

LOW, NORMAL, HIGH, CRITICAL = Priority


class Trial:
    """An admission layer around a client that answers once it is let go."""

    def __init__(
        self, *, max_calls: int = 1, queue: int = 100, rate: RateConfig | None = None
    ) -> None:
        self.clock = Clock()
        self.go = asyncio.Event()
        self.client = Played([[self.go, *answer("Hi")]])
        self.layer = Admission(
            ConcurrencyConfig(max_calls=max_calls, queue=queue, aging=10),
            rate or RateConfig(),
            clock=self.clock,
        )
        self.tasks: list[asyncio.Task[object]] = []

    async def ask(self, name: str, priority: Priority = NORMAL) -> asyncio.Task[object]:
        """Ask, and come to where it waits."""
        made = call(name, priority=priority)
        stream = self.layer(made, lambda passed: self.client.stream(passed.request))
        task: asyncio.Task[object] = asyncio.create_task(read(stream))
        self.tasks.append(task)
        await settle()
        return task

    @property
    def asked(self) -> list[str]:
        """What came to the client, in order."""
        return [asked.messages[0].text for asked in self.client.asked]

    async def finish(self) -> None:
        """Let all calls go to their end."""
        self.go.set()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        assert (self.layer.running, self.layer.waiting, self.client.running) == (0, 0, 0)


async def test_no_more_at_once_than_allowed() -> None:
    trial = Trial(max_calls=3)
    for name in "abcde":
        await trial.ask(name)
    assert (trial.client.running, trial.layer.running, trial.layer.waiting) == (3, 3, 2)
    await trial.finish()
    assert trial.client.most == 3
    assert trial.asked == list("abcde")


async def test_the_more_urgent_goes_first() -> None:
    trial = Trial()
    await trial.ask("running")
    for priority in (LOW, NORMAL, CRITICAL, HIGH, CRITICAL):
        await trial.ask(priority.name, priority)
    await trial.finish()
    assert trial.asked == ["running", "CRITICAL", "CRITICAL", "HIGH", "NORMAL", "LOW"]


async def test_who_waits_long_enough_overtakes_the_urgent() -> None:
    trial = Trial()
    await trial.ask("running")
    await trial.ask("low, since long", LOW)
    trial.clock.now += 31
    await trial.ask("critical, new", CRITICAL)
    trial.clock.now += 1
    await trial.ask("high, new", HIGH)
    await trial.finish()
    assert trial.asked == ["running", "low, since long", "critical, new", "high, new"]


async def test_a_newcomer_does_not_pass_those_who_wait() -> None:
    trial = Trial(max_calls=2)
    first = await trial.ask("first")
    for name in ("second", "third", "fourth"):
        await trial.ask(name)
    first.cancel()
    await trial.ask("newcomer")
    await trial.finish()
    assert trial.asked == ["first", "second", "third", "fourth", "newcomer"]


async def test_a_full_queue_refuses_at_once() -> None:
    trial = Trial(queue=2)
    for name in "abc":
        await trial.ask(name)
    refused = await trial.ask("d", CRITICAL)
    with pytest.raises(ProviderError) as caught:
        await refused
    assert caught.value.fault == "busy"
    assert trial.layer.waiting == 2
    await trial.finish()
    assert trial.asked == list("abc")


async def test_no_queue_is_allowed() -> None:
    trial = Trial(queue=0)
    await trial.ask("a")
    with pytest.raises(ProviderError, match="not made"):
        await (await trial.ask("b"))
    await trial.finish()


async def test_who_leaves_while_waiting_leaves_no_trace() -> None:
    trial = Trial()
    await trial.ask("a")
    waiting = [await trial.ask(name) for name in "bcd"]
    waiting[1].cancel()
    await settle()
    assert trial.layer.waiting == 2
    await trial.finish()
    assert trial.asked == ["a", "b", "d"]


async def test_who_leaves_in_the_moment_it_is_let_through_passes_its_place_on() -> None:
    trial = Trial()
    await trial.ask("a")
    second = await trial.ask("b")
    await trial.ask("c")
    trial.layer.running -= 1  # as the end of "a" does, in the same step of the loop:
    trial.layer._wake()
    trial.layer.running += 0
    second.cancel()
    await settle()
    assert trial.asked == ["a", "c"]
    trial.layer.running += 1  # "a" is still there and ends below
    await trial.finish()


async def test_a_failure_and_a_closed_stream_free_their_place() -> None:
    trial = Trial()
    trial.client.scripts = [fails(), answer("Hel", "lo"), answer("Hi")]
    with pytest.raises(ProviderError, match="overloaded"):
        await (await trial.ask("a"))
    stream = trial.layer(call(), lambda passed: trial.client.stream(passed.request))
    await anext(stream)
    assert trial.layer.running == 1
    await stream.aclose()
    assert trial.layer.running == 0
    assert await (await trial.ask("c"))


async def test_calls_are_spread_by_their_number() -> None:
    trial = Trial(max_calls=10, rate=RateConfig(requests_per_minute=2))
    trial.go.set()
    for name in "ab":
        await (await trial.ask(name))
    third = await trial.ask("c")
    fourth = await trial.ask("d")
    assert not third.done()
    assert trial.asked == ["a", "b"]
    await trial.ask("urgent", CRITICAL)
    assert trial.layer.waiting == 2  # one stands before the bucket, the others in the queue
    third.cancel()
    fourth.cancel()
    await settle()
    assert trial.layer.waiting == 0
    for task in trial.tasks:
        task.cancel()
    await trial.finish()


async def test_calls_are_spread_by_their_tokens() -> None:
    trial = Trial(max_calls=10, rate=RateConfig(tokens_per_minute=1000))
    trial.go.set()
    big = request("x" * 8000)  # more than a minute's worth: it takes all of it, and is not refused
    stream = trial.layer(
        replace(call(), request=replace(big, max_output_tokens=1)),
        lambda passed: trial.client.stream(passed.request),
    )
    await read(stream)
    waits = await trial.ask("small")
    assert not waits.done()
    waits.cancel()
    await trial.finish()


async def test_an_event_loop_that_ends_leaves_nothing_waiting() -> None:
    trial = Trial()
    tasks = [await trial.ask(name) for name in "abcdef"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (trial.layer.running, trial.layer.waiting, trial.client.cancelled) == (0, 0, 1)
