"""Bad input in a real ipykernel: a short error or question, nothing lost, the next cell works."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.notebook.conftest import (
    ENDLESS_STEPS,
    SMALL,
    CellRun,
    Notebook,
    child_pids,
    evaluate,
    said,
)

# A name with an underscore is the user's private one: it is never taken for the data.
KEEP = "_kept = adata"
PUT_BACK = "adata = _kept"
MAKE_FILES = """
adata.write_h5ad("whole.h5ad")
_bytes = open("whole.h5ad", "rb").read()
open("half.h5ad", "wb").write(_bytes[: len(_bytes) // 2])
open("notes.h5ad", "w").write("cell,gene\\n1,2\\n")
open("page.h5ad", "w").write("<html>404</html>")
open("nothing.h5ad", "w").close()
"""
BAD_DATA = {
    "no cells": ("adata = _kept[:0].copy()", "normalise", "empty"),
    "no genes": ("adata = _kept[:, :0].copy()", "QC these cells", "no genes"),
    "no matrix": ("adata = ad.AnnData(obs=_kept.obs)", "normalise", "no matrix"),
    "NaN": ("adata = _kept.copy(); adata.X[3, 4] = np.nan", "normalise", "NaN"),
    "infinite": ("adata = _kept.copy(); adata.X[3, 4] = np.inf", "normalise", "infinite"),
    "log-transformed": (
        "adata = _kept.copy(); adata.X = np.log1p(adata.X / adata.X.sum(1, keepdims=True) * 1e4)",
        "find doublets",
        "needs counts",
    ),
    "logged twice": (
        "adata = _kept.copy(); adata.X = np.log1p(adata.X / adata.X.sum(1, keepdims=True) * 1e4)",
        "normalise and log transform",
        "already",
    ),
    "gone": ("del adata", "normalise", "no data"),
    "not an AnnData": ("adata = [1, 2]", "normalise @adata", "no data"),
}


@pytest.fixture(scope="module")
def cells(notebook: Notebook) -> Notebook:
    """A kernel with a small AnnData."""
    for code in (SMALL, KEEP, ENDLESS_STEPS):
        run = notebook.run(code)
        assert run.status == "ok", run.error
    return notebook


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"there is no mount: {error}")
    if done.returncode != 0:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def opened(tmp_path: Path, home: Path) -> Notebook:
    """A kernel of its own with a small AnnData."""
    made = Notebook(tmp_path, home)
    for code in ("%load_ext ovagent_jupyter", SMALL, KEEP):
        run = made.run(code)
        assert run.status == "ok", run.error
    return made


def fill(path: Path) -> None:
    """Write a file until there is no space left."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 1024)


def warnings_in(run: CellRun) -> list[str]:
    return [o["data"]["text/plain"] for o in run.outputs if _is_warning(o)]


def _is_warning(output: dict[str, dict[str, str]]) -> bool:
    return output.get("data", {}).get("text/plain", "").startswith("! ")


def works(notebook: Notebook, request: str = "normalise") -> CellRun:
    """Hold that a request works, and put its result away."""
    run = notebook.run(f"%%ovagent\n{request}")
    assert run.status == "ok", run.error
    notebook.run("%ovagent undo")
    return run


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("%%ovagent\n", "empty"),
        ("%%ovagent\n  \n\n", "empty"),
        ("%%ovagent\nBitte gruppiere die Zellen und zeige die Marker", "English"),
        ("%%ovagent\n细胞聚类", "English"),
        ("%%ovagent\nwrite a poem about mitochondria", "not covered"),
        ("%%ovagent\ncluster @adta", "'adata'"),
        ("%%ovagent -i missing\ncluster", "missing"),
        ("%%ovagent --timeuot 3\ncluster", "--timeout"),
        ("%%ovagent --timeout -1\ncluster", "--timeout"),
        ("%%ovagent -m https://models.example.org/v1#m\ncluster", "from a notebook"),
        ("%%ovagent -s ../elsewhere\ncluster", "session"),
        ("%ovagent histroy", "history"),
        ("%ovagent history many", "number"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_few_lines(cells: Notebook, cell: str, words: str) -> None:
    identity = evaluate(cells, "id(adata)")
    said(cells.run(cell), words)
    assert evaluate(cells, "id(adata)") == identity


@pytest.mark.parametrize("case", BAD_DATA)
def test_data_that_cannot_be_used_is_said(cells: Notebook, case: str) -> None:
    code, request, words = BAD_DATA[case]
    assert cells.run(code).status == "ok"
    identity = evaluate(cells, "id(globals().get('adata'))")
    said(cells.run(f"%%ovagent\n{request}"), words)
    assert evaluate(cells, "id(globals().get('adata'))") == identity
    assert cells.run(PUT_BACK).status == "ok"
    works(cells)


@pytest.mark.parametrize("names", ["var_names", "obs_names"])
def test_duplicate_names_are_no_reason_to_stop(cells: Notebook, names: str) -> None:
    cells.run(f"adata = _kept.copy(); adata.{names} = ['A', 'A', *adata.{names}[2:]]")
    works(cells, "normalise and log transform")
    assert evaluate(cells, f"list(adata.{names}[:2])") == ["A", "A"]
    cells.run(PUT_BACK)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("half.h5ad", "truncated"),
        ("notes.h5ad", "not an HDF5"),
        ("page.h5ad", "web page"),
        ("nothing.h5ad", "empty"),
        ("absent.h5ad", "no file"),
    ],
)
def test_a_file_that_cannot_be_read_is_said(cells: Notebook, file: str, words: str) -> None:
    assert cells.run(MAKE_FILES).status == "ok"
    identity = evaluate(cells, "id(adata)")
    said(cells.run(f"%%ovagent\nload {file}"), words)
    assert evaluate(cells, "id(adata)") == identity
    works(cells, "load whole.h5ad")


def test_several_candidates_are_a_question(cells: Notebook) -> None:
    cells.run("other = adata[:50].copy()")
    run = cells.run("%%ovagent plan\nnormalise the cells")
    said(run, "other")
    said(run, "adata")
    assert cells.run("%%ovagent plan\nnormalise the cells of @other").status == "ok"
    assert cells.run("%%ovagent plan -i adata\nnormalise the cells").status == "ok"
    cells.run("del other; alias = adata")
    assert cells.run("%%ovagent plan\nnormalise the cells").status == "ok"
    cells.run("del alias")


def test_a_child_that_is_killed_in_mid_cell_is_said_and_replaced(cells: Notebook) -> None:
    identity = evaluate(cells, "id(adata)")
    started = cells.start("%%ovagent\nspin forever")
    cells.wait_for(started, "step 1 of")
    for pid in child_pids(cells):
        os.kill(pid, signal.SIGKILL)
    said(cells.finish(started), "SIGKILL")
    assert evaluate(cells, "id(adata)") == identity
    works(cells)


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path, tiny_disk: Path) -> None:
    notebook = opened(tmp_path, tiny_disk)
    try:
        works(notebook)
        filler = tiny_disk / "filler"
        fill(filler)
        run = works(notebook, "run pca")
        shown = warnings_in(run)
        assert shown
        assert all("No space left" in text for text in shown)
        assert all("goes on" in text for text in shown)
        assert "No space" in notebook.run("%ovagent doctor").text
        filler.unlink()
        assert warnings_in(works(notebook)) == []
        assert notebook.run("%ovagent history").status == "ok"
    finally:
        notebook.close()


def test_a_home_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    notebook = opened(tmp_path, tmp_path / "file" / "below")
    try:
        run = works(notebook)
        assert len(warnings_in(run)) == 3  # log, notebook, history
        assert all("goes on" in text for text in warnings_in(run))
        assert warnings_in(works(notebook)) == []
        said(notebook.run("%ovagent history"), "history.jsonl")
        assert "file is in its way" in notebook.run("%ovagent doctor").text
    finally:
        notebook.close()


def test_two_notebooks_write_one_history_and_a_torn_line_costs_only_itself(
    cells: Notebook, tmp_path: Path
) -> None:
    history = cells.home / "history.jsonl"
    with history.open("ab") as file:
        file.write(b'{"session_id":"torn","request":"nev')
    other = opened(tmp_path, cells.home)
    try:
        both = [(one, one.start("%%ovagent plan\nnormalise")) for one in (cells, other) * 4]
        assert all(one.finish(started).status == "ok" for one, started in both)
    finally:
        other.close()
    shown = cells.run("%ovagent history 20")
    assert shown.status == "ok"
    assert "1 damaged" in shown.text
    lines = history.read_bytes().splitlines()
    entries = [json.loads(line) for line in lines if not line.startswith(b'{"session_id":"torn"')]
    assert [entry["request"] for entry in entries[-8:]] == ["normalise"] * 8
    assert len({entry["session_id"] for entry in entries[-8:]}) == 2
    works(cells)
