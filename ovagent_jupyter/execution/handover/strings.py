"""Many strings as one run of bytes and offsets, with missing values between them."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ovagent_jupyter.execution.handover.codec import Decoder, Encoder
from ovagent_jupyter.execution.handover.fields import Node, malformed, number

_NONE, _NAN, _NA, _OTHER = 1, 2, 3, 255


def _na() -> object:
    """The missing value of pandas, when it is there at all."""
    pandas = cast(Any, sys.modules.get("pandas"))
    return getattr(pandas, "NA", None)


def pack(encoder: Encoder, values: Sequence[object], kinds: set[type]) -> Node:
    """Fields of a node for strings and missing values; None when other things are among them.

    Args:
        encoder: Takes the buffers.
        values: What to pack.
        kinds: The types that occur in it.
    """
    na = _na()
    if str not in kinds or not kinds <= {str, type(None), float, type(na)}:
        return None
    missing = np.zeros(0, np.uint8)
    if len(kinds) > 1:
        missing = np.fromiter((_mark(value, na) for value in values), np.uint8, len(values))
        if (missing == _OTHER).any():
            return None
        values = ["" if value is None or type(value) is not str else value for value in values]
    lengths, data = _lengths(cast(Sequence[str], values))
    ends = np.zeros(len(values) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    return {
        "b": encoder.buffer(data),
        "e": encoder.buffer(ends),
        "m": encoder.buffer(missing),
    }


def _mark(value: object, na: object) -> int:
    if type(value) is str:
        return 0
    if value is None:
        return _NONE
    if value is na:
        return _NA
    return _NAN if math.isnan(cast(float, value)) else _OTHER


def _lengths(values: Sequence[str]) -> tuple[NDArray[np.int64], bytes]:
    joined = "".join(values)
    if joined.isascii():
        return np.fromiter(map(len, values), np.int64, len(values)), joined.encode("ascii")
    parts = [value.encode("utf-8", "surrogatepass") for value in values]
    return np.fromiter(map(len, parts), np.int64, len(parts)), b"".join(parts)


def unpack(decoder: Decoder, node: Node) -> list[object]:
    """The strings and missing values of a node with the fields of ``pack``."""
    data = decoder.buffer(number(node, "b")).tobytes()
    ends = decoder.buffer(number(node, "e")).view(np.int64)
    missing = decoder.buffer(number(node, "m"))
    if len(ends) < 1 or ends[0] != 0 or ends[-1] != len(data) or (np.diff(ends) < 0).any():
        raise malformed("the ends of strings are out of order")
    values = _cut(data, ends.tolist())
    if len(missing):
        if len(missing) != len(values) or missing.max() > _NA:
            raise malformed("the missing marks do not fit the strings")
        marks = {_NONE: None, _NAN: math.nan, _NA: _na()}
        for position in np.flatnonzero(missing).tolist():
            values[position] = marks[int(missing[position])]
    return values


def _cut(data: bytes, ends: list[int]) -> list[object]:
    pairs = pairwise(ends)
    if data.isascii():
        whole = data.decode("ascii")
        return [whole[start:end] for start, end in pairs]
    return [data[start:end].decode("utf-8", "surrogatepass") for start, end in pairs]
