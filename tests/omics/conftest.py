"""Cells shared by the tests of this room; each test copies before it changes them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.omics import cells


@pytest.fixture(scope="session")
def counts() -> Any:
    """UMI counts of 700 real cells."""
    return cells.counts()


@pytest.fixture(scope="session")
def lognorm(counts: Any) -> Any:
    """The same cells, normalised and logged, the counts in a layer."""
    adata = counts.copy()
    for step_id in ("stash_counts", "normalize", "log1p"):
        adata = cells.run(step_id, {}, {"adata": adata})["adata"]
    return adata
