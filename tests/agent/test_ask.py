"""Questions to a model: what it is told, what the user reads, and what is kept of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from ovagent_jupyter.agent.session import AgentSession
from ovagent_jupyter.agent.turn import TurnRequest, TurnStatus
from ovagent_jupyter.config.schema import AgentConfig
from ovagent_jupyter.errors import ConfigError, ProviderError, StreamInterrupted
from ovagent_jupyter.events import AgentEvent, Category
from ovagent_jupyter.gateway.layer import Call
from ovagent_jupyter.messages import Message, TextPart, ToolCall, Usage
from ovagent_jupyter.providers.client import ModelDelta, ModelRequest
from ovagent_jupyter.testing.fake_executor import FakeExecutor
from ovagent_jupyter.testing.scripted_client import Scripted, ScriptedClient
from tests.agent.conftest import Build
from tests.omics.cells import counts


class Model:
    """A model that says what was written down; it keeps the calls."""

    name = "scripted-1"
    notes = ("Its window is not known.",)
    window = 100_000

    def __init__(self, *replies: Scripted) -> None:
        self.client = ScriptedClient(replies)
        self.calls: list[Call] = []

    async def call(self, call: Call) -> AsyncGenerator[ModelDelta, None]:
        """The next reply."""
        self.calls.append(call)
        async with aclosing(self.client.stream(call.request)) as deltas:  # type: ignore[type-var]
            async for delta in deltas:
                yield delta

    def estimate(self, request: ModelRequest) -> str:
        """As many tokens as there are messages."""
        return f"About {len(request.messages)} tokens."

    async def aclose(self) -> None:
        """Nothing is open."""


def session_with(build: Build, model: Model) -> tuple[AgentSession, FakeExecutor]:
    """A session whose settings name that model."""
    executor = FakeExecutor()

    def source(_config: AgentConfig, *, dry: bool = False) -> Model:
        return model

    config = AgentConfig.from_flat_kwargs(model="scripted-1")
    return build(executor, config, source), executor


async def test_an_answer_is_told_piece_by_piece(build: Build, events: list[AgentEvent]) -> None:
    model = Model("Doublets are two cells in one droplet.")
    session, executor = session_with(build, model)
    turn = await session.run(TurnRequest(text="what are doublets?", mode="ask"))
    said = [event for event in events if event.category is Category.MODEL_DELTA]
    assert "".join(str(event.data["text"]) for event in said) == turn.answer
    assert len(said) > 2
    assert (turn.status, turn.priority_used) == (TurnStatus.FINISHED, 2)
    assert turn.usage.output_tokens == 7
    assert turn.model == "scripted-1"
    assert executor.calls == []
    assert {call.turn_id for call in model.calls} == {turn.turn_id}


async def test_what_is_guessed_is_told_once(build: Build, events: list[AgentEvent]) -> None:
    session, _ = session_with(build, Model("One.", "Two."))
    for question in ("first?", "second?"):
        await session.run(TurnRequest(text=question, mode="ask"))
    told = [event.message for event in events if event.category is Category.NOTICE]
    assert told == ["Its window is not known."]


async def test_the_model_is_told_of_the_data_and_of_no_values(build: Build) -> None:
    adata: Any = counts()
    adata.obs["donor"] = "someone"
    model = Model("Yes.")
    session, _ = session_with(build, model)
    await session.run(TurnRequest(text="is it raw?", mode="ask", namespace={"cells": adata}))
    (system, question) = model.client.requests[0].messages
    assert system.role == "system"
    assert f"cells: {adata.n_obs:,} cells" in system.text
    assert "donor" in system.text
    assert adata.obs_names[0] not in system.text
    assert question.text == "is it raw?"


async def test_a_session_remembers_what_was_said(build: Build) -> None:
    model = Model("One.", "Two.")
    session, _ = session_with(build, model)
    await session.run(TurnRequest(text="first?", mode="ask"))
    await session.run(TurnRequest(text="second?", mode="ask"))
    told = [message.text for message in model.client.requests[1].messages[1:]]
    assert told == ["first?", "One.", "second?"]


async def test_a_small_window_forgets_the_oldest(build: Build) -> None:
    model = Model("A word. " * 400, "Two.", "Three.")
    model.window = 1500
    session, _ = session_with(build, model)
    for question in ("first?", "second?", "third?"):
        await session.run(TurnRequest(text=question, mode="ask"))
    told = [message.text for message in model.client.requests[2].messages[1:]]
    assert told == ["second?", "Two.", "third?"]


async def test_a_wish_for_a_tool_is_told(build: Build, events: list[AgentEvent]) -> None:
    session, _ = session_with(build, Model(ToolCall("1", "run_code", {"code": "1"})))
    turn = await session.run(TurnRequest(text="run it", mode="ask"))
    assert turn.answer
    told = [event.message for event in events if event.category is Category.NOTICE]
    assert any("run_code" in message for message in told)


async def test_the_log_holds_the_answer_once_and_no_pieces(build: Build) -> None:
    session, _ = session_with(build, Model("Yes, it is."))
    await session.run(TurnRequest(text="is it?", mode="ask"))
    records = session.recorder.log.read().records
    assert all(record["category"] != "model.delta" for record in records)
    entry = session.recorder.history.get_recent(1)[0]  # type: ignore[union-attr]
    assert (entry.result_summary, entry.model, entry.priority_used) == (
        "Yes, it is.", "scripted-1", 2,
    )  # fmt: skip
    assert entry.usage.output_tokens == 3


async def test_a_failure_ends_the_turn_with_what_was_spent(build: Build) -> None:
    broken = StreamInterrupted(
        "It broke off.", partial=Message("assistant", (TextPart("Ye"),)), usage=Usage(10, 1)
    )
    session, _ = session_with(build, Model(broken, "Yes."))
    with pytest.raises(ProviderError):
        await session.run(TurnRequest(text="is it?", mode="ask"))
    assert session.last_turn is not None
    assert session.last_turn.usage == Usage(10, 1)
    turn = await session.run(TurnRequest(text="is it?", mode="ask"))
    assert turn.ok


async def test_a_dry_run_asks_nobody(build: Build) -> None:
    model = Model()
    session, _ = session_with(build, model)
    turn = await session.run(TurnRequest(text="is it?", mode="ask", dry_run=True))
    assert turn.status is TurnStatus.PLANNED
    assert turn.answer == "About 2 tokens. Nothing was asked."
    assert model.calls == []


async def test_without_a_model_the_remedy_is_named(build: Build) -> None:
    with pytest.raises(ConfigError, match="no model to ask") as caught:
        await build(FakeExecutor()).run(TurnRequest(text="is it?", mode="ask"))
    assert "-m NAME" in caught.value.next_step
