"""The kernel ``ovagent-sandbox`` through the clients that people use, headless."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupyter_kernel_test
import nbformat
import pexpect
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

from tests.execution.kernelspec.kernels import CONFINED, KERNEL, SPECS, STATUS, Traces, traces_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

WORK = """
import numpy as np, pandas as pd, scanpy as sc, matplotlib.pyplot as plt
adata = sc.datasets.blobs(n_variables=30, n_centers=3, n_observations=200)
sc.pp.pca(adata, n_comps=10)
sc.pp.neighbors(adata, n_neighbors=10)
sc.tl.leiden(adata, flavor="igraph", n_iterations=2)
sc.pl.pca(adata, color="leiden")
"""


@pytest.fixture(autouse=True, scope="module")
def _specs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(SPECS))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        yield


class TestProtocol(jupyter_kernel_test.KernelTests):
    """Jupyter's own tests of a kernel."""

    kernel_name = KERNEL
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples = [  # noqa: RUF012 - as the base class has it
        {"text": "zi", "matches": {"zip"}},
        {"text": "isinst", "matches": {"isinstance"}},
    ]
    complete_code_samples = ["1", "print('x')", "def f(x):\n  return x*2\n\n\n"]  # noqa: RUF012
    incomplete_code_samples = ["print('''hello", "def f(x):\n  x*2"]  # noqa: RUF012
    invalid_code_samples = ["import = 7q"]  # noqa: RUF012
    code_page_something = "zip?"
    code_generate_error = "raise ValueError('x')"
    code_execute_result = [{"code": "6*7", "result": "42"}]  # noqa: RUF012
    code_display_data = [  # noqa: RUF012
        {"code": "from IPython.display import HTML, display; display(HTML('<b>x</b>'))",
         "mime": "text/html"},
        {"code": "from IPython.display import Math, display; display(Math('x^2'))",
         "mime": "text/latex"},
        {"code": "import matplotlib.pyplot as plt; _ = plt.plot([1, 2])\nplt.show()",
         "mime": "image/png"},
    ]  # fmt: skip
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"

    def test_it_is_confined(self) -> None:
        self.flush_channels()
        _, shown = self.execute_helper(STATUS)
        assert [each["content"]["text"] for each in shown] == [CONFINED]


def outputs_of(cell: Any) -> str:
    return "".join(
        each.get("text", "") + str(each.get("data", {}).get("text/plain", ""))
        for each in cell.outputs
    )


def test_nbclient_does_real_work(tmp_path: Path) -> None:
    notebook = new_notebook(
        cells=[new_code_cell(source) for source in (STATUS, WORK, "adata.obs.leiden.nunique() > 1")]
    )
    client = NotebookClient(
        notebook, kernel_name=KERNEL, timeout=200, resources={"metadata": {"path": str(tmp_path)}}
    )
    traces: list[Traces] = []
    client.on_cell_executed = lambda **_: traces.append(traces_of(client.km))
    client.execute()
    status, work, found = notebook.cells
    assert outputs_of(status) == CONFINED
    assert any("image/png" in each.get("data", {}) for each in work.outputs)
    assert outputs_of(found) in {"True", "np.True_"}
    assert list(tmp_path.iterdir()) == []
    assert traces[0].left() == []


def test_nbclient_reports_an_error_and_leaves_nothing() -> None:
    notebook = new_notebook(cells=[new_code_cell("1"), new_code_cell("open('/root/.bashrc')")])
    client = NotebookClient(notebook, kernel_name=KERNEL, timeout=60)
    traces: list[Traces] = []
    client.on_cell_executed = lambda **_: traces.append(traces_of(client.km))
    with pytest.raises(CellExecutionError, match=r"FileNotFoundError|PermissionError"):
        client.execute()
    assert traces[0].left() == []


def test_nbclient_ends_a_cell_that_takes_too_long() -> None:
    notebook = new_notebook(cells=[new_code_cell("while True: pass"), new_code_cell("print('on')")])
    client = NotebookClient(
        notebook, kernel_name=KERNEL, timeout=2, interrupt_on_timeout=True, allow_errors=True
    )
    client.execute()
    assert "KeyboardInterrupt" in str(notebook.cells[0].outputs)
    assert outputs_of(notebook.cells[1]) == "on\n"


@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_papermill_gives_parameters(tmp_path: Path) -> None:
    import papermill

    cells = [new_code_cell("n = 1"), new_code_cell(STATUS), new_code_cell("print(n * 2)")]
    cells[0].metadata["tags"] = ["parameters"]
    notebook = new_notebook(
        cells=cells,
        metadata={"kernelspec": {"name": KERNEL, "display_name": "x", "language": "python"}},
    )
    given, done = tmp_path / "in.ipynb", tmp_path / "out.ipynb"
    nbformat.write(notebook, given)
    papermill.execute_notebook(
        str(given), str(done), parameters={"n": 21}, progress_bar=False, cwd=str(tmp_path)
    )
    made = nbformat.read(done, as_version=4)
    assert outputs_of(made.cells[-1]) == "42\n"
    assert outputs_of(made.cells[-2]) == CONFINED


def test_jupyter_console(tmp_path: Path) -> None:
    environment = dict(os.environ) | {
        "TERM": "dumb",
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "PROMPT_TOOLKIT_NO_CPR": "1",
    }
    console = pexpect.spawn(
        sys.executable,
        ["-m", "jupyter_console", "--kernel", KERNEL, "--simple-prompt"],
        encoding="utf-8",
        timeout=60,
        env=environment,
        cwd=str(tmp_path),
    )
    try:
        console.expect("This kernel is confined")
        console.expect(r"In \[\d+\]: ")
        console.sendline(STATUS)
        console.expect(re.escape(CONFINED.strip()))
        console.sendline("import os; print('the folder', os.getcwd().split('/')[-1])")
        console.expect("the folder work")
        console.sendline("print('begun', flush=True); [None for _ in iter(int, 1)]")
        console.expect("begun\r?\n")
        console.sendintr()
        console.expect("KeyboardInterrupt")
        console.sendline("print(6 * 7, 'it is')")
        console.expect("42 it is")
        console.sendline("exit")
        console.expect("ends this cell")
        console.sendeof()
        console.expect("exit")
        console.sendline("y")
        console.expect(pexpect.EOF)
    finally:
        console.close(force=True)
