"""Makes the compiled code that children start with, in a child that runs nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ovagent_jupyter.config.sandbox import SandboxSpec
from ovagent_jupyter.errors import ExecutionError
from ovagent_jupyter.execution import seed
from ovagent_jupyter.execution.environment import COMPILED
from ovagent_jupyter.execution.executor import ExecutionRequest
from ovagent_jupyter.execution.kernel import SILENT_LIMIT, KernelExecutor
from ovagent_jupyter.execution.launch import LaunchOptions

PAUSE = 20.0
"""Seconds that a session has the machine for itself; one that ends sooner makes nothing."""


async def compile_later(options: LaunchOptions) -> bool:
    """Make it in the background of a session, unless it is there; True when it is."""
    await asyncio.sleep(PAUSE)
    return await compile_ahead(options)


async def compile_ahead(options: LaunchOptions, *, wait: bool = False) -> bool:
    """Make it unless it is there; True when it is.

    Args:
        options: How the child that compiles is started; it gets no grants.
        wait: Wait for another process that is at it.
    """
    options = replace(options, spec=SandboxSpec(), work_dir=None)

    async def run(code: str, keep: Callable[[Path], None]) -> None:
        executor = KernelExecutor(isolation=options.isolation, options=options)
        try:
            await executor.start()
            result = await executor.execute(ExecutionRequest(code, SILENT_LIMIT, silent=True))
            if result.ok:
                keep(executor.work_dir.parent / COMPILED)
        except ExecutionError:
            return
        finally:
            await executor.shutdown()

    return await seed.make(options.environment, run, wait=wait)
