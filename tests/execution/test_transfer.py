"""Objects on their way to the child and back, in real processes."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.executor import CodeError, ExecutionResult, ExecutionStatus
from ovagent_jupyter.execution.launch import LaunchOptions
from ovagent_jupyter.execution.transfer import Transfer
from tests.execution.conftest import Kernel

numpy = pytest.importorskip("numpy")
pandas = pytest.importorskip("pandas")


@pytest.fixture
async def kernel(tmp_path: Path) -> AsyncIterator[Kernel]:
    executor = Kernel(options=LaunchOptions(run_dir=tmp_path / "r"))
    await executor.start()
    yield executor
    await executor.shutdown()


def adata() -> Any:
    anndata = pytest.importorskip("anndata")
    return anndata.AnnData(
        numpy.arange(12, dtype="float32").reshape(4, 3),
        obs=pandas.DataFrame({"batch": list("aabb")}, index=list("wxyz")),
        var=pandas.DataFrame(index=["g1", "g2", "g3"]),
    )


async def test_an_anndata_goes_there_and_its_changes_come_back(kernel: Kernel) -> None:
    mine = adata()
    report = await kernel.put({"adata": mine})
    assert report.names == ("adata",)
    code = (
        "adata = adata[adata.obs.batch == 'a'].copy()\nadata.obs['n'] = [1, 2]\ntop = adata.shape"
    )
    assert (await kernel.run(code)).ok
    changes = await kernel.changes(("top",))
    theirs: Any = changes.objects["adata"]
    assert theirs.shape == (2, 3)
    assert list(theirs.obs["n"]) == [1, 2]
    assert "obs/n" in changes.summary()
    assert mine.shape == (4, 3)
    assert "n" not in mine.obs


def wait_until_gone(paths: set[Path]) -> None:
    """Tests that run beside this one use the same place, each for a moment."""
    deadline = time.monotonic() + 20
    while remaining := [path for path in paths if path.exists()]:
        assert time.monotonic() < deadline, remaining
        time.sleep(0.05)


async def test_nothing_is_left_in_the_directories(kernel: Kernel, tmp_path: Path) -> None:
    shared = Path("/dev/shm")
    before = set(shared.glob("ovagent-*/ovagent-*"))
    await kernel.put({"x": numpy.arange(10)})
    left = set(shared.glob("ovagent-*/ovagent-*")) - before
    await kernel.run("x[0] = 5")
    await kernel.changes()
    (run,) = (tmp_path / "r").iterdir()
    assert {path.name for path in run.iterdir() if path.is_dir()} == set()
    root = Path((await kernel.value("__import__('os').environ['HOME']")).strip("'")).parent
    assert {path.name for path in root.iterdir()} == {
        *("home", "tmp", "work", "cache", "exchange"),
        *("lock", "canary", "root"),
    }
    await asyncio.to_thread(wait_until_gone, left)


async def test_a_child_that_dies_loses_what_was_handed_over(kernel: Kernel) -> None:
    await kernel.put({"x": [1]})
    assert (await kernel.run("import os; os._exit(1)")).status is ExecutionStatus.DEAD
    await kernel.start()
    changes = await kernel.changes()
    assert not changes.objects
    assert not changes.diffs


async def test_code_that_breaks_the_child_side_is_told(kernel: Kernel) -> None:
    side = "ovagent_jupyter.execution.handover.child"
    assert (await kernel.run(f"__import__('sys').modules[{side!r}] = None")).ok
    with pytest.raises(HandoverError, match="could not be handed"):
        await kernel.put({"x": 1})
    with pytest.raises(HandoverError, match="could not be fetched"):
        await kernel.changes()


async def test_an_error_of_ours_over_there_is_told_in_its_own_words() -> None:
    text = "The results cannot be written.\nWhy: No space left on device\nNext: Free disk space."

    async def full(_code: str) -> ExecutionResult:
        return ExecutionResult(ExecutionStatus.ERROR, error=CodeError("HandoverError", text))

    with pytest.raises(HandoverError) as refused:
        await Transfer(full).changes((), Path(tempfile.gettempdir()))
    assert refused.value.lines() == [
        "HandoverError: The results could not be fetched from the child.",
        "Why: The results cannot be written. No space left on device",
        "Next: Free disk space.",
    ]


async def test_several_rounds_compare_with_what_was_last_put(kernel: Kernel) -> None:
    await kernel.put({"x": [1]})
    await kernel.run("x.append(2)")
    changed = (await kernel.changes()).objects
    assert changed == {"x": [1, 2]}
    await kernel.put(changed)
    assert not (await kernel.changes()).objects
