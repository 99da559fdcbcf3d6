"""Each level in a real child: what it finds closed, and that its work still goes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ovagent_jupyter.config.sandbox import SandboxSpec
from ovagent_jupyter.errors import ConfigError, ConfinementError
from ovagent_jupyter.execution.executor import ExecutionStatus, Isolation
from ovagent_jupyter.execution.launch import LaunchOptions
from ovagent_jupyter.execution.sandbox import landlock
from ovagent_jupyter.execution.sandbox.confinement import REQUIRED, Layers, missing
from ovagent_jupyter.execution.sandbox.probe import probe
from tests.execution.conftest import Kernel

CONFINED = (Isolation.NAMESPACES, Isolation.CONFINED)


def offers(level: Isolation) -> bool:
    """Whether the host has what a level is made of, asked without any of our code for it."""
    if level is Isolation.CONFINED:
        return landlock.abi() > 0
    tried = subprocess.run(
        ["unshare", "--user", "--map-current-user", "--mount", "--pid", "--fork", "true"],
        capture_output=True,
        check=False,
    )
    return tried.returncode == 0


@pytest.fixture(params=CONFINED, ids=lambda level: level.name.lower())
async def confined(request: pytest.FixtureRequest) -> AsyncIterator[Kernel]:
    """A child of each level that an operating system confines."""
    if not offers(request.param):
        pytest.skip("the host does not offer this level")
    executor = Kernel(isolation=request.param)
    await executor.start()
    yield executor
    await executor.shutdown()


async def test_every_part_of_the_level_is_in_force(confined: Kernel) -> None:
    assert missing(confined.isolation, confined.protections) == ()
    seen = await confined.run("print(open('/proc/self/status').read())")
    facts = dict(line.split(":\t", 1) for line in seen.stdout.splitlines() if ":\t" in line)
    assert facts["NoNewPrivs"] == "1"
    assert facts["Seccomp"] == "2"
    assert int(facts["CapEff"], 16) == 0


async def test_a_file_outside_can_neither_be_read_nor_made(
    confined: Kernel, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    canary.write_text("the-secret")
    read = await confined.run(f"print(open({str(canary)!r}).read())")
    assert read.status is ExecutionStatus.ERROR
    assert "the-secret" not in str(read)
    written = await confined.run(f"open({str(tmp_path / 'new')!r}, 'w')")
    assert written.status is ExecutionStatus.ERROR
    assert not (tmp_path / "new").exists()


async def test_grants_are_given_and_nothing_beside_them(tmp_path: Path) -> None:
    given, kept, out = tmp_path / "in.txt", tmp_path / "other.txt", tmp_path / "out"
    given.write_text("for you")
    kept.write_text("not for you")
    out.mkdir()
    spec = SandboxSpec(read=(given,), write=(out,))
    for level in CONFINED:
        executor = Kernel(isolation=level, options=LaunchOptions(spec=spec))
        await executor.start()
        try:
            assert (await executor.run(f"print(open({str(given)!r}).read())")).stdout == "for you\n"
            assert not (await executor.run(f"open({str(given)!r}, 'a')")).ok
            assert not (await executor.run(f"open({str(kept)!r})")).ok
            assert (await executor.run(f"open('{out}/{level.name}', 'w').write('x')")).ok
        finally:
            await executor.shutdown()
        assert (out / level.name).read_text() == "x"


async def test_a_later_grant_brings_a_fresh_child(tmp_path: Path) -> None:
    given = tmp_path / "data.txt"
    given.write_text("now")
    executor = Kernel(isolation=Isolation.NAMESPACES)
    await executor.start()
    try:
        await executor.run("x = 1")
        assert await executor.grant(read=(given,))
        assert not (await executor.run("x")).ok
        assert (await executor.run(f"print(open({str(given)!r}).read())")).stdout == "now\n"
        assert not await executor.grant(read=(given,))
    finally:
        await executor.shutdown()


async def test_there_is_no_network(confined: Kernel) -> None:
    result = await confined.run("import socket; socket.create_connection(('127.0.0.1', 9))")
    assert result.error is not None
    assert result.error.name == "PermissionError"


async def test_it_sees_no_process_but_its_own(confined: Kernel) -> None:
    seen = await confined.run(
        f"import os\n"
        f"try:\n    os.kill({os.getpid()}, 0)\n    print('found')\n"
        f"except OSError as error:\n    print(type(error).__name__)\n"
        f"try:\n    print(open('/proc/{os.getpid()}/cmdline').read())\n"
        f"except OSError as error:\n    print(type(error).__name__)"
    )
    assert set(seen.stdout.split()) <= {
        "PermissionError",
        "ProcessLookupError",
        "FileNotFoundError",
    }


async def test_shell_lines_work_and_their_code_is_kept(confined: Kernel) -> None:
    result = await confined.run("word = 'there'\n!echo hello $word; exit 3\nprint(_exit_code)")
    assert result.stdout.replace("\r", "").split() == ["hello", "there", "3"]


async def test_an_interrupt_reaches_code_and_what_it_started(confined: Kernel) -> None:
    confined.grace = 20.0  # a busy machine takes its time
    result = await confined.run("import subprocess; subprocess.run(['sleep', '60'])", timeout=0.5)
    assert result.status is ExecutionStatus.TIMEOUT
    assert confined.alive


async def test_an_interrupt_never_hits_the_next_cell(confined: Kernel) -> None:
    for _ in range(10):
        stopped = await confined.run("while True: pass", timeout=0.05)
        assert stopped.status is ExecutionStatus.TIMEOUT
        assert (await confined.run("sum(range(10_000))")).ok


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import os; os._exit(3)", "exit code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    ],
)
async def test_how_a_child_died_is_told(confined: Kernel, code: str, told: str) -> None:
    result = await confined.run(code)
    assert result.status is ExecutionStatus.DEAD
    assert result.error is not None
    assert told in result.error.message
    await confined.start()
    assert (await confined.run("print(1)")).stdout == "1\n"


async def test_the_supervisor_is_out_of_reach(confined: Kernel) -> None:
    """The guest signals all it can name; what ends is itself at most."""
    supervisor = confined.pid
    assert supervisor is not None
    await confined.run(
        f"import os, signal\n"
        f"for pid in ({supervisor}, os.getppid(), 1):\n"
        f"    for number in (signal.SIGSTOP, signal.SIGKILL):\n"
        f"        try:\n            os.kill(pid, number)\n"
        f"        except OSError:\n            pass"
    )
    state = Path(f"/proc/{supervisor}/stat").read_text().rpartition(")")[2].split()[0]
    assert state not in {"T", "Z"}
    assert (await confined.run("print(1)")).stdout == "1\n"


async def test_the_supervisor_gone_the_child_is_gone(confined: Kernel) -> None:
    assert confined.pid is not None
    running = asyncio.create_task(confined.run("import time; time.sleep(60)"))
    await asyncio.sleep(0.3)
    os.kill(confined.pid, signal.SIGKILL)
    assert (await running).status is ExecutionStatus.DEAD
    await confined.start()
    assert (await confined.run("print(1)")).stdout == "1\n"


@pytest.mark.parametrize("abi", range(1, landlock.NEWEST + 1))
async def test_older_landlock_still_confines(abi: int, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("the-secret")
    layers = Layers(namespaces=False, landlock=min(abi, landlock.abi()), seccomp=True)
    executor = Kernel(isolation=Isolation.CONFINED, options=LaunchOptions(layers=layers))
    await executor.start()
    try:
        assert missing(Isolation.CONFINED, executor.protections) == ()
        assert not (await executor.run(f"open({str(canary)!r})")).ok
        assert (await executor.run("print(1)")).stdout == "1\n"
    finally:
        await executor.shutdown()


async def test_a_level_without_one_of_its_parts_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a system without Landlock: nothing runs at a level that is not in force."""
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    executor = Kernel(isolation=Isolation.CONFINED)
    with pytest.raises(ConfinementError, match="landlock"):
        await executor.start()
    assert not executor.alive


async def test_the_probe_agrees_with_what_starts() -> None:
    report = await probe()
    for trial in report.trials:
        executor = Kernel(isolation=trial.level)
        try:
            await executor.start()
            started = True
        except ConfinementError:
            started = False
        finally:
            await executor.shutdown()
        assert started == trial.holds, trial
    assert set(report.as_probe()) == {"namespaces", "confined"}


def test_every_level_has_its_list() -> None:
    assert REQUIRED.keys() == {*CONFINED, Isolation.PROCESS}


FULL = """
import asyncio, pathlib, sys, tempfile
from ovagent_jupyter.errors import ConfigError, ConfinementError
from ovagent_jupyter.execution.executor import Isolation
from ovagent_jupyter.execution.kernel import KernelExecutor
from ovagent_jupyter.execution.launch import LaunchOptions

full = pathlib.Path(tempfile.gettempdir())
try:
    (full / "fill").write_bytes(bytes(1 << 20))
except OSError:
    pass
before = sorted(full.iterdir())
executor = KernelExecutor(
    isolation=Isolation[sys.argv[1]],
    options=LaunchOptions(run_dir=pathlib.Path(sys.argv[2])),
)
try:
    asyncio.run(executor.start())
except ConfinementError as error:
    print(error.cause, error)
print(sorted(full.iterdir()) == before)
"""


@pytest.mark.parametrize("level", CONFINED, ids=lambda level: level.name.lower())
def test_no_space_for_the_private_folder(level: Isolation, tmp_path: Path) -> None:
    """On a file system of its own that is full to the last byte and the last file."""
    full = tmp_path / "full"
    full.mkdir()
    if not offers(Isolation.NAMESPACES):
        pytest.skip("the host lets nobody mount a small file system")
    mount = f"mount -t tmpfs -o size=64k,nr_inodes=6 tmpfs {full}"
    told = subprocess.run(
        [
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            f'{mount} && exec "$@"',
            "sh",
            sys.executable,
            "-c",
            FULL,
            level.name,
            str(tmp_path / "r"),
        ],
        env={**os.environ, "TMPDIR": str(full), "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=False,
    )
    said, clean = told.stdout.rsplit("\n", 2)[:2]
    assert said.startswith("setup_failed"), told
    assert "No space left on device" in said
    assert "Next:" in said
    assert clean == "True"


async def test_a_grant_that_is_gone_when_the_child_starts(tmp_path: Path) -> None:
    given = tmp_path / "data.h5ad"
    given.touch()
    options = LaunchOptions(spec=SandboxSpec(read=(given,)))
    given.unlink()
    executor = Kernel(isolation=Isolation.NAMESPACES, options=options)
    with pytest.raises(ConfigError, match=r"data\.h5ad"):
        await executor.start()
    assert not executor.alive
