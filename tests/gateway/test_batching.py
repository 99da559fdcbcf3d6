"""Batches: how many run at once, in which order results come, and what a failure costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import pytest

from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.gateway.batching import BatchResult, submit_batch
from ovagent_jupyter.providers.client import ModelDelta, ModelRequest
from tests.gateway.played import end, request, settle


class Service:
    """Answers with what it was asked once its gate opens; ``fail`` fails."""

    def __init__(self, *open_: str) -> None:
        self.gates: dict[str, asyncio.Event] = {}
        self.open = set(open_)
        self.running = 0
        self.most = 0
        self.closed = 0

    async def stream(self, asked: ModelRequest) -> AsyncGenerator[ModelDelta, None]:
        """Answer one."""
        text = asked.messages[0].text
        self.running += 1
        self.most = max(self.most, self.running)
        gate = self.gates.setdefault(text, asyncio.Event())
        try:
            await asyncio.sleep(0)
            if text not in self.open:
                await gate.wait()
            if text == "fail":
                raise ProviderError("It failed.", fault="server")
            if text == "bug":
                raise ValueError("a fault of ours")
            yield end(text)
        except asyncio.CancelledError:
            self.closed += 1
            raise
        finally:
            self.running -= 1


async def test_results_come_as_they_are_ready_with_their_place() -> None:
    service = Service()
    results: list[BatchResult] = []

    async def run() -> None:
        results.extend(
            [result async for result in submit_batch(service.stream, map(request, "abc"))]
        )

    task = asyncio.create_task(run())
    for text in "cab":
        await settle()
        service.gates[text].set()
    await task
    assert [(result.index, result.status) for result in results] == [
        (2, "answered"),
        (0, "answered"),
        (1, "answered"),
    ]
    assert [result.reply.message.text for result in results if result.reply] == ["c", "a", "b"]


async def test_a_failure_costs_only_itself() -> None:
    service = Service("a", "fail", "bug", "b")
    texts = ["a", "fail", "bug", "b"]
    found = {
        result.index: result
        async for result in submit_batch(service.stream, map(request, texts), at_once=2)
    }
    assert [found[number].status for number in range(4)] == [
        "answered",
        "failed",
        "failed",
        "answered",
    ]
    assert found[1].error is not None
    assert found[1].error.fault == "server"
    assert "a fault of ours" in str(found[2].error)


async def test_never_more_at_once_and_taken_as_there_is_room() -> None:
    service, taken = Service(*map(str, range(40))), 0

    def requests() -> Iterator[ModelRequest]:
        nonlocal taken
        for number in range(40):
            taken += 1
            yield request(str(number))

    batch = submit_batch(service.stream, requests(), at_once=3)
    await anext(batch)
    assert taken <= 6
    rest = [result async for result in batch]
    assert len(rest) == 39
    assert service.most == 3


async def test_closing_ends_what_runs() -> None:
    service = Service("a")
    async with aclosing(submit_batch(service.stream, map(request, "abc"), at_once=3)) as batch:
        assert (await anext(batch)).index == 0
    assert (service.running, service.closed) == (0, 2)


async def test_cancelling_ends_what_runs() -> None:
    service = Service()

    async def run() -> None:
        async for _ in submit_batch(service.stream, map(request, "abc")):
            pass

    task = asyncio.create_task(run())
    await settle()
    assert service.running == 3
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settle()
    assert service.running == 0


async def test_nothing_to_ask_and_a_bound_of_nothing() -> None:
    assert [result async for result in submit_batch(Service().stream, [])] == []
    with pytest.raises(ValueError, match="at_once=0"):
        await anext(submit_batch(Service().stream, [request()], at_once=0))
