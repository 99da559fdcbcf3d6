"""A session's turns: how each ends, what is recorded, and that exactly one event ends it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
from anndata import AnnData

from ovagent_jupyter.agent.turn import TurnRequest, TurnStatus
from ovagent_jupyter.config.schema import AgentConfig, ExecutionConfig
from ovagent_jupyter.errors import ChildStartError, DataError, WorkflowNeedsFallback
from ovagent_jupyter.events import TERMINAL, AgentEvent, Category, Level
from ovagent_jupyter.execution.executor import CodeError, ExecutionResult, ExecutionStatus
from ovagent_jupyter.execution.handover import (
    Changes,
    HandoverReport,
    ObjectDiff,
    SlotChange,
    Store,
)
from ovagent_jupyter.storage.history import SessionHistory
from ovagent_jupyter.testing.fake_executor import FakeExecutor
from tests.agent.conftest import Build


def counts() -> AnnData:
    """A small AnnData of counts."""
    rng = np.random.default_rng(0)
    return AnnData(rng.poisson(1.0, (60, 30)).astype("float32"))


def code_fails(name: str = "ValueError", message: str = "no such gene") -> ExecutionResult:
    return ExecutionResult(ExecutionStatus.ERROR, error=CodeError(name, message, ("tb",)))


def request(text: str = "normalise the cells", **more: object) -> TurnRequest:
    return TurnRequest(text=text, namespace={"adata": counts()}, **more)  # type: ignore[arg-type]


def everything_in(directory: Path) -> str:
    """The text of all files."""
    return "".join(path.read_text() for path in directory.iterdir())


def terminal_events(events: list[AgentEvent]) -> list[Category]:
    return [event.category for event in events if event.category in TERMINAL]


async def test_a_turn_runs_every_step_and_binds_what_changed(
    build: Build, events: list[AgentEvent], tmp_path: Path
) -> None:
    new = counts()
    diff = ObjectDiff("adata", "changed", (SlotChange("obs/x", "added", "3 levels"),))
    executor = FakeExecutor(changes=Changes({"adata": new}, (diff,)))
    turn = await build(executor).run(request())
    assert turn.status is TurnStatus.FINISHED
    assert turn.bindings == {"adata": new}
    assert turn.data is new
    assert [step.id for step in turn.steps] == [step.id for step in turn.plan.steps]
    assert "obs/x (3 levels)" in turn.answer
    assert terminal_events(events) == [Category.TURN_FINISHED]
    assert events[-1].category is Category.TURN_FINISHED
    assert [event.seq for event in events] == list(range(len(events)))


async def test_a_step_that_fails_is_a_result_and_stops_the_turn(
    build: Build, events: list[AgentEvent]
) -> None:
    executor = FakeExecutor(["", code_fails()])
    turn = await build(executor).run(request())
    assert turn.status is TurnStatus.FAILED
    assert turn.bindings == {}
    assert len(turn.steps) == 1
    assert "no such gene" in str(turn.error)
    assert turn.code_error.traceback == ("tb",)
    assert "changes" not in executor.calls
    assert terminal_events(events) == [Category.TURN_FAILED]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (ExecutionStatus.TIMEOUT, "longer than its time limit"),
        (ExecutionStatus.DEAD, "ended the child kernel"),
        (ExecutionStatus.INTERRUPTED, "interrupted"),
    ],
)
async def test_every_bad_end_is_said_in_words(
    build: Build, status: ExecutionStatus, said: str
) -> None:
    executor = FakeExecutor(["", ExecutionResult(status, error=CodeError("X", "SIGKILL"))])
    turn = await build(executor).run(request())
    assert turn.status is TurnStatus.FAILED
    assert said in str(turn.error)
    assert "as it was" in str(turn.error)


async def test_what_the_planner_cannot_do_runs_nothing(
    build: Build, events: list[AgentEvent]
) -> None:
    executor = FakeExecutor()
    with pytest.raises(WorkflowNeedsFallback):
        await build(executor).run(request("write a poem"))
    assert executor.calls == []
    assert terminal_events(events) == [Category.TURN_FAILED]


async def test_a_child_that_cannot_start_ends_the_turn_once(
    build: Build, events: list[AgentEvent]
) -> None:
    executor = FakeExecutor(start_error=ChildStartError("no sockets"))
    with pytest.raises(ChildStartError):
        await build(executor).run(request())
    assert terminal_events(events) == [Category.TURN_FAILED]


async def test_a_fault_of_ours_also_ends_the_turn_once(
    build: Build, events: list[AgentEvent]
) -> None:
    def fault(_request: object) -> ExecutionResult:
        raise RuntimeError("bug")

    with pytest.raises(RuntimeError):
        await build(FakeExecutor([fault])).run(request())
    assert terminal_events(events) == [Category.TURN_FAILED]


async def test_cancelling_is_recorded_as_an_interrupt(
    build: Build, events: list[AgentEvent], tmp_path: Path
) -> None:
    class Slow(FakeExecutor):
        async def put(self, objects):  # type: ignore[no-untyped-def]
            await asyncio.sleep(30)

    session = build(Slow())
    work = asyncio.create_task(session.run(request()))
    await asyncio.sleep(0.3)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert terminal_events(events) == [Category.TURN_FAILED]
    entry = SessionHistory(tmp_path / "history.jsonl").get_recent(1)[0]
    assert not entry.success
    assert "Stopped" in entry.result_summary


class Saving(FakeExecutor):
    """Keeps what is handed over, as a child's executor does."""

    async def put(self, objects: Mapping[str, object]) -> HandoverReport:
        report = await super().put(objects)
        return replace(report, saved=Store().save(objects))


async def test_a_turn_keeps_what_was_handed_over_as_it_was(build: Build, tmp_path: Path) -> None:
    asked = request()
    given = asked.namespace["adata"]
    values = given.X.copy()
    session = build(Saving())
    turn = await session.run(asked)
    given.X[:] = 0
    assert np.array_equal(turn.before["adata"].restore().X, values)
    assert "before" not in turn.as_record()
    assert "Saved" not in repr(turn) + everything_in(tmp_path)


async def test_what_the_user_changed_meanwhile_is_told_once(
    build: Build, events: list[AgentEvent]
) -> None:
    diff = ObjectDiff("adata", "changed", (SlotChange("obs/x", "added"),))
    changes = Changes({"adata": counts()}, (diff,), changed_meanwhile=("adata", "other"))
    turn = await build(FakeExecutor(changes=changes)).run(request())
    assert turn.changed_meanwhile == ("adata", "other")
    told = [event for event in events if "while the code ran" in event.message]
    assert [event.level for event in told] == [Level.WARNING]
    assert "adata" in told[0].message


async def test_plan_mode_touches_no_executor(build: Build) -> None:
    executor = FakeExecutor()
    turn = await build(executor).run(request(mode="plan"))
    assert turn.status is TurnStatus.PLANNED
    assert executor.calls == []


async def test_the_child_is_replaced_after_max_prompts(build: Build) -> None:
    executor = FakeExecutor()
    config = AgentConfig(execution=ExecutionConfig(max_prompts=2))
    session = build(executor, config)
    for _ in range(3):
        await session.run(request())
    assert executor.calls.count("restart") == 1


async def test_the_time_limit_of_the_settings_reaches_every_cell(build: Build) -> None:
    executor = FakeExecutor()
    config = AgentConfig(execution=ExecutionConfig(timeout=7))
    await build(executor, config).run(request())
    assert {r.timeout for r in executor.requests} == {7}
    executor.requests.clear()
    await build(executor, config).run(request(timeout=3.0))
    assert {r.timeout for r in executor.requests} == {3.0}


async def test_everything_is_kept_and_no_secret_with_it(build: Build, tmp_path: Path) -> None:
    failing = code_fails(message="the key is planted-secret-value")
    turn = await build(FakeExecutor(["", failing])).run(request())
    records = [json.loads(line) for line in (tmp_path / "s1.jsonl").read_text().splitlines()]
    assert records[-1]["category"] == "turn.failed"
    assert {record["correlation_id"] for record in records} == {turn.turn_id}
    held = nbformat.read(tmp_path / "s1.ipynb", as_version=4)
    nbformat.validate(held)
    assert any(
        output.output_type == "error" for cell in held.cells for output in cell.get("outputs", [])
    )
    assert "planted-secret-value" not in everything_in(tmp_path)


async def test_files_that_cannot_be_written_are_told_once_and_stop_nothing(
    build: Build, events: list[AgentEvent], tmp_path: Path
) -> None:
    executor = FakeExecutor()
    session = build(executor)
    for name in ("s1.jsonl", "s1.ipynb", "history.jsonl"):
        (tmp_path / name).mkdir()
    for _ in range(2):
        turn = await session.run(request())
        assert turn.status is TurnStatus.FINISHED
    notices = [e for e in events if e.category is Category.NOTICE and e.level is Level.WARNING]
    assert len(notices) == 3
    assert all("goes on" in notice.message for notice in notices)


async def test_data_that_is_not_there_is_asked_for(build: Build) -> None:
    session = build(FakeExecutor())
    several = TurnRequest(text="normalise", namespace={"a": counts(), "b": counts()})
    with pytest.raises(DataError, match="Which data"):
        await session.run(several)
    alias = counts()
    same = TurnRequest(text="normalise", namespace={"a": alias, "also_a": alias})
    assert (await session.run(same)).ok
