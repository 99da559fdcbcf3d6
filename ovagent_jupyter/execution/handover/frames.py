"""pandas: indexes and series; a frame is a tree of slots."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, cast

import numpy as np
import pandas as pd

from ovagent_jupyter.execution.handover.arrays import as_vector, vectors
from ovagent_jupyter.execution.handover.codec import Decoder, Encoder
from ovagent_jupyter.execution.handover.columns import as_column, column_values, frequency
from ovagent_jupyter.execution.handover.fields import (
    Node,
    field,
    items,
    malformed,
    whole,
)

_FAR = 2**62


def encode(encoder: Encoder, value: object) -> Node:
    """The node of a series or an index, or None when it is neither."""
    if type(value).__module__.partition(".")[0] not in ("pandas", "anndata"):
        return None  # a subclass with meaning of its own
    if isinstance(value, pd.Series):
        return _encode_series(encoder, value)
    if isinstance(value, pd.MultiIndex):
        return _encode_multi(encoder, value)
    if isinstance(value, pd.RangeIndex):
        return {
            "t": "range_index",
            "v": [value.start, value.stop, value.step],
            "n": encoder.node(value.name),
        }
    if isinstance(value, pd.Index):
        return _encode_index(encoder, value)
    return None


def _encode_series(encoder: Encoder, value: pd.Series[Any]) -> Node:
    return {
        "t": "series",
        "v": encoder.node(column_values(value)),
        "i": encoder.node(value.index),
        "n": encoder.node(value.name),
        "a": encoder.node(dict(value.attrs)),
    }


def _encode_index(encoder: Encoder, value: pd.Index[Any]) -> Node:
    return {
        "t": "index",
        "v": encoder.node(column_values(value)),
        "n": encoder.node(value.name),
        # A period's frequency is part of its values; the others' is an extra promise.
        "f": None if isinstance(value, pd.PeriodIndex) else getattr(value, "freqstr", None),
    }


def _encode_multi(encoder: Encoder, value: pd.MultiIndex) -> Node:
    return {
        "t": "multi_index",
        "l": [encoder.node(level) for level in value.levels],
        "c": [encoder.node(np.asarray(codes)) for codes in value.codes],
        "n": [encoder.node(name) for name in value.names],
    }


def _name(decoder: Decoder, node: Node) -> Hashable:
    name = decoder.value(node)
    hash(name)
    return name


def _read_index(decoder: Decoder, node: Node) -> pd.Index[Any]:
    values = as_column(decoder.value(field(node, "v")))
    index: Any = pd.Index(values, dtype=values.dtype, name=_name(decoder, field(node, "n")))
    if field(node, "f") is not None:
        index.freq = pd.tseries.frequencies.to_offset(frequency(node))
    return cast("pd.Index[Any]", index)


def _read_range(decoder: Decoder, node: Node) -> pd.Index[Any]:
    ends = items(node, "v")
    if len(ends) != len(("start", "stop", "step")):
        raise malformed("a range index has impossible ends")
    start, stop, step = (whole(end, -_FAR, _FAR) for end in ends)
    index = pd.RangeIndex(start, stop, step, name=_name(decoder, field(node, "n")))
    decoder.claim(len(index))
    return index


def _read_multi(decoder: Decoder, node: Node) -> pd.Index[Any]:
    levels = [as_index(level) for level in vectors(decoder, field(node, "l"))]
    codes = [as_vector(part, "i") for part in vectors(decoder, field(node, "c"))]
    names = [_name(decoder, name) for name in items(node, "n")]
    if not 0 < len(levels) == len(codes) == len(names):
        raise malformed("the levels of an index do not fit together")
    for level, part in zip(levels, codes, strict=True):
        if len(part) and (part.min() < -1 or part.max() >= len(level)):
            raise malformed("a code of an index is out of range")
    return pd.MultiIndex(cast(Any, levels), cast(Any, codes), names=names, verify_integrity=True)


def _read_series(decoder: Decoder, node: Node) -> pd.Series[Any]:
    values = as_column(decoder.value(field(node, "v")))
    index = as_index(decoder.value(field(node, "i")))
    name = _name(decoder, field(node, "n"))
    series = build_series(values, index)
    series.name = name
    series.attrs = as_attrs(decoder.value(field(node, "a")))
    return series


def build_series(values: Any, index: pd.Index[Any]) -> pd.Series[Any]:
    """A series on the values themselves, of exactly their type."""
    if len(values) != len(index):
        raise malformed("a column and its index are not of one length")
    return cast("pd.Series[Any]", pd.Series(values, index=index, dtype=values.dtype, copy=False))


def as_index(value: object) -> pd.Index[Any]:
    """The value as an index."""
    if not isinstance(value, pd.Index):
        raise malformed("an index is missing")
    return value


def as_attrs(value: object) -> dict[Hashable, Any]:
    """The value as the attributes of a frame."""
    if not isinstance(value, dict):
        raise malformed("attributes are not a dictionary")
    return value


DECODERS: dict[str, Callable[[Decoder, Node], object]] = {
    "series": _read_series,
    "index": _read_index,
    "range_index": _read_range,
    "multi_index": _read_multi,
}
