"""What a cell costs through our executor, against a bare jupyter_client on the same kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from subprocess import DEVNULL

from jupyter_client.manager import start_new_async_kernel

from benchmarks.figure import Figure, side_by_side_async
from ovagent_jupyter.execution.executor import ExecutionRequest
from ovagent_jupyter.execution.kernel import KernelExecutor

CELLS = 50


def measure() -> Iterator[Figure]:
    """Wall time of trivial cells, one after the other."""
    ours, bare = asyncio.run(_measure())
    yield Figure("a trivial cell", ours / bare, "×", "bare jupyter_client", "≤ 1.3×")


async def _measure() -> tuple[float, float]:
    executor = KernelExecutor()
    await executor.start()
    manager, client = await start_new_async_kernel(kernel_name="python3", stderr=DEVNULL)

    async def ours() -> None:
        for _ in range(CELLS):
            await executor.execute(ExecutionRequest("1 + 1"))

    async def bare() -> None:
        for _ in range(CELLS):
            await client.execute_interactive("1 + 1", output_hook=lambda _message: None)

    try:
        return await side_by_side_async(ours, bare)
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)
        await executor.shutdown()
