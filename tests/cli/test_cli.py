"""``ovagent`` as a real process on real files: exit codes, what it writes, what it refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import anndata
import nbclient
import nbformat
import psutil
import pytest

from tests.cli.conftest import MODULE, PATIENCE, Run, refused


def test_a_run_writes_data_figures_and_a_notebook_that_runs(
    ovagent: Run, folder: Path, tmp_path: Path
) -> None:
    done = ovagent(
        *("run", "normalise, run pca and plot the pca variance", "--data", "cells.h5ad"),
        *("--out", "done.h5ad", "--notebook", "run.ipynb", "--figures", "figures"),
    )
    assert done.returncode == 0, done.stderr
    written = anndata.read_h5ad(folder / "done.h5ad")
    assert "highly_variable" in written.var
    assert written.obsm["X_pca"].shape == (700, 50)
    assert "highly_variable" not in anndata.read_h5ad(folder / "cells.h5ad").var
    figures = list((folder / "figures").iterdir())
    assert figures
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in figures)
    for name in ("done.h5ad", "run.ipynb", figures[0].name):
        assert name in done.stdout
    notebook = nbformat.read(folder / "run.ipynb", as_version=4)
    nbformat.validate(notebook)
    shown = run_anew(notebook, tmp_path, "print(adata.obsm['X_pca'].shape)")
    assert "(700, 50)" in shown
    assert "run pca" in ovagent("history").stdout
    assert ".ipynb" in ovagent("sessions").stdout


def run_anew(notebook: nbformat.NotebookNode, directory: Path, last: str) -> str:
    """Run a notebook in another folder, and give what a last cell prints."""
    notebook.cells.append(nbformat.v4.new_code_cell(last))
    client = nbclient.NotebookClient(
        notebook,
        timeout=PATIENCE,
        kernel_name="python3",
        extra_arguments=["--IPKernelApp.log_level=50"],
        resources={"metadata": {"path": str(directory)}},
    )
    client.execute()
    return str(notebook.cells[-1].outputs[0].text)


def test_the_input_is_never_overwritten(ovagent: Run, folder: Path) -> None:
    """Neither under its name nor by way of a link or another spelling of the path."""
    source = folder / "cells.h5ad"
    before = source.read_bytes()
    (folder / "link.h5ad").symlink_to(source)
    (folder / "hard.h5ad").hardlink_to(source)
    names = ["cells.h5ad", "../my data/cells.h5ad", "link.h5ad", "hard.h5ad", str(source)]
    for name in names:
        refused(
            ovagent("run", "normalise", "--data", "cells.h5ad", "--out", name, "--force"), "input"
        )
    refused(ovagent("run", "normalise", "--data", "link.h5ad", "--out", "cells.h5ad"), "input")
    assert source.read_bytes() == before


def test_bad_targets_are_refused_before_anything_runs(ovagent: Run, folder: Path) -> None:
    (folder / "there.h5ad").write_text("mine")
    (folder / "a folder.h5ad").mkdir()
    for arguments, words in {
        ("--out", "there.h5ad"): "--force",
        ("--out", "nowhere/x.h5ad"): "folder",
        ("--out", "x.csv"): ".h5ad",
        ("--out", "a folder.h5ad", "--force"): "is a folder",
        ("--notebook", "run.py"): ".ipynb",
        ("--figures", "there.h5ad"): "there.h5ad",
    }.items():
        done = ovagent("run", "normalise", "--data", "cells.h5ad", *arguments)
        refused(done, words)
        assert "child kernel" not in done.stdout
    assert (folder / "there.h5ad").read_text() == "mine"
    forced = ("run", "normalise", "--data", "cells.h5ad", "--out", "there.h5ad", "--force")
    assert ovagent(*forced).returncode == 0
    assert "counts" in anndata.read_h5ad(folder / "there.h5ad").layers


def test_bad_files_and_requests_are_exit_code_2(ovagent: Run, folder: Path) -> None:
    whole = (folder / "cells.h5ad").read_bytes()
    (folder / "half.h5ad").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.h5ad").write_text("cell,gene\n1,2\n")
    for arguments, words in {
        ("normalise", "--data", "half.h5ad"): "truncated",
        ("normalise", "--data", "notes.h5ad"): "not an HDF5",
        ("normalise", "--data", "absent.h5ad"): "no file",
        ("normalise",): "no data",
        ("", "--data", "cells.h5ad"): "empty",
        ("Bitte gruppiere die Zellen", "--data", "cells.h5ad"): "English",
        ("write a poem", "--data", "cells.h5ad"): "not covered",
        ("normalise", "--data", "cells.h5ad", "--timeout", "-1"): "above 0",
        ("normalise", "--data", "cells.h5ad", "--timeout", "nan"): "above 0",
    }.items():
        done = ovagent("run", *arguments)
        assert done.returncode == 2, arguments
        assert words.lower() in done.stderr.lower()
        assert "Traceback" not in done.stderr
    refused(ovagent("run", "qc", "--data", "cells.h5ad", OVAGENT_TIMEOUT="soon"), "OVAGENT_TIMEOUT")


def test_code_that_fails_is_exit_code_1_and_keeps_the_notebook(ovagent: Run, folder: Path) -> None:
    late = ("run", "run pca", "--data", "cells.h5ad", "--timeout", "0.001")
    done = ovagent(*late, "--out", "out.h5ad", "--notebook", "failed.ipynb")
    assert done.returncode == 1, done.stdout
    assert "time limit" in done.stderr
    assert not (folder / "out.h5ad").exists()
    nbformat.validate(nbformat.read(folder / "failed.ipynb", as_version=4))


def test_plan_shows_the_steps_and_runs_nothing(ovagent: Run) -> None:
    done = ovagent("plan", "cluster at resolution 0.5", "--data", "cells.h5ad", "--code")
    assert done.returncode == 0
    assert "leiden" in done.stdout
    assert "resolution=0.5" in done.stdout
    refused(ovagent("plan", "write a poem", "--data", "cells.h5ad"), "not covered")


def test_help_and_version(ovagent: Run) -> None:
    assert ovagent("--version").stdout.startswith("ovagent_jupyter ")
    for command in ("run", "plan", "demo", "doctor", "history", "sessions"):
        assert command in ovagent("--help").stdout
        assert ovagent(command, "--help").returncode == 0
    for wrong in ((), ("frobnicate",), ("run",), ("history", "0"), ("history", "many")):
        assert ovagent(*wrong).returncode == 2


def test_doctor_says_what_works(ovagent: Run) -> None:
    done = ovagent("doctor")
    assert done.returncode == 0, done.stdout
    assert "starts and runs code" in done.stdout
    assert "as measured inside" in done.stdout


def test_a_home_that_cannot_be_used_is_said(ovagent: Run, folder: Path) -> None:
    (folder / "file").write_text("in the way")
    below = str(folder / "file" / "below")
    refused(ovagent("history", OVAGENT_HOME=below), "history.jsonl")
    assert ovagent("doctor", OVAGENT_HOME=below).returncode == 1
    done = ovagent(
        *("run", "normalise", "--data", "cells.h5ad", "--out", "out.h5ad"), OVAGENT_HOME=below
    )
    assert done.returncode == 0, done.stderr
    assert "goes on" in done.stdout
    assert (folder / "out.h5ad").exists()


def test_a_result_that_is_not_kept_is_said(ovagent: Run) -> None:
    done = ovagent("run", "load cells.h5ad")
    assert done.returncode == 0, done.stderr
    assert "--out" in done.stdout


def test_a_terminal_without_symbols_and_a_reader_that_leaves(ovagent: Run, home: Path) -> None:
    assert ovagent("plan", "load cells.h5ad", PYTHONIOENCODING="ascii").returncode == 0
    ovagent("run", "write a poem")
    reader = subprocess.Popen(
        [*MODULE, "history"],
        env={**os.environ, "OVAGENT_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert reader.stdout is not None
    reader.stdout.close()
    reader.wait(PATIENCE)
    assert reader.stderr is not None
    with reader.stderr as errors:
        assert errors.read() == ""


@pytest.mark.parametrize("moment", ["starting the child", "scrublet"])
def test_ctrl_c_ends_it_and_leaves_no_child(home: Path, folder: Path, moment: str) -> None:
    """The same signal that a terminal sends, while the child starts and while it works."""
    process = subprocess.Popen(
        [*MODULE, "run", "find doublets", "--data", "cells.h5ad", "--out", "out.h5ad"],
        cwd=folder,
        env={**os.environ, "OVAGENT_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert process.stdout is not None
    for line in process.stdout:
        if moment in line:
            break
    children = psutil.Process(process.pid).children(recursive=True)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, errors
    assert "Stopped" in errors
    assert "Traceback" not in errors
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert not (folder / "out.h5ad").exists()
