"""What confinement costs a cell: its round trip, and the system calls of its code."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from benchmarks.figure import Figure, side_by_side_async
from ovagent_jupyter.execution.executor import ExecutionRequest, Isolation
from ovagent_jupyter.execution.kernel import KernelExecutor

CELLS = 50
AGAINST = "the same client, a plain child"
CALLS = """
import os, time
began = time.perf_counter()
for _ in range({times}):
    {call}
print(time.perf_counter() - began)
"""
COSTS = {
    "a system call": CALLS.format(times=200_000, call="os.getppid()"),
    "opening a file": CALLS.format(times=20_000, call="os.close(os.open('/dev/null', 0))"),
    "a thread": "import threading"
    + CALLS.format(
        times=2_000, call="t = threading.Thread(target=id, args=(1,)); t.start(); t.join()"
    ),
    "a process": CALLS.format(times=50, call="os.waitpid(os.fork() or os._exit(0), 0)"),
}
ROUNDS = 5


def measure() -> Iterator[Figure]:
    """Wall time of trivial cells, and what code inside measures of itself."""
    for level in (Isolation.NAMESPACES, Isolation.CONFINED):
        name = level.name.lower()
        ratios = asyncio.run(_measure(level))
        yield Figure(f"a trivial cell, {name}", ratios.pop("cell"), "×", AGAINST, "≤ 1.05×")
        for what, ratio in ratios.items():
            yield Figure(f"{what}, {name}", ratio, "×", AGAINST)


async def _measure(level: Isolation) -> dict[str, float]:
    confined = KernelExecutor(isolation=level)
    plain = KernelExecutor(isolation=Isolation.PROCESS)
    await confined.start()
    await plain.start()
    try:
        ours, bare = await side_by_side_async(
            lambda: _cells(confined), lambda: _cells(plain), rounds=2 * ROUNDS
        )
        ratios = {"cell": ours / bare}
        for what, code in COSTS.items():
            pairs = [(await _took(confined, code), await _took(plain, code)) for _ in range(ROUNDS)]
            ratios[what] = sorted(a / b for a, b in pairs)[ROUNDS // 2]
        return ratios
    finally:
        await confined.shutdown()
        await plain.shutdown()


async def _cells(executor: KernelExecutor) -> None:
    for _ in range(CELLS):
        await executor.execute(ExecutionRequest("1 + 1"))


async def _took(executor: KernelExecutor, code: str) -> float:
    result = await executor.execute(ExecutionRequest(code))
    return float(result.stdout)
