"""The child as a process: what it sees, where it lives, and that nothing of it stays behind."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ovagent_jupyter.errors import ChildStartError
from ovagent_jupyter.execution.environment import ALLOWED, ChildDirectories, child_environment
from ovagent_jupyter.execution.launch import LaunchOptions
from ovagent_jupyter.execution.rundir import LOCK, SETTLED, RunDirectory
from tests.execution.conftest import Kernel

SECRET = "planted-secret-value"
PACKAGE_ROOT = str(Path(__file__).parents[2])


def planted() -> dict[str, str]:
    names = ("OPENAI_API_KEY", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD", "HF_TOKEN")
    return dict(os.environ) | dict.fromkeys(names, SECRET) | {"OMP_NUM_THREADS": "3"}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until_gone(*pids: int) -> bool:
    for _ in range(500):
        if not any(map(alive, pids)):
            return True
        time.sleep(0.02)
    return False


async def test_the_environment_holds_no_secret() -> None:
    executor = Kernel(options=LaunchOptions(environment=planted()))
    await executor.start()
    seen = await executor.run("import os, json; print(json.dumps(dict(os.environ)))")
    assert SECRET not in seen.stdout
    assert SECRET not in Path(f"/proc/{executor.pid}/environ").read_text()
    environment = json.loads(seen.stdout)
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["HOME"] != os.environ["HOME"]
    await executor.shutdown()


def test_no_allowed_name_is_that_of_a_secret() -> None:
    assert not [n for n in ALLOWED if n.endswith(("KEY", "TOKEN", "SECRET", "PASSWORD"))]


async def test_its_directories_are_private(kernel: Kernel, tmp_path: Path) -> None:
    paths = await kernel.run(
        "import os, sys, tempfile, matplotlib\n"
        "from IPython.paths import get_ipython_dir\n"
        "print(os.getcwd(), os.path.expanduser('~'), tempfile.gettempdir(), get_ipython_dir(),"
        " matplotlib.get_configdir(), sep='\\n')"
    )
    for line in paths.stdout.split():
        assert "ovagent-child-" in line
        assert stat.S_IMODE(Path(line).stat().st_mode) == 0o700
    found = await kernel.run(
        "from pathlib import Path\n"
        "print(list(Path.home().parent.rglob('*.sqlite*')), get_ipython().history_manager.enabled)"
    )
    assert found.stdout == "[] False\n"


async def test_its_sockets_are_private(tmp_path: Path) -> None:
    executor = Kernel(options=LaunchOptions(run_dir=tmp_path / "r"))
    await executor.start()
    (run,) = (tmp_path / "r").iterdir()
    assert stat.S_IMODE(run.stat().st_mode) & 0o777 == 0o700
    assert stat.S_IMODE((run / "kernel.json").stat().st_mode) == 0o400
    info = json.loads((run / "kernel.json").read_text())
    assert info["transport"] == "ipc"
    assert all(len(os.fsencode(path)) <= 107 for path in run.iterdir())
    assert [path for path in run.iterdir() if path.is_socket()]
    await executor.shutdown()
    assert not list((tmp_path / "r").iterdir())


async def test_startup_files_of_the_user_do_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    startup = tmp_path / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text("planted = 1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    executor = Kernel(options=LaunchOptions())
    await executor.start()
    assert await executor.value("'planted' in globals()") == "False"
    await executor.shutdown()


async def test_paths_with_spaces_and_a_long_temporary_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / "a directory" / ("x" * 150)
    long.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(long))
    work = tmp_path / "my work"
    executor = Kernel(options=LaunchOptions(work_dir=work))
    await executor.start()
    assert (await executor.run("open('made here', 'w').write('x')")).ok
    assert (work / "made here").read_text() == "x"
    await executor.shutdown()
    assert not list(long.iterdir())
    assert (work / "made here").exists()


async def test_a_path_too_long_for_sockets_is_said(tmp_path: Path) -> None:
    executor = Kernel(options=LaunchOptions(run_dir=tmp_path / ("x" * 100)))
    with pytest.raises(ChildStartError, match="too long for sockets"):
        await executor.start()
    assert not executor.alive


async def test_a_child_that_cannot_start_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no module named ipykernel' >&2\nexit 4\n")
    broken.chmod(0o755)
    options = LaunchOptions(python=str(broken), run_dir=tmp_path / "r")
    with pytest.raises(ChildStartError) as caught:
        await Kernel(options=options).start()
    assert "exit status 4" in caught.value.why
    assert "no module named ipykernel" in caught.value.why
    assert not list((tmp_path / "r").iterdir())


async def test_a_child_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    mute = tmp_path / "python"
    mute.write_text("#!/bin/sh\nexec sleep 60\n")
    mute.chmod(0o755)
    options = LaunchOptions(python=str(mute), start_timeout=0.3)
    with pytest.raises(ChildStartError, match=r"did not answer|does not say where"):
        await Kernel(options=options).start()


async def test_no_such_interpreter(tmp_path: Path) -> None:
    with pytest.raises(ChildStartError, match="does not say where"):
        await Kernel(options=LaunchOptions(python=str(tmp_path / "none"))).start()


async def test_nothing_leaks_over_many_lives(tmp_path: Path) -> None:
    async def live() -> None:
        executor = Kernel(options=LaunchOptions(run_dir=tmp_path / "r"))
        await executor.start()
        await executor.run("1")
        await executor.shutdown()
        await executor.shutdown()

    def held() -> tuple[int, int]:
        gc.collect()
        return count("/proc/self/fd"), threading.active_count()

    def count(directory: str) -> int:
        return len(list(Path(directory).iterdir()))

    # Its pool of threads grows when one of them is busy, which is no leak.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    await live()
    before = held()
    threads = count("/proc/self/task")
    for _ in range(4):
        await live()
    assert held() == before
    assert count("/proc/self/task") <= threads
    assert not list((tmp_path / "r").iterdir())


async def test_an_executor_that_is_dropped_ends_its_child(tmp_path: Path) -> None:
    executor = Kernel(options=LaunchOptions(run_dir=tmp_path / "r"), warm=("wave",))
    await executor.start()
    await executor.run("1")
    pid = executor.pid
    assert pid is not None
    del executor
    gc.collect()
    assert wait_until_gone(pid)
    assert not list((tmp_path / "r").iterdir())


async def test_a_restart_leaves_one_child(tmp_path: Path) -> None:
    executor = Kernel(options=LaunchOptions(run_dir=tmp_path / "r"))
    await executor.start()
    first = executor.pid
    assert first is not None
    await executor.run("x = 1")
    await executor.restart()
    assert not alive(first)
    assert (await executor.run("x")).error is not None
    assert len(list((tmp_path / "r").iterdir())) == 1
    await executor.shutdown()


async def test_shutdown_ends_a_running_cell(kernel: Kernel) -> None:
    running = asyncio.create_task(kernel.run("while True: pass"))
    await asyncio.sleep(0.2)
    await kernel.shutdown()
    assert not (await running).ok
    assert not kernel.alive


PARENT = """
import asyncio, os, sys
from ovagent_jupyter.execution.executor import ExecutionRequest
from ovagent_jupyter.execution.kernel import KernelExecutor
from ovagent_jupyter.execution.launch import LaunchOptions
from pathlib import Path

async def main():
    executor = KernelExecutor(options=LaunchOptions(run_dir=Path(sys.argv[1])))
    await executor.start()
    print(executor.pid, flush=True)
    {body}

{run}
"""
IN_THREAD = (
    "import threading\nt = threading.Thread(target=asyncio.run, args=(main(),))\n"
    "t.start()\nt.join()"
)


def start_parent(tmp_path: Path, body: str, run: str = "asyncio.run(main())") -> tuple[int, ...]:
    """A process with a child of its own; returns its id and that of the child."""
    code = textwrap.dedent(PARENT).format(body=body, run=run)
    parent = subprocess.Popen(
        # The one warning a loop that was closed over an open wire cannot be kept from.
        [
            *(sys.executable, "-W", "error", "-W", "ignore:unclosed:ResourceWarning"),
            *("-c", code, str(tmp_path / "r")),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(os.environ) | {"PYTHONPATH": PACKAGE_ROOT},
    )
    with parent:
        assert parent.stdout is not None
        first = parent.stdout.readline()
        assert first.strip().isdigit(), first + parent.stdout.read()
        if "sleep" in body:
            time.sleep(0.3)
            parent.send_signal(signal.SIGKILL)
        assert parent.stdout.read() == ""
    return parent.pid, int(first)


@pytest.mark.parametrize("code", ["while True: pass", "sum(range(10**13))"])
def test_the_child_dies_with_its_parent(tmp_path: Path, code: str) -> None:
    body = f"await executor.execute(ExecutionRequest({code!r}))  # sleep"
    _, child = start_parent(tmp_path, body)
    assert wait_until_gone(child)


def test_a_parent_that_ends_without_shutdown_leaves_nothing(tmp_path: Path) -> None:
    _, child = start_parent(tmp_path, "pass")
    assert wait_until_gone(child)
    assert not list((tmp_path / "r").iterdir())


def test_it_works_off_the_main_thread(tmp_path: Path) -> None:
    body = "assert (await executor.execute(ExecutionRequest('1'))).ok; await executor.shutdown()"
    _, child = start_parent(tmp_path, body, IN_THREAD)
    assert wait_until_gone(child)


def test_left_over_directories_are_swept(tmp_path: Path) -> None:
    used = RunDirectory(tmp_path, "k-")
    for name in ("k-dead", "k-young", "k-odd", "other"):
        (tmp_path / name).mkdir()
    for name in ("k-dead", "k-young", "other"):
        (tmp_path / name / LOCK).touch()
    old = time.time() - 2 * SETTLED
    for name in ("k-dead", "k-odd", "other", used.path.name):
        os.utime(tmp_path / name, (old, old))
    fresh = RunDirectory(tmp_path, "k-")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"k-young", "k-odd", "other", used.path.name, fresh.path.name}
    used.remove()
    used.remove()
    fresh.remove()


def test_user_packages_are_still_found(tmp_path: Path) -> None:
    import site

    made = child_environment({"PATH": "x"}, ChildDirectories.below(tmp_path))
    assert made["PATH"] == "x"
    assert ("PYTHONUSERBASE" in made) == site.ENABLE_USER_SITE
    assert PACKAGE_ROOT in made.get("PYTHONPATH", "").split(os.pathsep)
