"""A real ipykernel in which cells are run as a front end runs them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

CELL_TIMEOUT = 300
COMPILED = Path(__file__).parents[2] / ".cache" / "compiled"
"""Numba's, for all homes and all runs: making it anew takes up to a minute for each."""
LONGEST_ERROR = 6
"""Lines."""


@dataclass
class CellRun:
    """What one cell gave, as a front end would show it at the end."""

    status: str
    error: str = ""
    outputs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All that is shown, as plain text, in order."""
        return "\n".join(_shown(output) for output in self.outputs)

    def mimes(self) -> set[str]:
        """The MIME types of all displays."""
        return {mime for output in self.outputs for mime in output.get("data", {})}


def _shown(output: Mapping[str, Any]) -> str:
    if "text" in output:
        return str(output["text"])
    return str(output.get("data", {}).get("text/plain", ""))


class Notebook:
    """A front end without a screen.

    Args:
        directory: Where the kernel runs.
        home: Its OVAGENT_HOME.
    """

    def __init__(self, directory: Path, home: Path) -> None:
        env = {
            **os.environ,
            "OVAGENT_HOME": str(home),
            "OVAGENT_CACHE": str(COMPILED),
            "JUPYTER_PLATFORM_DIRS": "1",
        }
        self.home = home
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(env=env, cwd=str(directory))
        self.client: BlockingKernelClient = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self._read: list[dict[str, Any]] = []

    def start(self, code: str) -> str:
        """Send a cell and return at once."""
        return self.client.execute(code, allow_stdin=False, stop_on_error=False)

    def run(self, code: str) -> CellRun:
        """Run a cell to its end."""
        return self.finish(self.start(code))

    def answer(self, code: str, *answers: str) -> tuple[CellRun, list[str]]:
        """Run a cell and answer what it asks; returns the questions too."""
        message_id = self.client.execute(code, allow_stdin=True, stop_on_error=False)
        questions = []
        for answer in answers:
            request = self.client.get_stdin_msg(timeout=CELL_TIMEOUT)
            assert request["msg_type"] == "input_request"
            questions.append(request["content"]["prompt"])
            self.client.input(answer)
        return self.finish(message_id), questions

    def finish(self, message_id: str) -> CellRun:
        """Collect what a cell that was started shows, until the kernel is idle."""
        outputs: list[dict[str, Any]] = []
        by_id: dict[str, dict[str, Any]] = {}
        deadline = time.monotonic() + CELL_TIMEOUT
        while time.monotonic() < deadline:
            message = self._next()
            if message["parent_header"].get("msg_id") != message_id:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                break
            if kind == "update_display_data":
                by_id[content["transient"]["display_id"]]["data"] = content["data"]
            elif kind in {"display_data", "execute_result", "stream"}:
                outputs.append(dict(content))
                display_id = content.get("transient", {}).get("display_id")
                if display_id:
                    by_id[display_id] = outputs[-1]
        reply = self._reply(message_id)
        error = "\n".join(reply["traceback"]) if reply["status"] == "error" else ""
        return CellRun(reply["status"], error, outputs)

    def wait_for(self, message_id: str, text: str) -> None:
        """Read until a running cell has shown a text."""
        seen = []
        while not seen or text not in str(seen[-1]["content"]):
            message = self.client.get_iopub_msg(timeout=CELL_TIMEOUT)
            if message["parent_header"].get("msg_id") == message_id:
                seen.append(message)
        self._read = seen

    def _next(self) -> dict[str, Any]:
        """The next message; what ``wait_for`` has read comes first."""
        if self._read:
            return self._read.pop(0)
        return self.client.get_iopub_msg(timeout=CELL_TIMEOUT)

    def _reply(self, message_id: str) -> Mapping[str, Any]:
        while True:
            reply = self.client.get_shell_msg(timeout=CELL_TIMEOUT)
            if reply["parent_header"].get("msg_id") == message_id:
                return dict(reply["content"])

    def close(self) -> None:
        """End the kernel."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


def evaluate(notebook: Notebook, expression: str) -> Any:
    """The value of an expression in the user's kernel, by way of JSON."""
    run = notebook.run(f"import json as _j; print(_j.dumps({expression}))")
    assert run.status == "ok", run.error
    return json.loads(run.text)


def child_pids(notebook: Notebook) -> list[int]:
    """Processes below the user's kernel."""
    kernel = psutil.Process(notebook.manager.provisioner.pid)
    return [process.pid for process in kernel.children(recursive=True)]


def said(run: CellRun, words: str) -> None:
    """Hold that a cell ended with a short error that says something."""
    assert run.status == "error", run.text
    assert words.lower() in run.error.lower()
    assert len(run.error.splitlines()) <= LONGEST_ERROR


SMALL = """
import numpy as np, anndata as ad
adata = ad.AnnData(np.random.default_rng(0).poisson(1.0, (300, 100)).astype("float32"))
adata.var_names = [f"G{number}" for number in range(100)]
"""
# The planner writes no such code: these steps come in through its open door, the registry.
ENDLESS_STEPS = r"""
from ovagent_jupyter.omics.step import STEPS, Step
for _word, _code in {
    "spin": "open('spinning', 'w').close()\nwhile True:\n    pass",
    "hog": "sum(range(10**13))",
    "swallow": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "babble": "while True:\n    print('babble', flush=True)",
}.items():
    STEPS.register(
        f"{_word}_forever",
        Step(
            id=f"{_word}_forever",
            group="plot",
            title=f"{_word} forever",
            render=lambda name, params, code=_code: code,
            aliases=(f"{_word} forever",),
        ),
    )
"""
LOAD_COUNTS = """
import numpy as np, scanpy as sc, scipy.sparse as sp, anndata as ad
_ref = sc.datasets.pbmc68k_reduced()
_x = np.rint(np.expm1(_ref.raw.X.toarray()) * _ref.obs["n_counts"].to_numpy()[:, None] / 1e4)
adata = ad.AnnData(sp.csr_matrix(_x.astype("float32")), obs=_ref.obs[["bulk_labels"]].copy(),
                   var=_ref.raw.var[[]].copy())
"""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """A kernel with the extension loaded, shared by the tests of a module."""
    directory = tmp_path_factory.mktemp("notebook dir")
    home = tmp_path_factory.mktemp("home")
    made = Notebook(directory, home)
    assert made.run("%load_ext ovagent_jupyter").status == "ok"
    yield made
    made.close()


@pytest.fixture(scope="module")
def with_counts(notebook: Notebook) -> Notebook:
    """The same kernel with real counts in ``adata``."""
    assert notebook.run(LOAD_COUNTS).status == "ok"
    return notebook
