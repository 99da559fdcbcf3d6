"""The filter on this kernel: calls that are refused, and programs that go on working."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ovagent_jupyter.execution.sandbox.seccomp import TABLES

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in TABLES, reason="no filter for this machine"
)
GUEST = Path(__file__).with_name("filtered.py")
LEVELS = ("3 7", "2 7", "2 2")
"""Level and the Landlock ABI that it may count on."""

Run = Callable[[str, str], "subprocess.CompletedProcess[str]"]

TRY = f"""
import ctypes, errno, json, os, sys
numbers = json.loads({json.dumps(json.dumps(TABLES.get(platform.machine(), {})))})
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    number = numbers[name] if isinstance(name, str) else name
    passed = [
        ctypes.c_long(each if each < 1 << 63 else each - (1 << 64)) if isinstance(each, int)
        else each for each in arguments
    ]
    ctypes.set_errno(0)
    found = libc.syscall(ctypes.c_long(number), *passed)
    return "ok" if found >= 0 else errno.errorcode[ctypes.get_errno()]
answers = {{}}
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs Python code in a new process under the filter of a level."""

    def running(level: str, code: str) -> subprocess.CompletedProcess[str]:
        private = {name: str(tmp_path) for name in ("HOME", "TMPDIR", "NUMBA_CACHE_DIR")}
        return subprocess.run(
            [sys.executable, "-I", "-S", "-B", GUEST, *level.split(), sys.executable, "-c", code],
            env={**os.environ, **private},
            cwd=tmp_path,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return running


def tried(run: Run, level: str, code: str) -> dict[str, str]:
    done = run(level, f"{TRY}\n{code}\nprint(json.dumps(answers))")
    assert done.returncode == 0, done.stderr
    answers: dict[str, str] = json.loads(done.stdout)
    return answers


# Nothing here may do harm where a broken filter lets it through: it would be done to the machine
# that runs the tests. So priorities are raised, which without capabilities ends in EACCES.
REFUSED = """
none = ctypes.c_void_p(None)
room = ctypes.create_string_buffer(256)
for name, *arguments in (
    ("unshare", 0x10000000), ("setns", 0, 0), ("ptrace", 0, 0, 0, 0), ("bpf", 0, room, 8),
    ("mount", b"none", b"/", none, 0, none), ("pivot_root", b".", b"."), ("chroot", b"/"),
    ("fsopen", b"tmpfs", 0), ("open_tree", -100, b"/", 0), ("userfaultfd", 1),
    ("process_vm_readv", os.getppid(), room, 1, room, 1, 0), ("pidfd_getfd", 0, 0, 0),
    ("kcmp", 1, 1, 0, 0, 0), ("keyctl", 0, -3, 1), ("add_key", b"user", b"a", b"b", 1, -3),
    ("perf_event_open", room, 0, -1, -1, 0), ("io_uring_setup", 8, room), ("clone3", room, 88),
    ("openat2", -100, b"/", room, 24), ("name_to_handle_at", -100, b"/", room, room, 0),
    ("personality", 0x40000), ("prctl", 1, 9, 0, 0, 0), ("prctl", 4, 0, 0, 0, 0),
    ("prlimit64", os.getppid(), 7, none, room), ("setpriority", 0, os.getppid(), -20),
    ("setpriority", 2, 0, -20), ("socket", 2, 1, 0), ("socket", 10, 2, 0), ("socket", 16, 3, 0),
    ("socket", 1, 2, 0), ("socket", 17, 3, 0), ("socketpair", 1, 2, 0, room),
    ("ioctl", 0, 0x5412, b"x"), ("ioctl", 0, 0x5412 | 1 << 40, b"x"), ("fcntl", 1, 8, 1),
    ("openat", -100, b"new", 0o101, 0o4755), ("mkdirat", -100, b"newdir", 0o2755),
    ("mknodat", -100, b"device", 0o020666, 0x103), ("fchmodat", -100, b".", 0o4755),
    ("clone", 0x10000011, 0, 0, 0, 0),
):
    answers[" ".join(map(repr, (name, *[a for a in arguments if isinstance(a, int)])))] = call(
        name, *arguments
    )
answers["x32"] = call(0x40000000 | numbers["getpid"])
answers["beyond"] = call(4000)
"""


@pytest.mark.parametrize("level", LEVELS)
def test_refused_at_every_level(run: Run, level: str, tmp_path: Path) -> None:
    answers = tried(run, level, REFUSED)
    assert len(answers) > 40
    assert [name for name, answer in answers.items() if answer == "ok"] == []
    assert {answers["x32"], answers["beyond"], answers["'clone3' 88"]} == {"ENOSYS"}
    assert {answers["'setpriority' 2 0 -20"], answers["'mount' 0"]} == {"EPERM"}
    assert answers["'socket' 2 1 0"] == "EACCES"
    assert answers["'socket' 16 3 0"] == "ENOTSUP"
    assert list(tmp_path.iterdir()) == []


SHARED = """
mine = open("mine", "w")
before = os.stat("mine")
for name, *arguments in (
    ("connect", 0, b"xxx", 3), ("shmget", 0, 4096, 0o1600), ("mq_open", b"q", 0o102, 0o600, None),
    ("inotify_init1", 0), ("setxattr", b"mine", b"user.a", b"b", 1, 0),
    ("fchmod", mine.fileno(), 0o600),
):
    answers[name] = call(name, *arguments)
os.chmod("mine", 0o400)
os.utime("mine", (1, 1))
after = os.stat("mine")
answers["mode"] = "same" if before.st_mode == after.st_mode else "changed"
answers["time"] = "same" if before.st_mtime == after.st_mtime else "changed"
"""


@pytest.mark.parametrize("level", LEVELS[1:])
def test_what_is_shared_with_the_user_is_closed(run: Run, level: str) -> None:
    assert tried(run, level, SHARED) == {
        "connect": "EACCES",
        "shmget": "ENOSYS",
        "mq_open": "ENOSYS",
        "inotify_init1": "ENOSYS",
        "setxattr": "ENOTSUP",
        "fchmod": "ok",
        "mode": "same",
        "time": "same",
    }


def test_a_world_of_its_own_may_be_changed(run: Run) -> None:
    answers = tried(run, "3 7", SHARED)
    assert (answers["mode"], answers["time"]) == ("changed", "changed")
    assert (answers["shmget"], answers["inotify_init1"]) == ("ok", "ok")


SIGNALS = """
other = int(os.environ["OTHER"])
answers = {"other": call("kill", other, 0), "other thread": call("tgkill", other, other, 0),
    "all": call("kill", -1, 0), "self": call("kill", os.getpid(), 0), "group": call("kill", 0, 0)}
"""


@pytest.mark.parametrize(("level", "answer"), [("2 7", "ok"), ("2 2", "EPERM")])
def test_signals(run: Run, level: str, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER", str(os.getpid()))
    answers = tried(run, level, SIGNALS)
    assert (answers["self"], answers["group"]) == ("ok", "ok")
    assert {answers["other"], answers["other thread"], answers["all"]} == {answer}


TRUNCATED = """
open("full", "w").write("text")
flags = os.O_RDONLY | os.O_TRUNC
answers["by name"] = call("truncate", b"full", 0)
answers["opened"] = call("openat", -100, b"full", flags, 0)
answers["neither"] = call("openat", -100, b"full", 3, 0)
answers["size"] = str(os.stat("full").st_size)
os.ftruncate(os.open("full", os.O_WRONLY), 2)
answers["own"] = str(os.stat("full").st_size)
"""


def test_truncation_where_landlock_does_not_see_it(run: Run) -> None:
    assert tried(run, "2 2", TRUNCATED) == {
        "by name": "EACCES",
        "opened": "EACCES",
        "neither": "EACCES",
        "size": "4",
        "own": "2",
    }


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the call is of x86")
def test_the_32_bit_entrance_kills(run: Run) -> None:
    """``mov eax, 20; int 0x80; ret``: getpid of i386; a kernel without it faults."""
    code = (
        "import ctypes, mmap\n"
        "page = mmap.mmap(-1, 4096, prot=7)\n"
        "page.write(bytes.fromhex('b814000000cd80c3'))\n"
        "where = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
        "print(ctypes.CFUNCTYPE(ctypes.c_int)(where)())\n"
    )
    done = run("3 7", code)
    assert done.returncode in {-signal.SIGSYS, -signal.SIGSEGV}
    assert done.stdout == ""


EVERYWHERE = {
    "numpy": "import numpy as np; print(np.linalg.svd(np.eye(300))[1].sum() == 300)",
    "numba": "import numba; print(numba.njit(cache=False)(lambda x: x + 1)(1))",
    "fork": "import multiprocessing as m\nwith m.get_context('fork').Pool(2) as p:\n"
    "    print(p.map(abs, [-1, -2]))",
    "spawn": "import multiprocessing as m\nwith m.get_context('spawn').Pool(2) as p:\n"
    "    print(p.map(abs, [-1, -2]))",
    "threads": "import threading\nt = threading.Thread(target=print, args=('ran',))\n"
    "t.start(); t.join()",
    "subprocess": "import subprocess; print(subprocess.check_output(['ls', '-la', '/']))",
    "ended": "import subprocess\np = subprocess.Popen(['sleep', '60']); p.kill(); print(p.wait())",
    "asyncio": "import asyncio\nasync def main():\n"
    "    p = await asyncio.create_subprocess_exec('true'); print(await p.wait())\n"
    "asyncio.run(main())",
    "shared memory": "from multiprocessing.shared_memory import SharedMemory as S\n"
    "s = S(create=True, size=9); s.close(); s.unlink(); print('gone')",
    "copies": "import shutil\nopen('a', 'w').close(); shutil.copy('a', 'b'); "
    "shutil.copy2('a', 'c'); shutil.copytree('.', 'd'); print('copied')",
    "unpacked": "import shutil, tarfile\nopen('a', 'w').close()\n"
    "t = tarfile.open('t.tar', 'w'); t.add('a'); t.close()\n"
    "shutil.unpack_archive('t.tar', 'out', filter='data'); print(open('out/a').read() == '')",
    "joblib": "import numpy as np\nfrom joblib import Parallel, delayed\n"
    "print(Parallel(2)(delayed(np.sum)(np.ones(300_000)) for _ in range(2)))",
    "h5py": "import h5py\nwith h5py.File('x.h5', 'w') as f: f['a'] = [1]\n"
    "print(h5py.File('x.h5')['a'][:])",
    "zarr": "import zarr, numpy; zarr.save('z', numpy.ones(2)); print(zarr.load('z')[:])",
    "ipykernel": "import ipykernel.kernelapp, ipykernel.ipkernel, zmq.eventloop; print('there')",
    "zmq in process": "import zmq\nc = zmq.Context()\na = c.socket(zmq.PAIR); a.bind('inproc://x')\n"
    "b = c.socket(zmq.PAIR); b.connect('inproc://x'); b.send(b'x'); print(a.recv())",
    "dies": "import os\npid = os.fork()\nif not pid: os.abort()\n"
    "print(os.waitpid(pid, 0)[1] & 127)",
}
"""What has to work at both levels; each prints something."""
OWN_WORLD = {
    "zmq ipc": "import zmq\nc = zmq.Context(); a = c.socket(zmq.PAIR); a.bind('ipc://s')\n"
    "b = c.socket(zmq.PAIR); b.connect('ipc://s'); b.send(b'x'); print(a.recv())",
    "forkserver": "import multiprocessing as m\nwith m.get_context('forkserver').Pool(2) as p:\n"
    "    print(p.map(abs, [-1, -2]))",
    "managed": "import multiprocessing as m\nwith m.Manager() as g: print(g.list([1]))",
}
"""What needs sockets with addresses."""


@pytest.mark.parametrize(
    "code", [*EVERYWHERE.values(), *OWN_WORLD.values()], ids=[*EVERYWHERE, *OWN_WORLD]
)
def test_works_in_a_world_of_its_own(run: Run, code: str) -> None:
    done = run("3 7", code)
    assert (done.returncode, bool(done.stdout)) == (0, True), done.stderr


@pytest.mark.parametrize("code", EVERYWHERE.values(), ids=EVERYWHERE)
def test_works_beside_the_users_programs(run: Run, code: str) -> None:
    done = run("2 7", code)
    assert (done.returncode, bool(done.stdout)) == (0, True), done.stderr
