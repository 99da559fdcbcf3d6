"""Values to typed nodes and raw buffers, and back; which room of types knows how."""

from __future__ import annotations

import math
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover.fields import (
    Node,
    items,
    malformed,
    number,
    text,
    unsendable,
    whole,
)
from ovagent_jupyter.execution.handover.lazy import pickled
from ovagent_jupyter.execution.handover.segment import (
    Buffer,
    Bytes,
    MemorySource,
    Source,
    dumps,
)

_DEPTH = 64
_LONG_TEXT = 1024
_SMALL_INT = 1 << 63
_PART = 1 << 20
_MANY_ROWS = 1 << 24
_HERE = "ovagent_jupyter.execution.handover."

_ENCODING_ROOMS = {
    "anndata": "trees",
    "mudata": "trees",
    "pandas": "frames",
    "numpy": "arrays",
    "scipy": "sparse",
    "pyarrow": "arrow",
    "polars": "polars_frames",
    "ovagent_jupyter": "backed",
    "geopandas": "geometries",
    "xarray": "labelled",
    "dask": "labelled",
    "spatialdata": "spatial",
    "datetime": "times",
    "zoneinfo": "times",
    "pytz": "times",
    "collections": "plain",
    "pathlib": "plain",
    "builtins": "plain",
}
"""Top-level package of a type → the module here that encodes it."""

_DECODING_ROOMS = {
    "tree": "trees",
    "series": "frames", "index": "frames", "range_index": "frames", "multi_index": "frames",
    "categorical": "columns", "nullable": "columns", "strings": "columns", "zoned": "columns",
    "periods": "columns", "intervals": "columns", "timestamp": "columns", "period": "columns",
    "interval": "columns", "na": "columns", "nat": "columns", "pandas_timedelta": "columns",
    "sparse_column": "columns",
    "array": "arrays", "objects": "arrays", "records": "arrays", "scalar": "arrays",
    "masked": "arrays", "dtype": "arrays",
    "sparse": "sparse", "file_matrix": "backed",
    "arrow_column": "arrow_columns", "arrow_strings": "arrow_columns",
    "arrow_array": "arrow", "arrow_chunks": "arrow", "arrow_table": "arrow", "arrow_batch": "arrow",
    "polars_series": "polars_frames", "polars_frame": "polars_frames",
    "datetime": "times", "date": "times", "time": "times", "timedelta": "times", "zone": "times",
    "int": "plain", "float": "plain", "complex": "plain", "decimal": "plain",
    "str": "plain", "bytes": "plain",
    "list": "plain", "tuple": "plain", "set": "plain", "dict": "plain", "path": "plain",
    "range": "plain", "slice": "plain", "ellipsis": "plain",
    "geometries": "geometries", "geo_frame": "geometries", "transformation": "spatial",
    "labelled": "labelled", "scales": "labelled", "dask_frame": "labelled",
    "lazy_frame": "labelled",
}  # fmt: skip
"""Tag of a node → the module here that decodes it: the whole list of what can come in."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One value in its travelling form; buffer numbers in the node count from 0."""

    node: Node
    buffers: tuple[Buffer, ...]
    pickled: bool = False
    """A part of it is a pickle, which only a child opens."""


class Encoder:
    """Turns one value into a node and buffers.

    Args:
        allow_pickle: Pickle what has no typed form, instead of refusing it.
    """

    def __init__(self, *, allow_pickle: bool = False) -> None:
        self.allow_pickle = allow_pickle
        self.pickled = False
        self.buffers: list[Buffer] = []
        self._open: set[int] = set()

    def buffer(self, data: bytes | Buffer | NDArray[Any]) -> int:
        """Add contiguous bytes; returns the number by which a node refers to them."""
        if isinstance(data, np.ndarray):
            data = data.reshape(-1).view(np.uint8) if data.size else b""
        self.buffers.append(memoryview(cast(Any, data)).cast("B"))
        return len(self.buffers) - 1

    def node(self, value: object) -> Node:
        """The node of a value.

        Raises:
            HandoverError: It has no form in which it could travel, or holds such a thing.
        """
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is str and len(cast(str, value)) <= _LONG_TEXT:
            return value
        if kind is int and -_SMALL_INT <= cast(int, value) < _SMALL_INT:
            return value
        if kind is float and math.isfinite(cast(float, value)):
            return value
        if id(value) in self._open:
            raise unsendable("it contains itself")
        if len(self._open) >= _DEPTH:
            raise unsendable("it is nested too deeply")
        self._open.add(id(value))
        try:
            return self._structured(value)
        finally:
            self._open.discard(id(value))

    def _structured(self, value: object) -> Node:
        for room in _rooms(type(value)):
            node = room(self, value)
            if node is not None:
                return node
        return self.foreign(value)

    def typed(self, write: Callable[[], Node]) -> Node:
        """The node that a room writes; None when it cannot and a pickle may take its place."""
        aboard = len(self.buffers)
        try:
            return write()
        except HandoverError:
            if not self.allow_pickle:
                raise
            del self.buffers[aboard:]
            return None

    def foreign(self, value: object) -> Node:
        """The node of what has no typed form: a pickle, for the child.

        Raises:
            HandoverError: None is allowed, or it cannot be pickled.
        """
        kind = type(value)
        if not self.allow_pickle:
            if kind.__module__.startswith("dask."):
                raise unsendable("it is computed as needed: bring back what compute() gives")
            raise unsendable(f"{kind.__module__}.{kind.__qualname__} has no typed form")
        if getattr(value, "__module__", None) == "__main__":
            raise unsendable("it is defined in the notebook, which the child cannot import")
        outside: list[pickle.PickleBuffer] = []
        try:
            data = pickled(value, outside.append)
            raw = [part.raw() for part in outside]
        except HandoverError:
            raise
        except Exception as error:
            why = str(error) or type(error).__name__
            raise unsendable(f"it cannot be pickled: {why}") from error
        self.pickled = True
        return {"t": "pickle", "b": self.buffer(data), "o": [self.buffer(part) for part in raw]}


class Decoder:
    """Builds values from nodes and a source of buffers.

    Args:
        source: Where the buffers are.
        first: Number of the first buffer that the nodes mean by 0.
        count: How many buffers they may use; None for all.
        allow_pickle: The sender is trusted; in the parent only for what it wrote itself.
        trusted: What is read was written by this process or the parent, where nobody else can
            write: its content is not gone through.
    """

    def __init__(
        self,
        source: Source,
        *,
        first: int = 0,
        count: int | None = None,
        allow_pickle: bool = False,
        trusted: bool = False,
    ) -> None:
        self.allow_pickle = allow_pickle
        self.trusted = trusted
        self._source = source
        self._first = first
        self._count = count
        self._depth = 0

    def buffer(self, index: Node) -> Bytes:
        """The bytes of a buffer, for the value to own."""
        position = whole(index)
        if self._count is not None and position >= self._count:
            raise malformed("a value uses the buffer of another")
        return self._source.take(self._first + position)

    def claim(self, rows: int) -> None:
        """Take note of an index that is told by its ends, without a buffer."""
        self._source.claim(rows)

    def value(self, node: Node) -> object:
        """The value of a node.

        Raises:
            HandoverError: The node is malformed.
        """
        if node is None or isinstance(node, str | bool | int | float):
            return node
        # Twice the encoder's bound: a value may take two levels of nodes.
        if self._depth >= 2 * _DEPTH + 8:
            raise malformed("it is nested too deeply")
        self._depth += 1
        try:
            return self._structured(node)
        finally:
            self._depth -= 1

    def _structured(self, node: Node) -> object:
        if isinstance(node, list):
            return [self.value(item) for item in node]
        tag = text(node, "t")
        if tag == "pickle":
            return self._unpickle(node)
        room = _DECODING_ROOMS.get(tag)
        if room is None:
            raise malformed(f"there is no type {tag[:40]!r}")
        decoders = cast(
            Mapping[str, Callable[[Decoder, Node], object]],
            import_module(_HERE + room).DECODERS,
        )
        return decoders[tag](self, node)

    def _unpickle(self, node: Node) -> object:
        if not self.allow_pickle:
            raise malformed("it holds a pickle, which is never opened on this side")
        outside = [self.buffer(index) for index in items(node, "o")]
        data = self.buffer(number(node, "b"))
        data_view = memoryview(cast(Any, data))
        return pickle.loads(data_view, buffers=outside)  # noqa: S301 - from the parent, to the child


def claim_rows(decoder: Decoder, rows: int) -> None:
    """Take note of rows that have no byte of their own, unless a table has as many in earnest."""
    if rows > _MANY_ROWS:
        decoder.claim(rows)


def _rooms(kind: type) -> list[Callable[[Encoder, object], Node]]:
    """The encoders to ask about a type, its own package first, then those of its bases."""
    names: dict[str, None] = {}
    for base in kind.__mro__:
        room = _ENCODING_ROOMS.get(base.__module__.partition(".")[0])
        if room is not None:
            names[room] = None
    # A pandas object that is no series is for the rooms next door: a column, a frame.
    if "frames" in names:
        names |= {"columns": None, "trees": None}
    return [_encoder(name) for name in names]


def _encoder(room: str) -> Callable[[Encoder, object], Node]:
    module = sys.modules.get(_HERE + room) or import_module(_HERE + room)
    return cast(Callable[[Encoder, object], Node], module.encode)


def encode(value: object, *, allow_pickle: bool = False) -> Encoded:
    """One value in its travelling form.

    Raises:
        HandoverError: It has none.
    """
    encoder = Encoder(allow_pickle=allow_pickle)
    try:
        node = encoder.node(value)
    except HandoverError:
        raise
    except Exception as error:
        raise unsendable(f"{type(error).__name__}: {error}") from error
    return Encoded(node, tuple(encoder.buffers), encoder.pickled)


def decode(encoded: Encoded, *, allow_pickle: bool = False) -> object:
    """The value again, sharing no memory with the encoded one."""
    source = MemorySource(encoded.buffers)
    return Decoder(source, allow_pickle=allow_pickle).value(encoded.node)


def same(one: Encoded, other: Encoded) -> bool:
    """Whether two values are the same: types, bytes, order and all."""
    return (
        len(one.buffers) == len(other.buffers)
        # As text, because 1 == 1.0 == True in Python.
        and dumps(one.node) == dumps(other.node)
        and all(map(same_bytes, one.buffers, other.buffers))
    )


def same_bytes(one: Buffer | Bytes, other: Buffer | Bytes) -> bool:
    """Whether two buffers hold the same bytes; compared in parts that stay in the cache."""
    if one.nbytes != other.nbytes:
        return False
    left, right = memoryview(cast(Any, one)), memoryview(cast(Any, other))
    for start in range(0, one.nbytes, _PART):
        a = np.frombuffer(left[start : start + _PART], np.uint8)
        if not np.array_equal(a, np.frombuffer(right[start : start + _PART], np.uint8)):
            return False
    return True
