"""The state card of an AnnData, and its text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from ovagent_jupyter.omics.slots import slots
from ovagent_jupyter.omics.state_card import describe, species_of
from ovagent_jupyter.omics.step import XKind
from ovagent_jupyter.omics.summary import summarize


def test_card_of_real_cells(lognorm: Any) -> None:
    state = describe(lognorm, "pbmc")
    assert (state.name, state.n_obs, state.n_vars) == ("pbmc", 700, 765)
    assert state.x.kind is XKind.LOGNORM
    assert state.layers["counts"].kind is XKind.COUNTS
    assert state.obs["batch"].levels == ("a", "b")
    assert state.obs["bulk_labels"].n_unique == 10
    assert state.genes["CD3D"] == "CD3D"
    assert state.species == "human"
    assert state.unique_obs_names
    assert state.unique_var_names
    assert not state.has_nan
    assert state.raw is None
    assert state.has("layers/counts")
    assert state.has("uns/log1p")
    assert not state.has("obsm/X_pca")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_card_of_the_data_that_scanpy_ships() -> None:
    import scanpy as sc

    state = describe(sc.datasets.pbmc68k_reduced())
    assert state.x.kind is XKind.SCALED
    assert state.x.confidence >= 0.9
    assert state.raw is not None
    assert state.raw.kind is XKind.LOGNORM
    assert state.raw.confidence >= 0.9
    assert state.obsm["X_pca"] == (700, 50)
    assert state.has("raw")
    assert state.has("obsp/connectivities")


def test_view_is_described_as_what_it_shows(lognorm: Any) -> None:
    view = lognorm[lognorm.obs["batch"] == "a", :100]
    state = describe(view)
    assert (state.n_obs, state.n_vars) == (350, 100)
    assert state.x.kind is XKind.LOGNORM
    assert len(state.genes) == 100
    assert view.is_view


def test_nothing_is_changed(lognorm: Any) -> None:
    adata = lognorm.copy()
    before = (slots(adata), adata.X.data.copy(), list(adata.obs_names))
    describe(adata)
    assert slots(adata) == before[0]
    assert np.array_equal(adata.X.data, before[1])
    assert list(adata.obs_names) == before[2]


@pytest.mark.parametrize("part", [slice(None), slice(0, 50)])
def test_backed(part: slice, lognorm: Any, tmp_path: Path) -> None:
    adata = lognorm.copy()
    adata.raw = adata
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    try:
        state = describe(backed[part] if part.stop else backed)
    finally:
        backed.file.close()
    assert state.n_obs == (part.stop or 700)
    assert state.x.kind is XKind.LOGNORM
    assert state.raw is not None
    assert state.raw.kind is XKind.LOGNORM


def test_no_cells_and_no_x(lognorm: Any) -> None:
    empty = describe(lognorm[:0])
    assert (empty.n_obs, empty.x.kind) == (0, XKind.UNKNOWN)
    without = describe(ad.AnnData(obs=lognorm.obs.copy()))
    assert (without.n_vars, without.x.kind) == (0, XKind.UNKNOWN)
    assert "note" not in summarize(without)


@pytest.mark.filterwarnings("ignore:.*names are not unique:UserWarning")
def test_duplicate_names_and_nan() -> None:
    matrix = np.array([[1.0, np.nan, 3.0], [4.0, 5.0, 6.0]])
    adata = ad.AnnData(matrix)
    adata.var_names = ["A", "A", "b"]
    adata.obs_names = ["x", "x"]
    state = describe(adata)
    assert not state.unique_var_names
    assert not state.unique_obs_names
    assert state.has_nan
    assert state.genes == {"A": "A", "B": "b"}
    assert summarize(state).count("note: ") == 3


def test_one_gap_far_from_the_sampled_rows_is_found(lognorm: Any) -> None:
    adata = lognorm.copy()
    adata.X.data[-1] = np.nan
    assert describe(adata).has_nan


def test_columns_of_every_kind() -> None:
    n = 30
    obs = pd.DataFrame(
        {
            "cat": pd.Categorical(["u", "v", None] * 10, categories=["u", "v", "unused"]),
            "flag": [True, False] * 15,
            "whole": np.arange(n),
            "real": np.linspace(0, 1, n),
            "text": ["x", "y"] * 15,
            "nullable": pd.array([1, None] * 15, dtype="Int64"),
            "maybe": pd.array([True, None] * 15, dtype="boolean"),
            "mixed": [1, "a"] * 15,
            "when": pd.date_range("2020-01-01", periods=n),
        },
        index=[f"c{i}" for i in range(n)],
    )
    state = describe(ad.AnnData(sp.random(n, 5, format="csr", random_state=0), obs=obs))
    kinds = {name: column.kind for name, column in state.obs.items()}
    assert kinds == {
        "cat": "categorical",
        "flag": "bool",
        "whole": "int",
        "real": "float",
        "text": "string",
        "nullable": "int",
        "maybe": "bool",
        "mixed": "other",
        "when": "other",
    }
    assert state.obs["cat"].levels == ("u", "v", "unused")
    assert state.obs["cat"].sizes == (10, 10, 0)
    assert state.obs["text"].levels == ("x", "y")
    assert state.obs["text"].sizes == (15, 15)
    assert state.obs["flag"].levels == ("False", "True")
    assert state.obs["maybe"].sizes == (15,)
    assert state.obs["nullable"].n_unique == 1
    assert state.obs["whole"].n_unique == n
    assert state.obs["real"].n_unique is None


def test_names_that_are_no_text() -> None:
    obs = pd.DataFrame({0: [1, 2], "tables": ["a", "b"]}, index=["x", "y"])
    adata = ad.AnnData(sp.csr_matrix(np.eye(2, 3)), obs=obs)
    adata.obsm["frame"] = pd.DataFrame({"u": [1.0, 2.0]}, index=adata.obs_names)
    state = describe(adata)
    assert set(state.obs) == {"0", "tables"}
    assert state.obsm["frame"] == (2, 1)


def test_long_columns_are_not_counted() -> None:
    n = 50_000
    obs = pd.DataFrame({"id": np.arange(n), "text": ["a", "b"] * (n // 2)})
    obs.index = obs.index.astype(str)
    state = describe(ad.AnnData(sp.csr_matrix((n, 3), dtype="float32"), obs=obs))
    assert state.obs["id"].n_unique is None
    assert state.obs["text"].n_unique is None


def test_levels_are_bounded(counts: Any) -> None:
    adata = counts.copy()
    adata.obs["barcode"] = pd.Categorical(adata.obs_names)
    column = describe(adata).obs["barcode"]
    assert (column.n_unique, len(column.levels)) == (700, 200)


@pytest.mark.parametrize(
    ("genes", "species"),
    [
        (["CD3D", "MT-CO1", "LYZ", "C1orf43"], "human"),
        (["Cd3d", "mt-Co1", "Lyz2", "Malat1"], "mouse"),
        ([f"ENSG{i:011}" for i in range(5)], "human"),
        ([f"ENSMUSG{i:011}" for i in range(5)], "mouse"),
        (["0", "1", "2"], None),
        ([], None),
        (["geneA", "geneB", "geneC"], None),
    ],
)
def test_species_by_how_genes_are_written(genes: list[str], species: str | None) -> None:
    assert species_of(pd.Index(genes, dtype=object)) == species
