"""Several children that begin with the data of one, and change it each for itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from anndata import AnnData

from ovagent_jupyter.errors import ChildStartError
from ovagent_jupyter.execution.forks import forked
from ovagent_jupyter.execution.handover import Store
from ovagent_jupyter.execution.launch import LaunchOptions
from ovagent_jupyter.testing.fake_executor import FakeExecutor
from tests.execution.conftest import Kernel

CELLS = 2000


def cells() -> AnnData:
    made = AnnData(np.ones((CELLS, 200), dtype="float32"))
    made.layers["counts"] = np.full((CELLS, 200), 3, dtype="float32")
    return made


async def test_each_fork_begins_with_the_state_of_the_source_and_goes_its_own_way(
    tmp_path: Path,
) -> None:
    store = Store()

    def make() -> Kernel:
        return Kernel(options=LaunchOptions(run_dir=tmp_path / "r"), store=lambda: store)

    source = make()
    await source.start()
    mine = cells()
    other = pd.DataFrame({"a": [1, 2]})
    handed = await source.put({"adata": mine, "df": other})
    assert (await source.run("adata.X[0, 0] = 7\nk = 15")).ok
    other.loc[0, "a"] = 99  # the snapshot was taken before
    async with forked(source, handed, make, 2, names=("k",)) as children:
        before = store.size.memory
        seen = [await child.value("float(adata.X[0, 0]), k, df.a.tolist()") for child in children]
        assert seen == ["(7.0, 15, [1, 2])"] * 2
        for number, child in enumerate(children):
            assert (await child.run(f"adata.X[:] *= {number}\nadata.uns['n'] = {number}")).ok
        for number, child in enumerate(children):
            changed = (await child.changes()).objects["adata"]
            assert isinstance(changed, AnnData)
            assert changed.X[0, 0] == 7 * number
            assert changed.uns["n"] == number
            assert (changed.layers["counts"] == 3).all()
        assert await source.value("float(adata.X[0, 0])") == "7.0"
        # Both hold the same segments: what a second fork needs was not written again.
        assert before < 3 * mine.X.nbytes + 100_000
        pids = [child.pid for child in children]
    assert not any(pid is not None and psutil.pid_exists(pid) for pid in pids)
    assert mine.X[0, 0] == 1
    await source.shutdown()


async def test_what_cannot_start_leaves_no_other_behind() -> None:
    source = FakeExecutor()
    await source.start()
    handed = await source.put({})
    made: list[FakeExecutor] = []

    def make() -> FakeExecutor:
        error = ChildStartError("no room") if made else None
        made.append(FakeExecutor(start_error=error))
        return made[-1]

    with pytest.raises(ChildStartError, match="no room"):
        async with forked(source, handed, make, 3):
            raise AssertionError
    assert not any(executor.alive for executor in made)
