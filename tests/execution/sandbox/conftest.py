"""Guests below a reaper, for the tests of what watches and ends them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ovagent_jupyter.execution.sandbox.process_tree import kill_tree
from tests.execution.sandbox.family import Family, Raise


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Raise]:
    """Starts guests, and ends them after the test."""
    families: list[Family] = []

    def start(code: str) -> Family:
        families.append(Family(tmp_path, code))
        families[-1].wait_until_ready()
        return families[-1]

    yield start
    for each in families:
        assert kill_tree(each.pid)
        each.end()
