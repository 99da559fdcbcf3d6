"""The detector on real cells, in each state and in each form a matrix comes in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from ovagent_jupyter.omics.slots import slots
from ovagent_jupyter.omics.step import XKind
from ovagent_jupyter.omics.xstate import detect
from tests.omics import cells

FORMS: dict[str, Callable[[Any], Any]] = {
    "csr_matrix": sp.csr_matrix,
    "csr_array": sp.csr_array,
    "csc_matrix": sp.csc_matrix,
    "csc_array": sp.csc_array,
    "dense": lambda matrix: matrix.toarray(),
    "float64": lambda matrix: matrix.toarray().astype("float64"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [XKind.COUNTS, XKind.NORM, XKind.LOGNORM])
def test_states_of_a_sparse_matrix(kind: XKind, form: str, lognorm: Any) -> None:
    seen = detect(FORMS[form](cells.matrices(lognorm)[kind]))
    assert seen.kind is kind, seen.evidence
    assert seen.confidence >= 0.9


def test_integer_counts(counts: Any) -> None:
    assert detect(counts.X.astype("int32")).kind is XKind.COUNTS


def test_scaled(lognorm: Any) -> None:
    seen = detect(cells.matrices(lognorm)[XKind.SCALED])
    assert (seen.kind, seen.confidence >= 0.9) == (XKind.SCALED, True)


def test_what_scanpy_scaled_and_clipped(lognorm: Any) -> None:
    adata = cells.run("scale", {}, {"adata": lognorm.copy()})["adata"]
    seen = detect(adata.layers["scaled"])
    assert (seen.kind, seen.confidence >= 0.9) == (XKind.SCALED, True)
    assert detect(adata.X).kind is XKind.LOGNORM


def test_pearson_residuals_are_told_by_their_hint(counts: Any) -> None:
    adata = cells.run("pearson_norm", {}, {"adata": counts.copy()})["adata"]
    assert detect(adata.X, slots(adata)).kind is XKind.RESIDUAL
    assert detect(adata.X).confidence < 0.9


def test_corrected_values_are_not_taken_for_lognorm(lognorm: Any) -> None:
    rng = np.random.default_rng(0)
    corrected = lognorm.X.toarray() - rng.normal(size=lognorm.n_vars) * 0.1
    seen = detect(corrected, {"uns/log1p"})
    assert seen.kind is XKind.RESIDUAL
    assert seen.confidence < 0.9


@pytest.mark.parametrize("kind", [XKind.NORM, XKind.LOGNORM])
def test_subset_of_genes_needs_no_row_sums(kind: XKind, lognorm: Any) -> None:
    seen = detect(cells.matrices(lognorm)[kind][:, ::3])
    assert seen.kind is kind
    assert seen.confidence >= 0.9
    assert "multiples" in seen.evidence.lower()


def test_hint_lifts_fractions_of_unknown_origin(lognorm: Any) -> None:
    smoothed = (lognorm.X + lognorm.X[::-1]) / 2
    assert detect(smoothed).confidence < 0.9
    seen = detect(smoothed, {"uns/log1p"})
    assert seen.kind is XKind.LOGNORM
    assert seen.confidence >= 0.9


def test_logged_twice_is_nothing_to_work_with(lognorm: Any) -> None:
    seen = detect(lognorm.X.log1p(), {"uns/log1p"})
    assert seen.kind is XKind.UNKNOWN
    assert "logged twice" in seen.evidence


def test_ones_and_zeros_could_be_a_mask(counts: Any) -> None:
    seen = detect((counts.X > 0).astype("float32"))
    assert seen.kind is XKind.COUNTS
    assert seen.confidence < 0.9


@pytest.mark.parametrize("matrix", [None, np.zeros((0, 5)), np.zeros((5, 0)), np.zeros((5, 5))])
def test_nothing_to_see(matrix: Any) -> None:
    assert detect(matrix).kind is XKind.UNKNOWN


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gaps_lower_the_confidence(bad: float, lognorm: Any) -> None:
    matrix = lognorm.X.toarray()
    matrix[:, 0] = bad
    seen = detect(matrix)
    assert seen.kind is XKind.LOGNORM
    assert seen.confidence < 0.9
    assert "NaN" in seen.evidence


def test_few_cells(lognorm: Any) -> None:
    assert detect(lognorm.X[:1]).kind is XKind.LOGNORM
    assert detect(lognorm.layers["counts"][:1]).kind is XKind.COUNTS


def test_unsorted_columns_are_read_all_the_same(counts: Any) -> None:
    matrix = sp.csc_matrix(counts.X)
    for column in range(matrix.shape[1]):
        part = slice(matrix.indptr[column], matrix.indptr[column + 1])
        matrix.indices[part] = matrix.indices[part][::-1].copy()
        matrix.data[part] = matrix.data[part][::-1].copy()
    assert detect(matrix).kind is XKind.COUNTS


def test_other_sparse_forms_are_left_alone(counts: Any) -> None:
    seen = detect(sp.coo_matrix(counts.X))
    assert seen.kind is XKind.UNKNOWN
    assert seen.confidence < 0.9


@pytest.mark.parametrize("form", ["csr_matrix", "csc_matrix", "dense"])
def test_on_disk(form: str, lognorm: Any, tmp_path: Path) -> None:
    import anndata as ad

    adata = lognorm.copy()
    adata.X = FORMS[form](adata.X)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    try:
        seen = detect(backed.X)
    finally:
        backed.file.close()
    assert seen.kind is XKind.LOGNORM
    assert seen.confidence >= 0.9
