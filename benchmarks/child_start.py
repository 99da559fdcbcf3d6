"""Time until the child has run its first cell, against an ordinary kernel started the usual way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from subprocess import DEVNULL

from jupyter_client.manager import start_new_async_kernel

from benchmarks.figure import Figure, side_by_side_async
from ovagent_jupyter.execution.executor import ExecutionRequest
from ovagent_jupyter.execution.kernel import KernelExecutor


def measure() -> Iterator[Figure]:
    """Wall time of a start with one cell."""
    ours, usual = asyncio.run(side_by_side_async(_child, _ordinary))
    yield Figure("start of a child", ours / usual, "×", "start_new_kernel()", "≤ 1×")


async def _child() -> None:
    executor = KernelExecutor()
    await executor.start()
    await executor.execute(ExecutionRequest("1 + 1"))
    await executor.shutdown()


async def _ordinary() -> None:
    manager, client = await start_new_async_kernel(kernel_name="python3", stderr=DEVNULL)
    await client.execute_interactive("1 + 1", output_hook=lambda _message: None)
    client.stop_channels()
    await manager.shutdown_kernel(now=True)
