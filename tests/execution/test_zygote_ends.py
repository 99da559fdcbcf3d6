"""What ends a zygote and what it has forked, and that nothing is left then."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import psutil
import pytest

from ovagent_jupyter.execution.environment import CACHE
from ovagent_jupyter.execution.executor import ExecutionStatus
from ovagent_jupyter.execution.forking import possible
from ovagent_jupyter.execution.warm import Keeper
from tests.execution.forks import fork, is_forked, keeper, options
from tests.execution.test_child import wait_until_gone

__all__ = ["keeper"]  # a fixture
pytestmark = pytest.mark.skipif(not possible(), reason="only Linux has what it takes")


async def test_children_end_with_it_and_the_next_is_started(keeper: Keeper) -> None:
    kernel = await fork(keeper, options())
    try:
        os.kill(keeper.forking.pid or 0, signal.SIGKILL)
        result = await kernel.run("import time; time.sleep(60)")
        assert result.status is ExecutionStatus.DEAD
        await kernel.start()
        assert not is_forked(kernel)
        assert await kernel.value("1") == "1"
    finally:
        await kernel.shutdown()


async def test_one_that_is_replaced_lives_as_long_as_its_children(keeper: Keeper) -> None:
    kernel = await fork(keeper, options())
    first = keeper.forking.pid or 0
    other = await fork(keeper, options(OMP_NUM_THREADS="3"))
    try:
        assert keeper.forking.pid != first
        assert await kernel.value("1 + 1") == "2"
        await kernel.shutdown()
        assert wait_until_gone(first)
        assert await other.value("1 + 1") == "2"
    finally:
        await kernel.shutdown()
        await other.shutdown()


async def test_nothing_is_left_of_many(keeper: Keeper) -> None:
    kernel = await fork(keeper, options())
    await kernel.shutdown()
    here = psutil.Process()
    descriptors, below = here.num_fds(), len(here.children(recursive=True))
    for _ in range(4):
        await kernel.start()
        await kernel.shutdown()
    assert here.num_fds() == descriptors
    assert len(here.children(recursive=True)) == below
    pid = keeper.forking.pid or 0
    await keeper.close()
    assert wait_until_gone(pid)


ORPHAN = """
import asyncio, os, signal, sys, time
from ovagent_jupyter.execution.forking import Forking
from ovagent_jupyter.execution.launch import LaunchOptions, launch

async def main():
    options = LaunchOptions()
    zygote = await Forking().prepare(options, ())
    child = await launch(options, zygote)
    print(zygote.pid, child.process.pid, flush=True)
    if sys.argv[1] == "fork" and os.fork() == 0:
        time.sleep(5)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["alone", "fork"])
def test_a_parent_that_is_killed_takes_all_along(how: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", ORPHAN, how],
        env={**os.environ, CACHE: "/nowhere"},
        stdout=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    assert wait_until_gone(*map(int, run.stdout.split()))


async def test_it_does_not_wait_for_a_zygote_that_says_nothing(keeper: Keeper) -> None:
    kernel = await fork(keeper, options())
    pid = keeper.forking.pid or 0
    await kernel.shutdown()
    os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(60):
            await kernel.start()
        assert not is_forked(kernel)
        assert keeper.forking.why_not
    finally:
        await kernel.shutdown()
