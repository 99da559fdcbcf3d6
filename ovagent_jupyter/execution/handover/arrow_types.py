"""Arrow's types and fields as nodes: a list of what can travel, nothing that runs or registers."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa

from ovagent_jupyter.execution.handover.codec import Decoder, Encoder
from ovagent_jupyter.execution.handover.fields import (
    Node,
    as_list,
    field,
    flag,
    malformed,
    table,
    text,
    unsendable,
    whole,
)

_DEEPEST = 24
_ZONE = re.compile(r"[A-Za-z0-9_+\-:/]{1,64}")
_UNITS = ("s", "ms", "us", "ns")
_PLAIN: dict[str, Any] = {
    str(kind): kind
    for kind in (
        *(pa.null(), pa.bool_(), pa.string(), pa.large_string(), pa.binary(), pa.large_binary()),
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32()),
        *(pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.date32(), pa.date64()),
        *(pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")),
        *(pa.month_day_nano_interval(), *map(pa.duration, _UNITS), *map(pa.timestamp, _UNITS)),
    )
}
_DECIMALS = {32: "decimal32", 64: "decimal64", 128: "decimal128", 256: "decimal256"}
"""Width in bits → the function that makes such a type; the narrow ones came late."""
_LISTS: dict[str, Any] = {"list": pa.list_, "large_list": pa.large_list}
_MOST_WIDE = 1 << 24
"""Most items or bytes that each row of a fixed size may have."""
_OWN_METADATA = b"ARROW:"
"""How the keys begin by which Arrow makes another type of a field, as a library registered it."""


def describe(encoder: Encoder, kind: Any, depth: int = 0) -> Node:
    """The node of a type.

    Raises:
        HandoverError: It is none of those that travel.
    """
    if depth > _DEEPEST:
        raise unsendable("its type is nested too deeply")
    types = pa.types
    if _PLAIN.get(str(kind)) == kind:
        return str(kind)
    if types.is_timestamp(kind) and _ZONE.fullmatch(kind.tz or ""):
        return ["timestamp", kind.unit, kind.tz]
    if types.is_decimal(kind):
        return ["decimal", kind.bit_width, kind.precision, kind.scale]
    if types.is_fixed_size_binary(kind):
        return ["fixed_binary", kind.byte_width]
    return _describe_nested(encoder, kind, depth + 1)


def _describe_nested(encoder: Encoder, kind: Any, depth: int) -> Node:
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind):
        name = "list" if types.is_list(kind) else "large_list"
        return [name, describe_field(encoder, kind.value_field, depth)]
    if types.is_fixed_size_list(kind):
        return ["fixed_list", kind.list_size, describe_field(encoder, kind.value_field, depth)]
    if types.is_struct(kind):
        return ["struct", [describe_field(encoder, part, depth) for part in kind]]
    if types.is_map(kind):
        parts = [describe_field(encoder, part, depth) for part in (kind.key_field, kind.item_field)]
        return ["map", *parts, bool(kind.keys_sorted)]
    if types.is_dictionary(kind):
        parts = [describe(encoder, part, depth) for part in (kind.index_type, kind.value_type)]
        return ["dictionary", *parts, bool(kind.ordered)]
    raise unsendable(f"the Arrow type {str(kind)[:100]} has no typed form")


def describe_field(encoder: Encoder, part: Any, depth: int = 0) -> Node:
    """The node of a field: name, type, whether it may be null, and its notes."""
    return {
        "n": part.name,
        "d": describe(encoder, part.type, depth),
        "u": bool(part.nullable),
        "m": encoder.node(notes(part.metadata)),
    }


def notes(metadata: Any) -> dict[bytes, bytes] | None:
    """The metadata of a field or a schema, when it may travel."""
    if not metadata:
        return None
    if any(key.startswith(_OWN_METADATA) for key in metadata):
        raise unsendable("its Arrow type is one that a library registered")
    return dict(metadata)


def build(decoder: Decoder, spec: Node, depth: int = 0) -> Any:
    """The type of a node."""
    if depth > _DEEPEST:
        raise malformed("an Arrow type is nested too deeply")
    if isinstance(spec, str):
        if spec not in _PLAIN:
            raise malformed("an Arrow type is unknown")
        return _PLAIN[spec]
    match as_list(spec):
        case ["timestamp", str() as unit, str() as zone] if unit in _UNITS:
            if not _ZONE.fullmatch(zone):
                raise malformed("a time zone has an impossible name")
            pa.lib.string_to_tzinfo(zone)  # raises when there is no such zone
            return pa.timestamp(unit, zone)
        case ["decimal", bits, precision, scale]:
            made = getattr(pa, _DECIMALS.get(whole(bits), ""), None)
            if made is None:
                raise malformed("a decimal is of an unknown width")
            return made(whole(precision, 1, 76), whole(scale, -1000, 1000))
        case ["fixed_binary", width]:
            return pa.binary(whole(width, 0, _MOST_WIDE))
        case nested:
            return _build_nested(decoder, nested, depth + 1)


def _build_nested(decoder: Decoder, spec: list[Node], depth: int) -> Any:
    match spec:
        case ["list" | "large_list" as name, item]:
            return _LISTS[name](build_field(decoder, item, depth))
        case ["fixed_list", size, item]:
            return pa.list_(build_field(decoder, item, depth), whole(size, 0, _MOST_WIDE))
        case ["struct", list(parts)]:
            return pa.struct([build_field(decoder, part, depth) for part in parts])
        case ["map", key, item, bool(is_sorted)]:
            parts = [build_field(decoder, part, depth) for part in (key, item)]
            return pa.map_(*parts, keys_sorted=is_sorted)
        case ["dictionary", index, value, bool(is_ordered)]:
            kinds = [build(decoder, part, depth) for part in (index, value)]
            if not pa.types.is_integer(kinds[0]):
                raise malformed("a dictionary is indexed by something else than numbers")
            return pa.dictionary(*kinds, ordered=is_ordered)
        case _:
            raise malformed("an Arrow type is unknown")


def build_field(decoder: Decoder, node: Node, depth: int = 0) -> Any:
    """The field of a node."""
    node = table(node)
    kind = build(decoder, field(node, "d"), depth)
    metadata = build_notes(decoder.value(field(node, "m")))
    return pa.field(text(node, "n"), kind, nullable=flag(node, "u"), metadata=metadata)


def build_notes(value: object) -> dict[bytes, bytes] | None:
    """The value as metadata; what would make Arrow look for another type is refused."""
    if value is None:
        return None
    if type(value) is not dict or not value:
        raise malformed("Arrow's metadata is not a dictionary")
    for key, note in value.items():
        if type(key) is not bytes or type(note) is not bytes or key.startswith(_OWN_METADATA):
            raise malformed("Arrow's metadata is not plain")
    return value
