"""The processes that benchmarks of model calls need: a server, and a client for each way."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

FOLDER = Path(__file__).parent
CACHE = FOLDER.parent / ".cache" / "bench-envs"
OTHERS = {"litellm": "litellm==1.106.2", "pydantic-ai": "pydantic-ai-slim[openai]==2.68.0"}
"""Ways that need an environment of their own, because their SDKs are not ours."""
ROUNDS = 11


class Worker:
    """A client in a process of its own.

    Args:
        name: Its way to ask.
        url: Where the server is.
    """

    def __init__(self, name: str, url: str) -> None:
        self._process = subprocess.Popen(
            [_python(name), FOLDER / "model_clients.py", name, url],
            cwd=FOLDER.parent,
            env={"PATH": "/usr/bin:/bin", "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                 "PYTHONPATH": str(FOLDER.parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def measure(self, what: str) -> float:
        """One measurement: ``stream``, ``call`` or ``first``.

        Raises:
            RuntimeError: The process has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the client has ended")
        return float(line)

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def server() -> Iterator[str]:
    """A server, and its address."""
    process = subprocess.Popen(
        [sys.executable, FOLDER / "model_server.py"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


def medians(names: Sequence[str], what: str) -> dict[str, float]:
    """The medians of one measurement, taken of all ways in turn so that noise hits all.

    Args:
        names: The ways; those whose environment cannot be made are left out, with a note.
        what: What is measured.
    """
    with ExitStack() as stack:
        url = stack.enter_context(server())
        workers: dict[str, Worker] = {}
        for name in names:
            if not _available(name):
                continue
            workers[name] = Worker(name, url)
            stack.callback(workers[name].end)
        for worker in workers.values():
            worker.measure(what)
        taken: dict[str, list[float]] = {name: [] for name in workers}
        for _ in range(ROUNDS):
            for name, worker in workers.items():
                taken[name].append(worker.measure(what))
    return {name: statistics.median(values) for name, values in taken.items()}


def _python(name: str) -> Path:
    return CACHE / _key(name) / "bin" / "python" if name in OTHERS else Path(sys.executable)


def _key(name: str) -> str:
    return f"{name}-{OTHERS[name].rpartition('==')[2]}-py{sys.version_info[0]}{sys.version_info[1]}"


def _available(name: str) -> bool:
    """Whether the way's environment is there; it is made when it is not."""
    if name not in OTHERS or _python(name).with_name(".made").exists():
        return True
    folder = _python(name).parent.parent
    uv = [sys.executable, "-m", "uv"]
    for command in (
        [*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
        [*uv, "pip", "install", "--quiet", "--python", str(_python(name)), OTHERS[name]],
    ):
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(f"{name} is left out; its environment cannot be made: {done.stderr[-300:]}")
            return False
    _python(name).with_name(".made").touch()
    return True
