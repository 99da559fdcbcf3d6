"""What a turn has to do with the sandbox: files, grants, caps, denials, and what is recorded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import anndata
import numpy as np
import pytest
from anndata import AnnData

import ovagent_jupyter as ov
from ovagent_jupyter.agent.turn import TurnRequest
from ovagent_jupyter.config.schema import SandboxFallbackPolicy
from ovagent_jupyter.errors import (
    ConfinementError,
    HandoverError,
    ResourceLimitExceeded,
    SandboxDeniedError,
)
from ovagent_jupyter.events import AgentEvent, Category, Level
from ovagent_jupyter.execution.approval import Approval
from ovagent_jupyter.execution.executor import (
    CodeError,
    ExecutionRequest,
    ExecutionResult,
    ExecutionStatus,
    Isolation,
    LimitHit,
)
from ovagent_jupyter.execution.policy import PolicyExecutor
from ovagent_jupyter.storage.history import SessionHistory
from ovagent_jupyter.testing.fake_executor import FakeExecutor
from tests.agent.conftest import Build

GIB = 1 << 30


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's working folder, with a file of data."""
    place = tmp_path / "user"
    place.mkdir()
    counts().write_h5ad(place / "cells.h5ad")
    monkeypatch.chdir(place)
    return place


def counts() -> AnnData:
    return AnnData(np.random.default_rng(0).poisson(1.0, (60, 30)).astype("float32"))


def request(text: str = "normalise the cells") -> TurnRequest:
    return TurnRequest(text=text, namespace={"adata": counts()})


def of(events: list[AgentEvent], category: Category) -> list[AgentEvent]:
    return [event for event in events if event.category is category]


def logged(directory: Path, category: Category) -> list[dict[str, dict[str, object]]]:
    """The events of a kind in the session's log."""
    lines = (directory / "s1.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["category"] == category]


async def test_a_named_file_is_granted_before_the_child_starts(build: Build, folder: Path) -> None:
    executor = FakeExecutor()
    await build(executor).run(TurnRequest(text="load cells.h5ad"))
    assert executor.granted == {folder / "cells.h5ad"}
    assert executor.calls.index("grant") < executor.calls.index("start")
    assert executor.calls.count("start") == 1


async def test_a_running_child_that_lacks_a_file_is_replaced_and_that_is_said(
    build: Build, folder: Path, events: list[AgentEvent]
) -> None:
    executor = FakeExecutor()
    session = build(executor)
    await session.run(request())
    assert of(events, Category.NOTICE) == []
    await session.run(TurnRequest(text="load cells.h5ad"))
    await session.run(TurnRequest(text="load cells.h5ad"))
    (said,) = of(events, Category.NOTICE)
    assert "cells.h5ad" in said.message
    assert said.level is Level.INFO


async def test_a_saved_file_is_moved_to_its_place_and_told(build: Build, folder: Path) -> None:
    work = folder.parent / "work"
    work.mkdir()

    def write(asked: ExecutionRequest) -> ExecutionResult:
        if "write_h5ad" in asked.code:
            (work / "out.h5ad").write_bytes(b"from the child")
        return ExecutionResult(ExecutionStatus.OK)

    executor = FakeExecutor([write] * 9, work_dir=work)
    turn = await build(executor).run(request("save to out.h5ad"))
    assert turn.files == (folder / "out.h5ad",)
    assert (folder / "out.h5ad").read_bytes() == b"from the child"
    assert f"Written: {folder / 'out.h5ad'}" in turn.answer
    assert turn.effects == (f"writes {folder / 'out.h5ad'}",)
    assert not any("/" in r.code for r in executor.requests if "write_h5ad" in r.code)


@pytest.mark.parametrize("trick", ["link", "nothing"])
async def test_a_file_that_is_not_what_was_asked_for_is_not_fetched(
    build: Build, folder: Path, trick: str
) -> None:
    work = folder.parent / "work"
    work.mkdir()
    if trick == "link":
        (work / "out.h5ad").symlink_to(folder / "cells.h5ad")
    with pytest.raises(HandoverError):
        await build(FakeExecutor(work_dir=work)).run(request("save to out.h5ad"))
    assert not os.path.lexists(folder / "out.h5ad")


@pytest.mark.parametrize(
    ("hit", "words"),
    [
        (LimitHit("memory", 2 * GIB, 3 * GIB), ("3.0 GiB", "2.0 GiB", "policy memory 4G")),
        (LimitHit("cpu_time", 60, 61), ("61 s", "60 s", "policy cpu_time 120")),
        (LimitHit("processes", 64, 80), ("64", "80", "policy processes 128")),
        (LimitHit("disk", 100 << 20, 101 << 20), ("100 MiB", "policy disk 200M")),
        (LimitHit("file_size", GIB, GIB), ("policy file_size 2G", "--file-size 2G")),
        (LimitHit("output", 1 << 20, 2 << 20), ("2 MiB", "print")),
    ],
    ids=lambda value: value.limit if isinstance(value, LimitHit) else "",
)
async def test_a_cap_is_named_with_its_use_and_what_raises_it(
    build: Build, hit: LimitHit, words: tuple[str, ...]
) -> None:
    over = ExecutionResult(ExecutionStatus.LIMIT, error=CodeError("X", "over"), limit=hit)
    executor = FakeExecutor(["", over])
    session = build(executor)
    turn = await session.run(request())
    assert isinstance(turn.error, ResourceLimitExceeded)
    assert (turn.error.limit, turn.error.cap, turn.error.used) == (hit.limit, hit.cap, hit.used)
    for word in (*words, "as it was"):
        assert word in str(turn.error)
    assert (await session.run(request())).ok


async def test_the_time_limit_is_a_cap_too(build: Build) -> None:
    late = ExecutionResult(ExecutionStatus.TIMEOUT, duration=7.5)
    turn = await build(FakeExecutor(["", late])).run(
        TurnRequest(text="normalise", namespace={"adata": counts()}, timeout=7)
    )
    assert isinstance(turn.error, ResourceLimitExceeded)
    assert turn.error.limit == "wall_time"
    assert "--timeout 14" in str(turn.error)


async def test_a_denial_is_an_event_with_its_grant_and_nothing_runs_again(
    build: Build, folder: Path, events: list[AgentEvent], tmp_path: Path
) -> None:
    message = f"[Errno 13] Permission denied: '{folder / 'cells.h5ad'}'"
    refused = ExecutionResult(
        ExecutionStatus.ERROR, error=CodeError("PermissionError", message, ("tb",))
    )
    executor = FakeExecutor(["", refused], isolation=Isolation.CONFINED)
    turn = await build(executor).run(request())
    (event,) = of(events, Category.SANDBOX_DENIED)
    assert event.data["grant"] == f"read {folder / 'cells.h5ad'}"
    assert f"%ovagent policy read {folder / 'cells.h5ad'}" in event.message
    assert len(logged(tmp_path, Category.SANDBOX_DENIED)) == 1
    assert len(turn.steps) == 1
    assert len(executor.requests) == 2
    assert executor.isolation is Isolation.CONFINED


@pytest.mark.parametrize("policy", ["warn", "silent"])
async def test_a_step_down_is_in_the_log_the_history_and_every_turn(
    build: Build, events: list[AgentEvent], tmp_path: Path, policy: str
) -> None:
    missing = ConfinementError("No namespaces.", probe={"userns": "refused"}, why="EPERM")
    weaker = FakeExecutor(isolation=Isolation.CONFINED, protections={"landlock": "enforced"})
    session = build(weaker)
    session.executor = PolicyExecutor(
        [FakeExecutor(start_error=missing, isolation=Isolation.NAMESPACES), weaker],
        policy=SandboxFallbackPolicy(policy),
        floor=Isolation.CONFINED,
        emit=lambda event: session.hear(event),
    )
    for _ in range(2):
        turn = await session.run(request())
        assert turn.sandbox.level == "confined"
        assert turn.sandbox.requested == "namespaces"
        assert bool(turn.sandbox.banner) is (policy == "warn")
    (event,) = of(events, Category.SANDBOX_FALLBACK)
    assert event.session_id == "s1"
    assert [e.seq for e in events if e.correlation_id == event.correlation_id] == sorted(
        {e.seq for e in events if e.correlation_id == event.correlation_id}
    )
    assert len(logged(tmp_path, Category.SANDBOX_FALLBACK)) == 1
    for entry in SessionHistory(tmp_path / "history.jsonl").get_recent(2):
        assert entry.sandbox["requested"] == "namespaces"
        assert entry.sandbox["actual"] == "confined"
        assert "EPERM" in str(entry.sandbox["reason"])
        assert entry.sandbox["probe"] == {"userns": "refused"}


@pytest.mark.parametrize("level", ["process", "in_process"])
async def test_below_the_boundary_of_the_system_every_turn_has_a_banner(
    build: Build, events: list[AgentEvent], level: str
) -> None:
    session = build(FakeExecutor(isolation=Isolation[level.upper()]))
    for _ in range(2):
        turn = await session.run(request())
        assert turn.sandbox.banner.startswith("Not confined")
        assert turn.sandbox.label == f"no sandbox ({level})"
        assert turn.as_record()["sandbox"] == {"level": level}
    ready = of(events, Category.CHILD_READY)
    assert [event.level for event in ready] == [Level.WARNING] * 2


async def test_the_question_names_what_the_code_does_and_is_asked_once(build: Build) -> None:
    asked: list[str] = []

    def ask(question: str) -> bool:
        asked.append(question)
        return len(asked) == 1

    session = build(fake := FakeExecutor())
    session.executor = PolicyExecutor(
        [fake],
        policy=SandboxFallbackPolicy.RAISE,
        floor=Isolation.PROCESS,
        emit=lambda event: session.hear(event),
        approval=Approval("risky", ask),
    )
    assert (await session.run(request())).ok
    (question,) = asked
    assert "'process'" in question
    assert "changes adata.X" in question
    ran = len([cell for cell in fake.requests if not cell.silent])
    with pytest.raises(SandboxDeniedError):
        await session.run(request())
    assert len([cell for cell in fake.requests if not cell.silent]) == ran


LEVELS = {
    "as it is": {},
    "in the user's process": {"sandbox_level": "in_process", "approve": "never"},
}


@pytest.mark.parametrize("settings", LEVELS.values(), ids=LEVELS.keys())
def test_files_are_read_and_written_for_real(
    folder: Path, home: Path, settings: dict[str, str]
) -> None:
    """A file of the same name in the user's folder is never in the way of one for elsewhere."""
    (folder / "results").mkdir()
    (folder / "done.h5ad").write_bytes(b"mine")
    with ov.Agent(**settings) as agent:  # type: ignore[arg-type]  # flat settings
        turn = agent.run("normalise and save to results/done.h5ad", data=counts())
        assert turn.ok, turn.error
        loaded = agent.run("load results/done.h5ad")
        assert loaded.ok, loaded.error
    assert (folder / "done.h5ad").read_bytes() == b"mine"
    written = anndata.read_h5ad(folder / "results" / "done.h5ad")
    assert written.shape == (60, 30)
    assert loaded.data.shape == (60, 30)
    assert {path.name for path in folder.iterdir()} == {"cells.h5ad", "done.h5ad", "results"}
