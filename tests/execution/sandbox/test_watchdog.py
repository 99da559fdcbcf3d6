"""What a tree of processes uses, seen from outside."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from textwrap import dedent

import pytest

from ovagent_jupyter.execution.sandbox.process_tree import Tree
from ovagent_jupyter.execution.sandbox.watchdog import Breach, Watchdog
from tests.execution.sandbox.family import BURN, FILL, READY, STAY, Family, Raise, wait_for

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


# -- caps ----------------------------------------------------------------------------------------


def test_too_many_processes(family: Raise) -> None:
    code = "import os\nfor _ in range(20):\n    if os.fork() == 0:\n        import time\n"
    started = family(code + "        time.sleep(600)\n" + READY + STAY)
    name, cap, used = breach_of(watch(started, processes=10))
    assert (name, cap) == ("processes", 10)
    assert 10 < used <= 21
    assert finds_nothing(watch(started, processes=21))


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
