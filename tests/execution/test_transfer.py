"""Objects on their way to the child and back, in real processes."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ovagent_jupyter.config.sandbox import SandboxSpec
from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.executor import (
    CodeError,
    ExecutionResult,
    ExecutionStatus,
    Isolation,
)
from ovagent_jupyter.execution.handover.exchange import Exchange
from ovagent_jupyter.execution.launch import LaunchOptions
from ovagent_jupyter.execution.transfer import RECEIVE, SEND, OtherSide, Transfer
from tests.execution.conftest import Kernel

numpy = pytest.importorskip("numpy")
sealed = pytest.importorskip("ovagent_jupyter.execution.handover.sealed")
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


async def test_nothing_is_left_in_the_directories(kernel: Kernel, tmp_path: Path) -> None:
    await kernel.put({"x": numpy.arange(100_000)})
    await kernel.run("x[0] = 5")
    await kernel.changes()
    (run,) = (tmp_path / "r").iterdir()
    assert {path.name for path in run.iterdir() if path.is_dir()} == set()
    root = Path((await kernel.value("__import__('os').environ['HOME']")).strip("'")).parent
    assert {path.name for path in root.iterdir()} == {
        *("home", "tmp", "work", "cache", "exchange"),
        *("lock", "canary", "root"),
    }
    assert list((root / "exchange").iterdir()) == []


def opened() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_rounds_leave_nothing_open(kernel: Kernel) -> None:
    mine = adata()
    mine.obsm["large"] = numpy.random.default_rng(0).normal(size=(4, 50_000))
    counts: list[tuple[int, str]] = []
    for number in range(6):
        await kernel.put({"adata": mine})
        await kernel.run(f"adata.obsm['large'][0, 0] = {number}; adata.obs['n'] = {number}")
        mine = (await kernel.changes()).objects["adata"]
        gc.collect()
        theirs = await kernel.value("len(__import__('os').listdir('/proc/self/fd'))")
        counts.append((opened(), theirs))
    assert counts[-1] == counts[1]


async def test_what_the_child_has_is_not_sent_again(kernel: Kernel) -> None:
    mine = adata()
    mine.obsm["large"] = numpy.ones((4, 500_000))
    first = await kernel.put({"adata": mine})
    assert first.size > mine.obsm["large"].nbytes
    assert (await kernel.put({"adata": mine})).size == 0
    assert first.saved["adata"].restore().obsm["large"].sum() == 2_000_000  # type: ignore[attr-defined]
    assert mine.obsm["large"].base is not None, "it was adopted"
    mine.obsm["large"][0, 0] = 7
    assert (await kernel.put({"adata": mine})).size > mine.obsm["large"].nbytes
    assert await kernel.value("float(adata.obsm['large'][0, 0])") == "7.0"
    await kernel.restart()
    assert (await kernel.put({"adata": mine})).size == 0
    assert await kernel.value("float(adata.obsm['large'].sum())") == "2000006.0"


async def test_a_failed_hand_over_does_not_spoil_the_next(kernel: Kernel) -> None:
    large = numpy.arange(100_000)
    await kernel.put({"x": large})
    hide = f"import sys; kept = sys.modules.pop({RECEIVE!r}); sys.modules[{RECEIVE!r}] = None"
    assert (await kernel.run(hide)).ok
    with pytest.raises(HandoverError, match="could not be handed"):
        await kernel.put({"x": large, "y": numpy.ones(100_000)})
    assert (await kernel.run(f"sys.modules[{RECEIVE!r}] = kept")).ok
    await kernel.put({"x": large, "z": numpy.zeros(100_000)})
    assert await kernel.value("int(x.sum()), float(z.sum())") == f"({large.sum()}, 0.0)"


CLOSE_PAIRS = """
import os, socket
for number in range(3, 200):
    try:
        with socket.socket(fileno=os.dup(number)) as end:
            nameless = not end.getsockname() and not end.getpeername()
    except OSError:
        continue
    if nameless:
        os.close(number)
"""


async def test_a_child_that_closed_its_end_is_told(kernel: Kernel) -> None:
    await kernel.put({"x": 1})
    assert (await kernel.run(CLOSE_PAIRS)).ok
    with pytest.raises(HandoverError) as refused:
        await kernel.put({"x": 1})
    assert "restart" in " ".join(refused.value.lines())
    await kernel.restart()
    await kernel.put({"x": 1})


async def test_a_child_that_dies_loses_what_was_handed_over(kernel: Kernel) -> None:
    await kernel.put({"x": [1]})
    assert (await kernel.run("import os; os._exit(1)")).status is ExecutionStatus.DEAD
    await kernel.start()
    changes = await kernel.changes()
    assert not changes.objects
    assert not changes.diffs


async def test_code_that_breaks_the_child_side_is_told(kernel: Kernel) -> None:
    for side in (RECEIVE, SEND):
        assert (await kernel.run(f"__import__('sys').modules[{side!r}] = None")).ok
    with pytest.raises(HandoverError, match="could not be handed"):
        await kernel.put({"x": 1})
    with pytest.raises(HandoverError, match="could not be fetched"):
        await kernel.changes()


async def test_an_error_of_ours_over_there_is_told_in_its_own_words() -> None:
    text = "The results cannot be written.\nWhy: No space left on device\nNext: Free disk space."

    async def full(_code: str) -> ExecutionResult:
        return ExecutionResult(ExecutionStatus.ERROR, error=CodeError("HandoverError", text))

    exchange = Exchange()
    try:
        with pytest.raises(HandoverError) as refused:
            await Transfer(full).changes((), OtherSide(exchange, Path(tempfile.gettempdir())))
    finally:
        exchange.close()
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


async def test_what_is_handed_over_is_not_the_childs_memory(tmp_path: Path) -> None:
    spec = SandboxSpec(memory=512 << 20)
    kernel = Kernel(options=LaunchOptions(run_dir=tmp_path / "r", spec=spec))
    await kernel.start()
    try:
        held = {f"x{number}": numpy.zeros(75 << 20, numpy.uint8) + number for number in range(4)}
        await kernel.put(held)
        use = "import time\nx = b'1' * (140 << 20)\ntime.sleep(2)\ndel x"
        assert (await kernel.run(use)).ok
        del held
        await kernel.put({"n": 1})
        # The child keeps what the parent has let go: it is the child's own from now on.
        assert (await kernel.run(use)).status is ExecutionStatus.LIMIT
    finally:
        await kernel.shutdown()


CHANGE_IT = """
import os, stat

def attempt(deed):
    try:
        deed()
    except OSError:
        return
    won.append(deed)

def again(number, how):
    descriptor = os.open(f"/proc/self/fd/{number}", how)
    os.pwrite(descriptor, b"x", 0)

won = []
for number in range(3, 300):
    try:
        about = os.fstat(number)
    except OSError:
        continue
    if stat.S_ISREG(about.st_mode) and about.st_nlink == 0 and about.st_size > 700_000:
        seen = True
        attempt(lambda: again(number, os.O_RDWR))
        attempt(lambda: again(number, os.O_WRONLY))
        attempt(lambda: os.open(f"/proc/self/fd/{number}", os.O_RDONLY | os.O_TRUNC))
        attempt(lambda: os.pwrite(number, b"x", 0))
        attempt(lambda: os.ftruncate(number, 0))
        attempt(lambda: os.posix_fallocate(number, 0, 2 * about.st_size))
mine = os.memfd_create("mine")
# It would not be counted as the child's memory.
attempt(lambda: os.fchmod(mine, 0o4600))
"""


@pytest.mark.parametrize("level", [Isolation.NAMESPACES, Isolation.CONFINED])
@pytest.mark.parametrize("place", ["memory", "disk"])
async def test_a_child_cannot_change_what_it_was_given(
    level: Isolation, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "disk":
        monkeypatch.setattr(sealed, "available", lambda: 0)
    kernel = Kernel(isolation=level)
    await kernel.start()
    try:
        report = await kernel.put({"x": numpy.arange(100_000)})
        assert (report.on_disk > 800_000) == (place == "disk")
        assert (await kernel.run(CHANGE_IT)).ok
        assert await kernel.value("won, seen, int(x[9])") == "([], True, 9)"
        await kernel.run("x[9] = 0")
        changes = await kernel.changes()
        assert changes.objects["x"][9] == 0  # type: ignore[index]
        assert report.saved["x"].restore()[9] == 9  # type: ignore[index]
    finally:
        await kernel.shutdown()
