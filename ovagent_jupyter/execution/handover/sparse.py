"""scipy: sparse matrices and arrays of every format, byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ovagent_jupyter.execution.handover.arrays import as_array, as_vector
from ovagent_jupyter.execution.handover.codec import Decoder, Encoder
from ovagent_jupyter.execution.handover.fields import (
    Node,
    flag,
    items,
    malformed,
    shape,
    text,
    unsendable,
)

_CLASSES: dict[tuple[str, bool], Any] = {
    (name, is_array): getattr(sparse, f"{name}_{'array' if is_array else 'matrix'}")
    for name in ("csr", "csc", "bsr", "coo", "dia", "lil", "dok")
    for is_array in (True, False)
}
_NUMERIC = "biufc"
_LARGEST_EXTENT = 2**31 - 1
"""A few bytes can claim any shape, and the first slice would fill the memory."""
_MATRIX = 2
"""Dimensions of a matrix."""


def encode(encoder: Encoder, value: object) -> Node:
    """The node of a sparse matrix or array, or None when it is none."""
    if not sparse.issparse(value):
        return None
    return _encode(encoder, value)


def _encode(encoder: Encoder, value: Any) -> Node:
    name = str(value.format)
    if max(value.shape, default=0) > _LARGEST_EXTENT:
        raise unsendable("its shape is larger than a sparse matrix may have here")
    stored = {"lil": "tocsr", "dok": "tocoo"}.get(name)
    plain = getattr(value, stored)() if stored else value
    return {
        "t": "sparse",
        "k": name,
        "a": isinstance(value, sparse.sparray),
        "s": [int(extent) for extent in value.shape],
        "v": [encoder.node(np.asarray(part)) for part in _parts(plain)],
    }


def _parts(value: Any) -> list[Any]:
    if value.format == "coo":
        return [value.data, *value.coords]
    if value.format == "dia":
        return [value.data, value.offsets]
    return [value.data, value.indices, value.indptr]


def _read(decoder: Decoder, node: Node) -> object:
    name, is_array, extents = text(node, "k"), flag(node, "a"), shape(node)
    if (name, is_array) not in _CLASSES or (len(extents) != _MATRIX and name != "coo"):
        raise malformed("a sparse matrix is of an unknown kind")
    if max(extents, default=0) > _LARGEST_EXTENT:
        raise malformed("a sparse matrix claims an impossible shape")
    parts = [as_array(decoder.value(part)) for part in items(node, "v")]
    if not parts or parts[0].dtype.kind not in _NUMERIC:
        raise malformed("a sparse matrix holds something else than numbers")
    if name in ("coo", "dok"):
        value = _coo(parts, extents, is_array=is_array, trusted=decoder.trusted)
    elif name == "dia":
        value = _dia(parts, extents, is_array=is_array)
    else:
        stored = "csr" if name == "lil" else name
        value = _compressed(stored, parts, extents, is_array=is_array, trusted=decoder.trusted)
    return value.asformat(name)


def _coo(
    parts: list[NDArray[Any]], extents: tuple[int, ...], *, is_array: bool, trusted: bool
) -> Any:
    data, *coords = [as_vector(part) for part in parts]
    if not 0 < len(coords) == len(extents):
        raise malformed("coordinates do not fit the shape")
    for coord, extent in zip(coords, extents, strict=True):
        if not trusted:
            _check_indices(coord, extent)
        if len(coord) != len(data):
            raise malformed("coordinates do not fit the values")
    value = _CLASSES["coo", is_array](extents, dtype=data.dtype)
    # Set, not passed: the constructor may change the type of the coordinates.
    value.coords = tuple(coords)
    value.data = data
    value.has_canonical_format = False
    return value


def _dia(parts: list[NDArray[Any]], extents: tuple[int, ...], *, is_array: bool) -> Any:
    match parts:
        case [data, offsets] if data.ndim == _MATRIX and len(data) == len(as_vector(offsets, "i")):
            return _CLASSES["dia", is_array]((data, offsets), shape=extents)
        case _:
            raise malformed("diagonals do not fit their offsets")


def _compressed(
    name: str,
    parts: list[NDArray[Any]],
    extents: tuple[int, ...],
    *,
    is_array: bool,
    trusted: bool,
) -> Any:
    try:
        data, indices, pointers = parts
    except ValueError:
        raise malformed("a sparse matrix has parts missing") from None
    block = _block(name, data)
    if extents[0] % block[0] or extents[1] % block[1]:
        raise malformed("blocks do not fit the shape")
    rows, columns = extents[0] // block[0], extents[1] // block[1]
    major, minor = (columns, rows) if name == "csc" else (rows, columns)
    if not trusted:
        _check_pointers(as_vector(pointers), major, len(indices))
        _check_indices(as_vector(indices), minor)
    if len(indices) != len(data) or indices.dtype != pointers.dtype:
        raise malformed("indices do not fit the values")
    kind = _CLASSES[name, is_array]
    options = {"blocksize": block} if name == "bsr" else {}
    value = kind(extents, dtype=data.dtype, **options)
    # Set, not passed: the constructor narrows 64-bit indices.
    value.data, value.indices, value.indptr = data, indices, pointers
    return value


def _block(name: str, data: NDArray[Any]) -> tuple[int, int]:
    if data.ndim != (3 if name == "bsr" else 1) or 0 in data.shape[1:]:
        raise malformed("the values of a sparse matrix have another shape")
    return (data.shape[1], data.shape[2]) if name == "bsr" else (1, 1)


def _check_pointers(pointers: NDArray[Any], major: int, stored: int) -> None:
    _check_index_type(pointers)
    if len(pointers) != major + 1 or pointers[0] != 0 or pointers[-1] > stored:
        raise malformed("the row pointers of a sparse matrix do not fit")
    if (pointers[1:] < pointers[:-1]).any():
        raise malformed("the row pointers of a sparse matrix go back")


def _check_indices(indices: NDArray[Any], extent: int) -> None:
    _check_index_type(indices)
    if len(indices) and (indices.min() < 0 or indices.max() >= extent):
        raise malformed("an index of a sparse matrix is out of range")


def _check_index_type(indices: NDArray[Any]) -> None:
    if indices.dtype not in (np.dtype(np.int32), np.dtype(np.int64)):
        raise malformed("indices are neither 32 nor 64-bit numbers")


DECODERS: dict[str, Callable[[Decoder, Node], object]] = {"sparse": _read}
