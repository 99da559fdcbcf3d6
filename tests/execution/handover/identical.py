"""Whether two objects are the same in every way a user could notice; knows nothing of our codec."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import anndata
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from polars.testing import assert_series_equal
from scipy import sparse

GROUPS = ("layers", "obsm", "varm", "obsp", "varp")


def assert_identical(one: Any, other: Any, where: str = "it") -> None:
    """Fail with the place of the first difference."""
    assert type(one) is type(other), f"{where}: {type(one)} is not {type(other)}"
    for kind, compare in _COMPARISONS.items():
        if isinstance(one, kind):
            return compare(one, other, where)
    return _scalar(one, other, where)


def _dict(one: Any, other: Any, where: str) -> None:
    assert list(one) == list(other), f"{where}: keys {list(one)} are not {list(other)}"
    assert [type(key) for key in one] == [type(key) for key in other], where
    for key, value in one.items():
        assert_identical(value, other[key], f"{where}[{key!r}]")


def _sequence(one: Any, other: Any, where: str) -> None:
    assert len(one) == len(other), where
    for position, (a, b) in enumerate(zip(one, other, strict=True)):
        assert_identical(a, b, f"{where}[{position}]")


def _series(one: Any, other: Any, where: str) -> None:
    pd.testing.assert_series_equal(one, other, check_exact=True)
    assert_identical(one.array, other.array, where)
    assert_identical(one.index, other.index, f"{where}.index")
    assert one.attrs == other.attrs


def _index(one: Any, other: Any, where: str) -> None:
    pd.testing.assert_index_equal(one, other, exact=True, check_exact=True)
    assert getattr(one, "freq", None) == getattr(other, "freq", None), where


def _extension(one: Any, other: Any, where: str) -> None:
    assert one.dtype == other.dtype, f"{where}: {one.dtype} is not {other.dtype}"
    if isinstance(one, pd.arrays.ArrowExtensionArray):
        return _same_items(one.__arrow_array__(), other.__arrow_array__(), where)
    if isinstance(one, pd.arrays.SparseArray):
        assert one.kind == other.kind, where
        assert_identical(one.sp_values, other.sp_values, where)
        return assert_identical(one.sp_index.indices, other.sp_index.indices, where)
    if isinstance(one, pd.Categorical):
        assert_identical(one.codes.copy(), other.codes.copy(), where)
        assert_identical(one.categories, other.categories, where)
    return pd.testing.assert_extension_array_equal(one, other, check_exact=True)


def _arrow(one: Any, other: Any, where: str) -> None:
    if isinstance(one, pa.Table | pa.RecordBatch):
        assert one.schema.equals(other.schema, check_metadata=True), where
        assert one.num_rows == other.num_rows, where
        for position in range(one.num_columns):
            assert_identical(one.column(position), other.column(position), f"{where}[{position}]")
    elif isinstance(one, pa.ChunkedArray):
        assert [len(chunk) for chunk in one.chunks] == [len(chunk) for chunk in other.chunks], where
        _same_items(one, other, where)
    else:
        _same_items(one, other, where)


def _same_items(one: Any, other: Any, where: str) -> None:
    assert one.type == other.type, f"{where}: {one.type} is not {other.type}"
    other.validate(full=True)
    assert repr(one.to_pylist()) == repr(other.to_pylist()), where


def _polars(one: Any, other: Any, where: str) -> None:
    if isinstance(one, pl.DataFrame):
        assert one.schema == other.schema, where
        assert one.shape == other.shape, where
        return assert_identical(one.get_columns(), other.get_columns(), where)
    assert (one.name, one.dtype) == (other.name, other.dtype), where
    return assert_series_equal(one, other, check_exact=True)


def _scalar(one: Any, other: Any, where: str) -> None:
    if isinstance(one, float | np.floating) and math.isnan(one):
        assert math.isnan(other), where
    elif isinstance(one, complex | Decimal):
        assert repr(one) == repr(other), where
    elif one is pd.NA or one is pd.NaT:
        assert one is other, where
    else:
        assert one == other or repr(one) == repr(other), f"{where}: {one!r} is not {other!r}"


def _array(one: Any, other: Any, where: str) -> None:
    assert one.dtype == other.dtype, f"{where}: {one.dtype} is not {other.dtype}"
    assert one.dtype.type is other.dtype.type, where
    assert one.shape == other.shape, where
    if one.flags.f_contiguous != one.flags.c_contiguous:
        assert one.flags.f_contiguous == other.flags.f_contiguous, f"{where}: order"
    assert other.flags.writeable, where
    if isinstance(one, np.ma.MaskedArray):
        assert_identical(np.asarray(one.data), np.asarray(other.data), where)
        assert_identical(np.ma.getmaskarray(one), np.ma.getmaskarray(other), where)
    elif one.dtype == object:
        for position, (a, b) in enumerate(zip(one.flat, other.flat, strict=True)):
            assert_identical(a, b, f"{where}[{position}]")
    elif one.dtype.hasobject:
        for name in one.dtype.names:
            assert_identical(np.asarray(one[name]), np.asarray(other[name]), f"{where}.{name}")
    else:
        assert one.tobytes() == other.tobytes(), where


def _sparse(one: Any, other: Any, where: str) -> None:
    assert one.format == other.format, where
    assert one.shape == other.shape, where
    assert one.dtype == other.dtype, where
    if one.format in ("csr", "csc", "bsr"):
        for name in ("data", "indices", "indptr"):
            assert_identical(getattr(one, name), getattr(other, name), f"{where}.{name}")
        assert one.has_sorted_indices == other.has_sorted_indices, where
        assert one.has_canonical_format == other.has_canonical_format, where
    elif one.format == "coo":
        assert_identical(one.data, other.data, where)
        for a, b in zip(one.coords, other.coords, strict=True):
            assert_identical(a, b, where)
    else:
        assert_identical(one.toarray(), other.toarray(), where)


def _frame(one: pd.DataFrame, other: pd.DataFrame, where: str) -> None:
    assert_identical(one.index, other.index, f"{where}.index")
    assert_identical(one.columns, other.columns, f"{where}.columns")
    for position, label in enumerate(one.columns):
        left, right = one.iloc[:, position], other.iloc[:, position]
        assert left.dtype == right.dtype, f"{where}[{label!r}]: {left.dtype}, {right.dtype}"
        assert_identical(left.array, right.array, f"{where}[{label!r}]")
        if left.dtype == object:
            assert_identical(left.tolist(), right.tolist(), f"{where}[{label!r}]")
    assert_identical(one.attrs, other.attrs, f"{where}.attrs")


def _annotated(one: anndata.AnnData, other: anndata.AnnData, where: str) -> None:
    assert one.is_view == other.is_view, where
    assert_identical(one.X, other.X, f"{where}.X")
    _frame(one.obs, other.obs, f"{where}.obs")
    _frame(one.var, other.var, f"{where}.var")
    for name in GROUPS:
        groups = [
            {key: value for key, value in getattr(adata, name).items() if key is not None}
            for adata in (one, other)
        ]
        assert_identical(*groups, f"{where}.{name}")
    assert_identical(dict(one.uns), dict(other.uns), f"{where}.uns")
    assert (one.raw is None) == (other.raw is None), f"{where}.raw"
    if one.raw is not None:
        assert_identical(one.raw.X, other.raw.X, f"{where}.raw.X")
        _frame(one.raw.var, other.raw.var, f"{where}.raw.var")
        assert_identical(dict(one.raw.varm), dict(other.raw.varm), f"{where}.raw.varm")


_COMPARISONS: dict[Any, Callable[[Any, Any, str], None]] = {
    anndata.AnnData: _annotated,
    sparse.spmatrix | sparse.sparray: _sparse,  # before dict: a dok_matrix is one
    dict: _dict,
    list | tuple: _sequence,
    np.ndarray: _array,
    pd.DataFrame: _frame,
    pd.Series: _series,
    pd.Index: _index,
    pa.Array | pa.ChunkedArray | pa.Table | pa.RecordBatch: _arrow,
    pl.DataFrame | pl.Series: _polars,
    pd.api.extensions.ExtensionArray: _extension,
}
