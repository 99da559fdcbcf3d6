"""A child that ends badly: the reason is told, the next turn works, and nothing is left."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import pytest

from ovagent_jupyter.execution.executor import ExecutionRequest, Isolation
from ovagent_jupyter.execution.launch import LaunchOptions
from tests.execution.conftest import Kernel
from tests.soak.counts import count, count_settled, more
from tests.soak.crashes import CRASHES, SMALL, Crash

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts by /proc")

CHOSEN = (
    "SIGKILL",
    "SIGSTOP",
    "segfault",
    "stack overflow",
    "memory bomb of many",
    "fork bomb of daemons",
    "disk bomb without a name",
    "many files",
    "closed sockets",
    "exit in a thread",
    "daemons",
)
"""One of each sort; the soak test runs them all, again and again."""


@pytest.mark.slow
@pytest.mark.parametrize("level", [Isolation.NAMESPACES, Isolation.CONFINED])
async def test_crashes(level: Isolation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, temp = tmp_path / "run", tmp_path / "temp"
    temp.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temp))
    executor = Kernel(isolation=level, options=LaunchOptions(spec=SMALL, run_dir=run), grace=0.5)
    await executor.start()
    await executor.shutdown()
    before = count(run, temp)
    for crash in _chosen():
        await executor.start()
        result = await executor.execute(ExecutionRequest(crash.code, timeout=crash.timeout))
        said = f"{result.error.name}: {result.error.message}" if result.error is not None else ""
        assert result.status in crash.ends, (crash.name, result)
        assert re.search(crash.says, said), (crash.name, said)
        await executor.start()
        await executor.put({"data": [1, 2]})
        assert await executor.value("data") == "[1, 2]"
    await executor.shutdown()
    after = await count_settled(before, run, temp)
    assert more(before, after) == [], before.table(after)


def _chosen() -> list[Crash]:
    by_name = {crash.name: crash for crash in CRASHES}
    return [by_name[name] for name in CHOSEN]
