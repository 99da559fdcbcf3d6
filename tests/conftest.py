"""What every test gets: homes of its own, so that nothing touches the user's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovagent_jupyter.execution.environment import CACHE
from tests.compile_ahead import COMPILED

HOMES = ("OVAGENT_HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")
"""Settings by which each program is told where the user's files are."""


@pytest.fixture(scope="session", autouse=True)
def _homes_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Point every home at a temporary folder, for this process and its children."""
    root = tmp_path_factory.mktemp("homes")
    before = dict(os.environ)
    for name in HOMES:
        home = root / name.lower()
        home.mkdir()
        os.environ[name] = str(home)
    os.environ["MPLBACKEND"] = "agg"
    os.environ[CACHE] = str(COMPILED)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty OVAGENT_HOME for one test."""
    place = tmp_path / "ovagent-home"
    place.mkdir()
    monkeypatch.setenv("OVAGENT_HOME", str(place))
    return place
