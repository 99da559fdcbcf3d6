"""Which variables hold data, and what their arrays take up by themselves."""

from __future__ import annotations

import mmap

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from ovagent_jupyter.execution.handover import Store
from ovagent_jupyter.notebook.data_size import is_data, own_size


@pytest.mark.parametrize(
    "value",
    [
        AnnData(np.ones((2, 2))),
        pd.DataFrame(),
        pd.Series([1]),
        np.ones(3),
        np.ma.masked_array([1], [0]),
        sparse.csr_matrix((2, 2)),
        sparse.coo_array((2, 2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_data_is_known(value: object) -> None:
    assert is_data(value)


@pytest.mark.parametrize("value", [1, "x", [1], {"a": np.ones(3)}, np.float64(1), pd, is_data])
def test_other_things_are_no_data(value: object) -> None:
    assert not is_data(value)


def test_arrays_count_wherever_they_are() -> None:
    array = np.ones(1000)
    assert own_size(array) == array.nbytes
    matrix = sparse.csr_matrix(np.eye(100))
    parts = matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes
    assert own_size(matrix) == parts
    assert own_size({"a": array, "b": [array]}) == array.nbytes
    adata = AnnData(np.ones((50, 20), dtype="float32"), obsm={"X_pca": np.ones((50, 5))})
    adata.obs["n"] = np.arange(50)
    assert own_size(adata) >= 50 * 20 * 4 + 50 * 5 * 8 + 50 * 8
    assert own_size(adata[:10]) == 0
    assert own_size(pd.DataFrame(np.ones((10, 5000)))) > 0


def test_what_lies_on_a_map_does_not_count() -> None:
    mapped = np.frombuffer(mmap.mmap(-1, 1 << 20), np.uint8)[100:]
    assert own_size(mapped) == 0
    adata = AnnData(np.ones((1000, 500), dtype="float32"))
    restored = Store().save({"a": adata})["a"].restore()
    assert own_size(adata) >= adata.X.nbytes
    assert own_size(restored) < adata.X.nbytes / 10


def test_a_broken_object_counts_as_nothing() -> None:
    class Broken:
        @property
        def nbytes(self) -> int:
            raise RuntimeError

    assert own_size(Broken()) == 0
