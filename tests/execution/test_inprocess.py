"""Code in this process: cells behave as in a notebook, failures are results."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from ovagent_jupyter.execution.executor import ExecutionRequest, ExecutionResult, ExecutionStatus
from ovagent_jupyter.execution.inprocess import InProcessExecutor


@pytest.fixture
async def executor() -> AsyncIterator[InProcessExecutor]:
    made = InProcessExecutor()
    await made.start()
    yield made
    await made.shutdown()


async def run(
    executor: InProcessExecutor, code: str, timeout: float | None = None
) -> ExecutionResult:
    return await executor.execute(ExecutionRequest(code, timeout=timeout))


async def test_a_traceback_shows_the_users_lines_only(executor: InProcessExecutor) -> None:
    result = await run(executor, "def f():\n    return 1 / 0\n\nf()")
    assert result.error is not None
    text = "\n".join(result.error.traceback)
    assert "return 1 / 0" in text
    assert "inprocess.py" not in text


async def test_the_last_expression_is_shown(executor: InProcessExecutor) -> None:
    shown = await run(executor, "class A:\n    def _repr_html_(self): return '<b>a</b>'\nA()")
    assert shown.outputs[0].data["text/html"] == "<b>a</b>"
    assert not (await run(executor, "None")).outputs
    assert not (await run(executor, "x = 1")).outputs
    assert not (await run(executor, "")).outputs


async def test_figures_are_shown_and_closed(executor: InProcessExecutor) -> None:
    from matplotlib import pyplot

    mine = pyplot.figure()
    result = await run(executor, "import matplotlib.pyplot as plt\nfig, ax = plt.subplots()")
    assert [sorted(o.data) for o in result.outputs] == [["image/png", "text/plain"]]
    assert pyplot.get_fignums() == [mine.number]
    pyplot.close(mine)


async def test_it_runs_in_the_thread_it_is_given() -> None:
    async def in_thread(work: Callable[[], None]) -> None:
        await asyncio.to_thread(work)

    executor = InProcessExecutor(run_in_cell=in_thread)
    await executor.start()
    result = await run(executor, "import threading\nprint(threading.get_ident())")
    assert int(result.stdout) != threading.get_ident()
    await executor.shutdown()


async def test_streams_are_put_back(executor: InProcessExecutor) -> None:
    before = sys.stdout, sys.stderr
    await run(executor, "import sys\nprint(sys.stdout.encoding)\nraise SystemExit")
    assert (sys.stdout, sys.stderr) == before


async def test_a_late_end_is_told(executor: InProcessExecutor) -> None:
    result = await run(executor, "import time\ntime.sleep(0.05)\nx = 1", timeout=0.01)
    assert result.status is ExecutionStatus.TIMEOUT
    assert (await run(executor, "x")).ok


async def test_its_own_namespace_can_be_given() -> None:
    namespace: dict[str, object] = {"x": 1}
    executor = InProcessExecutor(namespace)
    await executor.start()
    await run(executor, "y = x + 1")
    assert namespace["y"] == 2
    await executor.shutdown()


async def test_output_is_bounded(executor: InProcessExecutor) -> None:
    result = await run(executor, "print('x' * 3_000_000)")
    assert result.truncated
    assert len(result.stdout) == 1_000_000


async def test_an_exception_without_a_text_is_a_result(executor: InProcessExecutor) -> None:
    code = "class E(Exception):\n    def __str__(self): raise ValueError\nraise E"
    result = await run(executor, code)
    assert result.error is not None
    assert result.error.name == "E"
