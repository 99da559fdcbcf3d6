"""Forked children for tests."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from ovagent_jupyter.execution.environment import CACHE
from ovagent_jupyter.execution.executor import Isolation
from ovagent_jupyter.execution.launch import LaunchOptions
from ovagent_jupyter.execution.supervised import Forked
from ovagent_jupyter.execution.warm import Keeper
from tests.execution.conftest import Kernel


@pytest.fixture
async def keeper() -> AsyncIterator[Keeper]:
    """One that makes no children by itself."""
    made = Keeper(pause=1e9)
    yield made
    await made.close()


def options(**variables: str) -> LaunchOptions:
    return LaunchOptions(
        isolation=Isolation.NAMESPACES,
        environment={**os.environ, CACHE: "/nowhere", **variables},
    )


async def fork(keeper: Keeper, found: LaunchOptions, warm: tuple[str, ...] = ()) -> Kernel:
    """A kernel in a forked child."""
    await keeper.forking.prepare(found, warm)
    assert keeper.forking.why_not == ""
    kernel = Kernel(isolation=found.isolation, options=found, warm=warm, keeper=keeper)
    await kernel.start()
    assert is_forked(kernel)
    return kernel


def is_forked(kernel: Kernel) -> bool:
    assert kernel._child is not None
    return isinstance(kernel._child.process._supervisor, Forked)
