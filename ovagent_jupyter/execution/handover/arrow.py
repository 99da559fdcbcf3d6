"""Arrow arrays, chunks and tables: types as nodes, contents as buffers, each checked on arrival."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ovagent_jupyter.execution.handover.arrow_types import (
    build,
    build_field,
    build_notes,
    describe,
    describe_field,
    notes,
)
from ovagent_jupyter.execution.handover.codec import Decoder, Encoder, claim_rows
from ovagent_jupyter.execution.handover.fields import (
    Node,
    as_list,
    field,
    items,
    malformed,
    number,
    table,
    unsendable,
)
from ovagent_jupyter.execution.handover.slots import ROWS, Slots
from ovagent_jupyter.execution.handover.times import in_table

_BITS = 8


def encode(encoder: Encoder, value: object) -> Node:
    """The node of an array, chunks, a batch or a table of Arrow's, or None when it is none."""
    return encoder.typed(lambda: _encode(encoder, value))


def _encode(encoder: Encoder, value: object) -> Node:
    if isinstance(value, pa.ChunkedArray):
        kind = describe(encoder, value.type)
        return {"t": "arrow_chunks", "d": kind, "v": _bodies(encoder, value.chunks)}
    if isinstance(value, pa.Array):
        kind = describe(encoder, value.type)
        return {"t": "arrow_array", "d": kind, "v": _body(encoder, value)}
    if isinstance(value, pa.Table):
        about = _about(encoder, value)
        chunks = [_bodies(encoder, column.chunks) for column in value.columns]
        return {"t": "arrow_table", **about, "v": chunks}
    if isinstance(value, pa.RecordBatch):
        return {
            "t": "arrow_batch",
            **_about(encoder, value),
            "v": [_bodies(encoder, [column]) for column in value.columns],
        }
    return None


def _about(encoder: Encoder, value: Any) -> dict[str, Node]:
    return {
        "n": value.num_rows,
        "f": [describe_field(encoder, part) for part in value.schema],
        "m": encoder.node(notes(value.schema.metadata)),
    }


def _bodies(encoder: Encoder, chunks: Iterable[Any]) -> Node:
    return [_body(encoder, chunk) for chunk in chunks]


def _body(encoder: Encoder, array: Any) -> Node:
    """The contents of an array, without what a slice does not show."""
    size, kind = len(array), array.type
    body: dict[str, Node] = {"n": size, "b": [], "c": []}
    if pa.types.is_null(kind):
        return body
    if pa.types.is_dictionary(kind):
        body["c"] = _bodies(encoder, (array.indices, array.dictionary))
        return body
    buffers, start = array.buffers(), array.offset
    seen = _bits(buffers[0], start, size) if array.null_count else None
    body["b"].append(None if seen is None else encoder.buffer(seen))
    if pa.types.is_struct(kind):
        body["c"] = _bodies(encoder, map(array.field, range(kind.num_fields)))
    elif pa.types.is_fixed_size_list(kind):
        wide = kind.list_size
        body["c"] = _bodies(encoder, [array.values.slice(start * wide, size * wide)])
    elif (offset := _offset_type(kind)) is not None:
        ends = _ends(buffers[1], offset, start, size)
        first, last = int(ends[0]), int(ends[-1])
        body["b"].append(encoder.buffer(ends - ends[0] if first else ends))
        if not pa.types.is_nested(kind):
            body["b"].append(encoder.buffer(_bytes(buffers[2])[first:last]))
        else:
            parts = (array.keys, array.items) if pa.types.is_map(kind) else (array.values,)
            cut = [part.slice(first, last - first) for part in parts]
            body["c"] = _bodies(encoder, cut)
    elif pa.types.is_boolean(kind):
        body["b"].append(encoder.buffer(_bits(buffers[1], start, size)))
    else:
        wide = kind.bit_width // _BITS
        data = _bytes(buffers[1])[start * wide : (start + size) * wide]
        if not _shown(kind, data):
            data = _only_valid(array, data)
        body["b"].append(encoder.buffer(data))
    return body


def _shown(kind: Any, data: NDArray[np.uint8]) -> bool:
    """Whether all moments lie where pandas can show them, should the user turn them into a Series.

    Arrow gives them zones of pytz's then.
    """
    if not pa.types.is_timestamp(kind) or kind.tz is None or not len(data):
        return True
    moments = data.view(np.int64)
    return in_table(int(moments.min()), int(moments.max()), kind.unit)


def _only_valid(array: Any, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Moments with zeros for those that are missing, under which anything may lie."""
    valid = np.asarray(array.is_valid())
    moments = np.where(valid, data.view(np.int64), 0)
    if not _shown(array.type, moments.view(np.uint8)):
        raise unsendable("a moment lies where its time zone is not known")
    return moments.view(np.uint8)


def _bytes(buffer: Any) -> NDArray[np.uint8]:
    return np.empty(0, np.uint8) if buffer is None else np.frombuffer(buffer, np.uint8)


def _bits(buffer: Any, start: int, size: int) -> NDArray[np.uint8]:
    """So many bits from a place on, the first one lowest, and zeros behind the last."""
    data = _bytes(buffer)
    if start % _BITS == 0 and size % _BITS == 0:
        return data[start // _BITS : (start + size) // _BITS]
    near = data[start // _BITS : -(-(start + size) // _BITS)]
    bits = np.unpackbits(near, bitorder="little")[start % _BITS :][:size]
    return np.packbits(bits, bitorder="little")


def _offset_type(kind: Any) -> Any:
    """The type of the offsets of lists and texts; None for other types."""
    types = pa.types
    if types.is_large_string(kind) or types.is_large_binary(kind) or types.is_large_list(kind):
        return np.int64
    small = types.is_string(kind) or types.is_binary(kind) or types.is_list(kind)
    return np.int32 if small or types.is_map(kind) else None


def _ends(buffer: Any, offset: Any, start: int, size: int) -> NDArray[Any]:
    if size == 0:  # Arrow may leave the buffer out
        return np.zeros(1, offset)
    ends: NDArray[Any] = _bytes(buffer).view(offset)[start : start + size + 1]
    return ends


def _read_array(decoder: Decoder, node: Node) -> Any:
    return _checked(decoder, build(decoder, field(node, "d")), field(node, "v"))


def _read_chunks(decoder: Decoder, node: Node) -> Any:
    return _column(decoder, build(decoder, field(node, "d")), field(node, "v"))


def _column(decoder: Decoder, kind: Any, bodies: Node) -> Any:
    return pa.chunked_array([_checked(decoder, kind, body) for body in as_list(bodies)], kind)


def _checked(decoder: Decoder, kind: Any, body: Node) -> Any:
    """An array whose every offset, index and character was looked at."""
    array = _read_body(decoder, kind, body)
    if not decoder.trusted:
        array.validate(full=True)
    return array


def _read_body(decoder: Decoder, kind: Any, node: Node) -> Any:
    body = table(node)
    size = number(body, "n")
    numbers, parts = items(body, "b"), items(body, "c")
    if pa.types.is_dictionary(kind):
        return _read_dictionary(decoder, kind, size, parts)
    data = [None if index is None else decoder.buffer(index) for index in numbers]
    if pa.types.is_null(kind):
        claim_rows(decoder, size)
        return _assembled(kind, size, [None], [])
    if not data or (data[0] is not None and len(data[0]) != _bytes_of(size)):
        raise malformed("the marks of what is missing do not fit an Arrow array")
    kinds, ends = _parts_of(kind), None
    offset = _offset_type(kind)
    if offset is not None:
        ends = _read_ends(data, offset, size)
    _check_sizes(decoder, kind, size, data)
    if len(parts) != len(kinds):
        raise malformed("an Arrow array has parts missing")
    children = [_read_body(decoder, *pair) for pair in zip(kinds, parts, strict=True)]
    lengths = {len(child) for child in children}
    if children and lengths != {_length_of_parts(kind, size, ends)}:
        raise malformed("the parts of an Arrow array have another length")
    if pa.types.is_map(kind):
        if children[0].null_count:
            raise malformed("a key of a map is missing")  # Arrow would end the process
        entries = pa.struct([kind.key_field, kind.item_field])
        children = [_assembled(entries, lengths.pop(), [None], children)]
    return _assembled(kind, size, data, children)


def _assembled(kind: Any, size: int, data: list[Any], children: list[Any]) -> Any:
    buffers = [None if part is None else pa.py_buffer(part) for part in data]
    return pa.Array.from_buffers(kind, size, buffers, children=children)


def _read_dictionary(decoder: Decoder, kind: Any, size: int, parts: list[Node]) -> Any:
    match parts:
        case [indices, words]:
            places = _checked(decoder, kind.index_type, indices)
            values = _checked(decoder, kind.value_type, words)
        case _:
            raise malformed("an Arrow dictionary has parts missing")
    if len(places) != size:
        raise malformed("the parts of an Arrow array have another length")
    return pa.DictionaryArray.from_arrays(places, values, ordered=kind.ordered, safe=True)


def _read_ends(data: list[Any], offset: Any, size: int) -> NDArray[Any]:
    wide = np.dtype(offset).itemsize
    if len(data) < len(("seen", "ends")) or data[1] is None or len(data[1]) != (size + 1) * wide:
        raise malformed("the offsets of an Arrow array do not fit")
    ends: NDArray[Any] = data[1].view(offset)
    if ends[0] != 0 or (ends[1:] < ends[:-1]).any():
        raise malformed("the offsets of an Arrow array go back")
    return ends


def _check_sizes(decoder: Decoder, kind: Any, size: int, data: list[Any]) -> None:
    """Whether each buffer is there and exactly as long as the type and the length say."""
    if _offset_type(kind) is not None:
        wanted = [] if pa.types.is_nested(kind) else [int(data[1].view(_offset_type(kind))[-1])]
        held = data[2:]
    elif pa.types.is_nested(kind):
        wanted, held = [], data[1:]
    else:
        wide = kind.bit_width
        wanted, held = [_bytes_of(size * wide)], data[1:]
    if any(part is None for part in held) or [len(part) for part in held] != wanted:
        raise malformed("the buffers of an Arrow array do not fit")
    if held and not _shown(kind, held[0]):
        raise malformed("a moment lies where its time zone is not known")
    if not sum(wanted) and _offset_type(kind) is None:
        claim_rows(decoder, size)  # rows without a byte of their own


def _bytes_of(bits: int) -> int:
    return -(-bits // _BITS)


def _parts_of(kind: Any) -> list[Any]:
    if pa.types.is_map(kind):
        return [kind.key_type, kind.item_type]
    if pa.types.is_nested(kind):
        return [kind.field(position).type for position in range(kind.num_fields)]
    return []


def _length_of_parts(kind: Any, size: int, ends: NDArray[Any] | None) -> int:
    if ends is not None:
        return int(ends[-1])
    return size * kind.list_size if pa.types.is_fixed_size_list(kind) else size


def _read_table(decoder: Decoder, node: Node) -> Any:
    rows, schema, columns = _read_columns(decoder, node)
    if columns:
        made = pa.Table.from_arrays(columns, schema=schema)
    else:
        claim_rows(decoder, rows)
        made = _without_columns(rows, schema.metadata)
    if made.num_rows != rows:
        raise malformed("a table of Arrow's has another length than it says")
    return made


def _without_columns(rows: int, metadata: Any) -> Any:
    none = pa.Array.from_buffers(pa.struct([]), rows, [None])
    batch = pa.RecordBatch.from_struct_array(none)
    return pa.Table.from_batches([batch], schema=pa.schema([], metadata=metadata))


def _read_columns(decoder: Decoder, node: Node) -> tuple[int, Any, list[Any]]:
    fields = [build_field(decoder, part) for part in items(node, "f")]
    schema = pa.schema(fields, metadata=build_notes(decoder.value(field(node, "m"))))
    chunks = items(node, "v")
    if len(chunks) != len(fields):
        raise malformed("a table of Arrow's has another number of columns than it says")
    pairs = zip(fields, chunks, strict=True)
    return number(node, "n"), schema, [_column(decoder, part.type, body) for part, body in pairs]


def _read_batch(decoder: Decoder, node: Node) -> Any:
    made = _read_table(decoder, node)
    batches = made.to_batches()
    if len(batches) > 1:
        raise malformed("a batch of Arrow's is in pieces")
    if batches:
        return batches[0]
    empty = [pa.array([], part.type) for part in made.schema]
    return pa.RecordBatch.from_arrays(empty, schema=made.schema)


def open_table(slots: Slots, value: Any) -> None:
    """Add the parts of a table: its metadata, and each column as a table of one."""
    slots["attrs",] = notes(value.schema.metadata)
    seen: Counter[str] = Counter()
    for position, name in enumerate(value.column_names):
        path = ("column", name, seen[name]) if seen[name] else ("column", name)
        seen[name] += 1
        slots[path] = value.select([position]).replace_schema_metadata(None)
    slots[ROWS] = range(value.num_rows)


def build_table(slots: Slots) -> object:
    """The table of its parts."""
    columns = [part for path, part in slots.items() if path[:1] == ("column",)]
    rows = slots.get(ROWS)
    if not isinstance(rows, range):
        raise malformed("the number of rows of a table of Arrow's is missing")
    if not all(isinstance(part, pa.Table) for part in columns):
        raise malformed("a column of Arrow's is missing")
    fields = [part for one in columns for part in one.schema]  # type: ignore[attr-defined]
    arrays = [part for one in columns for part in one.columns]  # type: ignore[attr-defined]
    metadata = build_notes(slots.get(("attrs",)))
    if not arrays:
        return _without_columns(len(rows), metadata)
    made = pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=metadata))
    if made.num_rows != len(rows):
        raise malformed("a table of Arrow's has another length than it says")
    return made


DECODERS: dict[str, Callable[[Decoder, Node], object]] = {
    "arrow_array": _read_array,
    "arrow_chunks": _read_chunks,
    "arrow_table": _read_table,
    "arrow_batch": _read_batch,
}
