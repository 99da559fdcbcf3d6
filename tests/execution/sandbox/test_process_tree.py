"""The processes below one: who belongs to them, and their end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ovagent_jupyter.execution.sandbox import process_tree
from ovagent_jupyter.execution.sandbox.process_tree import Tree, kill_tree
from tests.execution.sandbox.family import BURN, FILL, READY, STAY, Raise, alive, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        with open('writing', 'w') as file:
            file.write(str(os.getpid()))
        os.rename('writing', 'daemon')
        time.sleep(600)
    os._exit(0)
os.wait()
while not os.path.exists('daemon'):
    time.sleep(0.01)
"""


@pytest.mark.parametrize("told", ["by lists", "by parents", "by ps"])
def test_a_daemon_belongs_to_the_tree(
    family: Raise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    started = family(DAEMON + READY + STAY)
    daemon = int((tmp_path / "daemon").read_text())
    tree = Tree(started.pid)
    if told != "by lists":  # a kernel without CONFIG_PROC_CHILDREN has none
        tree._listed = False
    if told == "by ps":  # macOS has no /proc
        monkeypatch.setattr(process_tree, "HAS_PROC", False)
    assert len(tree.look()) == 2
    assert tree.look()[daemon].parent == started.pid
    assert os.getpid() not in tree.look()
    assert started.pid not in tree.look()


def test_the_excluded_are_not_counted_but_what_they_start_is(family: Raise) -> None:
    started = family("import os\nos.fork()\n" + READY + STAY)
    wait_for(lambda: len(Tree(started.pid).look()) == 2)
    first = min(Tree(started.pid).look())
    tree = Tree(started.pid, exclude=[first])
    assert len(tree.look()) == 1
    assert first not in tree.look()
    assert [each.pid for each in tree.excluded()] == [first]


def test_a_name_with_parentheses_does_not_confuse(family: Raise) -> None:
    name = "open('/proc/self/comm', 'w').write(') Z 1 1 (')\n"
    started = family(name + READY + STAY)
    (process,) = Tree(started.pid).look().values()
    assert process.parent == started.pid
    assert not process.dead


BOMB = """
import mmap, os, time
born = mmap.mmap(-1, 4)
def live():
    while True:
        number = int.from_bytes(born[:], 'big')
        if number < 250:
            born[:] = (number + 1).to_bytes(4, 'big')
            if os.fork() == 0:
                {apart}
        time.sleep(0.02)
"""


def test_ps_tells_the_same(family: Raise, monkeypatch: pytest.MonkeyPatch) -> None:
    started = family(FILL + BURN.format(seconds=2.5) + READY + STAY)
    tree = Tree(started.pid)
    (ours,) = tree.look().values()
    tree._listed = False
    monkeypatch.setattr(process_tree, "HAS_PROC", False)
    (theirs,) = tree.look().values()
    assert (ours.pid, ours.parent, ours.group) == (theirs.pid, theirs.parent, theirs.group)
    assert ours.resident * 0.9 < theirs.resident < ours.resident * 1.1
    assert 2 * process_tree.TICKS <= theirs.cpu <= ours.cpu
    assert kill_tree(started.pid)
    assert not alive(ours.pid)


@pytest.mark.parametrize("apart", ["pass", "os.setsid()"])
def test_a_fork_bomb_is_ended_while_it_goes_on(family: Raise, apart: str) -> None:
    started = family(BOMB.format(apart=apart) + READY + "live()\n")
    wait_for(lambda: len(Tree(started.pid).look()) > 60)
    assert kill_tree(started.pid)
    assert all(each.dead for each in Tree(started.pid).look().values())
    wait_for(lambda: not Tree(started.pid).look())


def test_the_stopped_and_the_deaf_are_ended(family: Raise) -> None:
    code = """
import os, signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
if os.fork() == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
"""
    started = family(code + READY + "import time\nwhile True: time.sleep(1)\n")
    wait_for(lambda: len(Tree(started.pid).look()) == 2)
    pids = list(Tree(started.pid).look())
    assert kill_tree(started.pid)
    assert not any(alive(pid) for pid in pids)
    assert alive(started.pid)


def test_the_excluded_are_spared(family: Raise) -> None:
    started = family("import os\nos.fork()\n" + READY + STAY)
    wait_for(lambda: len(Tree(started.pid).look()) == 2)
    first, second = sorted(Tree(started.pid).look())
    assert kill_tree(started.pid, exclude=[first])
    assert alive(first)
    assert not alive(second)


OWN = """
import ctypes, os, sys, time
sys.path.append(sys.argv[1])
from ovagent_jupyter.execution.sandbox import process_tree
from ovagent_jupyter.execution.sandbox.process_tree import kill_tree
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
    time.sleep(600)
time.sleep(0.2)
assert kill_tree(os.getpid())
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("none left")
"""


def test_a_supervisor_buries_its_own() -> None:
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", OWN, root], capture_output=True, text=True
    )
    assert done.stdout == "none left\n", done.stderr
