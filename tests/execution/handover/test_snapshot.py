"""The user goes on with an object while the child has it: a turn's result is what it was given."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from tests.execution.handover.border import Border
from tests.execution.handover.identical import assert_identical

CELLS, GENES = 400, 300


@pytest.fixture
def adata() -> anndata.AnnData:
    matrix = sparse.random(CELLS, GENES, 0.3, "csr", "f4", rng=np.random.default_rng(0))
    made = anndata.AnnData(
        matrix,
        pd.DataFrame({"n": np.arange(CELLS)}, index=[f"c{number}" for number in range(CELLS)]),
        pd.DataFrame(index=[f"g{number}" for number in range(GENES)]),
    )
    made.layers["counts"] = matrix.copy()
    made.obsm["X_pca"] = np.random.default_rng(1).random((CELLS, 40))
    made.uns["params"] = {"k": [1, 2]}
    return made


CHANGES = {
    "a value of X": lambda a: a.X.data.__setitem__(0, -1),
    "all of X": lambda a: setattr(a, "X", a.X * 2),
    "a column": lambda a: a.obs.__setitem__("n", 0),
    "a new column": lambda a: a.obs.__setitem__("mine", 1),
    "a column less": lambda a: a.obs.__delitem__("n"),
    "an embedding": lambda a: a.obsm["X_pca"].__setitem__(slice(None), 0),
    "a list in uns": lambda a: a.uns["params"]["k"].append(3),
    "names": lambda a: setattr(a, "obs_names", [f"x{number}" for number in range(CELLS)]),
    "fewer cells": lambda a: a._inplace_subset_obs(np.arange(CELLS) < 10),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_result_is_what_was_handed_over_plus_what_the_code_did(
    tmp_path: Path, adata: anndata.AnnData, change: str
) -> None:
    expected = adata.copy()
    expected.obs["leiden"] = "0"
    border = Border(tmp_path, {"adata": adata})
    CHANGES[change](adata)
    mine = adata.copy()
    changes = border.run("adata.obs['leiden'] = '0'")
    assert_identical(expected, changes.objects["adata"])
    assert_identical(mine, adata)
    assert changes.changed_meanwhile == ("adata",)
    assert changes.diffs[0].summary() == "adata: +obs/leiden"


def test_who_changed_nothing_is_not_told_so(tmp_path: Path, adata: anndata.AnnData) -> None:
    border = Border(tmp_path, {"adata": adata, "other": [1]})
    border.objects["other"].append(2)  # type: ignore[attr-defined]
    changes = border.run("adata.obs['leiden'] = '0'")
    assert changes.changed_meanwhile == ()
    changes = border.run("other = [5]")
    assert changes.changed_meanwhile == ("other",)


def test_a_change_and_back_is_no_change(tmp_path: Path, adata: anndata.AnnData) -> None:
    border = Border(tmp_path, {"adata": adata})
    before = adata.X.data[0]
    adata.X.data[0] = -1
    adata.X.data[0] = before
    assert border.run("adata.obs['leiden'] = '0'").changed_meanwhile == ()


def test_both_sides_change_the_same_part(tmp_path: Path, adata: anndata.AnnData) -> None:
    expected = adata.X.copy() * 3
    border = Border(tmp_path, {"adata": adata})
    adata.X.data[:] = -1
    changes = border.run("adata.X = adata.X * 3")
    new: Any = changes.objects["adata"]
    assert (expected != new.X).nnz == 0
    assert set(adata.X.data) == {-1}
    assert changes.changed_meanwhile == ("adata",)


def test_results_share_nothing_with_the_user_or_each_other(
    tmp_path: Path, adata: anndata.AnnData
) -> None:
    border = Border(tmp_path, {"adata": adata, "other": adata})
    changes = border.run("adata.obs['a'] = 1; other.obs['b'] = 1; third = adata.copy()", ["third"])
    objects: list[Any] = [adata, *changes.objects.values()]
    assert len(objects) == 4
    for number, each in enumerate(objects):
        each.X.data[:] = number
        each.X.indices[:] = 0
        each.layers["counts"].data[:] = number + 10
        each.obsm["X_pca"][:] = number
        each.uns["params"]["k"].append(number)
    for number, each in enumerate(objects):
        assert set(each.X.data) == {number}
        assert set(each.layers["counts"].data) == {number + 10}
        assert each.layers["counts"].indices.any()
        assert set(each.obsm["X_pca"].ravel()) == {number}
        assert each.uns["params"]["k"] == [1, 2, number]


def test_a_user_who_writes_while_results_are_read(tmp_path: Path, adata: anndata.AnnData) -> None:
    expected = adata.copy()
    border = Border(tmp_path, {"adata": adata})
    over = threading.Event()

    def write() -> None:
        step = 0
        while not over.is_set():
            step += 1
            adata.X.data[:] = step
            adata.obsm["X_pca"][:] = step
            adata.uns["params"]["k"].append(step)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for turn in range(5):
            changes = border.run(f"adata.obs['t'] = {turn}")
            expected.obs["t"] = turn
            assert_identical(expected, changes.objects["adata"])
            assert changes.changed_meanwhile == ("adata",)
    finally:
        over.set()
        writer.join()


def test_very_many_large_columns_take_few_descriptors(tmp_path: Path) -> None:
    frame = pd.DataFrame({f"c{number}": np.arange(132_000.0) + number for number in range(150)})
    border = Border(tmp_path, {"frame": frame})
    before = len([*Path("/proc/self/fd").iterdir()])
    new: Any = border.run("frame['c0'] += 1").objects["frame"]
    assert len([*Path("/proc/self/fd").iterdir()]) - before < 100
    assert [*new["c149"].iloc[[0, -1]]] == [149, 132_148]
