"""One value of each type that can cross the border, and random AnnData to go with them."""

from __future__ import annotations

import datetime as dt
import math
import warnings
from collections import OrderedDict
from copy import deepcopy
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, cast
from zoneinfo import ZoneInfo

import anndata
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from hypothesis import strategies as st
from scipy import sparse

PLAIN: list[object] = [
    None, True, False, 0, -5, 2**70, -(2**200), 1.5, -0.0, math.nan, math.inf, -math.inf,
    1 + 2j, complex(math.nan, -0.0), Decimal("-1.50"), Decimal("sNaN"),
    "", "a", "é" * 2000, "\ud800", "x" * 5000, b"", b"x\0",
    bytearray(b"y"), [], [1, [2, "c"]], list(range(100)), [0.5, math.nan] * 50, ["ä"] * 40,
    ["a"] * 40 + [None, math.nan, pd.NA], [True] * 40, [2**80] * 40, [1, 1.0, True] * 20, (),
    (1, "b", (2,)), {1, 2}, {"b", "a", (1, 2)}, frozenset("abc"), {}, {"z": 1, "a": {"b": []}},
    {1: "int", (1, 2): "tuple", "1": "text", None: 0, 1.5: 2}, OrderedDict([("b", 1), ("a", 2)]),
    range(3), range(5, -5, -2), slice(1, None, 2), ..., Path("/tmp/x"), PurePosixPath("a/b"),
    dt.datetime(2026, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001 - users have naive ones
    dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
    dt.datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Paris"), fold=1),
    dt.datetime(2026, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30))),
    dt.date(2026, 1, 2), dt.time(1, 2, 3), dt.timedelta(-3, 4, 5), ZoneInfo("Asia/Tokyo"),
]  # fmt: skip

NUMPY: list[object] = [
    np.float32(3), np.float64(np.nan), np.int64(-1), np.bool_(True), np.str_("é"), np.bytes_(b"x"),
    np.complex64(1j), np.float16(1), np.datetime64("2026-01-01"), np.timedelta64(5, "ms"),
    np.dtype("f4"), np.array(3.0), np.array("s", object), np.zeros((0, 3)), np.zeros((3, 0), "U1"),
    np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    np.arange(20).reshape(4, 5)[::2, ::2], np.arange(5)[::-1], np.ones((2, 3, 4), "f4", order="F"),
    np.array([True, False]), np.array([1, 2], ">i4"), np.array([1 + 1j]), np.array([1], "f2"),
    np.array(["2026-01-01", "NaT"], "M8[ns]"), np.array([1, -1], "m8[us]"), np.array(["a", "bé"]),
    np.array([b"x", b"yz"]), np.array([(1, 2.0)], [("a", "i4"), ("b", "f8", (2, 2))]),
    np.array([(1, 2)], np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    np.rec.fromarrays([np.array(["g1", "g2"], object), np.array([1.0, 2.0], "f4")], names="0,1"),
    np.rec.fromarrays([[1, 2], ["a", "b"]], names="x,y"),
    np.array([("a", 1)], [("k", object), ("v", "i8")]),
    np.array([1, "a", None, [1, 2], {"b": 1}, np.arange(3)], object),
    np.array([["a", None], ["b", np.nan]], object), np.array(["a"] * 50 + [pd.NA], object),
    np.ma.array([1, 2, 3], mask=[0, 1, 0]), np.ma.array([1.0, 2.0]),
]  # fmt: skip

SPARSE: list[object] = [
    cls(matrix)
    for matrix in (np.array([[0, 1.5, 0], [2, 0, 3]], "f4"), np.zeros((0, 4)), np.zeros((3, 0)))
    for name in ("csr", "csc", "coo", "dia", "lil", "dok", "bsr")
    if matrix.size or name in ("csr", "csc", "coo")
    for cls in (getattr(sparse, f"{name}_matrix"), getattr(sparse, f"{name}_array"))
]
_UNSORTED = sparse.csr_matrix(
    (np.array([1.0, 2.0, 3.0]), np.array([2, 0, 1]), np.array([0, 2, 3])), shape=(2, 3)
)
_WIDE = sparse.csr_matrix((2, 3))
_WIDE.indices, _WIDE.indptr = _WIDE.indices.astype(np.int64), _WIDE.indptr.astype(np.int64)
_REPEATED = sparse.coo_matrix((np.ones(3), (np.array([0, 0, 1]), np.array([1, 1, 0]))))
SPARSE += [_UNSORTED, _WIDE, _REPEATED, sparse.coo_array(np.array([1, 0, 2])),
           sparse.csc_matrix(np.eye(3, dtype=bool)), sparse.csr_matrix(np.eye(2) * 1j)]  # fmt: skip

_CATEGORIES = pd.Categorical(["a", None, "b"], categories=["b", "a", "c"], ordered=True)
INDEXES: list[object] = [
    pd.Index([1, 2], name="n"), pd.Index([1.5, np.nan]), pd.Index(["a", "b"], name=("t", 1)),
    pd.Index(["a", None], dtype=object), pd.Index([1, "a", (2,)], dtype=object),
    pd.Index(["a", None], dtype="string"), pd.Index([True, False]),
    pd.Index([1, None], dtype="Int8"),
    pd.RangeIndex(5, name="x"), pd.RangeIndex(5, 0, -2), pd.Index([]),
    pd.date_range("2026", periods=3, freq="D"), pd.date_range("2026", periods=3, freq="W-MON"),
    pd.DatetimeIndex(["2026-01-01", "NaT"]), pd.date_range("2026", periods=3, tz="Europe/Paris"),
    pd.timedelta_range("1D", periods=3), pd.period_range("2026", periods=3, freq="M"),
    pd.IntervalIndex.from_breaks([0.0, 1.0, 2.5], closed="left"), pd.CategoricalIndex(_CATEGORIES),
    pd.MultiIndex.from_tuples([(1, "a"), (2, "b"), (1, None)], names=["i", None]),
]  # fmt: skip

SERIES: list[object] = [
    pd.Series([1, 2, 3], index=["a", "a", "b"], name="s"), pd.Series(["a", "b", None]),
    pd.Series(["a", None, np.nan, 1], dtype=object), pd.Series(["a", "b"], dtype=object),
    pd.Series(["é", None], dtype=pd.StringDtype("python")), pd.Series([1, None], dtype="Int64"),
    pd.Series([1, None], dtype="UInt8"), pd.Series([1.5, None], dtype="Float32"),
    pd.Series([True, None], dtype="boolean"), pd.Series(_CATEGORIES),
    pd.Series(pd.Categorical([3, 1, None])), pd.cut(pd.Series([1, 2, 3.0]), 2),
    pd.Series(pd.Categorical.from_codes([-1, -1], categories=pd.Index([], dtype=object))),
    pd.Series(pd.date_range("2026", periods=2)),
    pd.Series(pd.date_range("2026", periods=2, tz="UTC")),
    pd.Series(pd.date_range("2026", periods=2, tz="Asia/Tokyo", unit="s")),
    pd.Series(pd.to_timedelta([1, None], unit="s")),
    pd.Series(pd.period_range("2026", periods=2, freq="D")),
    pd.Series(pd.IntervalIndex.from_breaks([0, 1, 2])), pd.Series([], dtype="float32"),
    pd.Series([1j]), pd.Series([[1], {"a": 2}]), pd.Series([1, 2], dtype="i1"),
    pd.Timestamp("2026-01-01 01:02:03.000000004"), pd.Timestamp("2026-07-01", tz="Europe/Paris"),
    pd.Timestamp("2026-01-01").as_unit("s"), pd.NaT, pd.NA, pd.Timedelta("1D"),
    pd.Period("2026-01"),
    pd.Interval(1, 2), pd.Interval(pd.Timestamp("2026"), pd.Timestamp("2027"), closed="both"),
]  # fmt: skip
_WITH_ATTRS = pd.DataFrame({"a": [1]})
_WITH_ATTRS.attrs = {"source": ["x", {"y": 1}]}
FRAMES: list[object] = [
    pd.DataFrame({"a": [1, 2], "b": ["x", "y"], "c": [0.5, None]}), pd.DataFrame(index=range(3)),
    pd.DataFrame(), pd.DataFrame({"a": []}),
    pd.DataFrame({"a": [1], 5: [2], ("t", 1): [3], 1.5: [4]}),
    pd.DataFrame([[1, "a", 2.0, None]], columns=["a", "a", 3, "a"]), pd.DataFrame({0: [1], 1: [2]}),
    pd.DataFrame(np.arange(6.0).reshape(2, 3)), _WITH_ATTRS,
    pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("x", "a"), ("y", "a")])),
    pd.DataFrame({"c": _CATEGORIES, "o": [1, "a", [2]]}, index=pd.Index(["q", "q", "r"], name="i")),
]  # fmt: skip
SERIES += [
    pd.Series(["é", None, "b"], dtype=pd.StringDtype("pyarrow")),
    pd.Series(["é", None], dtype=pd.StringDtype("pyarrow", na_value=np.nan)),
    pd.Series([1, None], dtype="int64[pyarrow]"), pd.Series([], dtype="bool[pyarrow]"),
    pd.Series([[1], None], dtype=pd.ArrowDtype(pa.list_(pa.int8()))),
    pd.Series(["a", "b"], dtype=pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string()))),
    pd.Series(pd.arrays.SparseArray([0, 0, 1, 2])),
    pd.Series(pd.arrays.SparseArray([np.nan, 1.0], kind="block")),
    pd.Series(pd.arrays.SparseArray([True, False], fill_value=True)),
]  # fmt: skip

_STRUCT = pa.struct([("a", pa.int8()), ("b", pa.string())])
_MAP = pa.map_(pa.string(), pa.int64())
ARROW: list[object] = [
    pa.array([1, None, 3]), pa.array([True, None, False] * 7), pa.array(["a", None, "é"]),
    pa.array(["a", ""], pa.large_string()), pa.array([b"x", None]), pa.array([]), pa.nulls(5),
    pa.array([], pa.string()), pa.array([[1, None], None, []]), pa.array([[["a"], []], None]),
    pa.array([{"a": 1, "b": "x"}, None], _STRUCT), pa.array([{}] * 3, pa.struct([])),
    pa.array([[("k", 1)], None, [("z", None), ("y", 2)]], _MAP),
    pa.array(["a", "b", None, "a"]).dictionary_encode(), pa.array([b"", None], pa.binary(0)),
    pa.array([[1, 2], None, [3, None]], pa.list_(pa.int16(), 2)),
    pa.array([None, []], pa.list_(pa.int8(), 0)), pa.array([b"ab", None], pa.binary(2)),
    pa.array([Decimal("1.50"), None]), pa.array([Decimal("1.5")], pa.decimal256(50, 3)),
    pa.array([dt.date(2026, 1, 1), None]), pa.array([dt.time(1, 2)]), pa.array([dt.timedelta(1)]),
    pa.array([dt.datetime(2026, 1, 1, tzinfo=dt.UTC)], pa.timestamp("ms", "Europe/Paris")),
    pa.array([np.float16(1.5)], pa.float16()),
    pa.array([(1, 2, 3), None], pa.month_day_nano_interval()),
    pa.array([[["a", "b", None]], None], pa.list_(pa.list_(pa.dictionary(pa.int8(), pa.string())))),
]  # fmt: skip
ARROW += [cast(Any, array).slice(1) for array in ARROW if len(cast(Any, array)) > 1]
_NOTED = pa.schema([pa.field("a", pa.int8(), metadata={"k": "v"}), pa.field("a", pa.string())])
ARROW += [
    pa.chunked_array([[1, 2], [], [None]]), pa.chunked_array([], pa.string()),
    pa.table([[1, 2], ["x", None]], schema=_NOTED.with_metadata({"pandas": "{}"})),
    pa.table({"c": pa.chunked_array([["a"], ["b", None]])}), pa.table({}),
    pa.table({"a": [1, 2, 3]}).select([]), pa.Table.from_pandas(pd.DataFrame({"q": ["x"]})),
    pa.record_batch([pa.array([1, 2])], names=["a"]),
    pa.record_batch([pa.array([], pa.int8())], names=["a"]),
]  # fmt: skip
POLARS: list[object] = [
    pl.Series("a", [1, None, 3]), pl.Series("s", ["x", None, "é" * 30]), pl.Series([True] * 9),
    pl.Series("c", ["x", None, "y"], dtype=pl.Categorical), pl.Series("null", [None, None]),
    pl.Series("e", ["x", None, "y"], dtype=pl.Enum(["y", "z", "x"])),
    pl.Series("l", [[1, None], None, []]), pl.Series("n", [[{"a": ["q"]}]]),
    pl.Series("ar", [[1, 2], None], dtype=pl.Array(pl.Int16, 2)),
    pl.Series("st", [{"a": 1, "b": "x"}, None]), pl.Series("b", [b"x", None]),
    pl.Series("d", [dt.date(2026, 1, 1), None]), pl.Series("t", [dt.time(1)]),
    pl.Series("dt", [dt.datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Paris"))]),
    pl.Series("du", [dt.timedelta(1)]), pl.Series("dec", [Decimal("1.5")]),
    pl.Series("empty", [], dtype=pl.Float32), pl.Series("none", [], dtype=pl.Enum([])),
    pl.DataFrame({"a": [1, 2], "b": ["x", None]}), pl.DataFrame(),
    pl.DataFrame({"a": [1, 2, 3]}).head(0),
]  # fmt: skip

ALL = PLAIN + NUMPY + SPARSE + INDEXES + SERIES + FRAMES + ARROW + POLARS
UNS: dict[str, Any] = {
    "neighbors": {"params": {"n": 15, "metric": "euclidean"}, "connectivities_key": "c"},
    "names": NUMPY[30],
    "c_colors": np.array(["#1f77b4", "#ff7f0e"]),
    "refused by h5ad": [dt.date(2026, 1, 1), {1: "int key"}, {2, 3}, None, (1, "a")],
    "mixed": {"a/b": [1, "x", None], 7: {"deep": {}}},
    "table": pd.DataFrame({"q": [1, 2]}),
    "delta": dt.timedelta(1),
}

_COLUMNS = {
    "category": lambda n: pd.Categorical.from_codes(
        np.arange(n) % 3 - 1, ["x", "y"] if n else pd.Index(["x", "y"])
    ),
    "ordered": lambda n: pd.Categorical(["lo", "hi"] * n, ["lo", "hi"], ordered=True)[:n],
    "text": lambda n: [f"t{i}é" for i in range(n)],
    "object": lambda n: pd.Series([None, 1, "a", [2]] * n, dtype=object)[:n].to_numpy(),
    "string": lambda n: pd.array(["s", None] * n, dtype="string")[:n],
    "Int": lambda n: pd.array([1, None] * n, dtype="Int32")[:n],
    "boolean": lambda n: pd.array([True, None] * n, dtype="boolean")[:n],
    "float": lambda n: np.arange(n) / 3,
    "bool": lambda n: np.arange(n) % 2 == 0,
    "when": lambda n: pd.date_range("2026", periods=n, tz="UTC"),
    3: lambda n: np.arange(n, dtype="u1"),
}
_MATRICES = {
    "dense": lambda r, n, m: r.random((n, m)),
    "fortran": lambda r, n, m: np.asfortranarray(r.random((n, m), "f4")),
    "ints": lambda r, n, m: r.integers(0, 9, (n, m)),
    "csr": lambda r, n, m: sparse.random(n, m, 0.4, "csr", "f4", rng=r),
    "csc": lambda r, n, m: sparse.random(n, m, 0.4, "csc", rng=r),
    "csr_array": lambda r, n, m: sparse.csr_array(r.integers(0, 2, (n, m)).astype("f8")),
}


@st.composite
def annotated(draw: st.DrawFn) -> anndata.AnnData:
    """A random AnnData: any size from empty on, any mixture of what its slots can hold."""
    n, m = draw(st.integers(0, 7)), draw(st.integers(0, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    kinds = st.sampled_from(sorted(_MATRICES))

    def matrix(rows: int, columns: int) -> Any:
        return _MATRICES[draw(kinds)](rng, rows, columns)

    def frame(rows: int, prefix: str) -> pd.DataFrame:
        names = draw(st.lists(st.sampled_from(list(_COLUMNS)), unique=True, max_size=5))
        repeats = draw(st.booleans()) and rows > 1
        index = [f"{prefix}{0 if repeats and i < 2 else i}" for i in range(rows)]
        columns = {name: _COLUMNS[name](rows) for name in names}
        return pd.DataFrame(columns, index=pd.Index(index, dtype=str))

    def group(rows: int, columns: int | None) -> dict[str, Any]:
        keys = draw(st.lists(st.sampled_from(["a", "b", "X_pca"]), unique=True, max_size=2))
        return {key: matrix(rows, columns or 2) for key in keys}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        obs, var = frame(n, "c"), frame(m, "g")
        adata = anndata.AnnData(
            X=matrix(n, m) if draw(st.booleans()) else None, obs=obs, var=var,
            layers=group(n, m) if m else {}, obsm=group(n, None), varm=group(m, None),
            obsp=group(n, n) if n else {}, varp=group(m, m) if m else {},
        )  # fmt: skip
        if adata.X is not None and draw(st.booleans()):
            adata.raw = adata.copy()
        if draw(st.booleans()):
            adata.obsm["frame"] = pd.DataFrame({"q": np.arange(n)}, index=adata.obs_names)
        keys = draw(st.lists(st.sampled_from(sorted(UNS)), unique=True, max_size=4))
        adata.uns.update({key: deepcopy(UNS[key]) for key in keys})
    return adata
