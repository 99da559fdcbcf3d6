"""How long until the child is idle again after a stop: Python code, and native code that blocks."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator

from benchmarks.figure import Figure
from ovagent_jupyter.execution.executor import ExecutionRequest
from ovagent_jupyter.execution.kernel import KernelExecutor

ROUNDS = 5
RUNS_FOR = 0.5
"""Seconds that the code runs before it is stopped."""

CODE = {
    "an endless loop": "while True: pass",
    "a sleep": "import time; time.sleep(600)",
    # Holds the interpreter in one call that does not look for signals.
    "a native call": "sum(range(10**12))",
}
TARGET = {"an endless loop": "≤ 0.5 s", "a sleep": "≤ 0.5 s", "a native call": "≤ 3 s"}


def measure() -> Iterator[Figure]:
    """Seconds from the stop until the next cell has run, for each kind of code."""
    for kind, code in CODE.items():
        took = statistics.median(asyncio.run(_stop(code)) for _ in range(ROUNDS))
        yield Figure(f"stop of {kind}", took, "s", "stop → cell ended", TARGET[kind])


async def _stop(code: str) -> float:
    executor = KernelExecutor()
    await executor.start()
    try:
        running = asyncio.create_task(executor.execute(ExecutionRequest(code)))
        await asyncio.sleep(RUNS_FOR)
        began = time.perf_counter()
        running.cancel()
        await asyncio.wait([running])
        return time.perf_counter() - began
    finally:
        await executor.shutdown()
