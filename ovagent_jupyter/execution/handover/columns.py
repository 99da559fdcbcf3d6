"""pandas: the arrays behind columns that numpy does not know, and pandas' own scalars."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import tzinfo
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas._libs.sparse import IntIndex

from ovagent_jupyter.execution.handover import strings
from ovagent_jupyter.execution.handover.arrays import as_array, as_vector, from_objects
from ovagent_jupyter.execution.handover.codec import Decoder, Encoder, claim_rows
from ovagent_jupyter.execution.handover.fields import (
    Node,
    field,
    flag,
    malformed,
    number,
    text,
    unsendable,
    whole,
)
from ovagent_jupyter.execution.handover.times import can_show, decode_zone, encode_zone

_FREQUENCY = re.compile(r"-?[0-9]{0,9}[A-Za-z]{1,8}(-[A-Za-z]{1,4}){0,3}")
_UNITS = ("s", "ms", "us", "ns")
_NUMBERS: dict[str, Any] = {
    f"{sign}Int{size}": pd.arrays.IntegerArray for sign in ("", "U") for size in (8, 16, 32, 64)
} | {
    "Float32": pd.arrays.FloatingArray,
    "Float64": pd.arrays.FloatingArray,
    "boolean": pd.arrays.BooleanArray,
}
_OUT_OF_TABLE = "a moment lies where its time zone is not known"
_STORED = "iufcbmM"
"""Kinds of numbers that a sparse column may hold."""
_LONGEST_SPARSE = 2**31 - 1
_CLOSED = ("left", "right", "both", "neither")


def encode(encoder: Encoder, value: object) -> Node:
    """The node of an extension array or a scalar of pandas, or None when it is neither."""
    if value is pd.NA:
        return {"t": "na"}
    if value is pd.NaT:
        return {"t": "nat"}
    for kind, write in _ENCODERS.items():
        if isinstance(value, kind):
            return write(encoder, value)
    return None


def _categorical(encoder: Encoder, value: pd.Categorical) -> Node:
    return {
        "t": "categorical",
        "c": encoder.node(np.asarray(value.codes)),
        "l": encoder.node(value.categories),
        "o": bool(value.ordered),
    }


def _nullable(encoder: Encoder, value: Any) -> Node:
    # The bytes under the mask travel too: they are part of what "unchanged" means.
    return {
        "t": "nullable",
        "n": value.dtype.name,
        "d": encoder.node(value._data),
        "m": encoder.node(value._mask),
    }


def _strings(encoder: Encoder, value: Any) -> Node:
    dtype = value.dtype
    if not isinstance(dtype, pd.StringDtype):
        return None
    nan = dtype.na_value is not pd.NA
    texts = value.to_numpy(dtype=object, na_value=None).tolist()
    packed = strings.pack(encoder, texts, {str, *map(type, texts)})
    if packed is None:
        raise unsendable("its strings hold something else")
    return {"t": "strings", "nan": nan, **packed}


def _arrow(encoder: Encoder, value: Any) -> Node:
    from ovagent_jupyter.execution.handover import arrow_columns

    return arrow_columns.encode(encoder, value)


def _sparse(encoder: Encoder, value: Any) -> Node:
    if value.sp_values.dtype.kind not in _STORED:
        raise unsendable(f"its dtype {value.dtype} has no typed form")
    return {
        "t": "sparse_column",
        "s": len(value),
        "v": encoder.node(np.asarray(value.sp_values)),
        "i": encoder.node(np.asarray(value.sp_index.indices)),
        "f": encoder.node(value.fill_value),
        "b": value.kind == "block",
    }


def _datetimes(encoder: Encoder, value: Any) -> Node:
    if value.tz is None:
        return None
    moments = np.asarray(value.asi8)
    if not _shown(moments, value.unit, value.tz):
        raise unsendable(_OUT_OF_TABLE)
    return {
        "t": "zoned",
        "u": value.unit,
        "z": encode_zone(value.tz),
        "v": encoder.node(moments),
    }


def _shown(moments: NDArray[Any], unit: str, zone: tzinfo) -> bool:
    there = moments[moments != np.iinfo(np.int64).min]  # the others are missing
    return not len(there) or can_show(int(there.min()), int(there.max()), unit, zone)


def _periods(encoder: Encoder, value: Any) -> Node:
    return {"t": "periods", "f": value.freqstr, "v": encoder.node(np.asarray(value.asi8))}


def _intervals(encoder: Encoder, value: pd.arrays.IntervalArray) -> Node:
    return {
        "t": "intervals",
        "l": encoder.node(pd.Index(value.left)),
        "r": encoder.node(pd.Index(value.right)),
        "c": value.closed,
    }


def _timestamp(_: Encoder, value: pd.Timestamp) -> Node:
    zone = None if value.tz is None else encode_zone(value.tz)
    moment = int(value.asm8.view("i8"))
    if value.tz is not None and not can_show(moment, moment, value.unit, value.tz):
        raise unsendable(_OUT_OF_TABLE)
    return {"t": "timestamp", "v": moment, "u": value.unit, "z": zone}


def _timedelta(_: Encoder, value: pd.Timedelta) -> Node:
    return {"t": "pandas_timedelta", "v": int(value.asm8.view("i8")), "u": value.unit}


def _period(_: Encoder, value: pd.Period) -> Node:
    return {"t": "period", "v": value.ordinal, "f": value.freqstr}


def _interval(encoder: Encoder, value: Any) -> Node:
    left, right = encoder.node(value.left), encoder.node(value.right)
    return {"t": "interval", "l": left, "r": right, "c": value.closed}


_ENCODERS: dict[type, Callable[[Encoder, Any], Node]] = {
    pd.Categorical: _categorical,
    pd.arrays.IntegerArray: _nullable,
    pd.arrays.FloatingArray: _nullable,
    pd.arrays.BooleanArray: _nullable,
    pd.arrays.StringArray: _strings,
    pd.arrays.ArrowStringArray: _arrow,
    pd.arrays.ArrowExtensionArray: _arrow,
    pd.arrays.SparseArray: _sparse,
    pd.arrays.DatetimeArray: _datetimes,
    pd.arrays.PeriodArray: _periods,
    pd.arrays.IntervalArray: _intervals,
    pd.Timestamp: _timestamp,
    pd.Timedelta: _timedelta,
    pd.Period: _period,
    pd.Interval: _interval,
}


def column_values(values: pd.Series[Any] | pd.Index[Any]) -> object:
    """What holds a column's values: a numpy array where there is one, else pandas' own."""
    if isinstance(values.dtype, np.dtype):
        # Not asarray: what numpy asks a series for by name, pandas looks for among all row names.
        return values.to_numpy()
    return values.array


def frequency(node: Node) -> str:
    """A pandas frequency, checked before pandas parses it."""
    name = text(node, "f")
    if not _FREQUENCY.fullmatch(name):
        raise malformed("a frequency has an impossible name")
    return name


def _unit(node: Node) -> str:
    unit = text(node, "u")
    if unit not in _UNITS:
        raise malformed("a time unit is unknown")
    return unit


def _closed(node: Node) -> Any:
    closed = text(node, "c")
    if closed not in _CLOSED:
        raise malformed("an interval is closed in an unknown way")
    return closed


def _read_categorical(decoder: Decoder, node: Node) -> pd.Categorical:
    codes = as_vector(decoder.value(field(node, "c")), "i")
    categories = decoder.value(field(node, "l"))
    if not isinstance(categories, pd.Index) or isinstance(categories, pd.MultiIndex):
        raise malformed("categories are missing")
    if len(codes) and (codes.min() < -1 or codes.max() >= len(categories)):
        raise malformed("a category code is out of range")
    dtype = pd.CategoricalDtype(categories, ordered=flag(node, "o"))
    return pd.Categorical.from_codes(cast(Any, codes), dtype=dtype)


def _read_nullable(decoder: Decoder, node: Node) -> object:
    kind = _NUMBERS.get(text(node, "n"))
    data = as_vector(decoder.value(field(node, "d")), "iufb")
    mask = as_vector(decoder.value(field(node, "m")), "b")
    if kind is None or len(data) != len(mask):
        raise malformed("a mask does not fit its column")
    array = kind(data, mask)
    if array.dtype.name != text(node, "n"):
        raise malformed("a column is of another type than it says")
    return array


def _read_strings(decoder: Decoder, node: Node) -> object:
    missing = np.nan if flag(node, "nan") else pd.NA
    dtype: Any = pd.StringDtype("python", na_value=missing)
    values = from_objects(strings.unpack(decoder, node))
    values[pd.isna(values)] = missing
    return pd.array(values, dtype=dtype)


def _read_zoned(decoder: Decoder, node: Node) -> object:
    moments = as_vector(decoder.value(field(node, "v")), "i")
    return _zoned(moments, _unit(node), node).array


def _zoned(moments: NDArray[Any], unit: str, node: Node) -> Any:
    if moments.dtype != np.int64:
        raise malformed("moments are not 64-bit numbers")
    naive = pd.DatetimeIndex(moments.view(f"M8[{unit}]"))
    zone = decode_zone(field(node, "z"))
    if not _shown(moments, unit, zone):
        raise malformed(_OUT_OF_TABLE)
    return naive.tz_localize("UTC").tz_convert(zone)


def _read_periods(decoder: Decoder, node: Node) -> object:
    ordinals = as_vector(decoder.value(field(node, "v")), "i")
    kind: Any = pd.PeriodIndex
    return kind.from_ordinals(ordinals, freq=frequency(node)).array


def _read_intervals(decoder: Decoder, node: Node) -> object:
    left, right = decoder.value(field(node, "l")), decoder.value(field(node, "r"))
    if not isinstance(left, pd.Index) or not isinstance(right, pd.Index):
        raise malformed("an interval's ends are missing")
    return pd.arrays.IntervalArray.from_arrays(left, right, closed=_closed(node))


def _read_sparse(decoder: Decoder, node: Node) -> object:
    size = number(node, "s", 0, _LONGEST_SPARSE)
    claim_rows(decoder, size)
    values = as_vector(decoder.value(field(node, "v")), _STORED)
    places = as_vector(decoder.value(field(node, "i")), "i")
    if len(values) != len(places) or places.dtype != np.int32:
        raise malformed("the places of a sparse column do not fit its values")
    if len(places) and (places[0] < 0 or places[-1] >= size or (np.diff(places) <= 0).any()):
        raise malformed("the places of a sparse column are out of order")
    fill = decoder.value(field(node, "f"))
    if not pd.api.types.is_scalar(fill) or isinstance(fill, str | bytes):
        raise malformed("a sparse column is filled with something else than a number")
    index = cast(Any, IntIndex)(size, places)
    index = index.to_block_index() if flag(node, "b") else index
    dtype = cast(Any, pd.SparseDtype)(values.dtype, fill)
    # The public ways in differ between pandas 2 and 3; what both call is this.
    kind: Any = pd.arrays.SparseArray
    return cast(object, kind._simple_new(values, index, dtype))


def _read_timestamp(_: Decoder, node: Node) -> object:
    moment, unit = number(node, "v", -(2**63)), _unit(node)
    value = pd.Timestamp(np.datetime64(moment, cast(Any, unit)))
    if field(node, "z") is None:
        return value
    zone = decode_zone(field(node, "z"))
    if not can_show(moment, moment, unit, zone):
        raise malformed(_OUT_OF_TABLE)
    return value.tz_localize("UTC").tz_convert(zone)


def _read_timedelta(_: Decoder, node: Node) -> object:
    return pd.Timedelta(np.timedelta64(number(node, "v", -(2**63)), cast(Any, _unit(node))))


def _read_period(_: Decoder, node: Node) -> object:
    return pd.Period(ordinal=whole(field(node, "v"), -(2**63)), freq=frequency(node))


def _read_interval(decoder: Decoder, node: Node) -> object:
    left, right = decoder.value(field(node, "l")), decoder.value(field(node, "r"))
    return pd.Interval(cast(Any, left), cast(Any, right), closed=_closed(node))


def as_column(value: object) -> Any:
    """The value as something a column can hold."""
    if isinstance(value, pd.api.extensions.ExtensionArray):
        return value
    array = as_array(value)
    if array.ndim != 1 or type(array) is not np.ndarray:
        raise malformed("a column is not one-dimensional")
    return array


DECODERS: dict[str, Callable[[Decoder, Node], object]] = {
    "categorical": _read_categorical,
    "nullable": _read_nullable,
    "strings": _read_strings,
    "sparse_column": _read_sparse,
    "zoned": _read_zoned,
    "periods": _read_periods,
    "intervals": _read_intervals,
    "timestamp": _read_timestamp,
    "pandas_timedelta": _read_timedelta,
    "period": _read_period,
    "interval": _read_interval,
    "na": lambda _, __: pd.NA,
    "nat": lambda _, __: pd.NaT,
}
