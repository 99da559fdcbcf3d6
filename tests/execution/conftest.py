"""A child kernel for the tests of running code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ovagent_jupyter.config.sandbox import SandboxSpec
from ovagent_jupyter.execution.executor import ExecutionRequest, ExecutionResult
from ovagent_jupyter.execution.kernel import KernelExecutor
from ovagent_jupyter.execution.launch import LaunchOptions


class Kernel(KernelExecutor):
    """A kernel executor that takes code as text."""

    async def run(self, code: str, timeout: float | None = None) -> ExecutionResult:
        """Run one cell."""
        return await self.execute(ExecutionRequest(code, timeout=timeout))

    async def value(self, expression: str) -> str:
        """The text of an expression's value."""
        result = await self.run(expression)
        assert result.ok, result.error
        return result.outputs[-1].data["text/plain"]


@pytest.fixture
async def kernel(tmp_path: Path) -> AsyncIterator[Kernel]:
    """A started child that may write to the test's folder."""
    executor = Kernel(options=LaunchOptions(spec=SandboxSpec(write=(tmp_path,))))
    await executor.start()
    yield executor
    await executor.shutdown()
