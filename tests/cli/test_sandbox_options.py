"""The sandbox from a shell: what its options allow, what they refuse, and what a run says."""

from __future__ import annotations

from pathlib import Path

import anndata
import pytest

from tests.cli.conftest import Run, refused

NORMALISE = ("run", "normalise", "--data", "cells.h5ad")


def test_a_file_is_read_and_another_written_where_the_request_says(
    ovagent: Run, folder: Path
) -> None:
    """The code runs confined: it sees the file that is named, and writes in a folder of its own."""
    (folder / "results").mkdir()
    done = ovagent("run", "normalise and save to results/done.h5ad", "--data", "cells.h5ad")
    assert done.returncode == 0, done.stderr
    assert f"Written: {folder / 'results' / 'done.h5ad'}" in done.stdout
    assert 'write_h5ad("done.h5ad"' in done.stdout
    assert "Effects: changes adata.X" in done.stdout
    assert "sandbox: " in done.stdout
    assert "counts" in anndata.read_h5ad(folder / "results" / "done.h5ad").layers
    done = ovagent("run", "load results/done.h5ad")
    assert done.returncode == 0, done.stderr
    assert "700 × 765" in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--memory", "1M"), "512M"),
        (("--memory", "lots"), "memory"),
        (("--processes", "many"), "processes"),
        (("--read", "nowhere.h5ad"), "does not exist"),
        (("--read", "/"), "whole file system"),
        (("--network", "https://a.org/x"), "network"),
        (("--level", "process"), "needs your yes"),
    ],
)
def test_what_cannot_be_allowed_is_refused_before_anything_runs(
    ovagent: Run, options: tuple[str, ...], words: str
) -> None:
    done = ovagent(*NORMALISE, *options)
    refused(done, words)
    assert "✓" not in done.stdout


def test_below_the_boundary_of_the_system_a_run_says_so(ovagent: Run) -> None:
    done = ovagent(*NORMALISE, "--level", "process", "--approve", "never", "--cpu-time", "300")
    assert done.returncode == 0, done.stderr
    assert "Not confined" in done.stdout
