"""Hundreds of turns that crash: each ends in words, the next one works, and nothing is left."""

from __future__ import annotations

import asyncio
import random
import re
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData

from ovagent_jupyter.agent.recorder import Recorder
from ovagent_jupyter.agent.session import AgentSession
from ovagent_jupyter.agent.turn import TurnRequest, TurnStatus
from ovagent_jupyter.config.schema import AgentConfig
from ovagent_jupyter.errors import OVAgentError
from ovagent_jupyter.events import TERMINAL, AgentEvent
from ovagent_jupyter.execution.executor import (
    ExecutionRequest,
    ExecutionResult,
    ExecutionStatus,
    Isolation,
    OnOutput,
)
from ovagent_jupyter.execution.kernel import KernelExecutor
from ovagent_jupyter.execution.launch import LaunchOptions
from ovagent_jupyter.storage.history import SessionHistory
from ovagent_jupyter.storage.redaction import Redactor
from tests.soak.counts import adopt_orphans, count, count_settled, more
from tests.soak.crashes import CRASHES, SMALL, Crash

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

TURNS = 200
SESSION_TURNS = 30
LEVELS = (Isolation.NAMESPACES, Isolation.CONFINED)
SEED = 3
DATA = np.arange(100_000.0)


class Sabotaged(KernelExecutor):
    """An executor that runs something else in place of a step's code, when told to."""

    crash: Crash | None = None

    async def execute(
        self, request: ExecutionRequest, on_output: OnOutput | None = None
    ) -> ExecutionResult:
        """Run the crash in place of the next cell that is not ours."""
        if self.crash is not None and not request.silent:
            crash, self.crash = self.crash, None
            request = replace(request, code=crash.code, timeout=crash.timeout)
        return await super().execute(request, on_output)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Folders of this test alone for all that children leave, so that it can be counted."""
    adopt_orphans()
    made = {name: tmp_path / name for name in ("run", "temp")}
    for folder in made.values():
        folder.mkdir(exist_ok=True)
    monkeypatch.setattr(tempfile, "tempdir", str(made["temp"]))
    return made


@pytest.fixture(params=LEVELS, ids=lambda level: level.name.lower())
async def executor(
    request: pytest.FixtureRequest, folders: dict[str, Path]
) -> AsyncIterator[Sabotaged]:
    """An executor with small caps that has run one child, so that all that stays is there."""
    # Threads that wait for work are made one by one, up to a bound; one is enough here.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    options = LaunchOptions(spec=SMALL, run_dir=folders["run"])
    made = Sabotaged(isolation=request.param, options=options, grace=0.5)
    await made.start()
    await made.put({"data": DATA})
    await made.shutdown()
    yield made
    await made.shutdown()


def crashes_of(turns: int) -> list[Crash]:
    """So many crashes: all kinds in random order, then all again."""
    order = random.Random(SEED)
    chosen: list[Crash] = []
    while len(chosen) < turns:
        chosen += order.sample(CRASHES, len(CRASHES))
    return chosen[:turns]


def complaint(crash: Crash, result: ExecutionResult) -> str:
    """What is wrong with how it ended, or nothing."""
    said = f"{result.error.name}: {result.error.message}" if result.error is not None else ""
    if result.status not in crash.ends or not re.search(crash.says, said, re.DOTALL):
        return f"{crash}: {result.status} {said!r}"
    if result.status is not ExecutionStatus.OK and not said:
        return f"{crash}: {result.status} without a word"
    return ""


async def test_turns_that_crash(executor: Sabotaged, folders: dict[str, Path]) -> None:
    before = count(*folders.values())
    endings: Counter[str] = Counter()
    again: Counter[str] = Counter()
    wrong: list[str] = []
    for crash in crashes_of(TURNS):
        await executor.start()
        request = ExecutionRequest(crash.code, timeout=crash.timeout)
        result = await executor.execute(request)
        endings[f"{crash} → {result.status}"] += 1
        wrong += filter(None, [complaint(crash, result)])
        wrong += filter(None, [await _next_turn(executor, again, crash)])
    await executor.shutdown()
    after = await count_settled(before, *folders.values())
    print(f"\n{executor.isolation.name}: {TURNS} turns, {len(CRASHES)} kinds of crash")
    print("\n".join(f"  {number:3} {name}" for name, number in sorted(endings.items())))
    print("next turns that took a restart:", *sorted(again.items()), sep="\n  ")
    print(before.table(after))
    assert not wrong, "\n".join(wrong)
    assert more(before, after) == []


async def _next_turn(executor: Sabotaged, again: Counter[str], crash: Crash) -> str:
    """Go on as a session does: start unless it runs, hand the data over, use it."""
    said = await _use(executor)
    survives = {ExecutionStatus.OK, ExecutionStatus.ERROR} & crash.ends
    if said and survives:
        # What a cell left behind can end or cripple the child after it; a fresh one is well.
        again[f"{crash} → {said}"[:160]] += 1
        await executor.restart()
        said = await _use(executor)
    if survives:
        # Some end their child a while later; that is not to be taken for the next crash.
        await executor.restart()
    return f"{crash}, next turn: {said}" if said else ""


async def _use(executor: Sabotaged) -> str:
    """Hand data over and use it; what went wrong, in the words that a reader gets."""
    try:
        await executor.start()
        await executor.put({"data": DATA})
        result = await executor.execute(ExecutionRequest("print(data.sum())", timeout=60))
    except OVAgentError as error:
        return " ".join(str(error).split())
    if result.error is not None:
        return f"{result.status}: {result.error.name}: {result.error.message}"
    return "" if result.stdout == f"{DATA.sum()}\n" else f"{result.status}: {result.stdout!r}"


async def test_a_session_goes_on_after_crashes(
    executor: Sabotaged, folders: dict[str, Path], tmp_path: Path
) -> None:
    events: list[AgentEvent] = []
    redactor = Redactor({})
    history = SessionHistory(tmp_path / "history.jsonl", redactor=redactor)
    recorder = Recorder.at(tmp_path, "soak", redactor, history)
    session = AgentSession("soak", AgentConfig(), executor, recorder, events.append)
    rng = np.random.default_rng(0)
    adata = AnnData(rng.poisson(1.0, (60, 30)).astype("float32"))
    request = TurnRequest(text="normalise the cells", namespace={"adata": adata})
    await session.run(request)
    await session.executor.shutdown()
    before = count(*folders.values())
    wrong = []
    endings: Counter[str] = Counter()
    for crash in crashes_of(SESSION_TURNS):
        executor.crash = crash
        status, error = await _turn(session, request)
        endings[f"{crash} → {status}: {error}"[:200]] += 1
        if status is not TurnStatus.FINISHED and not error:
            wrong.append(f"{crash}: {status} without a word")
        if ExecutionStatus.OK not in crash.ends and status is not TurnStatus.FAILED:
            wrong.append(f"{crash}: {status}")
        executor.crash = None
        status, error = await _turn(session, request)
        if status is not TurnStatus.FINISHED:
            endings[f"{crash}, next turn → {error}"[:200]] += 1
            await session.restart_child()
            status, error = await _turn(session, request)
        if status is not TurnStatus.FINISHED:
            wrong.append(f"{crash}, next turn: {status} {error}")
    ended = sum(event.category in TERMINAL for event in events)
    await session.close()
    after = await count_settled(before, *folders.values())
    print(f"\n{executor.isolation.name}: {SESSION_TURNS} crashes in a session")
    print("\n".join(f"  {number:3} {name}" for name, number in sorted(endings.items())))
    print(before.table(after))
    assert not wrong, "\n".join(wrong)
    assert ended >= 2 * SESSION_TURNS + 1
    assert more(before, after) == []


async def _turn(session: AgentSession, request: TurnRequest) -> tuple[TurnStatus, str]:
    """Run a turn: how it ended, and what was said of a failure."""
    try:
        turn = await session.run(request)
    except OVAgentError as error:
        return TurnStatus.FAILED, str(error)
    return turn.status, str(turn.error or "")
