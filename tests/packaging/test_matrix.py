"""The magics in a real ipykernel, for each version that behaves differently."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import nbformat
import pytest
import zmq
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from jupyter_client.session import Session
from nbclient import NotebookClient
from nbformat import NotebookNode

from tests.packaging.environments import Environment
from tests.packaging.test_wheel import COUNTS

VERSIONS = ("6.31.0", "7.1.0", "7.3.0", "7.4.0")

KNOCK = 5.0
"""Seconds between two knocks at the kernel."""

pytestmark = [pytest.mark.matrix, pytest.mark.slow, pytest.mark.xdist_group("environments")]


def cells_of(version: str) -> list[str]:
    """A user's first notebook, with a look at each result."""
    return [
        f"import ipykernel; assert ipykernel.__version__ == {version!r}\n%load_ext ovagent_jupyter",
        COUNTS,
        "%%ovagent\nnormalize and log transform @adata, then pca",
        "assert 'X_pca' in adata.obsm and 'log1p' in adata.uns; print('came back')",
        "%ovagent undo",
        "assert 'X_pca' not in adata.obsm; print('undone')",
        "%ovagent history",
        "%ovagent status",
    ]


def specs_for(made: Environment, folder: Path) -> KernelSpecManager:
    """A place with one kernelspec, which starts the environment's own kernel."""
    spec = folder / "kernels" / "tried"
    spec.mkdir(parents=True)
    argv = [str(made.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(
        json.dumps({"argv": argv, "display_name": "tried", "language": "python"})
    )
    return KernelSpecManager(kernel_dirs=[str(folder / "kernels")])


@contextmanager
def kernel(made: Environment, folder: Path) -> Iterator[KernelManager]:
    """The environment's own kernel, ended at last."""
    manager = KernelManager(kernel_name="tried", kernel_spec_manager=specs_for(made, folder))
    manager.client_class = "jupyter_client.asynchronous.AsyncKernelClient"
    manager.start_kernel(cwd=str(folder))
    try:
        with knocking(manager):
            yield manager
    finally:
        manager.shutdown_kernel(now=True)


@contextmanager
def knocking(manager: KernelManager) -> Iterator[None]:
    """Connect to the kernel now and then, which wakes it if it has overlooked a request.

    ipykernel 7.0 to 7.3 can leave a request unread until another client comes (ipykernel #1554):
    a front-end would wait for ever.
    """
    over = threading.Event()

    def knock() -> None:
        known = manager.get_connection_info()
        session = Session(key=known["key"])
        with zmq.Context() as context:
            while not over.wait(KNOCK):
                with context.socket(zmq.DEALER) as socket:
                    socket.linger = 0
                    socket.connect(f"tcp://{known['ip']}:{known['shell_port']}")
                    session.send(socket, "kernel_info_request", content={})
                    socket.poll(500)  # one that is busy does not answer

    thread = threading.Thread(target=knock)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def speaking(manager: KernelManager) -> Iterator[BlockingKernelClient]:
    """A client whose kernel has answered."""
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=120)
        yield client
    finally:
        client.stop_channels()


def execute(made: Environment, folder: Path, sources: list[str], **options: object) -> NotebookNode:
    """Run cells through nbclient in the environment's own kernel."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    with kernel(made, folder) as manager:
        notebook = nbformat.v4.new_notebook(cells=cells)
        client = NotebookClient(notebook, km=manager, timeout=200, **options)
        return client.execute(cleanup_kc=True)


def text_of(cell: NotebookNode) -> str:
    """Everything a cell shows, as text."""
    shown = []
    for output in cell.outputs:
        shown.append(output.get("text", ""))
        shown.extend(str(output.get("data", {}).get(m, "")) for m in ("text/plain", "text/html"))
        shown.extend(output.get("traceback", []))
    return "\n".join(shown)


@pytest.mark.parametrize("version", VERSIONS)
def test_first_notebook(
    version: str, with_ipykernel: Callable[[str], Environment], tmp_path: Path
) -> None:
    done = execute(with_ipykernel(version), tmp_path, cells_of(version))
    shown = [text_of(cell) for cell in done.cells]
    assert "came back" in shown[3]
    assert "undone" in shown[5]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_cell_that_fails_is_short_and_the_next_one_works(
    version: str, with_ipykernel: Callable[[str], Environment], tmp_path: Path
) -> None:
    sources = [
        "%load_ext ovagent_jupyter",
        "%%ovagent\ncluster the cells",
        COUNTS,
        "%%ovagent\nnormalize and log transform @adata",
        "assert 'log1p' in adata.uns; print('works')",
    ]
    done = execute(with_ipykernel(version), tmp_path, sources, allow_errors=True)
    errors = [output for output in done.cells[1].outputs if output.output_type == "error"]
    assert len(errors) == 1
    assert len("\n".join(errors[0].traceback).splitlines()) <= 6
    assert "works" in text_of(done.cells[4])


@pytest.mark.parametrize("version", VERSIONS)
def test_an_interrupt_ends_the_turn_and_keeps_the_data(
    version: str, with_ipykernel: Callable[[str], Environment], tmp_path: Path
) -> None:
    with kernel(with_ipykernel(version), tmp_path) as manager, speaking(manager) as client:
        shown: list[str] = []

        def run(code: str, hook: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
            reply = client.execute_interactive(code, output_hook=hook, timeout=200)
            return cast("dict[str, Any]", reply["content"])

        def keep(message: dict[str, Any]) -> None:
            shown.append(message["content"].get("text", ""))

        def stop_at_first_display(message: dict[str, Any]) -> None:
            if message["msg_type"] == "display_data" and not stopped:
                stopped.append(True)
                manager.interrupt_kernel()

        stopped: list[bool] = []
        assert run("%load_ext ovagent_jupyter", keep)["status"] == "ok"
        assert run(COUNTS, keep)["status"] == "ok"
        ended = run("%%ovagent\ncluster @adata and show markers", stop_at_first_display)
        assert (ended["status"], ended["ename"]) == ("error", "TurnInterrupted")
        shown.clear()
        after = run("print('obsm', list(adata.obsm))\n%ovagent status", keep)
        assert after["status"] == "ok"
        assert "obsm []" in "".join(shown)
        # The session goes on: the next turn runs, in the same child or in a new one.
        again = run("%%ovagent\nnormalize and log transform @adata", keep)
        assert again["status"] == "ok", again
        assert run("assert 'log1p' in adata.uns", keep)["status"] == "ok"
