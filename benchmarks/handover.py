"""An AnnData to the child and back: ours beside h5ad, pickles, and a bare copy of the bytes."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import mmap
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure, seconds
from benchmarks.other_ways import ByFile, ByPickle, Other, Worker, footprint
from benchmarks.page import put
from ovagent_jupyter.execution.executor import ExecutionRequest
from ovagent_jupyter.execution.handover import Store
from ovagent_jupyter.execution.kernel import KernelExecutor

SIZES = {0.1: 5, 0.5: 3, 2.0: 3}
"""GB of the object → how often each is measured."""
TURNS = 5
"""Unchanged turns in each round: they are over so soon that a busy moment spoils one."""
GENES = 20_000
STORED = 2_000
"""Values that are not zero, in each cell."""
SMALL = "adata.obs['label'] = adata.obs['batch']; adata.obsm['X_new'] = adata.obsm['X_pca'] + 1"
LARGE = "adata.X.data *= 2"
READING = "for m in (adata.X, adata.layers['counts']): m.data.sum(), m.indices.sum()"

FIRST, UNCHANGED = "first hand-over", "a turn on unchanged data"
READ = "a turn on unchanged data that both sides have read"
LITTLE, MUCH = "a small change back", "all of X.data back"
LITTLE_READ = "a small change back, both sides have read all"
EXTRA = "peak extra memory of the first, GB"
CHECKPOINT, UNDO = "checkpoint, little changed", "undo"
OURS, TMPFS, DISK, PICKLE, COPY = (
    "ours", "h5ad on tmpfs", "h5ad on disk", "cloudpickle over ZMQ", "one copy of the bytes",
)  # fmt: skip


@dataclass(slots=True)
class Table:
    """What was measured of one size: row → way → values."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, row: str, way: str, value: float) -> None:
        """Take one value in."""
        self.values.setdefault(row, {}).setdefault(way, []).append(value)

    def median(self, row: str, way: str) -> float:
        """The median of one field."""
        return statistics.median(self.values[row][way])


def measure() -> Iterator[Figure]:
    """Wall time, in this process and the child together."""
    tables: dict[float, Table] = {}
    with Worker() as worker:
        for size, rounds in SIZES.items():
            table = tables[size] = Table()
            adata = make(size)
            for _ in range(rounds):
                _others(table, adata, worker)
                asyncio.run(_ours(table, adata))
            yield from _figures(size, table)
            del adata
            gc.collect()
    write_page(tables)


def _figures(size: float, table: Table) -> Iterator[Figure]:
    def faster(row: str, way: str, target: str = "") -> Figure:
        ratio = table.median(row, way) / table.median(row, OURS)
        return Figure(f"{row}, {size:g} GB", ratio, "× faster", way, target if size > 1 else "")

    copied = table.median(FIRST, OURS) / table.median(FIRST, COPY)
    yield Figure(f"{FIRST}, {size:g} GB", copied, "×", COPY, "≤ 1×" if size > 1 else "")
    yield faster(FIRST, TMPFS, "≥ 2×")
    yield faster(FIRST, DISK, "≥ 5×")
    yield faster(FIRST, PICKLE)
    milliseconds = table.median(UNCHANGED, OURS) * 1000
    yield Figure(f"{UNCHANGED}, {size:g} GB", milliseconds, "ms", "wall clock", "≤ 15 ms")
    yield faster(UNCHANGED, TMPFS, "≥ 100×")
    milliseconds = table.median(READ, OURS) * 1000
    yield Figure(f"{READ}, {size:g} GB", milliseconds, "ms", "wall clock")
    milliseconds = table.median(LITTLE, OURS) * 1000
    yield Figure(f"{LITTLE}, {size:g} GB", milliseconds, "ms", "wall clock", "≤ 30 ms")
    yield faster(LITTLE, TMPFS, "≥ 50×")
    milliseconds = table.median(LITTLE_READ, OURS) * 1000
    yield Figure(f"{LITTLE_READ}, {size:g} GB", milliseconds, "ms", "wall clock")
    yield faster(MUCH, TMPFS)
    milliseconds = table.median(CHECKPOINT, OURS) * 1000
    yield Figure(f"{CHECKPOINT}, {size:g} GB", milliseconds, "ms", "wall clock", "≤ 20 ms")
    ratio = table.median(CHECKPOINT, OURS) / table.median(CHECKPOINT, "adata.copy()")
    yield Figure(f"{CHECKPOINT}, {size:g} GB", ratio, "×", "adata.copy()", "≤ 0.05×")
    milliseconds = table.median(UNDO, OURS) * 1000
    yield Figure(f"{UNDO}, {size:g} GB", milliseconds, "ms", "wall clock", "≤ 50 ms")


def make(size: float) -> Any:
    """An AnnData of so many GB: counts, their logarithm, two embeddings, a few columns."""
    import numpy as np
    import pandas as pd
    from anndata import AnnData
    from scipy import sparse

    # Two matrices of 4 bytes a value and 4 an index.
    cells = int(size * 1e9 / (STORED * 16))
    chance = np.random.default_rng(0)
    step = GENES // STORED
    columns = chance.integers(0, step, (cells, STORED), "i4")
    columns += np.arange(0, GENES, step, dtype="i4")
    pointers = np.arange(0, cells * STORED + 1, STORED, dtype="i4")
    values = chance.integers(1, 100, cells * STORED).astype("f4")
    shape = (cells, GENES)
    counts = sparse.csr_matrix((values, columns.reshape(-1), pointers), shape, copy=False)
    logarithm = sparse.csr_matrix((np.log1p(values), counts.indices.copy(), pointers.copy()), shape)
    batch = pd.Categorical(chance.choice(["a", "b", "c"], cells))
    obs = pd.DataFrame(
        {"batch": batch, "total": chance.random(cells)}, index=[f"cell-{n}" for n in range(cells)]
    )
    adata = AnnData(logarithm, obs, pd.DataFrame(index=[f"gene-{n}" for n in range(GENES)]))
    adata.layers["counts"] = counts
    adata.obsm["X_pca"] = chance.random((cells, 30), "f4")
    adata.obsm["X_umap"] = chance.random((cells, 2), "f4")
    return adata


def buffers(adata: Any) -> list[Any]:
    """Its large arrays."""
    matrices = (adata.X, adata.layers["counts"])
    parts = [part for each in matrices for part in (each.data, each.indices, each.indptr)]
    return [*parts, *adata.obsm.values()]


def _copies(parts: list[Any]) -> list[Any]:
    """The bytes on pages that were never touched before."""
    import numpy as np

    made = [np.frombuffer(mmap.mmap(-1, part.nbytes), part.dtype) for part in parts]
    for copy, part in zip(made, parts, strict=True):
        copy[:] = part.reshape(-1)
    return made


def _others(table: Table, adata: Any, worker: Worker) -> None:
    table.add(FIRST, COPY, seconds(lambda: _copies(buffers(adata))))
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as shared,
        tempfile.TemporaryDirectory() as disk,
        tempfile.TemporaryDirectory() as sockets,
    ):
        for way, folder, tmpfs in ((TMPFS, shared, (Path(shared),)), (DISK, disk, ())):
            _one_other(table, adata, way, ByFile(worker, Path(folder)), (worker, tmpfs))
            (Path(folder) / "adata.h5ad").unlink()
        pickles = ByPickle(worker, Path(sockets))
        _one_other(table, adata, PICKLE, pickles, (worker, ()))
        pickles.close()


def _one_other(
    table: Table, adata: Any, way: str, other: Other, takes: tuple[Worker, tuple[Path, ...]]
) -> None:
    worker, folders = takes
    worker.forget()
    with Peak(lambda: footprint((os.getpid(), worker.pid), *folders)) as peak:
        there = seconds(lambda: other.there(adata))
    table.add(FIRST, way, there)
    table.add(EXTRA, way, peak.extra / 1e9)
    back = seconds(other.back)
    # Whatever changed, all of it goes there and all of it comes back.
    table.add(UNCHANGED, way, there + back)
    table.add(READ, way, there + back)
    table.add(LITTLE, way, back)
    table.add(LITTLE_READ, way, back)
    table.add(MUCH, way, back)


async def _ours(table: Table, model: Any) -> None:
    store = Store()
    executor = KernelExecutor(store=lambda: store)
    await executor.start()
    try:
        await executor.put({"small": model[:10].copy()})
        await executor.changes()
        gc.collect()
        adata = model.copy()
        pids = (os.getpid(), executor.pid or 0)
        with Peak(lambda: footprint(pids)) as peak:
            table.add(FIRST, OURS, await _timed(executor.put({"adata": adata})))
        table.add(EXTRA, OURS, peak.extra / 1e9)
        await executor.put({"adata": adata})
        for _ in range(TURNS):
            table.add(UNCHANGED, OURS, await _timed(_turn(executor, adata)))
        await _run(executor, SMALL)
        table.add(LITTLE, OURS, await _timed(executor.changes()))
        await executor.put({"adata": adata})
        # A page that was read has to be looked up; one that was not is passed over.
        [part.sum() for part in buffers(adata)]
        await _run(executor, READING)
        for _ in range(TURNS):
            table.add(READ, OURS, await _timed(_turn(executor, adata)))
        await _changed(table, executor, store, adata)
    finally:
        await executor.shutdown()


async def _turn(executor: KernelExecutor, adata: Any) -> None:
    await executor.put({"adata": adata})
    changes = await executor.changes()
    assert not changes.objects


async def _changed(table: Table, executor: KernelExecutor, store: Store, adata: Any) -> None:
    await _run(executor, SMALL)
    began = time.perf_counter()
    new: Any = (await executor.changes()).objects["adata"]
    table.add(LITTLE_READ, OURS, time.perf_counter() - began)
    assert list(new.obs["label"]) == list(adata.obs["batch"])
    before = store.save({"adata": adata})["adata"]
    table.add(CHECKPOINT, OURS, seconds(lambda: store.save({"adata": new})))
    table.add(CHECKPOINT, "adata.copy()", seconds(new.copy))
    table.add(UNDO, OURS, seconds(before.restore))
    await executor.put({"adata": new})
    await _run(executor, LARGE)
    began = time.perf_counter()
    newer: Any = (await executor.changes()).objects["adata"]
    table.add(MUCH, OURS, time.perf_counter() - began)
    assert newer.X.data[-1] == 2 * new.X.data[-1]


async def _timed(action: Any) -> float:
    began = time.perf_counter()
    await action
    return time.perf_counter() - began


async def _run(executor: KernelExecutor, code: str) -> None:
    result = await executor.execute(ExecutionRequest(code))
    assert result.ok, result.error


class Peak:
    """The most memory that was taken while something ran, beyond what was taken before.

    Args:
        taken: Bytes that are taken now.
    """

    def __init__(self, taken: Callable[[], int]) -> None:
        self._taken = taken
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.extra = 0

    def __enter__(self) -> Peak:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not hide what is taken
        self._before = self._taken()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        last = False
        while not last:
            last = self._over.wait(0.02)
            self.extra = max(self.extra, self._taken() - self._before)


def write_page(tables: dict[float, Table]) -> None:
    """Put the table where readers find it."""
    lines: list[str] = []
    ways = (OURS, TMPFS, DISK, PICKLE, COPY, "adata.copy()")
    for row in (FIRST, UNCHANGED, READ, LITTLE, LITTLE_READ, MUCH, EXTRA, CHECKPOINT, UNDO):
        lines += [f"**{row[0].upper()}{row[1:]}**", ""]
        lines += ["| way | " + " | ".join(f"{size:g} GB" for size in tables) + " |"]
        lines += ["|---|" + "---|" * len(tables)]
        for way in ways:
            if way in next(iter(tables.values())).values[row]:
                cells = [_cell(table, row, way) for table in tables.values()]
                lines.append(f"| {way} | {' | '.join(cells)} |")
        lines.append("")
    put("handover-tables", lines[:-1])


def _cell(table: Table, row: str, way: str) -> str:
    value = table.median(row, way)
    if row == EXTRA:
        return f"{value:.2f} GB"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
