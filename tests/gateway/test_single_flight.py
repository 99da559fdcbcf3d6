"""Identical calls: asked once, whole for each, and nobody's leaving ends it for the others."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.gateway.single_flight import SingleFlight, identity
from ovagent_jupyter.messages import ImagePart, Message, TextPart, Usage
from ovagent_jupyter.providers.client import ModelRequest, Reply, ToolSchema
from tests.gateway.played import Played, answer, call, end, fails, read, request, said, settle


class Trial:
    """A single-flight layer around a client that stops in the middle until it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.client = Played([[*said("Hel"), self.go, *said("lo"), end("Hello", Usage(3, 2))]])
        self.layer = SingleFlight()

    async def ask(self, text: str = "same") -> asyncio.Task[tuple[str, Reply]]:
        """Ask, and come to where it waits."""
        stream = self.layer(call(text), lambda made: self.client.stream(made.request))
        task = asyncio.create_task(read(stream))
        await settle()
        return task


async def test_asked_once_and_whole_for_each() -> None:
    trial = Trial()
    tasks = [await trial.ask() for _ in range(5)]
    other = await trial.ask("different")
    assert len(trial.client.asked) == 2
    trial.go.set()
    answers = await asyncio.gather(*tasks, other)
    assert {text for text, _ in answers} == {"Hello"}
    assert trial.layer.running == 0


async def test_what_it_cost_is_told_once() -> None:
    trial = Trial()
    tasks = [await trial.ask() for _ in range(3)]
    trial.go.set()
    replies = [reply for _, reply in await asyncio.gather(*tasks)]
    assert sum((reply.usage for reply in replies), Usage()) == Usage(3, 2)
    assert sum("shared_with" in reply.details for reply in replies) == 2


@pytest.mark.parametrize("leaver", [0, 1, 2])
async def test_one_that_leaves_takes_it_from_nobody(leaver: int) -> None:
    trial = Trial()
    tasks = [await trial.ask() for _ in range(3)]
    tasks[leaver].cancel()
    await settle()
    trial.go.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    left = [found for found in answers if not isinstance(found, BaseException)]
    assert [text for text, _ in left] == ["Hello", "Hello"]
    assert sum((reply.usage for _, reply in left), Usage()) == Usage(3, 2)


async def test_the_last_that_leaves_ends_it() -> None:
    trial = Trial()
    tasks = [await trial.ask() for _ in range(2)]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (trial.client.cancelled, trial.client.running, trial.layer.running) == (1, 0, 0)
    again = await trial.ask()
    assert len(trial.client.asked) == 2
    trial.go.set()
    assert (await again)[0] == "Hello"


async def test_a_closed_stream_has_freed_its_connection() -> None:
    trial = Trial()
    stream = trial.layer(call(), lambda made: trial.client.stream(made.request))
    await anext(stream)
    assert trial.client.running == 1
    await stream.aclose()
    assert trial.client.running == 0


async def test_a_failure_is_everybodys_and_its_cost_is_told_once() -> None:
    trial = Trial()
    trial.client.scripts = [[trial.go, *fails(usage=Usage(9, 0))]]
    tasks = [await trial.ask() for _ in range(3)]
    trial.go.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(error, ProviderError) for error in errors)
    assert len({id(error) for error in errors}) == 3
    assert [getattr(error, "usage", None) for error in errors].count(Usage(9, 0)) == 1
    assert [getattr(error, "usage", 0) for error in errors].count(None) == 2


async def test_what_has_ended_is_asked_anew() -> None:
    trial = Trial()
    trial.client.scripts = [answer("one"), answer("two")]
    assert (await (await trial.ask()))[0] == "one"
    assert (await (await trial.ask()))[0] == "two"


def test_only_equal_requests_are_the_same() -> None:
    base = request("same")
    tool = ToolSchema("run", "Runs code.", {"type": "object", "properties": {"a": [1, 2]}})
    picture = Message("user", (ImagePart(b"one"),))
    different: list[ModelRequest] = [
        base,
        request("other"),
        replace(base, model="another"),
        replace(base, temperature=0.0),
        replace(base, temperature=None, seed=0),
        replace(base, seed=1),
        replace(base, tools=(tool,)),
        replace(base, tools=(replace(tool, parameters={"type": "object"}),)),
        replace(base, messages=(picture,)),
        replace(base, messages=(Message("user", (ImagePart(b"two"),)),)),
        replace(base, messages=(Message("assistant", (TextPart("same"),)),)),
    ]
    assert len({identity(each) for each in different}) == len(different)
    turned = replace(tool, parameters={"properties": {"a": [1, 2]}, "type": "object"})
    assert identity(replace(base, tools=(tool,))) == identity(replace(base, tools=(turned,)))
