"""A child that waits: handed out as it should be, thrown away when it is not, gone at the end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from ovagent_jupyter.config.sandbox import SandboxSpec
from ovagent_jupyter.execution.environment import CACHE
from ovagent_jupyter.execution.executor import ExecutionStatus, Isolation
from ovagent_jupyter.execution.forking import possible
from ovagent_jupyter.execution.freshness import origin_of
from ovagent_jupyter.execution.launch import LaunchOptions
from ovagent_jupyter.execution.warm import Keeper
from tests.execution.conftest import Kernel
from tests.execution.test_child import wait_until_gone

WARM = ("wave", "no_such_module_anywhere")
"""A module that nothing else imports, and one that is missing."""


@pytest.fixture
async def keeper() -> AsyncIterator[Keeper]:
    made = Keeper(pause=0.1, look=0.1)
    yield made
    await made.close()


def options(environment: dict[str, str] | None = None) -> LaunchOptions:
    """Those of a session; without compiled code, whose loading takes long."""
    return LaunchOptions(environment={**os.environ, CACHE: "/nowhere", **(environment or {})})


async def until_ready(keeper: Keeper) -> int:
    """Wait for the child that waits; its number."""
    async with asyncio.timeout(60):
        while not keeper.ready:  # noqa: ASYNC110 - a state, not an event
            await asyncio.sleep(0.02)
    assert keeper.pid is not None
    return keeper.pid


async def test_it_is_taken_with_all_imported_and_nothing_in_it(keeper: Keeper) -> None:
    kernel = Kernel(options=options(), warm=WARM, keeper=keeper)
    kernel.prepare()
    waiting = await until_ready(keeper)
    await kernel.start()
    try:
        assert kernel.pid == waiting
        assert await kernel.value("'wave' in __import__('sys').modules") == "True"
        names = "sorted(n for n in globals() if not n.startswith('_'))"
        assert await kernel.value(names) == "['In', 'Out', 'exit', 'get_ipython', 'open', 'quit']"
        assert await kernel.value("get_ipython().execution_count") == "4"
        assert set(kernel.protections.values()) == {"enforced"}
    finally:
        await kernel.shutdown()


async def test_after_a_crash_the_next_one_is_there(keeper: Keeper) -> None:
    kernel = Kernel(options=options(), warm=WARM, keeper=keeper)
    await kernel.start()
    try:
        waiting = await until_ready(keeper)
        result = await kernel.run("secret = 1\nimport os; os._exit(3)")
        assert result.status is ExecutionStatus.DEAD
        await kernel.start()
        assert kernel.pid == waiting
        assert await kernel.value("'secret' in globals()") == "False"
        waiting = await until_ready(keeper)
        await kernel.restart()
        assert kernel.pid == waiting
    finally:
        await kernel.shutdown()


@pytest.mark.skipif(not possible(), reason="only Linux has what it takes")
async def test_further_ones_are_forked(keeper: Keeper) -> None:
    kernel = Kernel(options=options(), warm=WARM, keeper=keeper)
    await kernel.start()
    try:
        for _ in range(2):
            waiting = await until_ready(keeper)
            assert psutil.Process(waiting).ppid() == keeper.forking.pid
            await kernel.restart()
            assert kernel.pid == waiting
            assert await kernel.value("'wave' in __import__('sys').modules") == "True"
    finally:
        await kernel.shutdown()


async def test_none_is_made_while_code_runs(keeper: Keeper) -> None:
    kernel = Kernel(options=options(), warm=WARM, keeper=keeper)
    await kernel.start()
    try:
        await kernel.run("import time; time.sleep(2)")
        assert keeper.pid is None
        await until_ready(keeper)
    finally:
        await kernel.shutdown()


async def test_a_stop_falls_on_the_cell_and_the_limit_holds(keeper: Keeper) -> None:
    kernel = Kernel(options=options(), warm=WARM, keeper=keeper)
    kernel.prepare()
    await until_ready(keeper)
    await kernel.start()
    try:
        await kernel.run("x = 5")
        late = await kernel.run("while True: pass", timeout=0.3)
        assert late.status is ExecutionStatus.TIMEOUT
        running = asyncio.create_task(kernel.run("import time; time.sleep(60)"))
        await asyncio.sleep(0.2)
        assert await kernel.interrupt()
        assert (await running).status is ExecutionStatus.INTERRUPTED
        assert await kernel.value("x") == "5"
        fork = "import os, time\nfor _ in range(300):\n    if os.fork() == 0: time.sleep(60)"
        assert (await kernel.run(fork, timeout=60)).status is ExecutionStatus.LIMIT
    finally:
        await kernel.shutdown()


async def test_one_asked_for_while_it_is_made_is_waited_for(keeper: Keeper) -> None:
    kernel = Kernel(options=options(), warm=WARM, keeper=keeper)
    kernel.prepare()
    await asyncio.sleep(0.05)
    await kernel.start()
    try:
        assert keeper.pid is None
        assert await kernel.value("'wave' in __import__('sys').modules") == "True"
    finally:
        await kernel.shutdown()


async def test_two_who_ask_at_once_get_one_each(keeper: Keeper) -> None:
    kernels = [Kernel(options=options(), warm=WARM, keeper=keeper) for _ in range(2)]
    kernels[0].prepare()
    waiting = await until_ready(keeper)
    try:
        await asyncio.gather(*(each.start() for each in kernels))
        pids = {each.pid for each in kernels}
        assert waiting in pids
        assert len(pids) == 2
    finally:
        await asyncio.gather(*(each.shutdown() for each in kernels))


async def test_what_is_granted_later_is_granted(keeper: Keeper, tmp_path: Path) -> None:
    data = tmp_path / "data.txt"
    data.write_text("numbers")
    kernel = Kernel(options=options(), warm=WARM, keeper=keeper)
    kernel.prepare()
    waiting = await until_ready(keeper)
    await kernel.grant((data,))
    await kernel.start()
    try:
        assert kernel.pid != waiting
        assert await kernel.value(f"open({str(data)!r}).read()") == "'numbers'"
        assert wait_until_gone(waiting)
    finally:
        await kernel.shutdown()


async def test_a_file_that_was_replaced_makes_it_stale(keeper: Keeper, tmp_path: Path) -> None:
    data = tmp_path / "data.txt"
    data.write_text("old")
    granted = replace(options(), spec=SandboxSpec(read=(data,)))
    kernel = Kernel(options=granted, warm=WARM, keeper=keeper)
    kernel.prepare()
    waiting = await until_ready(keeper)
    fresh = tmp_path / "fresh.txt"
    fresh.write_text("new")
    fresh.replace(data)
    await kernel.start()
    try:
        assert kernel.pid != waiting
        assert await kernel.value(f"open({str(data)!r}).read()") == "'new'"
    finally:
        await kernel.shutdown()


async def test_packages_that_change_make_it_stale(keeper: Keeper, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("version = 1\n")
    found = options({"PYTHONPATH": str(tmp_path)})
    kernel = Kernel(options=found, warm=("mine",), keeper=keeper)
    kernel.prepare()
    waiting = await until_ready(keeper)
    (tmp_path / "mine.py").write_text("version = 22\n")
    await kernel.start()
    try:
        assert kernel.pid != waiting
        assert await kernel.value("__import__('mine').version") == "22"
    finally:
        await kernel.shutdown()


@pytest.mark.parametrize(
    "change",
    [
        {"environment": {**os.environ, "OMP_NUM_THREADS": "7"}},
        {"environment": {**os.environ, "TMPDIR": "/var/tmp"}},
        {"python": "/usr/bin/python3"},
        {"isolation": Isolation.CONFINED},
        {"spec": SandboxSpec(network=("example.org",))},
        {"spec": SandboxSpec(memory="1G")},
    ],
)
def test_what_makes_another_child(change: dict[str, object]) -> None:
    plain = LaunchOptions()
    assert origin_of(plain, WARM) == origin_of(LaunchOptions(), WARM)
    assert origin_of(plain, WARM) != origin_of(replace(plain, **change), WARM)  # type: ignore[arg-type]
    secret = LaunchOptions(environment={**os.environ, "API_KEY": "changes nothing"})
    assert origin_of(plain, WARM) == origin_of(secret, WARM)


async def test_one_that_died_waiting_is_not_taken(keeper: Keeper) -> None:
    kernel = Kernel(options=options(), warm=WARM, keeper=keeper)
    kernel.prepare()
    waiting = await until_ready(keeper)
    os.kill(waiting, 9)
    assert wait_until_gone(waiting)
    await kernel.start()
    try:
        assert kernel.pid != waiting
        assert await kernel.value("1") == "1"
    finally:
        await kernel.shutdown()


async def test_one_that_nobody_uses_is_ended() -> None:
    keeper = Keeper(idle=0.0, look=0.1)
    keeper.prepare(options())
    await asyncio.sleep(0.3)
    assert keeper.pid is None
    assert "nothing was run" in keeper.state
    await keeper.close()


async def test_without_memory_none_is_made() -> None:
    keeper = Keeper(least_free=1 << 60, look=0.1)
    keeper.prepare(options())
    await asyncio.sleep(0.3)
    assert keeper.pid is None
    assert "memory" in keeper.state
    await keeper.close()


async def test_one_that_cannot_be_made_leaves_the_executor_its_own_way(keeper: Keeper) -> None:
    broken = replace(options(), python="/usr/bin/false")
    keeper.prepare(broken)
    async with asyncio.timeout(20):
        while not keeper.why_not.startswith("The interpreter"):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)
    kernel = Kernel(options=options(), keeper=keeper)
    await kernel.start()
    try:
        assert await kernel.value("1") == "1"
    finally:
        await kernel.shutdown()


async def test_closing_leaves_nothing(
    keeper: Keeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, temp = tmp_path / "run", tmp_path / "temp"
    temp.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temp))
    keeper.prepare(replace(options(), run_dir=run), WARM)
    waiting = await until_ready(keeper)
    assert list(temp.iterdir())
    await keeper.close()
    assert wait_until_gone(waiting)
    assert list(temp.iterdir()) == []
    assert list(run.iterdir()) == []
    await keeper.close()


async def test_closing_while_it_is_made_leaves_nothing(keeper: Keeper, tmp_path: Path) -> None:
    keeper.prepare(replace(options(), run_dir=tmp_path))
    await asyncio.sleep(0.1)
    await keeper.close()
    assert list(tmp_path.iterdir()) == []


ORPHAN = """
import asyncio, os, signal, sys
from pathlib import Path
from ovagent_jupyter.execution.launch import LaunchOptions
from ovagent_jupyter.execution.warm import Keeper

async def main():
    keeper = Keeper()
    keeper.prepare(LaunchOptions(run_dir=Path(sys.argv[1])), ("wave",))
    while not keeper.ready:
        await asyncio.sleep(0.02)
    print(keeper.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_a_parent_that_is_killed_takes_it_along(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ORPHAN), str(tmp_path)],
        env={**os.environ, CACHE: "/nowhere"},
        stdout=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    assert wait_until_gone(int(run.stdout))
