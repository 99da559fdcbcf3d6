"""numpy: arrays of every layout, records, masked arrays, scalars and dtypes."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ovagent_jupyter.execution.handover.codec import Decoder, Encoder
from ovagent_jupyter.execution.handover.fields import (
    Node,
    as_list,
    field,
    flag,
    items,
    malformed,
    number,
    shape,
    table,
    text,
    unsendable,
    volume,
)

_SIMPLE = re.compile(
    r"[<>|][biufcSUV][1-9][0-9]{0,9}"
    r"|[<>][mM]8(\[([1-9][0-9]{0,8})?(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
)
_FIELDS = 10_000
_DTYPE_DEPTH = 16
_PLAIN, _RECORDS, _MATRIX = "", "rec", "matrix"


def encode(encoder: Encoder, value: object) -> Node:
    """The node of something of numpy's, or None when it is not such a thing."""
    if isinstance(value, np.ma.MaskedArray):
        return _encode_masked(encoder, value)
    if isinstance(value, np.ndarray):
        # A foreign subclass carries meaning that its bytes do not (units, names).
        ours = type(value).__module__.partition(".")[0] in ("numpy", "anndata")
        return _encode_array(encoder, value) if ours else None
    if isinstance(value, np.generic) and type(value).__module__ == "numpy":
        return {"t": "scalar", "a": _encode_array(encoder, np.array(value))}
    if isinstance(value, np.dtype):
        return {"t": "dtype", "d": describe(value)}
    return None


def _encode_array(encoder: Encoder, value: NDArray[Any]) -> Node:
    kind = _PLAIN
    if isinstance(value, np.recarray):
        kind = _RECORDS
    elif isinstance(value, np.matrix):
        kind = _MATRIX
    plain = np.asarray(value)
    fortran = plain.flags.f_contiguous and not plain.flags.c_contiguous
    about = {"s": list(plain.shape), "f": fortran, "c": kind}
    if plain.dtype.kind == "O":
        flat = cast(list[object], plain.ravel(order="F" if fortran else "C").tolist())
        return {"t": "objects", "v": encoder.node(flat), **about}
    if plain.dtype.hasobject:
        return _encode_records(encoder, plain, about)
    spec = describe(plain.dtype)
    # Both ways, a Fortran array's transpose is its memory in order.
    memory = np.ascontiguousarray(plain.T if fortran else plain)
    return {"t": "array", "d": spec, "b": encoder.buffer(memory), **about}


def _encode_records(encoder: Encoder, value: NDArray[Any], about: dict[str, Node]) -> Node:
    names = value.dtype.names or ()
    record = issubclass(value.dtype.type, np.record)
    layout = [(name, cast(Any, value.dtype.fields)[name][0]) for name in names]
    if np.dtype(layout, align=value.dtype.isalignedstruct) != value.dtype:
        raise unsendable("its records have gaps and hold objects")
    parts = [_encode_array(encoder, np.asarray(value[name])) for name in names]
    return {
        "t": "records",
        "n": list(names),
        "v": parts,
        "r": record,
        "a": value.dtype.isalignedstruct,
        **about,
    }


def _encode_masked(encoder: Encoder, value: np.ma.MaskedArray[Any, Any]) -> Node:
    if type(value) is not np.ma.MaskedArray or value.dtype.hasobject:
        return None
    mask = value.mask
    return {
        "t": "masked",
        "d": _encode_array(encoder, np.asarray(value.data)),
        "m": None if mask is np.ma.nomask else _encode_array(encoder, np.asarray(mask)),
        "f": _encode_array(encoder, np.asarray(value.fill_value, dtype=value.dtype)),
        "h": bool(value.hardmask),
    }


def describe(dtype: np.dtype[Any]) -> Node:
    """A dtype without objects as a node: its short name, or a table of its fields."""
    spec: Node
    if dtype.subdtype is not None:
        spec = {"base": describe(dtype.subdtype[0]), "s": list(dtype.shape)}
    elif dtype.names is not None:
        fields = [cast(Any, dtype.fields)[name] for name in dtype.names]
        spec = {
            "names": list(dtype.names),
            "formats": [describe(entry[0]) for entry in fields],
            "offsets": [int(entry[1]) for entry in fields],
            "size": dtype.itemsize,
            "record": issubclass(dtype.type, np.record),
            "align": dtype.isalignedstruct,
        }
    else:
        spec = dtype.str
    if dtype.itemsize == 0 or dtype.hasobject or build(spec) != dtype:
        raise unsendable(f"its dtype {dtype} has no typed form")
    return spec


def build(spec: Node, depth: int = 0) -> np.dtype[Any]:
    """The dtype that a node describes; only kinds that are plain bytes can come out."""
    if isinstance(spec, str):
        if not _SIMPLE.fullmatch(spec):
            raise malformed("there is a dtype that cannot travel")
        return np.dtype(spec)
    if depth > _DTYPE_DEPTH:
        raise malformed("a dtype is nested too deeply")
    spec = table(spec)
    if "base" in spec:
        return np.dtype((build(spec["base"], depth + 1), shape(spec)))
    names, formats, offsets = items(spec, "names"), items(spec, "formats"), items(spec, "offsets")
    if not len(names) == len(formats) == len(offsets) <= _FIELDS:
        raise malformed("a dtype's fields do not fit together")
    layout = {
        "names": names,
        "formats": [build(one, depth + 1) for one in formats],
        "offsets": offsets,
        "itemsize": number(spec, "size", 1, 2**31 - 1),
    }
    dtype = np.dtype(cast(Any, layout), align=flag(spec, "align"))
    return np.dtype((np.record, dtype)) if flag(spec, "record") else dtype


def _read_array(decoder: Decoder, node: Node) -> NDArray[Any]:
    dtype, extents = build(field(node, "d")), shape(node)
    data = decoder.buffer(number(node, "b"))
    if dtype.itemsize == 0 or volume(extents) * dtype.itemsize != data.nbytes:
        raise malformed("an array's shape does not fit its bytes")
    array: NDArray[Any] = data.view(dtype) if data.nbytes else np.empty(0, dtype)
    if not decoder.trusted:
        _check_content(array)
    return _shaped(array, node)


def _check_content(array: NDArray[Any]) -> None:
    """Bytes that numpy takes on trust: truth values and code points."""
    kind = array.dtype.kind
    if array.dtype.names is not None:
        for name in array.dtype.names:
            _check_content(array[name])
    elif kind == "b" and array.size and array.view(np.uint8).max() > 1:
        raise malformed("a truth value is neither true nor false")
    elif kind == "U" and array.size:
        order = array.dtype.str[0]
        points = np.ascontiguousarray(array).reshape(-1).view(np.dtype(f"{order}u4"))
        if points.max() > sys.maxunicode:
            raise malformed("a string holds what is not a character")


def _shaped(flat: NDArray[Any], node: Node) -> NDArray[Any]:
    kind, extents = text(node, "c"), shape(node)
    array = flat.reshape(extents, order="F" if flag(node, "f") else "C")
    if kind == _RECORDS:
        return array.view(np.recarray)
    if kind == _MATRIX:
        return array.view(np.matrix)
    if kind != _PLAIN:
        raise malformed("an array is of an unknown class")
    return array


def _read_objects(decoder: Decoder, node: Node) -> NDArray[Any]:
    values = decoder.value(field(node, "v"))
    if not isinstance(values, list) or volume(shape(node)) != len(values):
        raise malformed("an array's shape does not fit its items")
    return _shaped(from_objects(values), node)


def from_objects(values: list[Any]) -> NDArray[Any]:
    """A flat array of the objects themselves, also where they are lists or arrays."""
    array = np.empty(len(values), object)
    for position, value in enumerate(values):
        array[position] = value
    return array


def _read_records(decoder: Decoder, node: Node) -> NDArray[Any]:
    names, extents = items(node, "n"), shape(node)
    parts = [decoder.value(part) for part in items(node, "v")]
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if not len(names) == len(arrays) == len(parts) > 0 or len(names) > _FIELDS:
        raise malformed("the fields of records do not fit together")
    if any(array.shape[: len(extents)] != extents for array in arrays):
        raise malformed("a field of records has another length")
    layout = [(n, a.dtype, a.shape[len(extents) :]) for n, a in zip(names, arrays, strict=True)]
    dtype = np.dtype(cast(Any, layout), align=flag(node, "a"))
    if flag(node, "r"):
        dtype = np.dtype((np.record, dtype))
    records = np.empty(extents, dtype, order="F" if flag(node, "f") else "C")
    for name, array in zip(names, arrays, strict=True):
        records[name] = array
    return records.view(np.recarray) if text(node, "c") == _RECORDS else records


def _read_scalar(decoder: Decoder, node: Node) -> object:
    array = as_array(decoder.value(field(node, "a")))
    if array.ndim:
        raise malformed("a scalar has dimensions")
    return array[()]


def _read_masked(decoder: Decoder, node: Node) -> object:
    data, fill = (as_array(decoder.value(field(node, key))) for key in "df")
    mask = decoder.value(field(node, "m"))
    if mask is not None and as_array(mask).shape != data.shape:
        raise malformed("a mask does not fit its array")
    hidden: Any = np.ma.nomask if mask is None else as_array(mask)
    value: Any = np.ma.MaskedArray(data, hidden, fill_value=cast(Any, fill[()]))
    if flag(node, "h"):
        value.harden_mask()
    return value


def _read_dtype(_: Decoder, node: Node) -> object:
    return build(field(node, "d"))


def as_array(value: object, kinds: str | None = None) -> NDArray[Any]:
    """The value as an array, of certain dtype kinds if any are given."""
    if not isinstance(value, np.ndarray) or (kinds is not None and value.dtype.kind not in kinds):
        raise malformed("an array of another type is needed")
    return value


def as_vector(value: object, kinds: str | None = None) -> NDArray[Any]:
    """The value as an array of one dimension."""
    array = as_array(value, kinds)
    if array.ndim != 1:
        raise malformed("an array of one dimension is needed")
    return array


def vectors(decoder: Decoder, node: Node) -> list[object]:
    """The values of a list of nodes."""
    return [decoder.value(part) for part in as_list(node)]


DECODERS: dict[str, Callable[[Decoder, Node], object]] = {
    "array": _read_array,
    "objects": _read_objects,
    "records": _read_records,
    "scalar": _read_scalar,
    "masked": _read_masked,
    "dtype": _read_dtype,
}
