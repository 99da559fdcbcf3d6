"""Random data of every kind that crosses the border, for the property tests."""

from __future__ import annotations

import datetime as dt
import string
import warnings
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import anndata
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from anndata.tests import helpers
from hypothesis import strategies as st
from scipy import sparse

Draw = Callable[[st.SearchStrategy[Any]], Any]
_TEXT = st.text(st.sampled_from(string.ascii_letters + "é🧬 /"), max_size=6)
_SEEDS = st.integers(0, 2**32 - 1)
_PLAIN_DTYPES = [
    "i1", "u1", ">i2", "u2", "i4", ">u4", "i8", "u8", "f2", "f4", ">f4", "f8", "c8", "c16", "?",
]  # fmt: skip
_NULLABLE = [
    "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64",
    "boolean",
]  # fmt: skip
_UNITS = ["s", "ms", "us", "ns"]
_ZONES = ["UTC", "Europe/Paris", "Asia/Kolkata", "America/New_York"]
_ARROW: list[tuple[Any, list[Any]]] = [
    (pa.int8(), [1, None, -3]), (pa.uint64(), [2**63, None]), (pa.float32(), [0.5, None]),
    (pa.bool_(), [True, None, False]), (pa.string(), ["a", None, "é🧬"]), (pa.null(), [None]),
    (pa.large_string(), ["", "b"]), (pa.binary(), [b"\0", None]), (pa.binary(2), [b"ab", None]),
    (pa.date32(), [dt.date(2026, 1, 2), None]), (pa.time64("us"), [dt.time(1, 2, 3), None]),
    (pa.timestamp("ms", "Europe/Paris"), [dt.datetime(2026, 1, 2, tzinfo=dt.UTC), None]),
    (pa.duration("s"), [dt.timedelta(1), None]), (pa.decimal128(9, 2), [Decimal("1.25"), None]),
    (pa.list_(pa.int16()), [[1, None], None, []]), (pa.list_(pa.int8(), 2), [[1, 2], None]),
    (pa.large_list(pa.string()), [["a"], [], None]),
    (pa.struct([("a", pa.int8()), ("b", pa.string())]), [{"a": 1, "b": "x"}, None]),
    (pa.map_(pa.string(), pa.int8()), [[("k", 1)], None, []]),
    (pa.dictionary(pa.int8(), pa.string()), ["a", None, "b", "a"]),
    (pa.list_(pa.struct([("q", pa.list_(pa.bool_()))])), [[{"q": [True, None]}], None]),
]  # fmt: skip


def _cycle(values: list[Any], size: int, start: int) -> list[Any]:
    return [values[(start + position) % len(values)] for position in range(size)]


@st.composite
def arrow_arrays(draw: Draw, size: int) -> Any:
    """An Arrow array, sometimes a slice of a longer one."""
    kind, values = draw(st.sampled_from(_ARROW))
    before, after = draw(st.integers(0, 9)), draw(st.integers(0, 3))
    whole = pa.array(_cycle(values, before + size + after, draw(st.integers(0, 3))), kind)
    return whole.slice(before, size)


@st.composite
def arrays(draw: Draw, *shape: int) -> np.ndarray:
    """A numpy array of any dtype of numbers, in any layout."""
    rng = np.random.default_rng(draw(_SEEDS))
    dtype = np.dtype(draw(st.sampled_from(_PLAIN_DTYPES)))
    layout = draw(st.sampled_from(["C", "F", "strided", "reversed"]))
    wide = tuple(2 * extent for extent in shape)
    values = rng.integers(0, 100, wide if layout == "strided" else shape).astype(dtype)
    if dtype.kind == "f" and values.size and draw(st.booleans()):
        values.flat[0] = draw(st.sampled_from([np.nan, np.inf, -0.0]))
    if layout == "strided":
        return values[tuple(slice(None, None, 2) for _ in shape)]
    if layout == "reversed":
        return values[::-1]
    return np.asarray(values, order=layout)


@st.composite
def matrices(draw: Draw, rows: int, columns: int) -> Any:
    """What can lie in X, layers and obsm: dense, or sparse in any state of order."""
    if draw(st.booleans()):
        return draw(arrays(rows, columns))
    name = draw(st.sampled_from(["csr_matrix", "csc_matrix", "csr_array", "csc_array"]))
    dtype = draw(st.sampled_from(["f4", "f8", "i4", "?"]))
    dense = np.random.default_rng(draw(_SEEDS)).integers(0, 2, (rows, columns))
    made = getattr(sparse, name)(dense.astype(dtype))
    state = draw(st.sampled_from(["sorted", "unsorted", "wide", "zeros", "unknown"]))
    if state == "unsorted":
        for start, end in zip(made.indptr[:-1], made.indptr[1:], strict=True):
            made.indices[start:end] = made.indices[start:end][::-1]
            made.data[start:end] = made.data[start:end][::-1]
        # Made anew, as the old one knows that it was in order.
        made = type(made)((made.data, made.indices, made.indptr), shape=made.shape)
    elif state == "wide":
        made.indices, made.indptr = made.indices.astype("i8"), made.indptr.astype("i8")
    elif state == "zeros":
        made.data[:1] = 0
    return made


_CATEGORIES = [
    ["b", "a", "c"], [3, 1, 2], [0.5, np.inf], [True, False], ["x"], [(1, "a"), (2, "b")],
    pd.to_datetime(["2026-01-01", "2025-01-01"]), pd.interval_range(0, 3),
]  # fmt: skip


@st.composite
def categoricals(draw: Draw, size: int) -> pd.Categorical:
    """A categorical with categories of any type, in an order of their own."""
    chosen = draw(st.sampled_from(_CATEGORIES))
    index: Any = pd.Index(chosen, tupleize_cols=False) if isinstance(chosen, list) else chosen
    codes = np.random.default_rng(draw(_SEEDS)).integers(-1, len(index), size).astype("i1")
    dtype = pd.CategoricalDtype(index, ordered=draw(st.booleans()))
    return pd.Categorical.from_codes(codes, dtype=dtype)


def _texts(size: int) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.one_of(_TEXT, st.none()), min_size=size, max_size=size)


@st.composite
def _strings(draw: Draw, size: int) -> Any:
    storage = draw(st.sampled_from(["python", "pyarrow"]))
    missing = draw(st.sampled_from([pd.NA, np.nan]))
    return pd.array(draw(_texts(size)), dtype=pd.StringDtype(storage, na_value=missing))


@st.composite
def _moments(draw: Draw, size: int) -> Any:
    unit, zone = draw(st.sampled_from(_UNITS)), draw(st.sampled_from([None, *_ZONES]))
    numbers = draw(st.lists(st.integers(0, 2**30), min_size=size, max_size=size))
    moments = pd.DatetimeIndex(np.array(numbers, "i8").view(f"M8[{unit}]"))
    return (moments if zone is None else moments.tz_localize("UTC").tz_convert(zone)).array


@st.composite
def _nullables(draw: Draw, size: int) -> Any:
    dtype = draw(st.sampled_from(_NULLABLE))
    values = [True, None, False] if dtype == "boolean" else [1, None, 0]
    return pd.array(_cycle(values, size, draw(st.integers(0, 2))), dtype=dtype)


@st.composite
def _objects(draw: Draw, size: int) -> Any:
    leaves = st.one_of(_TEXT, st.none(), st.integers(), st.just([1]), st.floats(allow_nan=False))
    values = draw(st.lists(leaves, min_size=size, max_size=size))
    made = np.empty(size, object)
    made[:] = [[*item] if isinstance(item, list) else item for item in values]
    return made


@st.composite
def _sparse_columns(draw: Draw, size: int) -> Any:
    fill = draw(st.sampled_from([0.0, np.nan, 1.0]))
    kind = draw(st.sampled_from(["integer", "block"]))
    return pd.arrays.SparseArray(_cycle([0.0, 1.0, np.nan], size, 0), fill_value=fill, kind=kind)


def columns(size: int) -> st.SearchStrategy[Any]:
    """What a column of a frame can be: of every dtype."""
    spans = st.sampled_from(_UNITS).map(lambda u: pd.array(np.arange(size).astype(f"m8[{u}]")))
    periods = st.sampled_from(["D", "M", "h"]).map(
        lambda f: pd.period_range("2026", periods=size, freq=f).array
    )
    closed = st.sampled_from(["left", "right", "both", "neither"])
    intervals = closed.map(
        lambda c: pd.arrays.IntervalArray.from_breaks(np.arange(size + 1.0), closed=c)
    )
    in_arrow = arrow_arrays(size).map(
        lambda values: pd.arrays.ArrowExtensionArray(pa.chunked_array([values]))
    )
    return st.one_of(
        arrays(size).map(lambda values: values.astype(values.dtype.newbyteorder("="))),
        *(categoricals(size), _strings(size), _moments(size), _nullables(size), _objects(size)),
        *(_sparse_columns(size), spans, periods, intervals, in_arrow),
    )


_LABELS = st.one_of(
    _TEXT, st.sampled_from(["index", "columns", "rows", "X", "raw", "obs_names", "attrs"]),
    st.integers(-5, 5), st.just(("t", 1)),
)  # fmt: skip


def indexes(size: int) -> st.SearchStrategy[Any]:
    """What can name the rows of a frame."""
    words: Any = st.lists(_TEXT, min_size=size, max_size=size).map(
        lambda names: pd.Index(names, dtype=object)
    )
    return st.one_of(
        st.just(pd.RangeIndex(size)), words, categoricals(size).map(pd.CategoricalIndex),
        st.just(pd.Index(np.arange(size)[::-1].copy(), name="n")), _moments(size).map(pd.Index),
        st.just(pd.MultiIndex.from_arrays([np.arange(size), ["a"] * size], names=["i", None])),
        _strings(size).map(lambda values: pd.Index(values, name=("a", 1))),
    )  # fmt: skip


@st.composite
def frames(draw: Draw, size: int | None = None, index: Any = None) -> pd.DataFrame:
    """A DataFrame of any size, labels, index and dtypes; labels may repeat."""
    rows = draw(st.integers(0, 6)) if size is None else size
    labels = draw(st.lists(_LABELS, max_size=5))
    names = draw(indexes(rows)) if index is None else index
    parts = [pd.Series(draw(columns(rows)), index=names) for _ in labels]
    frame = pd.DataFrame(dict(enumerate(parts)), index=names)
    if labels:
        frame.columns = pd.Index(labels, dtype=object, tupleize_cols=False)
    if draw(st.booleans()):
        frame.attrs = {"note": ["x", {"y": 1}]}
    return frame


def values() -> st.SearchStrategy[Any]:
    """What may lie in uns: any value, nested in any way."""
    leaves = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), _TEXT, st.binary(max_size=5),
        arrays(3), arrays(2, 3), matrices(3, 4), frames(), categoricals(3), arrow_arrays(3),
        st.just(np.rec.fromarrays([np.array(["g"], object), np.ones(1, "f4")], names="a,b")),
        st.sampled_from([np.float32(2), np.str_("s"), pd.Timestamp("2026"), pd.NA, dt.date.min]),
    )  # fmt: skip
    keys = st.one_of(_TEXT, st.integers(-3, 3), st.sampled_from(["index", "X", "rows"]))
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(keys, inner, max_size=3),
            st.tuples(inner, inner),
        ),
        max_leaves=6,
    )


@st.composite
def tables(draw: Draw) -> Any:
    """An Arrow table: chunks, notes, and names that may repeat."""
    rows = draw(st.integers(0, 5))
    cut = draw(st.integers(0, rows))
    fields, columns_ = [], []
    for name in draw(st.lists(_TEXT | st.sampled_from(["index", "rows"]), max_size=4)):
        whole = draw(arrow_arrays(rows))
        notes = draw(st.sampled_from([None, {"k": "v"}]))
        fields.append(pa.field(name, whole.type, metadata=notes))
        columns_.append(pa.chunked_array([whole.slice(0, cut), whole.slice(cut)]))
    schema = pa.schema(fields, metadata=draw(st.sampled_from([None, {"a": "b"}])))
    return pa.Table.from_arrays(columns_, schema=schema)


_POLARS: list[tuple[Any, list[Any]]] = [
    (pl.Int8, [1, None]), (pl.Float64, [0.5, None, float("inf")]), (pl.Boolean, [True, None]),
    (pl.String, ["a", None, "é🧬" * 9]), (pl.Categorical, ["x", None, "y", "x"]),
    (pl.Enum(["b", "a"]), ["a", None, "b"]), (pl.Binary, [b"\0", None]), (pl.Null, [None]),
    (pl.Date, [dt.date(2026, 1, 2), None]), (pl.Duration("ms"), [dt.timedelta(1), None]),
    (pl.Datetime("us", "Asia/Kolkata"), [dt.datetime(2026, 1, 2, tzinfo=dt.UTC), None]),
    (pl.Time, [dt.time(1, 2), None]), (pl.Decimal(9, 2), [Decimal("1.25"), None]),
    (pl.List(pl.Int16), [[1, None], None, []]), (pl.Array(pl.Int8, 2), [[1, 2], None]),
    (pl.Struct({"a": pl.Int8, "b": pl.String}), [{"a": 1, "b": None}, None]),
    (pl.List(pl.Struct({"q": pl.List(pl.Boolean)})), [[{"q": [True, None]}], None]),
]  # fmt: skip


@st.composite
def polars_frames(draw: Draw) -> pl.DataFrame:
    """A polars frame with columns of any type, sometimes a part of a longer one."""
    rows, before = draw(st.integers(0, 5)), draw(st.integers(0, 2))
    names = draw(st.lists(_TEXT | st.just("rows"), max_size=4, unique=True))
    made = []
    for name in names:
        dtype, values_ = draw(st.sampled_from(_POLARS))
        items = _cycle(values_, before + rows, draw(st.integers(0, 2)))
        made.append(pl.Series(name, items, dtype=dtype))
    return pl.DataFrame(made).slice(before)


@st.composite
def adatas(draw: Draw) -> anndata.AnnData:
    """A random AnnData: shapes from empty on, every slot, every dtype, nested uns."""
    rows, genes = draw(st.integers(0, 6)), draw(st.integers(0, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = [pd.Index([f"{p}{i}" for i in range(n)], dtype=str) for p, n in
                 (("c", rows), ("g", genes))]  # fmt: skip
        adata = anndata.AnnData(
            X=draw(st.one_of(st.none(), matrices(rows, genes))),
            obs=draw(_annotations(rows, names[0])),
            var=draw(_annotations(genes, names[1])),
        )
        keys = st.lists(st.sampled_from(["a", "X_pca", "index"]), unique=True, max_size=2)
        for name, extents in _GROUPS.items():
            shape = [{"n": rows, "m": genes, "k": 3}[extent] for extent in extents]
            for key in draw(keys) if all(shape) else ():
                getattr(adata, name)[key] = draw(matrices(*shape))
        if draw(st.booleans()):
            adata.obsm["frame"] = draw(_annotations(rows, names[0]))
        if adata.X is not None and draw(st.booleans()):
            adata.raw = adata.copy()
        adata.uns.update(draw(st.dictionaries(_TEXT, values(), max_size=3)))
    return adata


_GROUPS = {"layers": "nm", "obsm": "nk", "varm": "mk", "obsp": "nn", "varp": "mm"}


@st.composite
def _annotations(draw: Draw, size: int, index: Any) -> pd.DataFrame:
    """Columns as anndata wants them: names that are text, and its own generator's dtypes."""
    if draw(st.booleans()):
        return helpers.gen_typed_df(size, index)
    labels = draw(st.lists(st.sampled_from("abcde") | st.just("index"), unique=True, max_size=4))
    parts = {label: pd.Series(draw(columns(size)), index=index) for label in labels}
    return pd.DataFrame(parts, index=index)
