"""A control group for a child, on hosts that let this user make one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovagent_jupyter.execution.sandbox import cgroup
from ovagent_jupyter.execution.sandbox.cgroup import Cgroup, open_cgroup
from tests.execution.sandbox.family import alive, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")

LIMITS = {"memory": 1 << 30, "processes": 16}
TASKS = cgroup.tasks_for(LIMITS)


def controllers(group: Cgroup) -> set[str]:
    return {file.name for place in group.places for file in Path(place).iterdir()}


@pytest.fixture
def group() -> Iterator[Cgroup]:
    opened = open_cgroup(LIMITS)
    if opened is None:
        assert not list(cgroup._own_groups()) or os.geteuid(), "root can make a group"
        pytest.skip("the host lets this user make no group")
    yield opened
    opened.remove()


def run_inside(group: Cgroup, code: str) -> int:
    """Start a process that enters the group and runs some code; its number."""
    pid = os.fork()
    if pid == 0:
        try:
            assert group.enter()
            exec(code, {})
        finally:
            os._exit(0)
    return pid


def test_a_group_is_entered_and_removed(group: Cgroup) -> None:
    made = [Path(place) for place in group.places]
    assert made
    pid = run_inside(group, "import time; time.sleep(600)")
    wait_for(lambda: all(str(pid) in (each / "cgroup.procs").read_text().split() for each in made))
    assert group.breach() is None
    group.remove()
    assert not any(each.exists() for each in made)
    wait_for(lambda: not alive(pid))
    os.waitpid(pid, 0)


def test_all_in_it_end_at_once(group: Cgroup) -> None:
    if "cgroup.kill" not in controllers(group):
        pytest.skip("no hierarchy of version 2, or Linux before 5.14")
    pid = run_inside(group, "import os, time\nfor _ in range(4): os.fork()\ntime.sleep(600)")
    inside = next(each for place in group.places if (each := Path(place) / "cgroup.kill").exists())
    inside = inside.parent
    wait_for(lambda: len((inside / "cgroup.procs").read_text().split()) == 16)
    group.kill()
    wait_for(lambda: not (inside / "cgroup.procs").read_text().split())
    os.waitpid(pid, 0)


def test_no_more_tasks_than_the_cap(group: Cgroup, tmp_path: Path) -> None:
    if "pids.max" not in controllers(group):
        pytest.skip("the group has no controller for tasks")
    (limit,) = [place for each in group.places if (place := Path(each) / "pids.max").exists()]
    assert limit.read_text().strip() == str(TASKS)
    limit.write_text("10")
    code = f"""
import os, time
made = 0
try:
    for _ in range(50):
        if os.fork() == 0:
            time.sleep(600)
        made += 1
except BlockingIOError:
    open({str(tmp_path / "made")!r}, "w").write(str(made))
time.sleep(600)
"""
    pid = run_inside(group, code)
    wait_for((tmp_path / "made").exists)
    wait_for((tmp_path / "made").read_text)
    assert (tmp_path / "made").read_text() == "9"
    group.remove()
    os.waitpid(pid, 0)


LEAVE = """
import os, sys, time
sys.path.append(sys.argv[1])
from ovagent_jupyter.execution.sandbox.cgroup import open_cgroup
group = open_cgroup({"memory": 1 << 30, "processes": 16})
pid = os.fork()
if pid == 0:
    group.enter()
    print(os.getpid(), *group.places, sep="\\n", flush=True)
    os.close(1)
    time.sleep(600)
time.sleep(0.2)
"""


def test_what_a_dead_supervisor_left_is_swept(group: Cgroup) -> None:
    root = str(Path(__file__).parents[3])
    said = subprocess.run([sys.executable, "-c", LEAVE, root], stdout=subprocess.PIPE, text=True)
    number, *places = said.stdout.splitlines()
    assert places
    assert alive(int(number))
    # This process has its group already, so there is no second; the sweep is done all the same.
    assert open_cgroup(LIMITS) is None
    wait_for(lambda: not alive(int(number)))
    assert not any(Path(place).exists() for place in places)
    assert all(Path(place).exists() for place in group.places)


def test_without_the_right_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "ROOT", "/nowhere")
    assert open_cgroup(LIMITS) is None
