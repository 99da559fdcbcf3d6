"""The kernel ``ovagent-sandbox`` through Jupyter's own managers: start, interrupt, restart, end."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from threading import Timer

import pytest
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager, start_new_async_kernel

from ovagent_jupyter.execution.executor import Isolation
from ovagent_jupyter.execution.sandbox.confinement import missing
from tests.execution.kernelspec.kernels import (
    CONFINED,
    KERNEL,
    PATIENCE,
    SPECS,
    STATUS,
    Client,
    Traces,
    provisioner_of,
    traces_of,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(autouse=True)
def _specs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JUPYTER_PATH", str(SPECS))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))


@pytest.fixture
def kernel() -> Iterator[Client]:
    client = Client()
    client.start()
    yield client
    client.close()


LEVELS = {level.name.lower(): level for level in Isolation if level.guarded}
EACH_LEVEL = pytest.mark.parametrize("level", LEVELS, indirect=True)


@pytest.fixture(autouse=True)
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The level that the user's settings ask for; as it is by default, unless a test says more."""
    name = str(getattr(request, "param", ""))
    if name:
        monkeypatch.setenv("OVAGENT_SANDBOX_LEVEL", name)
        monkeypatch.setenv("OVAGENT_SANDBOX_FALLBACK_POLICY", "raise")
    return name


@EACH_LEVEL
def test_it_is_confined_and_leaves_nothing(level: str, kernel: Client) -> None:
    reply, shown = kernel.run(STATUS)
    assert reply["status"] == "ok"
    assert shown == CONFINED
    ours = provisioner_of(kernel.manager).kernel
    assert ours.isolation is LEVELS[level]
    assert missing(ours.isolation, ours.protections) == ()
    traces = traces_of(kernel.manager)
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel()
    assert traces.left() == []


def test_it_sees_neither_the_notebooks_folder_nor_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data.csv").write_text("secret")
    monkeypatch.setenv("OPENAI_API_KEY", "planted-secret")
    client = Client()
    client.manager.start_kernel(cwd=str(tmp_path), env=dict(os.environ) | {"MY_TOKEN": "planted"})
    client._client = client.manager.client()
    client.client.start_channels()
    try:
        client.client.wait_for_ready(timeout=PATIENCE)
        _, shown = client.run("import os; print(os.getcwd(), dict(os.environ))")
        assert "planted" not in shown
        assert str(tmp_path) not in shown.split()[0]
        for path in ("data.csv", tmp_path / "data.csv"):
            reply, shown = client.run(f"open({str(path)!r})")
            assert reply["status"] == "error"
            # The way out is told where it is missed.
            assert "sandbox_read" in shown
            assert "secret" not in shown
        reply, _ = client.run("import socket; socket.create_connection(('127.0.0.1', 9))")
        assert reply["status"] == "error"
    finally:
        client.close()


def test_the_banner_says_what_it_is(kernel: Client) -> None:
    banner = kernel.client.kernel_info(reply=True, timeout=PATIENCE)["content"]["banner"]
    assert "This kernel is confined" in banner
    work = provisioner_of(kernel.manager).kernel.folders.root / "work"
    assert str(work) in banner
    kernel.run("open('made', 'w').write('x')")
    assert (work / "made").read_text() == "x"


def test_its_sockets_and_files_are_private(kernel: Client) -> None:
    info = kernel.manager.get_connection_info()
    assert info["transport"] == "ipc"
    stem = Path(str(info["ip"]))
    for port in range(1, 6):
        path = stem.with_name(f"{stem.name}-{port}")
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert len(os.fsencode(path)) <= 103
    assert stat.S_IMODE(stem.parent.stat().st_mode) & 0o777 == 0o700
    written = json.loads(Path(kernel.manager.connection_file).read_text())
    inside = json.loads((stem.parent / "kernel.json").read_text())
    assert written["ip"] == str(stem)
    # What the child knows signs nothing that a client would believe.
    assert written["key"] != inside["key"]
    _, shown = kernel.run(
        "import os\n"
        f"for path in ({str(stem) + '-1'!r}, {kernel.manager.connection_file!r}):\n"
        "    try:\n"
        "        os.open(path, os.O_RDONLY)\n"
        "    except OSError as error:\n"
        "        print(type(error).__name__)\n"
    )
    assert set(shown.split()) <= {"FileNotFoundError", "PermissionError"}
    assert len(shown.split()) == 2


@EACH_LEVEL
@pytest.mark.parametrize("code", ["while True: pass", "import time; time.sleep(600)"])
def test_interrupt(kernel: Client, code: str) -> None:
    again = Timer(10, kernel.manager.interrupt_kernel)  # the first may fall where it is dropped

    def interrupt(text: str) -> None:
        if "begun" in text:
            kernel.manager.interrupt_kernel()
            again.start()

    reply, _ = kernel.run(f"print('begun', flush=True)\n{code}", at=interrupt)
    again.cancel()
    assert reply["ename"] == "KeyboardInterrupt"
    assert kernel.run("print(6 * 7)")[1] == "42\n"


@EACH_LEVEL
@pytest.mark.parametrize("now", [True, False])
def test_restart_gives_a_fresh_process_at_the_same_address(kernel: Client, now: bool) -> None:
    before = kernel.manager.get_connection_info()
    process = provisioner_of(kernel.manager).kernel.process
    assert process is not None
    first = process.pid
    kernel.run(
        "import os, pathlib\n"
        "x = 1\n"
        "pathlib.Path('result.txt').write_text('kept')\n"
        "startup = pathlib.Path(os.environ['IPYTHONDIR'], 'profile_default', 'startup')\n"
        "startup.mkdir(parents=True, exist_ok=True)\n"
        "(startup / '00.py').write_text('planted = 1')\n"
    )
    kernel.manager.restart_kernel(now=now)
    kernel.client.wait_for_ready(timeout=PATIENCE)
    assert kernel.manager.get_connection_info() == before
    assert not Path(f"/proc/{first}").exists()
    assert kernel.run("print('x' in globals(), 'planted' in globals())")[1] == "False False\n"
    assert kernel.run("print(open('result.txt').read())")[1] == "kept\n"
    assert kernel.run(STATUS)[1] == CONFINED
    traces = traces_of(kernel.manager)
    kernel.close()
    assert traces.left() == []


def test_many_restarts_leak_nothing(kernel: Client) -> None:
    def held() -> tuple[int, int]:
        gc.collect()
        # Threads of the pool that asyncio lends are made as needed, up to a bound of its own.
        own = [each for each in threading.enumerate() if not each.name.startswith("asyncio_")]
        return len(list(Path("/proc/self/fd").iterdir())), len(own)

    def live() -> None:
        kernel.manager.restart_kernel(now=True)
        kernel.client.wait_for_ready(timeout=PATIENCE)

    live()
    before = held()
    for _ in range(3):
        live()
    assert held() == before


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os._exit(3)", "ended with exit code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
        ("import ctypes; ctypes.string_at(0)", "was killed by SIGSEGV"),
    ],
)
def test_a_kernel_that_dies_says_so_and_keeps_its_level(
    kernel: Client, code: str, said: str
) -> None:
    level = provisioner_of(kernel.manager).kernel.isolation
    message_id = kernel.client.execute(code)
    texts = []
    while True:
        message = kernel.client.get_iopub_msg(timeout=PATIENCE)
        if message["parent_header"].get("msg_id") != message_id:
            continue
        texts.append(message["content"].get("text", ""))
        if message["content"].get("execution_state") == "idle":
            break
    assert said in "".join(texts)
    assert not kernel.manager.is_alive()
    kernel.manager.restart_kernel(now=True)
    kernel.client.wait_for_ready(timeout=PATIENCE)
    assert provisioner_of(kernel.manager).kernel.isolation is level
    assert kernel.run(STATUS)[1] == CONFINED


def test_a_cell_may_ask_its_user(kernel: Client) -> None:
    def answer(message: dict[str, dict[str, object]]) -> None:
        assert message["content"]["prompt"] == "name? "
        kernel.client.input("Ada")

    texts: list[str] = []
    kernel.client.execute_interactive(
        "print('hello', input('name? '))",
        timeout=PATIENCE,
        stdin_hook=answer,
        output_hook=lambda message: texts.append(message["content"].get("text", "")),
    )
    assert "hello Ada" in "".join(texts)


def test_a_kernel_that_cannot_be_understood_is_ended(kernel: Client) -> None:
    """It has its sockets and its key, and can send on them what it likes."""
    code = (
        "import os, time\n"
        "for number in range(3, 100):\n"
        "    try:\n"
        "        os.write(number, b'\\xff' * 4096)\n"
        "    except OSError:\n"
        "        pass\n"
        "time.sleep(600)\n"
    )
    message_id = kernel.client.execute(code)
    texts = []
    while True:
        message = kernel.client.get_iopub_msg(timeout=PATIENCE)
        if message["parent_header"].get("msg_id") != message_id:
            continue
        texts.append(message["content"].get("text", ""))
        if message["content"].get("execution_state") == "idle":
            break
    assert "[The kernel " in "".join(texts)
    deadline = time.monotonic() + 20
    while kernel.manager.is_alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not kernel.manager.is_alive()
    kernel.manager.restart_kernel(now=True)
    kernel.client.wait_for_ready(timeout=PATIENCE)
    assert kernel.run(STATUS)[1] == CONFINED


@EACH_LEVEL
def test_what_its_code_started_goes_with_it(kernel: Client) -> None:
    _, shown = kernel.run(
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', 'marker-h7'],"
        " start_new_session=True)\n"
    )
    assert shown == ""
    assert _running("marker-h7")
    kernel.close()
    deadline = time.monotonic() + 20
    while _running("marker-h7") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _running("marker-h7")


def _running(mark: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if mark.encode() in line and int(process.name) != os.getpid():
            found.append(process.name)
    return found


PARENT = """
import sys
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="ovagent-sandbox")
folders = manager.provisioner.kernel.folders
print(manager.provisioner.kernel.process.pid, folders.run, folders.root, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_dies_with_the_server(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid, run, _root = parent.stdout.readline().split()
        parent.send_signal(number)
    # The folders of a parent that was killed are swept by the next one.
    traces = Traces((), int(pid))
    assert traces.left() == []
    assert not _running(run)


def test_a_server_that_forgets_it_leaves_nothing() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        pid, run, root = parent.stdout.readline().split()
        parent.stdin.close()
    assert Traces((Path(run), Path(root)), int(pid)).left() == []


# -- asynchronous clients ---------------------------------------------------------------------


@pytest.fixture
async def pair() -> AsyncIterator[tuple[AsyncKernelManager, AsyncKernelClient]]:
    manager, client = await start_new_async_kernel(kernel_name=KERNEL, startup_timeout=PATIENCE)
    yield manager, client
    client.stop_channels()
    await manager.shutdown_kernel(now=True)


async def test_an_asynchronous_client(
    pair: tuple[AsyncKernelManager, AsyncKernelClient],
) -> None:
    manager, client = pair
    texts: list[str] = []

    begun = asyncio.Event()

    def hear(message: dict[str, dict[str, str]]) -> None:
        texts.append(message["content"].get("text", ""))
        if "begun" in texts[-1]:
            begun.set()

    async def run(code: str) -> dict[str, object]:
        reply = await client.execute_interactive(code, timeout=PATIENCE, output_hook=hear)
        return dict(reply["content"])

    await run(STATUS)
    assert "".join(texts) == CONFINED
    running = asyncio.create_task(run("print('begun', flush=True)\nwhile True: pass"))
    await begun.wait()
    await manager.interrupt_kernel()
    assert (await running)["ename"] == "KeyboardInterrupt"
    await manager.restart_kernel()
    await client.wait_for_ready(timeout=PATIENCE)
    assert (await run("1"))["status"] == "ok"
    traces = traces_of(manager)
    await manager.shutdown_kernel()
    assert await asyncio.to_thread(traces.left) == []


async def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    manager = AsyncKernelManager(kernel_name=KERNEL)
    starting = asyncio.create_task(manager.start_kernel())  # type: ignore[arg-type]
    while manager.provisioner is None or not manager.provisioner.connection_info:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    folders = provisioner_of(manager).kernel.folders
    await asyncio.sleep(0.05)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert await asyncio.to_thread(Traces((folders.run, folders.root), 1_000_000_000).left) == []
