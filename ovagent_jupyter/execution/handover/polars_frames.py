"""polars: series by way of Arrow's buffers, a frame as its series."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import polars as pl

from ovagent_jupyter.execution.handover.codec import Decoder, Encoder
from ovagent_jupyter.execution.handover.fields import (
    Node,
    field,
    items,
    malformed,
    number,
    text,
    unsendable,
)
from ovagent_jupyter.execution.handover.slots import ROWS, Slots

try:
    import pyarrow as pa
except ImportError as error:
    raise unsendable("it travels by way of Arrow: install pyarrow for that") from error


def encode(encoder: Encoder, value: object) -> Node:
    """The node of a series or a frame of polars', or None when it is neither."""
    if type(value) is pl.Series:
        return encoder.typed(lambda: _encode_series(encoder, value))
    if type(value) is pl.DataFrame:
        return encoder.typed(lambda: _encode_frame(encoder, value))
    return None


def _encode_frame(encoder: Encoder, value: pl.DataFrame) -> Node:
    columns = [_encode_series(encoder, column) for column in value.get_columns()]
    return {"t": "polars_frame", "n": value.height, "v": columns}


def _encode_series(encoder: Encoder, value: pl.Series) -> Node:
    words = value.dtype.categories.to_list() if isinstance(value.dtype, pl.Enum) else None
    if _dtype_again(value, words) != value.dtype:
        raise unsendable(f"the polars type {value.dtype} has no typed form")
    return {
        "t": "polars_series",
        "n": value.name,
        "v": encoder.node(_to_arrow(value)),
        "e": encoder.node(words),
    }


def _to_arrow(value: pl.Series) -> Any:
    plain = value.cast(pl.String) if isinstance(value.dtype, pl.Enum) else value
    made = plain.to_arrow(compat_level=pl.CompatLevel.oldest())
    return made.combine_chunks() if isinstance(made, pa.ChunkedArray) else made


def _dtype_again(value: pl.Series, words: list[str] | None) -> Any:
    """The type that a series would have on the other side."""
    try:
        return _from_arrow(_to_arrow(value.clear()), words).dtype
    except (pl.exceptions.PolarsError, pa.ArrowException, TypeError, ValueError):
        return None


def _from_arrow(array: Any, words: list[str] | None) -> pl.Series:
    made = pl.Series(array)
    return made if words is None else made.cast(pl.Enum(words))


def _read_series(decoder: Decoder, node: Node) -> pl.Series:
    array = decoder.value(field(node, "v"))
    words = decoder.value(field(node, "e"))
    if not isinstance(array, pa.Array):
        raise malformed("a series of polars' has no values")
    if words is not None and not (
        isinstance(words, list) and all(type(word) is str for word in words)
    ):
        raise malformed("the words of an enumeration are not text")
    try:
        return _from_arrow(array, cast("list[str] | None", words)).alias(text(node, "n"))
    except BaseException as error:
        # What polars' own checks find is no Exception, but must not pass for an interrupt.
        if type(error).__name__ != "PanicException":
            raise
        raise malformed("polars refused a series") from None


def _read_frame(decoder: Decoder, node: Node) -> pl.DataFrame:
    columns = [decoder.value(part) for part in items(node, "v")]
    if not all(isinstance(column, pl.Series) for column in columns):
        raise malformed("a column of polars' is missing")
    made = pl.DataFrame(cast("list[pl.Series]", columns))
    if made.height != number(node, "n"):
        raise malformed("a frame of polars' has another length than it says")
    return made


def open_frame(slots: Slots, value: pl.DataFrame) -> None:
    """Add the parts of a frame: each column is a series."""
    for column in value.get_columns():
        slots["column", column.name] = column
    slots[ROWS] = range(value.height)


def build_frame(slots: Slots) -> object:
    """The frame of its parts."""
    columns = [part for path, part in slots.items() if path[:1] == ("column",)]
    if not all(isinstance(part, pl.Series) for part in columns):
        raise malformed("a column of polars' is missing")
    made = pl.DataFrame(cast("list[pl.Series]", columns))
    if slots.get(ROWS) != range(made.height):
        raise malformed("a frame of polars' has another length than it says")
    return made


DECODERS: dict[str, Callable[[Decoder, Node], object]] = {
    "polars_series": _read_series,
    "polars_frame": _read_frame,
}
