"""What a tree of processes uses, seen from outside, and its end."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from ovagent_jupyter.execution.sandbox.process_tree import Tree, kill_tree
from ovagent_jupyter.execution.sandbox.rlimits import machine_memory, rlimits_for
from ovagent_jupyter.execution.sandbox.watchdog import Breach, Watchdog
from tests.execution.sandbox.family import READY, STAY, Family, alive, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MIB = 1 << 20
GIB = 1 << 30
LIMITS = {
    "memory": GIB,
    "cpu_time": 0.0,
    "processes": 64,
    "file_size": GIB,
    "disk": GIB,
}
LOOKS = 40
"""Looks that find nothing, before it is believed; each round of the slow ones fits in often."""

Raise = Callable[[str], Family]


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Raise]:
    """Starts guests, and ends them after the test."""
    families: list[Family] = []

    def start(code: str) -> Family:
        families.append(Family(tmp_path, code))
        families[-1].wait_until_ready()
        return families[-1]

    yield start
    for each in families:
        assert kill_tree(each.pid)
        each.end()


def watch(family: Family, *directories: Path, **limits: float) -> Watchdog:
    return Watchdog(LIMITS | limits, family.pid, directories=[str(each) for each in directories])


def breach_of(watchdog: Watchdog) -> Breach:
    """The first breach; it must come."""
    found: list[Breach] = []

    def look() -> bool:
        breach = watchdog.look(time.monotonic())
        found.extend([breach] if breach is not None else [])
        return bool(found)

    wait_for(look)
    return found[0]


def finds_nothing(watchdog: Watchdog) -> bool:
    for _ in range(LOOKS):
        if watchdog.look(time.monotonic()) is not None:
            return False
        time.sleep(0.05)
    return True


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


# -- the tree ------------------------------------------------------------------------------------

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


@pytest.mark.parametrize("listed", [True, False])
def test_a_daemon_belongs_to_the_tree(family: Raise, tmp_path: Path, listed: bool) -> None:
    started = family(DAEMON + READY + STAY)
    daemon = int((tmp_path / "daemon").read_text())
    tree = Tree(started.pid)
    tree._listed = tree._listed and listed  # a kernel without CONFIG_PROC_CHILDREN has no lists
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


# -- caps ----------------------------------------------------------------------------------------


def test_too_many_processes(family: Raise) -> None:
    code = "import os\nfor _ in range(20):\n    if os.fork() == 0:\n        import time\n"
    started = family(code + "        time.sleep(600)\n" + READY + STAY)
    name, cap, used = breach_of(watch(started, processes=10))
    assert (name, cap) == ("processes", 10)
    assert 10 < used <= 21
    assert finds_nothing(watch(started, processes=21))


FILL = "held = bytearray(b'x') * (300 << 20)\n"


def test_too_much_memory(family: Raise) -> None:
    started = family(FILL + READY + STAY)
    name, cap, used = breach_of(watch(started, memory=200 * MIB))
    assert (name, cap) == ("memory", 200 * MIB)
    assert 300 * MIB < used < 400 * MIB


def test_memory_of_several_is_added_up(family: Raise) -> None:
    grow = "import os\nfor _ in range(3):\n    if os.fork() == 0:\n"
    body = "        held = bytearray(b'x') * (100 << 20)\n        open(str(os.getpid()), 'w')\n"
    wait = "import time\nwhile len([n for n in os.listdir('.') if n.isdecimal()]) < 3:\n    "
    code = grow + body + "        time = __import__('time').sleep(600)\n" + wait
    started = family(code + "time.sleep(0.01)\n" + READY + STAY)
    _, _, used = breach_of(watch(started, memory=250 * MIB))
    assert used > 300 * MIB


def test_pages_that_are_shared_count_once(family: Raise) -> None:
    fork = "import os\nfor _ in range(5):\n    if os.fork() == 0:\n        break\n"
    started = family(FILL + fork + READY + STAY)
    wait_for(lambda: len(Tree(started.pid).look()) == 6)
    assert sum(each.resident for each in Tree(started.pid).look().values()) * 4096 > GIB
    assert finds_nothing(watch(started, memory=450 * MIB))


HIDDEN = {
    "a descriptor": """
        import os
        held = os.memfd_create("held")
        for _ in range(200):
            os.write(held, b"x" * (1 << 20))
        """,
    "a shared map": """
        import mmap
        held = mmap.mmap(-1, 200 << 20)
        held[:] = b"x" * (200 << 20)
        """,
    "a mapped descriptor": """
        import mmap, os
        held = os.memfd_create("held")
        os.ftruncate(held, 200 << 20)
        held = mmap.mmap(held, 200 << 20)
        held[:] = b"x" * (200 << 20)
        """,
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_memory_that_belongs_to_no_process(family: Raise, kind: str) -> None:
    started = family(dedent(HIDDEN[kind]) + READY + STAY)
    name, _, used = breach_of(watch(started, memory=150 * MIB))
    assert name == "memory"
    assert 200 * MIB <= used < 260 * MIB
    assert finds_nothing(watch(started, memory=300 * MIB))


BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"
CHILDREN = """
import os, signal, time
while not os.path.exists('go'): time.sleep(0.01)
{before}
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        while time.process_time() < 0.4: pass
        os._exit(0)
    while os.path.exists(f'/proc/{{pid}}'):
        {wait}
open('done', 'w').close()
"""
GO = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
DONE = "open('done', 'w').close()\n"


def test_cpu_time_of_those_that_ended_counts(family: Raise, tmp_path: Path) -> None:
    code = CHILDREN.format(before="", wait="os.waitpid(pid, 0); break")
    started = family(READY + code + STAY)
    watchdog = watch(started, cpu_time=0.9)
    assert watchdog.look(time.monotonic()) is None
    (tmp_path / "go").touch()
    wait_for((tmp_path / "done").exists)
    name, cap, used = breach_of(watchdog)
    assert (name, cap) == ("cpu_time", 0.9)
    assert 1.1 < used < 2


def test_cpu_time_of_those_for_whom_nobody_waits(family: Raise, tmp_path: Path) -> None:
    # The system gives the time of these to no parent: only who looks in between knows it.
    ignore = "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
    code = CHILDREN.format(before=ignore, wait="time.sleep(0.01)")
    started = family(READY + code + STAY)
    watchdog = watch(started, cpu_time=0.9)
    assert watchdog.look(time.monotonic()) is None
    (tmp_path / "go").touch()
    assert breach_of(watchdog)[0] == "cpu_time"


def test_cpu_time_without_a_cap(family: Raise) -> None:
    started = family(BURN.format(seconds=0.3) + READY + STAY)
    assert finds_nothing(watch(started))


# -- disk ----------------------------------------------------------------------------------------

BIG = "file.write(b'x' * (30 << 20)); file.flush()\n"
OPEN = "import os\nfile = open('own/big', 'w+b')\n"
WRITE = {
    "a file": OPEN + BIG,
    "a folder without rights": "import os\nos.mkdir('own/closed')\n"
    "file = open('own/closed/big', 'wb')\n" + BIG + "os.chmod('own/closed', 0)\n",
    "a file without a name": OPEN + "os.unlink('own/big')\n" + BIG,
    "a map without a name": OPEN + "import mmap\nos.unlink('own/big')\n" + BIG + "file.seek(0)\n"
    "held = mmap.mmap(file.fileno(), 30 << 20)\nfile.close()\nfor number in range(3, 64):\n"
    "    try: os.close(number)\n    except OSError: pass\n",
    "room that is only reserved": OPEN + "os.posix_fallocate(file.fileno(), 0, 30 << 20)\n",
}


@pytest.mark.parametrize("kind", WRITE)
def test_too_much_on_disk(family: Raise, tmp_path: Path, kind: str) -> None:
    own = tmp_path / "own"
    own.mkdir()
    started = family(READY + GO + WRITE[kind] + DONE + STAY)
    watchdog = watch(started, own, disk=20 * MIB)
    (tmp_path / "go").touch()
    wait_for((tmp_path / "done").exists)
    name, cap, used = breach_of(watchdog)
    assert (name, cap) == ("disk", 20 * MIB)
    assert 20 * MIB < used < 40 * MIB


def test_what_does_not_count_on_disk(family: Raise, tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    other.mkdir()
    (own / "old").write_bytes(b"x" * 30 * MIB)
    time.sleep(1.1)  # what is older than the watchdog is not the guest's
    started = family(READY + STAY)
    watchdog = watch(started, own, disk=20 * MIB)
    (other / "big").write_bytes(b"x" * 30 * MIB)
    (own / "link").symlink_to(other)
    (own / "file").symlink_to(other / "big")
    (own / "one").write_bytes(b"x" * 12 * MIB)
    (own / "two").hardlink_to(own / "one")
    with (own / "sparse").open("wb") as file:
        file.truncate(GIB)
    assert finds_nothing(watchdog)


def test_too_many_files(family: Raise, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    started = family("for i in range(10_050): open(f'own/{i}', 'w').close()\n" + READY + STAY)
    name, cap, used = breach_of(watch(started, own, disk=20 * MIB))
    assert (name, cap) == ("files", 10_000)
    assert used > 10_000


def test_directories_too_deep(family: Raise, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    code = (
        "import os\nos.chdir('own')\nfor _ in range(300):\n    os.mkdir('d')\n    os.chdir('d')\n"
    )
    ready = f"open({str(tmp_path / 'ready')!r}, 'w').close()\n"
    started = family(code + ready + STAY)
    assert breach_of(watch(started, own))[0] == "directory_depth"


def test_many_files_do_not_hold_up_the_watchdog(family: Raise, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    started = family("for i in range(9_000): open(f'own/{i}', 'w').close()\n" + READY + STAY)
    watchdog = watch(started, own, disk=20 * MIB)
    before = open_descriptors()
    watchdog.look(time.monotonic())
    # One look is a slice: the folder is still open, so the rest is for later looks.
    assert open_descriptors() > before
    assert finds_nothing(watchdog)


def test_the_next_look_comes_sooner_near_a_cap(family: Raise) -> None:
    started = family(FILL + READY + STAY)
    near, far = watch(started, memory=400 * MIB), watch(started, memory=4 * GIB)
    assert near.look(time.monotonic()) is None
    assert far.look(time.monotonic()) is None
    assert near.pause < far.pause


# -- the end -------------------------------------------------------------------------------------

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


# -- limits of single processes ------------------------------------------------------------------


def run_limited(code: str, **limits: float) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter with the limits of a child."""
    wanted = rlimits_for(LIMITS | limits)
    apply = f"""
import resource
for number, soft, hard in {wanted!r}:
    present = resource.getrlimit(number)[1]
    if present != -1: soft, hard = (min(present, each) if each != -1 else present
                                    for each in (soft, hard))
    resource.setrlimit(number, (soft, hard))
"""
    return subprocess.run(
        [sys.executable, "-c", apply + code], capture_output=True, text=True, timeout=240
    )


def test_a_huge_allocation_fails_at_once() -> None:
    done = run_limited("import numpy\nnumpy.zeros(1 << 40)")
    assert "MemoryError" in done.stderr


def test_a_file_that_is_too_large_is_an_error_of_the_code(tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'big')!r}, 'wb').write(b'x' * (2 << 20))"
    done = run_limited(code, file_size=1 << 20)
    assert "File too large" in done.stderr
    assert (tmp_path / "big").stat().st_size == 1 << 20


def test_no_core_is_written_and_nothing_is_raised() -> None:
    limits = {number: (soft, hard) for number, soft, hard in rlimits_for(LIMITS)}
    assert limits[resource.RLIMIT_CORE] == (0, 0)
    assert resource.RLIMIT_CPU not in limits
    capped = {number: soft for number, soft, _ in rlimits_for(LIMITS | {"cpu_time": 60})}
    assert capped[resource.RLIMIT_CPU] > 60


@pytest.mark.slow
def test_the_real_work_runs_with_the_limits() -> None:
    code = """
import numba, numpy, joblib, multiprocessing
import scanpy
data = scanpy.AnnData(numpy.random.default_rng(0).random((200, 50), dtype="float32"))
scanpy.pp.pca(data, n_comps=10)
scanpy.pp.neighbors(data)
print(numba.njit(lambda x: x + 1)(1))
print(joblib.Parallel(2)(joblib.delayed(abs)(-i) for i in range(3)))
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(abs, [-4]))
"""
    done = run_limited(code, memory=2 * GIB)
    assert done.stdout == "2\n[0, 1, 2]\n[4]\n", done.stderr


def test_the_memory_of_the_machine() -> None:
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 64 * MIB < machine_memory() <= installed
