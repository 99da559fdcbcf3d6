"""What confinement costs at the start, against a plain ipykernel: CPU time, wall time, memory."""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL

from jupyter_client.manager import start_new_async_kernel

from benchmarks.figure import Figure
from ovagent_jupyter.execution.executor import ExecutionRequest, Isolation
from ovagent_jupyter.execution.kernel import KernelExecutor
from ovagent_jupyter.execution.sandbox.process_tree import Tree

ROUNDS = 9
TICKS = os.sysconf("SC_CLK_TCK")
AGAINST = "plain ipykernel"
LEVELS = (Isolation.NAMESPACES, Isolation.CONFINED, Isolation.PROCESS)


@dataclass(frozen=True, slots=True)
class Start:
    """One start with one cell."""

    cpu: float
    """Seconds of all processes that were started, until the cell has run."""
    wall: float
    """Seconds until the cell has run."""
    memory: float
    """KiB of all processes after the cell, shared pages divided among those who share them."""


def measure() -> Iterator[Figure]:
    """The three for each level; the level ``process`` has the supervisor and nothing else."""
    pairs = {level: _side_by_side(level) for level in LEVELS}
    for level, (ours, plain) in pairs.items():
        name = level.name.lower()
        confined = level.guarded
        target = "≤ 1.15×" if confined else ""
        yield Figure(f"start, CPU time, {name}", ours.cpu / plain.cpu, "×", AGAINST, target)
        target = "≤ 1×" if confined else ""
        yield Figure(f"start, wall time, {name}", ours.wall / plain.wall, "×", AGAINST, target)
        yield Figure(f"start, memory, {name}", ours.memory / plain.memory, "×", AGAINST)


def _side_by_side(level: Isolation) -> tuple[Start, Start]:
    """Medians of both, taken in turn, after one round that fills the caches."""

    async def confined(first_cell: Callable[[], None]) -> None:
        executor = KernelExecutor(isolation=level)
        await executor.start()
        await executor.execute(ExecutionRequest("1 + 1"))
        first_cell()
        await executor.shutdown()

    rounds = [(_start(confined), _start(_plain)) for _ in range(ROUNDS + 1)][1:]
    return _median([ours for ours, _ in rounds]), _median([plain for _, plain in rounds])


async def _plain(first_cell: Callable[[], None]) -> None:
    manager, client = await start_new_async_kernel(kernel_name="python3", stderr=DEVNULL)
    await client.execute_interactive("1 + 1", output_hook=lambda _message: None)
    first_cell()
    client.stop_channels()
    await manager.shutdown_kernel(now=True)


def _start(start: Callable[[Callable[[], None]], Coroutine[None, None, None]]) -> Start:
    reached: list[Start] = []
    before, began = _reaped(), time.perf_counter()

    def first_cell() -> None:
        wall = time.perf_counter() - began
        tree = Tree(os.getpid()).look().values()
        ticks = sum(each.cpu + each.ended_cpu for each in tree)
        memory = sum(_shared_fairly(each.pid) for each in tree)
        reached.append(Start(ticks / TICKS + _reaped() - before, wall, memory))

    asyncio.run(start(first_cell))
    return reached[0]


def _reaped() -> float:
    """CPU seconds of children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _shared_fairly(pid: int) -> float:
    """The Pss of a process in KiB; 0 when it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((float(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def _median(starts: list[Start]) -> Start:
    return Start(
        statistics.median(each.cpu for each in starts),
        statistics.median(each.wall for each in starts),
        statistics.median(each.memory for each in starts),
    )
