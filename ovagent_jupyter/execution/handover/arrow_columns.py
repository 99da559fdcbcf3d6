"""pandas: columns that lie in Arrow's memory, texts among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa

from ovagent_jupyter.execution.handover.codec import Decoder, Encoder
from ovagent_jupyter.execution.handover.fields import Node, field, flag, malformed


def encode(encoder: Encoder, value: Any) -> Node:
    """The node of a column that lies in Arrow's memory."""
    chunks = value.__arrow_array__()
    # pandas shows no chunks, so two equal columns are to look alike.
    whole = chunks.combine_chunks() if isinstance(chunks, pa.ChunkedArray) else chunks
    node = encoder.node(whole)
    if isinstance(value.dtype, pd.StringDtype):
        return {"t": "arrow_strings", "v": node, "nan": value.dtype.na_value is not pd.NA}
    return {"t": "arrow_column", "v": node}


def _values(decoder: Decoder, node: Node) -> Any:
    array = decoder.value(field(node, "v"))
    if isinstance(array, pa.ChunkedArray):
        return array
    if not isinstance(array, pa.Array):
        raise malformed("a column has no values")
    return pa.chunked_array([array])


def _read_column(decoder: Decoder, node: Node) -> object:
    values = _values(decoder, node)
    dtype: Any = pd.ArrowDtype(values.type)
    return cast(object, dtype.__from_arrow__(values))


def _read_strings(decoder: Decoder, node: Node) -> object:
    values = _values(decoder, node)
    if not (pa.types.is_large_string(values.type) or pa.types.is_string(values.type)):
        raise malformed("a column of strings holds something else")
    missing = np.nan if flag(node, "nan") else pd.NA
    dtype: Any = pd.StringDtype("pyarrow", na_value=missing)
    return cast(object, dtype.__from_arrow__(values))


DECODERS: dict[str, Callable[[Decoder, Node], object]] = {
    "arrow_column": _read_column,
    "arrow_strings": _read_strings,
}
