"""The wheel works, not only the checkout."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.packaging.environments import Environment, run

pytestmark = [pytest.mark.wheel, pytest.mark.slow, pytest.mark.xdist_group("environments")]

COUNTS = """
import numpy as np, scanpy as sc
ref = sc.datasets.pbmc68k_reduced()
counts = np.rint(np.expm1(ref.raw.X.toarray()) * ref.obs["n_counts"].to_numpy()[:, None] / 1e4)
adata = sc.AnnData(counts.astype("float32"), obs=ref.obs[["bulk_labels"]], var=ref.raw.var)
"""
"""Code that recovers real UMI counts from what scanpy ships."""

MAX_DISTRIBUTIONS = 70


def in_folder(made: Environment, folder: Path, code: str) -> str:
    """Run Python code there, away from the checkout."""
    return run(made.python, "-W", "ignore", "-c", code, cwd=folder, home=folder / "h")


def test_wheel_holds_the_data_files_and_nothing_of_the_checkout(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    data = "ovagent_jupyter-0.1.0.data/data/"
    assert "ovagent_jupyter/py.typed" in names
    assert f"{data}share/jupyter/kernels/ovagent-sandbox/kernel.json" in names
    assert f"{data}etc/jupyter/jupyter_server_config.d/ovagent_jupyter.json" in names
    assert f"{data}share/jupyter/ovagent_jupyter/notebooks/quickstart.ipynb" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [n for n in names if n.startswith(("tests", "benchmarks", "docs", "tools"))]


def test_files_land_where_jupyter_looks(clean: Environment, tmp_path: Path) -> None:
    code = (
        "import json; from jupyter_core.paths import jupyter_path, jupyter_config_path;"
        "from jupyter_client.kernelspec import KernelSpecManager;"
        "spec = KernelSpecManager().get_kernel_spec('ovagent-sandbox');"
        "print(json.dumps([spec.argv, jupyter_path(), jupyter_config_path()]))"
    )
    argv, data, config = json.loads(in_folder(clean, tmp_path, code))
    assert "ovagent_jupyter.execution.child" in argv

    def found(places: list[str], name: str) -> list[Path]:
        return [Path(place) / name for place in places if (Path(place) / name).is_file()]

    for places, name in (
        (data, "kernels/ovagent-sandbox/kernel.json"),
        (data, "ovagent_jupyter/notebooks/quickstart.ipynb"),
        (config, "jupyter_server_config.d/ovagent_jupyter.json"),
    ):
        assert any(path.is_relative_to(clean.folder) for path in found(places, name)), name


def test_server_extension_is_enabled_and_valid(clean: Environment, tmp_path: Path) -> None:
    listed = run(clean.program("jupyter"), "server", "extension", "list", cwd=tmp_path)
    (line,) = [text for text in listed.splitlines() if "ovagent_jupyter enabled" in text]
    after = listed.split(line, 1)[1]
    assert "OK" in after.split("enabled", 1)[0], listed


def test_kernelspec_starts_a_confined_kernel_for_any_client(
    clean: Environment, tmp_path: Path
) -> None:
    code = (
        "from jupyter_client.manager import start_new_kernel\n"
        "km, kc = start_new_kernel(kernel_name='ovagent-sandbox')\n"
        "try:\n"
        "    look = 'print(\\'Seccomp:\\\\t2\\' in open(\\'/proc/self/status\\').read(), 6 * 7)'\n"
        "    reply = kc.execute_interactive(look, timeout=60)\n"
        "    print('reply:', reply['content']['status'])\n"
        "finally:\n"
        "    kc.stop_channels(); km.shutdown_kernel(now=True)\n"
    )
    shown = in_folder(clean, tmp_path, code).splitlines()
    assert {"True 42", "reply: ok"} <= set(shown)


def test_load_ext_from_the_wheel(clean: Environment, tmp_path: Path) -> None:
    code = (
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "shell.run_line_magic('load_ext', 'ovagent_jupyter')\n"
        "import ovagent_jupyter\n"
        "print(ovagent_jupyter.__file__)\n"
        "assert 'ovagent' in shell.magics_manager.magics['cell']\n"
    )
    where = in_folder(clean, tmp_path, code).splitlines()[-1]
    assert Path(where).is_relative_to(clean.folder)


def test_run_from_the_shell(clean: Environment, tmp_path: Path) -> None:
    in_folder(clean, tmp_path, COUNTS + "adata.write_h5ad('cells.h5ad')")
    run(
        clean.program("ovagent"), "run", "normalize and log transform, then pca",
        "--data", "cells.h5ad", "--out", "done.h5ad", "--notebook", "run.ipynb",
        cwd=tmp_path, home=tmp_path / "home",
    )  # fmt: skip
    look = "import anndata; d = anndata.read_h5ad('done.h5ad'); print('X_pca' in d.obsm)"
    assert in_folder(clean, tmp_path, look).strip() == "True"
    cells = json.loads((tmp_path / "run.ipynb").read_text())["cells"]
    assert "pca" in "".join("".join(cell["source"]) for cell in cells)


def test_jupyter_knows_the_sub_command(clean: Environment, tmp_path: Path) -> None:
    assert "run" in run(clean.program("jupyter"), "ovagent", "--help", cwd=tmp_path)


def test_bare_install_is_small_and_says_what_is_missing(bare: Environment, tmp_path: Path) -> None:
    code = "from importlib.metadata import distributions; print(len(list(distributions())))"
    assert int(in_folder(bare, tmp_path, code)) <= MAX_DISTRIBUTIONS
    listed = run(bare.program("ovagent"), "doctor", cwd=tmp_path, home=tmp_path, codes=(1,))
    assert "ovagent-jupyter[omics]" in listed
