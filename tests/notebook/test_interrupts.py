"""Ctrl-C in a real ipykernel: whatever the child does, it stops and the session goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.notebook.conftest import (
    CELL_TIMEOUT,
    ENDLESS_STEPS,
    SMALL,
    Notebook,
    child_pids,
    evaluate,
    said,
)

STEP_RUNS = "step 1 of"
STOPPED = "Stopped. Your data is as it was"


@pytest.fixture(scope="module")
def cells(notebook: Notebook) -> Notebook:
    """A kernel with a small AnnData and steps that never end."""
    for code in (SMALL, ENDLESS_STEPS):
        run = notebook.run(code)
        assert run.status == "ok", run.error
    return notebook


def goes_on(notebook: Notebook, identity: int) -> None:
    """Hold that the data is untouched and the next request works."""
    assert evaluate(notebook, "id(adata)") == identity
    run = notebook.run("%%ovagent\nnormalise")
    assert run.status == "ok", run.error
    notebook.run("%ovagent undo")


def until(happened: Callable[[], bool]) -> None:
    """Wait for something that happens in another process."""
    deadline = time.monotonic() + CELL_TIMEOUT
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert happened()


@pytest.mark.parametrize(
    ("head", "word"),
    [
        ("%%ovagent\n", "spin"),
        ("%%ovagent\n", "hog"),
        ("%%ovagent\n", "swallow"),
        ("%%ovagent\n", "babble"),
        ("%ovagent ", "spin"),
        ("%ovagent ", "hog"),
        ("%%time\n%%ovagent\n", "spin"),
    ],
)
def test_code_that_never_ends_is_stopped(cells: Notebook, head: str, word: str) -> None:
    """The awaited cell, the blocking line and the cell inside another magic."""
    identity = evaluate(cells, "id(adata)")
    started = cells.start(f"{head}{word} forever")
    cells.wait_for(started, STEP_RUNS)
    cells.manager.interrupt_kernel()
    run = cells.finish(started)
    said(run, STOPPED)
    assert len(run.error.splitlines()) == 1
    goes_on(cells, identity)


@pytest.mark.parametrize("head", ["%%ovagent\n", "%ovagent "])
def test_pressing_it_again_hurries_and_shows_no_traceback(cells: Notebook, head: str) -> None:
    identity = evaluate(cells, "id(adata)")
    started = cells.start(f"{head}hog forever")
    cells.wait_for(started, STEP_RUNS)
    kernel = cells.manager.provisioner.pid
    for _ in range(3):
        os.kill(kernel, signal.SIGINT)
        time.sleep(0.01)  # signals that wait at the same time are one
    said(cells.finish(started), STOPPED)
    goes_on(cells, identity)


def test_what_a_stopped_turn_says_late_is_not_shown_in_the_next_cell(cells: Notebook) -> None:
    started = cells.start("%ovagent hog forever")
    cells.wait_for(started, STEP_RUNS)
    for _ in range(2):
        cells.manager.interrupt_kernel()
    cells.finish(started)
    run = cells.run("%%ovagent\nnormalise")
    assert run.status == "ok", run.error
    assert "hog" not in run.text
    cells.run("%ovagent undo")


WORK_DIR = "str(get_ipython()._ovagent_extension.magics.face.runtime.current.executor.work_dir)"


def test_code_in_the_users_own_kernel_is_stopped_too(cells: Notebook) -> None:
    for line in ("policy level in_process", "policy approve never"):
        run, _ = cells.answer(f"%ovagent {line}", "y")
        assert run.status == "ok", run.error
    run = cells.run("%%ovagent\nnormalise")
    assert "Not confined" in run.text
    cells.run("%ovagent undo")
    identity = evaluate(cells, "id(adata)")
    begun = Path(evaluate(cells, WORK_DIR)) / "spinning"
    started = cells.start("%%ovagent\nspin forever")
    until(begun.exists)
    cells.manager.interrupt_kernel()
    said(cells.finish(started), "was interrupted")
    goes_on(cells, identity)
    cells.run("%ovagent policy reset")


def test_a_fork_of_the_kernel_leaves_the_child_alone(cells: Notebook) -> None:
    """What runs at exit also runs in a fork that ends: it must neither hang nor kill."""
    assert cells.run("%%ovagent\nnormalise").status == "ok"
    children = child_pids(cells)
    run = cells.run(
        "import os\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    get_ipython()._ovagent_extension.magics.close()\n"
        "    os._exit(0)\n"
        "print(os.waitpid(pid, 0)[1])"
    )
    # From 3.12 on, Python warns of the fork below what is printed.
    assert run.text.split()[0] == "0"
    assert set(children) <= set(child_pids(cells))
    cells.run("%ovagent undo")
    assert cells.run("%%ovagent\nnormalise").status == "ok"
    cells.run("%ovagent undo")


def test_a_restarted_kernel_leaves_no_child_and_no_files(cells: Notebook) -> None:
    """Last in this module: the kernel loses its variables."""
    started = cells.start("%%ovagent\nhog forever")
    cells.wait_for(started, STEP_RUNS)
    children = [psutil.Process(pid) for pid in child_pids(cells)]
    assert children
    cells.manager.restart_kernel()
    assert psutil.wait_procs(children, timeout=30)[1] == []
    assert list((cells.home / "run").iterdir()) == []
    cells.client.wait_for_ready(timeout=60)
    assert cells.run("%load_ext ovagent_jupyter").status == "ok"
    assert cells.run(SMALL).status == "ok"
    assert cells.run("%%ovagent\nnormalise").status == "ok"
