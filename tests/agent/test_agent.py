"""The Python API on real counts in the real child kernel."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from anndata import AnnData

import ovagent_jupyter as ov
from ovagent_jupyter.events import TERMINAL, AgentEvent, Category
from tests.omics.cells import counts


@pytest.fixture(scope="module")
def adata() -> AnnData:
    return counts()


@pytest.fixture(scope="module")
def agent() -> Iterator[ov.Agent]:
    with ov.Agent() as made:
        yield made


def children() -> set[int]:
    """Processes below this one."""
    return {process.pid for process in psutil.Process().children(recursive=True)}


def test_a_request_gives_a_turn_with_everything(agent: ov.Agent, adata: AnnData) -> None:
    turn = agent.run("normalise and log transform", data=adata)
    assert turn.status == "finished"
    assert turn.ok
    assert [step.id for step in turn.plan.steps] == ["stash_counts", "normalize", "log1p"]
    assert "sc.pp.log1p" in turn.code
    assert "counts → lognorm" in turn.answer
    assert turn.data is not adata
    assert "log1p" in turn.data.uns
    assert "log1p" not in adata.uns
    assert turn.usage.input_tokens == 0
    assert turn.cost == 0
    assert turn.session_id == agent.session_id
    assert agent.notebook.is_file()


def test_the_code_works_on_a_snapshot_whatever_becomes_of_the_object(adata: AnnData) -> None:
    mine, original = adata.copy(), adata.copy()
    told: list[str] = []

    def change(event: AgentEvent) -> None:
        told.append(event.message)
        if event.category is Category.STEP_STARTED:
            mine.X.data[:] = -1
            mine.obs["mine"] = 1

    with ov.Agent(callback=change) as agent:
        turn = agent.run("normalise and log transform", data=mine)
        expected = agent.run("normalise and log transform", data=original).data
    assert turn.changed_meanwhile == ("adata",)
    assert len([message for message in told if "while the code ran" in message]) == 1
    assert (turn.data.X != expected.X).nnz == 0
    assert (turn.data.layers["counts"] != original.X).nnz == 0
    assert "mine" not in turn.data.obs
    assert (mine.X.data == -1).all()
    handed = turn.before["adata"].restore()
    assert (handed.X != original.X).nnz == 0
    assert "mine" not in handed.obs


def test_plan_runs_nothing(adata: AnnData) -> None:
    plan = ov.plan("umap coloured by leiden", adata)
    assert [step.id for step in plan.steps][-1] == "plot_umap"
    assert "leiden" in plan.code
    with pytest.raises(ov.WorkflowNeedsFallback):
        ov.plan("write a poem", adata)
    with pytest.raises(ov.DataError, match="list"):
        ov.plan("cluster", [1, 2])


def test_data_may_be_a_file_or_several_objects(
    agent: ov.Agent, adata: AnnData, tmp_path: Path
) -> None:
    path = tmp_path / "cells here.h5ad"
    adata.write_h5ad(path)
    assert agent.run("normalise", path).data.shape == adata.shape
    both = {"first": adata, "second": adata[:100].copy()}
    assert agent.run("normalise @second", both).data.n_obs == 100
    with pytest.raises(ov.DataError, match="Which data"):
        agent.run("normalise", both)
    with pytest.raises(ov.DataError, match="None of these"):
        agent.run("normalise", [1, 2])


def test_data_can_be_loaded_by_a_request(agent: ov.Agent) -> None:
    turn = agent.run("load the demo data")
    assert isinstance(turn.data, AnnData)
    assert list(turn.bindings) == ["adata"]


def test_the_data_of_an_earlier_request_does_not_leak_into_the_next(
    agent: ov.Agent, adata: AnnData
) -> None:
    agent.run("normalise", adata)
    turn = agent.run("load the demo data")
    assert turn.diff[0].kind == "added"


def test_settings_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ov.ConfigError, match="timeout"):
        ov.Agent(timeuot=3)
    with pytest.raises(ov.ConfigError, match="name of a model"):
        ov.Agent(model="gpt 5")
    with pytest.raises(ov.ConfigError, match="either config or"):
        ov.Agent(ov.AgentConfig(), timeout=3)


async def test_from_asynchronous_code(agent: ov.Agent, adata: AnnData) -> None:
    turn = await agent.arun("normalise", adata)
    assert turn.ok


async def test_events_stream_as_they_happen(agent: ov.Agent, adata: AnnData) -> None:
    events: list[AgentEvent] = [event async for event in agent.stream("normalise", adata)]
    assert events[0].category is Category.TURN_STARTED
    assert [e.category for e in events if e.category in TERMINAL] == [Category.TURN_FINISHED]
    assert events[-1].data["turn"].ok  # type: ignore[attr-defined]


async def test_cancelling_stops_the_turn_and_the_agent_goes_on(
    agent: ov.Agent, adata: AnnData
) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(agent.arun("cluster and find markers", adata), 0.5)
    assert (await agent.arun("normalise", adata)).ok


def test_a_callback_sees_every_event_and_cannot_break_a_turn(adata: AnnData) -> None:
    seen: list[AgentEvent] = []

    def callback(event: AgentEvent) -> None:
        seen.append(event)
        raise ValueError("a listener's bug")

    with ov.Agent(callback=callback) as agent:
        assert agent.run("normalise", adata).ok
    assert [event.seq for event in seen] == list(range(len(seen)))


def test_closing_ends_the_child_and_a_forgotten_agent_leaves_none(adata: AnnData) -> None:
    before = children()
    agent = ov.Agent()
    agent.run("normalise", adata)
    assert children() - before
    agent.close()
    agent.close()
    assert children() == before


def test_a_program_that_ends_without_closing_leaves_no_child(tmp_path: Path) -> None:
    program = """
        import psutil
        import ovagent_jupyter as ov
        agent = ov.Agent()
        agent.run("load the demo data")
        print([p.pid for p in psutil.Process().children(recursive=True)])
    """
    env = {**os.environ, "OVAGENT_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=env, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    pids = [int(word) for word in done.stdout.strip("[]\n ").split(",")]
    assert pids
    assert "Traceback" not in done.stderr
    assert not any(psutil.pid_exists(pid) for pid in pids)
