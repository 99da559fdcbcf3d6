"""Every setting of the sandbox has the effect that its documentation names, in a real child."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

import ovagent_jupyter as ov
from ovagent_jupyter.config import AgentConfig
from ovagent_jupyter.errors import ConfigError, SandboxDeniedError
from ovagent_jupyter.execution.executor import (
    ExecutionRequest,
    ExecutionResult,
    ExecutionStatus,
    Isolation,
)
from ovagent_jupyter.execution.policy import PolicyExecutor
from ovagent_jupyter.loop_thread import CallerThread
from ovagent_jupyter.runtime import build, build_executor

SHOWN = frozenset(
    {
        *("sandbox_level", "approve", "sandbox_read", "sandbox_write", "sandbox_network"),
        *("sandbox_memory", "sandbox_cpu_time", "sandbox_processes", "sandbox_file_size"),
        *("sandbox_disk", "sandbox_force"),
    }
)
"""The settings that the tests below show."""
MIB = 1 << 20


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a user with data."""
    place = tmp_path / "user"
    (place / "data").mkdir(parents=True)
    (place / "data" / "cells.txt").write_text("counts")
    monkeypatch.setenv("HOME", str(place))
    return place


Sandbox = Callable[..., AbstractAsyncContextManager[PolicyExecutor]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that import nothing beforehand: no cell here needs it."""
    monkeypatch.setattr(build, "WARM", ())


@pytest.fixture
def sandbox() -> Sandbox:
    """Starts a child with settings, and ends it."""

    @asynccontextmanager
    async def started(**settings: object) -> AsyncIterator[PolicyExecutor]:
        config = AgentConfig.from_flat_kwargs(**settings)
        executor = build_executor(config, lambda _: None, CallerThread())
        try:
            await executor.start()
            yield executor
        finally:
            await executor.shutdown()

    return started


async def run(executor: PolicyExecutor, code: str) -> ExecutionResult:
    return await executor.execute(ExecutionRequest(code, timeout=120))


async def test_level_is_where_code_runs(sandbox: Sandbox) -> None:
    async with sandbox(sandbox_level="confined") as executor:
        assert executor.isolation is Isolation.CONFINED
        assert executor.protections["seccomp"] == "enforced"
    async with sandbox(sandbox_level="process", approve="never") as executor:
        assert executor.isolation is Isolation.PROCESS
        assert "enforced" not in executor.protections.values()
        assert (await run(executor, "print(1)")).ok


async def test_approve_says_who_is_asked() -> None:
    for approve, answer, runs in [
        ("risky", None, True),
        ("always", None, False),
        ("always", False, False),
        ("always", True, True),
    ]:
        config = AgentConfig.from_flat_kwargs(approve=approve)
        asked: list[str] = []

        def ask(question: str, answer: bool | None = answer, asked: list[str] = asked) -> bool:
            asked.append(question)
            return bool(answer)

        caller = CallerThread()
        executor = build_executor(config, _ignore, caller, None if answer is None else ask)
        with serving(caller):
            await executor.start()
            try:
                if runs:
                    assert (await run(executor, "print(1)")).ok
                else:
                    with pytest.raises(SandboxDeniedError):
                        await run(executor, "print(1)")
            finally:
                await executor.shutdown()
        assert len(asked) == (answer is not None)


def _ignore(_event: ov.AgentEvent) -> None:
    pass


@contextlib.contextmanager
def serving(caller: CallerThread) -> Iterator[None]:
    """A thread in the place of the cell's, which runs what it is asked to."""
    over = threading.Event()

    def serve() -> None:
        while not over.wait(0.01):
            caller.serve()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


READ = "print(open({path!r}).read())"
WRITE = "print(open({path!r}, 'a').write('more'))"


@pytest.mark.parametrize("level", ["namespaces", "confined"])
async def test_read_and_write_are_what_code_may_do_with_files(
    sandbox: Sandbox, user: Path, level: str
) -> None:
    data = user / "data"
    path = str(data / "cells.txt")
    expected = {"": (False, False), "sandbox_read": (True, False), "sandbox_write": (True, True)}
    for name, (readable, writable) in expected.items():
        granted = {name: [str(data)]} if name else {}
        async with sandbox(sandbox_level=level, **granted) as executor:
            assert (await run(executor, READ.format(path=path))).ok is readable
            assert (await run(executor, WRITE.format(path=path))).ok is writable
    assert Path(path).read_text() == "countsmore"


class Page(BaseHTTPRequestHandler):
    """Answers every request with one word."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"reached")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def page() -> Iterator[int]:
    """The port of a web server on this machine."""
    with socketserver.TCPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


GET = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:{port}/', timeout=20).read())"


async def test_network_is_what_code_may_reach(sandbox: Sandbox, page: int) -> None:
    code = GET.format(port=page)
    async with sandbox() as executor:
        assert not (await run(executor, code)).ok
    host = f"127.0.0.1:{page}"
    with pytest.raises(ConfigError, match="sandbox_network"):
        async with sandbox(sandbox_network=[host]):
            pass
    async with sandbox(sandbox_network=[host], sandbox_force=True) as executor:
        result = await run(executor, code)
        assert "reached" in result.stdout, result.error
        assert not (await run(executor, GET.format(port=page + 1))).ok


SPIN = """
import multiprocessing as m
def spin(_):
    while True:
        pass
m.get_context("fork").Pool(2).map(spin, range(2))
"""
OVER: dict[str, tuple[object, float, str]] = {
    "memory": ("512M", 512 * MIB, "held = [bytearray(b'x' * (1 << 20)) for _ in range(4096)]"),
    "cpu_time": (10, 10, SPIN),
    "processes": (
        4,
        4,
        "import subprocess as s, time\nall = [s.Popen(['sleep', '60']) for _ in range(12)]\n"
        "time.sleep(60)",
    ),
    "disk": (
        "64M",
        64 * MIB,
        "import time\nfor n in range(160):\n    open(f'f{n}', 'wb').write(b'x' * (1 << 20))\n"
        "time.sleep(60)",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OVER)
async def test_a_cap_ends_the_code_and_the_next_cell_has_a_fresh_child(
    sandbox: Sandbox, name: str
) -> None:
    given, cap, code = OVER[name]
    async with sandbox(**{f"sandbox_{name}": given}) as executor:
        assert (await run(executor, "kept = 1")).ok
        result = await run(executor, code)
        assert result.status is ExecutionStatus.LIMIT, result
        assert result.limit is not None
        assert (result.limit.limit, result.limit.cap) == (name, cap)
        assert result.limit.used > cap
        assert result.error is not None
        assert result.error.name == "ResourceLimitExceeded"
        await executor.start()
        assert (await run(executor, "print('kept' in globals())")).stdout == "False\n"


async def test_file_size_is_the_largest_file(sandbox: Sandbox) -> None:
    code = "f = open('big', 'wb')\nprint(f.write(b'x' * ({size} << 20)))\nf.close()"
    async with sandbox(sandbox_file_size="16M") as executor:
        assert (await run(executor, code.format(size=15))).ok
        result = await run(executor, code.format(size=17))
        assert not result.ok
        assert "File too large" in str(result.error) or result.status is ExecutionStatus.LIMIT
        await executor.start()
        assert (await run(executor, "print(1)")).ok


async def test_force_accepts_a_grant_that_is_refused_otherwise(
    sandbox: Sandbox, user: Path
) -> None:
    with pytest.raises(ConfigError, match=r"sandbox_read .*\n.*your home"):
        async with sandbox(sandbox_read=[str(user)]):
            pass
    with pytest.raises(ConfigError, match="sandbox_read"):
        ov.Agent(sandbox_read=[str(user)])
    async with sandbox(sandbox_read=[str(user)], sandbox_force=True) as executor:
        path = str(user / "data" / "cells.txt")
        assert (await run(executor, READ.format(path=path))).ok
