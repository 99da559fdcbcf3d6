"""Everything that holds for the cells of a child that was started, in one that a zygote forked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ovagent_jupyter.config.sandbox import SandboxSpec
from ovagent_jupyter.execution.forking import Forking, possible
from ovagent_jupyter.execution.launch import LaunchOptions
from ovagent_jupyter.execution.supervised import Forked
from ovagent_jupyter.execution.warm import Keeper
from tests.execution.conftest import Kernel
from tests.execution.test_kernel import *  # noqa: F403

pytestmark = pytest.mark.skipif(not possible(), reason="only Linux has what it takes")


@pytest.fixture(scope="module")
def forking() -> Iterator[Forking]:
    """One zygote for all tests."""
    made = Forking()
    asyncio.run(made.prepare(LaunchOptions(), ()))
    assert made.why_not == ""
    yield made
    made.close()


@pytest.fixture
async def kernel(tmp_path: Path, forking: Forking) -> AsyncIterator[Kernel]:
    """A forked child that may write to the test's folder."""
    keeper = Keeper(pause=1e9)
    own, keeper.forking = keeper.forking, forking
    options = LaunchOptions(spec=SandboxSpec(write=(tmp_path,)))
    executor = Kernel(options=options, keeper=keeper)
    await executor.start()
    assert executor._child is not None
    assert isinstance(executor._child.process._supervisor, Forked)
    yield executor
    await executor.shutdown()
    keeper.forking = own
    await keeper.close()
