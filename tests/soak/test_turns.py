"""Hundreds of turns with data that crosses the border: as much is held after all as after a few."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from anndata import AnnData
from scipy import sparse

from ovagent_jupyter.agent.recorder import Recorder
from ovagent_jupyter.agent.session import AgentSession
from ovagent_jupyter.agent.turn import TurnRequest
from ovagent_jupyter.config.schema import AgentConfig
from ovagent_jupyter.execution.handover import Store
from ovagent_jupyter.execution.kernel import KernelExecutor
from ovagent_jupyter.execution.launch import LaunchOptions
from ovagent_jupyter.notebook.namespace import Namespace
from ovagent_jupyter.storage.history import SessionHistory
from ovagent_jupyter.storage.redaction import Redactor
from tests.soak.counts import Counts, adopt_orphans, count, more

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

FIRST, ALL = 5, 500
REQUESTS = ("normalise and log transform", "run pca", "QC these cells")
UNDO_MEMORY = 24 << 20
"""Bytes: a few of these turns fill it."""
MEGABYTES = 24
"""How much more memory the process may hold in the end: its allocator and the log's caches."""
RESTARTS = 50
"""Turns between two restarts of the child."""


@dataclass(frozen=True, slots=True)
class Held:
    """What one process holds."""

    counts: Counts
    maps: int
    """Megabytes of private maps of handed-over data."""
    segments: int
    """Megabytes of it that somebody refers to."""
    memory: int
    """Megabytes of the process itself: no pages of files or of shared memory."""

    def table(self, later: Held) -> str:
        """Both, as lines to read."""
        rows = [
            f"{name:12} {getattr(self, name):8} {getattr(later, name):8}"
            for name in ("maps", "segments", "memory")
        ]
        return "\n".join([self.counts.table(later.counts), *rows])


class Work:
    """One session with a user's variables, as a notebook holds them.

    Args:
        folder: Where its files go.
    """

    def __init__(self, folder: Path) -> None:
        self.store = Store()
        self.executor = KernelExecutor(
            options=LaunchOptions(run_dir=folder / "run"), store=lambda: self.store
        )
        self.variables: dict[str, object] = {"adata": cells()}
        self.names = Namespace(self.variables, lambda: self.store, lambda: UNDO_MEMORY)
        redactor = Redactor({})
        history = SessionHistory(folder / "history.jsonl", redactor=redactor)
        recorder = Recorder.at(folder, "s1", redactor, history)
        self.session = AgentSession("s1", AgentConfig(), self.executor, recorder, _unheard)

    async def turn(self, number: int) -> None:
        """One turn, and what users do between two."""
        if number % len(REQUESTS) == 0:
            self.variables["adata"] = cells()
        text = REQUESTS[number % len(REQUESTS)]
        handed = dict(self.variables)
        turn = await self.session.run(TurnRequest(text=text, namespace=handed))
        assert turn.ok, turn.error
        self.names.bind(turn, handed)
        if number % 4 == 1:
            self.names.undo()
            self.names.redo()
        if number % 4 == 2:
            self.names.checkpoint("last")
            adata: Any = self.variables["adata"]
            adata.obsm["X_mine"] = np.zeros((adata.n_obs, 60))
            self.names.restore("last")
        if number % RESTARTS == RESTARTS - 1:
            await self.executor.restart()

    async def held(self, *folders: Path) -> Held:
        """What is held when the user has let go of all results, and nothing can be undone."""
        self.names.memory.back.clear()
        self.names.memory.forward.clear()
        self.names.memory.drop("last")
        self.variables = self.names.variables = {"adata": cells()}
        turn = await self.session.run(TurnRequest(text="run pca", namespace=self.variables))
        assert turn.ok
        self.session.last_turn = None
        del turn
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what is free is not held
        maps = psutil.Process().memory_maps(grouped=False)
        mapped = sum(each.size for each in maps if "memfd:ovagent" in each.path)
        return Held(count(*folders), mapped >> 20, self.store.size.memory >> 20, _own_memory())


def _own_memory() -> int:
    with Path("/proc/self/status").open(encoding="ascii", errors="replace") as file:
        (line,) = (line for line in file if line.startswith("RssAnon:"))
    return int(line.split()[1]) >> 10


def cells() -> AnnData:
    """Counts of made-up cells, other ones each time: 3 MB."""
    random = np.random.default_rng()
    counts = random.poisson(0.4, (1500, 600)).astype("f4")
    made = AnnData(sparse.csr_matrix(counts))
    made.obs_names = [f"cell{number}" for number in range(made.n_obs)]
    made.var_names = [f"gene{number}" for number in range(made.n_vars)]
    return made


def _unheard(_event: object) -> None:
    """Nobody watches."""


@pytest.fixture
async def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Work]:
    """A session whose temporary files are all in one place."""
    adopt_orphans()
    temporary = tmp_path / "temp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    made = Work(tmp_path)
    yield made
    await made.session.close()


async def test_turns_hold_no_more_after_hundreds(work: Work, tmp_path: Path) -> None:
    temporary = tmp_path / "temp"
    for number in range(FIRST):
        await work.turn(number)
    before = await work.held(temporary)
    for number in range(FIRST, ALL):
        await work.turn(number)
    after = await work.held(temporary)
    print(f"\nafter {FIRST} and after {ALL} turns\n{before.table(after)}")
    assert more(before.counts, after.counts) == []
    assert (after.maps, after.segments) == (before.maps, before.segments)
    assert after.memory <= before.memory + MEGABYTES
