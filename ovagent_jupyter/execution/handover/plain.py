"""Python's own values: numbers, text, bytes and containers."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path, PosixPath, PurePath, PurePosixPath, WindowsPath
from typing import Any, cast

import numpy as np

from ovagent_jupyter.execution.handover import strings
from ovagent_jupyter.execution.handover.codec import Decoder, Encoder
from ovagent_jupyter.execution.handover.fields import (
    Node,
    field,
    flag,
    items,
    malformed,
    number,
    table,
    text,
)

_PACK_FROM = 32
"""Lists this long are packed into arrays when all items are of one kind."""
_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def encode(encoder: Encoder, value: object) -> Node:
    """The node of one of Python's own values, or None when it is not one."""
    write = _ENCODERS.get(type(value))
    return None if write is None else write(encoder, value)


def _int(_: Encoder, value: int) -> Node:
    # Hexadecimal, because Python bounds the length of decimal conversions.
    return {"t": "int", "v": hex(value)}


def _float(_: Encoder, value: float) -> Node:
    return {"t": "float", "v": str(value)}


def _complex(encoder: Encoder, value: complex) -> Node:
    return {"t": "complex", "r": encoder.node(value.real), "i": encoder.node(value.imag)}


def _decimal(_: Encoder, value: Decimal) -> Node:
    return {"t": "decimal", "v": str(value)}


def _str(encoder: Encoder, value: str) -> Node:
    return {"t": "str", "b": encoder.buffer(value.encode("utf-8", "surrogatepass"))}


def _bytes(encoder: Encoder, value: bytes | bytearray) -> Node:
    return {"t": "bytes", "b": encoder.buffer(bytes(value)), "m": type(value) is bytearray}


def _list(encoder: Encoder, value: list[object]) -> Node:
    packed = _packed(encoder, value) if len(value) >= _PACK_FROM else None
    return packed or [encoder.node(item) for item in value]


def _packed(encoder: Encoder, value: list[object]) -> Node:
    kinds = set(map(type, value))
    if kinds == {float}:
        return {"t": "list", "k": "d", "b": encoder.buffer(np.array(value, np.float64))}
    if kinds == {int} and all(-(2**63) <= cast(int, item) < 2**63 for item in value):
        return {"t": "list", "k": "q", "b": encoder.buffer(np.array(value, np.int64))}
    packed = strings.pack(encoder, value, kinds)
    return None if packed is None else {"t": "list", "k": "s", **packed}


def _tuple(encoder: Encoder, value: tuple[object, ...]) -> Node:
    return {"t": "tuple", "v": [encoder.node(item) for item in value]}


def _set(encoder: Encoder, value: set[object] | frozenset[object]) -> Node:
    # Sorted, because two equal sets may iterate in different orders.
    members = sorted(value, key=lambda item: (type(item).__name__, repr(item)))
    return {
        "t": "set",
        "v": [encoder.node(item) for item in members],
        "f": type(value) is frozenset,
    }


def _dict(encoder: Encoder, value: dict[object, object]) -> Node:
    keys = [encoder.node(key) for key in value]
    values = [encoder.node(item) for item in value.values()]
    return {"t": "dict", "k": keys, "v": values, "o": type(value) is OrderedDict}


def _path(_: Encoder, value: PurePath) -> Node:
    return {"t": "path", "v": str(value), "p": not isinstance(value, Path)}


def _range(_: Encoder, value: range) -> Node:
    return {"t": "range", "v": [hex(end) for end in (value.start, value.stop, value.step)]}


def _slice(encoder: Encoder, value: slice) -> Node:
    return {"t": "slice", "v": [encoder.node(end) for end in (value.start, value.stop, value.step)]}


def _ellipsis(_: Encoder, __: object) -> Node:
    return {"t": "ellipsis"}


_ENCODERS: dict[type, Callable[[Encoder, Any], Node]] = {
    int: _int,
    float: _float,
    complex: _complex,
    Decimal: _decimal,
    str: _str,
    bytes: _bytes,
    bytearray: _bytes,
    list: _list,
    tuple: _tuple,
    set: _set,
    frozenset: _set,
    dict: _dict,
    OrderedDict: _dict,
    PosixPath: _path,
    WindowsPath: _path,
    PurePosixPath: _path,
    range: _range,
    slice: _slice,
    type(...): _ellipsis,
}


def _read_int(_: Decoder, node: Node) -> int:
    return int(text(node, "v"), 16)


def _read_float(_: Decoder, node: Node) -> float:
    name = text(node, "v")
    if name not in _FLOATS:
        raise malformed("a float is neither finite nor one of the three others")
    return _FLOATS[name]


def _read_complex(decoder: Decoder, node: Node) -> complex:
    parts = decoder.value(field(node, "r")), decoder.value(field(node, "i"))
    if not all(type(part) is float for part in parts):
        raise malformed("a complex number is not made of floats")
    return complex(*cast(tuple[float, float], parts))


def _read_decimal(_: Decoder, node: Node) -> Decimal:
    return Decimal(text(node, "v"))


def _read_str(decoder: Decoder, node: Node) -> str:
    return decoder.buffer(number(node, "b")).tobytes().decode("utf-8", "surrogatepass")


def _read_bytes(decoder: Decoder, node: Node) -> bytes | bytearray:
    data = decoder.buffer(number(node, "b")).tobytes()
    return bytearray(data) if flag(node, "m") else data


def _read_list(decoder: Decoder, node: Node) -> list[object]:
    kind = text(node, "k")
    if kind == "s":
        return strings.unpack(decoder, node)
    if kind not in ("d", "q"):
        raise malformed("a packed list is of an unknown kind")
    return list(decoder.buffer(number(node, "b")).view(np.dtype(f"{kind}")).tolist())


def _all(decoder: Decoder, nodes: Iterable[Node]) -> list[object]:
    return [decoder.value(node) for node in nodes]


def _read_tuple(decoder: Decoder, node: Node) -> tuple[object, ...]:
    return tuple(_all(decoder, items(node, "v")))


def _read_set(decoder: Decoder, node: Node) -> set[object] | frozenset[object]:
    members = _all(decoder, items(node, "v"))
    return frozenset(members) if flag(node, "f") else set(members)


def _read_dict(decoder: Decoder, node: Node) -> dict[object, object]:
    keys = _all(decoder, items(node, "k"))
    values = _all(decoder, items(node, "v"))
    if len(keys) != len(values):
        raise malformed("a dictionary has more keys than values, or fewer")
    kind: type[dict[object, object]] = OrderedDict if flag(node, "o") else dict
    return kind(zip(keys, values, strict=True))


def _read_path(_: Decoder, node: Node) -> PurePath:
    return PurePath(text(node, "v")) if flag(node, "p") else Path(text(node, "v"))


def _ends(node: Node) -> list[Node]:
    ends = items(node, "v")
    if len(ends) != len(("start", "stop", "step")):
        raise malformed("a range does not have three ends")
    return ends


def _read_range(_: Decoder, node: Node) -> range:
    return range(*(int(end, 16) for end in _ends(node)))


def _read_slice(decoder: Decoder, node: Node) -> slice:
    return slice(*_all(decoder, _ends(node)))


def _read_ellipsis(_: Decoder, node: Node) -> object:
    return ... if table(node) else None


DECODERS: dict[str, Callable[[Decoder, Node], object]] = {
    "int": _read_int,
    "float": _read_float,
    "complex": _read_complex,
    "decimal": _read_decimal,
    "str": _read_str,
    "bytes": _read_bytes,
    "list": _read_list,
    "tuple": _read_tuple,
    "set": _read_set,
    "dict": _read_dict,
    "path": _read_path,
    "range": _read_range,
    "slice": _read_slice,
    "ellipsis": _read_ellipsis,
}
