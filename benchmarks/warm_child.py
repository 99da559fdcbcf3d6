"""A child that waits against a cold one: to the first cell, to neighbours, after a kill; memory.

All have scanpy imported at the end of the first cell; neighbours are computed on numbers made up.
Private memory is counted over all processes of a child, its supervisors included.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import matplotlib.pyplot
import scanpy
from jupyter_client.manager import start_new_async_kernel

from benchmarks.figure import Figure
from ovagent_jupyter.execution.ahead import compile_ahead
from ovagent_jupyter.execution.executor import ExecutionRequest, Isolation
from ovagent_jupyter.execution.forking import possible
from ovagent_jupyter.execution.kernel import KernelExecutor
from ovagent_jupyter.execution.launch import LaunchOptions
from ovagent_jupyter.execution.sandbox.process_tree import Tree
from ovagent_jupyter.execution.warm import QUIET, Keeper

ROUNDS = 5
WARM = (scanpy.__name__, matplotlib.pyplot.__name__)
"""Imported here as in a notebook, so that a zygote may import them."""
FIRST = "import scanpy as sc\n1 + 1"
NEIGHBORS = """
import anndata, numpy
adata = anndata.AnnData(numpy.random.default_rng(0).random((300, 50), dtype="f4"))
sc.pp.neighbors(adata)
"""
USUAL = "cold ipykernel"
MIB = 1 << 20


def measure() -> Iterator[Figure]:
    """The figures at the highest level of confinement."""
    yield from asyncio.run(_measure())


async def _measure() -> list[Figure]:
    options = LaunchOptions(isolation=Isolation.NAMESPACES)
    await compile_ahead(options, wait=True)
    keeper = Keeper(pause=0.1, look=0.1)
    try:
        rounds = [await _round(options, keeper) for _ in range(ROUNDS + 1)][1:]
        middle = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        memory = await _memory(options) if possible() else {}
    finally:
        await keeper.close()
    return [*_times(middle), *_sizes(memory)]


def _times(took: dict[str, float]) -> Iterator[Figure]:
    yield Figure("first cell, waiting child", took["usual"] / took["warm"], "×", USUAL, "≥ 100×")
    yield Figure("first cell, waiting child, in seconds", took["warm"], "s", "from start() on")
    yield Figure("first cell, cold child", took["usual"] / took["cold"], "×", USUAL)
    ratio = took["usual neighbors"] / took["warm neighbors"]
    yield Figure("first neighbors, waiting child", ratio, "×", USUAL)
    ratio = took["usual neighbors"] / took["cold neighbors"]
    yield Figure("first neighbors, cold child", ratio, "×", USUAL)
    ratio = took["usual again"] / took["warm again"]
    yield Figure("first cell after a kill, waiting child", ratio, "×", USUAL, "≥ 20×")


def _sizes(private: dict[str, float]) -> Iterator[Figure]:
    for name, size in private.items():
        target = "≤ 40 MiB" if name == "forked" else ""
        yield Figure(f"private memory of a child, {name}", size / MIB, "MiB", "", target)


async def _round(options: LaunchOptions, keeper: Keeper) -> dict[str, float]:
    """Seconds of each, one after the other, so that a noisy moment hits all."""
    took: dict[str, float] = {}
    await _usual(took)
    cold = KernelExecutor(isolation=options.isolation, options=options)
    await _ours(took, "cold", cold)
    await cold.shutdown()
    warm = KernelExecutor(isolation=options.isolation, options=options, warm=WARM, keeper=keeper)
    warm.prepare()
    await _until_all_is_loaded(keeper)
    await _ours(took, "warm", warm)
    await _until_all_is_loaded(keeper)
    assert warm.pid is not None
    os.kill(warm.pid, signal.SIGKILL)
    await _until(lambda: not warm.alive)
    began = time.perf_counter()
    await warm.start()
    await warm.execute(ExecutionRequest(FIRST))
    took["warm again"] = time.perf_counter() - began
    await warm.shutdown()
    return took


async def _ours(took: dict[str, float], name: str, executor: KernelExecutor) -> None:
    began = time.perf_counter()
    await executor.start()
    await executor.execute(ExecutionRequest(FIRST))
    took[name] = time.perf_counter() - began
    result = await executor.execute(ExecutionRequest(NEIGHBORS))
    assert result.ok, result.error
    took[f"{name} neighbors"] = time.perf_counter() - began


async def _usual(took: dict[str, float]) -> None:
    began = time.perf_counter()
    manager, client = await start_new_async_kernel(kernel_name="python3", stderr=DEVNULL)

    async def run(code: str) -> None:
        reply: dict[str, Any] = await client.execute_interactive(
            code, output_hook=lambda _message: None, timeout=300
        )
        assert reply["content"]["status"] == "ok", reply

    await run(FIRST)
    took["usual"] = time.perf_counter() - began
    await run(NEIGHBORS)
    took["usual neighbors"] = time.perf_counter() - began
    began = time.perf_counter()
    await manager.restart_kernel(now=True)
    await client.wait_for_ready(timeout=60)
    await run(FIRST)
    took["usual again"] = time.perf_counter() - began
    client.stop_channels()
    await manager.shutdown_kernel(now=True)


async def _until_all_is_loaded(keeper: Keeper) -> None:
    await _until(lambda: keeper.ready)
    await asyncio.sleep(QUIET + 0.5)
    await _until(lambda: not keeper.busy)


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.01)


async def _memory(options: LaunchOptions) -> dict[str, float]:
    """Bytes that only one child has, after the first cell."""
    found: dict[str, float] = {}
    started = KernelExecutor(isolation=options.isolation, options=options)
    keeper = Keeper(pause=1e9)
    await keeper.forking.prepare(options, WARM)
    forked = KernelExecutor(isolation=options.isolation, options=options, warm=WARM, keeper=keeper)
    for name, executor in {"started": started, "forked": forked}.items():
        await executor.start()
        await executor.execute(ExecutionRequest(FIRST))
        assert executor.pid is not None
        pids = [executor.pid, *Tree(executor.pid).look()]
        found[name] = sum(map(_private, pids))
        await executor.execute(ExecutionRequest(NEIGHBORS))
        found[f"{name}, after neighbors"] = sum(map(_private, pids))
        await executor.shutdown()
    await keeper.close()
    return found


def _private(pid: int) -> float:
    """Bytes of a process that no other one shares."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    own = ("Private_Clean:", "Private_Dirty:")
    return sum(float(line.split()[1]) * 1024 for line in lines if line.startswith(own))
