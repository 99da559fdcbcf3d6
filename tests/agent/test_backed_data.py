"""A turn on an AnnData that stays in its file: the file is granted, and loaded where code runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest
from anndata import AnnData

from ovagent_jupyter.agent.prepare import files_behind, in_memory, with_files
from ovagent_jupyter.agent.turn import TurnRequest, TurnStatus
from ovagent_jupyter.config.sandbox import SandboxSpec
from ovagent_jupyter.events import AgentEvent
from ovagent_jupyter.execution.launch import LaunchOptions
from ovagent_jupyter.omics import describe, plan
from ovagent_jupyter.testing.fake_executor import FakeExecutor
from tests.agent.conftest import Build
from tests.execution.conftest import Kernel


@pytest.fixture
def backed(tmp_path: Path) -> AnnData:
    """Counts in a file."""
    path = tmp_path / "cells.h5ad"
    AnnData(np.random.default_rng(0).poisson(1.0, (60, 30)).astype("float32")).write_h5ad(path)
    return anndata.read_h5ad(path, backed="r")


def test_the_plan_loads_it_first(backed: AnnData) -> None:
    made = plan("normalise the cells", describe(backed, "adata"), name="adata")
    prepared = with_files(made, Path.cwd())
    loading = in_memory(prepared, {"adata": backed}).plan
    assert loading.steps[0].code.startswith("adata = adata.to_memory()")
    assert loading.steps[0].code.endswith(made.steps[0].code)
    assert loading.steps[1:] == made.steps[1:]
    for other in (backed[:5], backed.to_memory(), None):
        assert in_memory(prepared, {"adata": other}) is prepared
    empty = replace(prepared, plan=replace(made, steps=()))
    assert in_memory(empty, {"adata": backed}) is empty


def test_its_file_is_to_be_granted(backed: AnnData, tmp_path: Path) -> None:
    assert files_behind({"adata": backed, "n": 5}) == (tmp_path / "cells.h5ad",)
    assert files_behind({"adata": backed.to_memory()}) == ()


async def test_the_session_grants_it(backed: AnnData, build: Build, tmp_path: Path) -> None:
    executor = FakeExecutor()
    session = build(executor)
    await session.run(TurnRequest(text="normalise the cells", namespace={"adata": backed}))
    assert session.named == (tmp_path / "cells.h5ad",)


async def test_a_turn_on_it(backed: AnnData, build: Build, events: list[AgentEvent]) -> None:
    executor = Kernel(options=LaunchOptions(spec=SandboxSpec()))
    session = build(executor)
    try:
        request = TurnRequest(text="normalise the cells", namespace={"adata": backed})
        turn = await session.run(request)
        assert turn.status is TurnStatus.FINISHED, turn.error
        assert not turn.data.isbacked  # type: ignore[union-attr]
        assert any("the changed one is in memory" in event.message for event in events)
        request = TurnRequest(text="compute the qc metrics", namespace={"adata": backed})
        turn = await session.run(request)
        assert turn.status is TurnStatus.FINISHED, turn.error
        assert turn.data.isbacked  # type: ignore[union-attr]
        assert "total_counts" in turn.data.obs  # type: ignore[union-attr]
    finally:
        await session.close()
