"""``ovagent`` run as a real process in a folder with data."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.omics.cells import counts

LONGEST_ERROR = 6
PATIENCE = 120

Run = Callable[..., subprocess.CompletedProcess[str]]
MODULE = [sys.executable, "-m", "ovagent_jupyter.cli"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One OVAGENT_HOME for this module: compiled code is made once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a name that has a space, with real counts in ``cells.h5ad``."""
    place = tmp_path / "my data"
    place.mkdir()
    counts().write_h5ad(place / "cells.h5ad")
    return place


@pytest.fixture
def ovagent(home: Path, folder: Path) -> Run:
    """Runs ``ovagent`` there."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "OVAGENT_HOME": str(home), **variables}
        return subprocess.run(
            [*MODULE, *arguments],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=280,
            check=False,
        )

    return run


def refused(done: subprocess.CompletedProcess[str], words: str) -> None:
    """Hold that a command ended with a short error."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert words.lower() in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= LONGEST_ERROR
