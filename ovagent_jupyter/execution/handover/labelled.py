"""Images and labels of xarray, and dask tables: those in memory as arrays, nothing is computed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ovagent_jupyter.execution.handover.arrays import as_array
from ovagent_jupyter.execution.handover.codec import Decoder, Encoder
from ovagent_jupyter.execution.handover.fields import (
    Node,
    as_list,
    field,
    flag,
    items,
    malformed,
    table,
    unsendable,
    whole,
)

_MOST_PARTS = 1 << 16
"""Parts of an array that are looked at to tell whether it is in memory."""
_CUTS = frozenset(("getitem", "getter", "getter_inline", "getter_nofancy", "concatenate_shaped"))
"""Steps of dask that only cut an array in parts, or join them."""
_JOINS = frozenset(("FromPandas", "Projection", "AssignAlign"))
"""Steps of dask that put columns of tables side by side."""
_LAZY = "it is computed as needed: bring back what compute() gives"


def encode(encoder: Encoder, value: object) -> Node:
    """The node of a DataArray, a DataTree of scales or a dask table that lies in memory."""
    kind = type(value)
    write = _ENCODERS.get(f"{kind.__module__}.{kind.__qualname__}")
    if kind.__module__.startswith("dask.dataframe."):
        write = _frame if _holds_frame(value) else _lazy_frame
    return None if write is None else encoder.typed(lambda: _written(encoder, value, write))


def _written(encoder: Encoder, value: Any, write: Callable[[Encoder, Any], Node]) -> Node:
    try:
        return write(encoder, value)
    except (AttributeError, ImportError, KeyError, TypeError, ValueError) as error:
        # Another version of a library, or an odd object: it may still go as a pickle.
        raise unsendable(f"{type(error).__name__}: {error}") from error


def _array(encoder: Encoder, value: Any) -> Node:
    _check_indexes(value)
    data, chunks = _in_memory(value.data)
    if type(data) is not np.ndarray and not encoder.allow_pickle:
        raise unsendable("it is computed as needed: bring back what persist() gives")
    return {
        "t": "labelled",
        "v": encoder.node(data),
        "k": chunks,
        "d": encoder.node(list(value.dims)),
        "n": encoder.node(value.name),
        "c": [
            [encoder.node(name), *_coordinate(encoder, each)] for name, each in value.coords.items()
        ],
        "a": encoder.node(dict(value.attrs)),
        "e": encoder.node(dict(value.encoding)),
    }


def _coordinate(encoder: Encoder, value: Any) -> list[Node]:
    if type(value.variable.data) is not np.ndarray:
        raise unsendable(_LAZY)
    return [
        encoder.node(list(value.dims)),
        encoder.node(value.to_numpy()),
        encoder.node(dict(value.attrs)),
    ]


def _check_indexes(value: Any) -> None:
    """Whether its indexes are those that its coordinates get by themselves."""
    from xarray.indexes import PandasIndex

    if set(value.xindexes) != set(value.coords) & set(value.dims) or any(
        type(index) is not PandasIndex for index in value.xindexes.values()
    ):
        raise unsendable("its coordinates have indexes of their own")


def _in_memory(data: Any) -> tuple[object, Node]:
    """The numbers, and how they are cut in parts; what is not in memory is given as it is."""
    if type(data) is np.ndarray:
        return data, None
    if type(data).__module__.partition(".")[0] != "dask" or not _only_cut(data):
        return data, None
    chunks = [list(map(int, each)) for each in data.chunks]
    # Nothing is computed here: the parts are in memory, and at most joined.
    made: Any = next(iter(data.dask.values())) if len(data.dask) == 1 else None
    if type(made) is not np.ndarray:
        made = data.compute(scheduler="synchronous")
    if type(made) is not np.ndarray or made.shape != data.shape:
        raise unsendable(_LAZY)
    return made, chunks


def _only_cut(data: Any) -> bool:
    graph = data.dask
    return len(graph) <= _MOST_PARTS and all(map(_is_cut, graph.values()))


def _is_cut(step: Any) -> bool:
    step = _content(step)
    if type(step) is np.ndarray or _is_dasks(step, "Alias"):
        return True
    if not _is_dasks(step, "Task"):
        return False
    name = getattr(step.func, "__name__", "")
    root = getattr(step.func, "__module__", "").partition(".")[0]
    return (
        name in _CUTS
        and root in ("dask", "operator", "_operator")
        and not any(map(_reads, _leaves(step.args)))
    )


def _leaves(value: Any) -> list[object]:
    if _is_dasks(value, "List", "Tuple"):
        return _leaves(value.args)
    if isinstance(value, list | tuple):
        return [leaf for each in value for leaf in _leaves(each)]
    return [value]


def _reads(leaf: object) -> bool:
    """Whether an argument of a step could be a file."""
    leaf = _content(leaf)
    plain = (int, float, str, bool, slice, type(None), np.ndarray, np.generic, np.dtype)
    return not isinstance(leaf, plain) and not _is_dasks(leaf, "TaskRef", "Alias")


def _content(step: Any) -> Any:
    return step.value if _is_dasks(step, "DataNode") else step


def _is_dasks(value: object, *names: str) -> bool:
    kind = type(value)
    return kind.__module__ == "dask._task_spec" and kind.__name__ in names


def _read_array(decoder: Decoder, node: Node) -> Any:
    import xarray

    data = decoder.value(field(node, "v"))
    if not decoder.allow_pickle or type(data) is np.ndarray:
        data = _cut(as_array(data), field(node, "k"))
    made = xarray.DataArray(
        data,
        dims=_names(decoder, field(node, "d")),
        coords=cast(Any, dict(_read_coordinate(decoder, part) for part in items(node, "c"))),
        name=cast(Any, decoder.value(field(node, "n"))),
        attrs=_dictionary(decoder, field(node, "a")),
    )
    made.encoding = _dictionary(decoder, field(node, "e"))
    return made


def _cut(data: NDArray[Any], chunks: Node) -> Any:
    if chunks is None:
        return data
    sizes = [[whole(size) for size in as_list(each)] for each in as_list(chunks)]
    if [sum(each) for each in sizes] != list(data.shape):
        raise malformed("the parts of an array do not make it up")
    parts = np.prod([len(each) for each in sizes], dtype=object)
    if parts > max(_MOST_PARTS, 1):
        raise malformed("an array is in too many parts")
    dask_array: Any = import_module("dask.array")
    # A name by chance: one by content would read all of it.
    return dask_array.from_array(data, chunks=tuple(map(tuple, sizes)), name=False)


def _names(decoder: Decoder, node: Node) -> list[str]:
    names = decoder.value(node)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise malformed("dimensions have no names")
    return names


def _read_coordinate(decoder: Decoder, node: Node) -> tuple[Any, Any]:
    match node:
        case [name, dims, values, attrs]:
            array = as_array(decoder.value(values))
            about = _dictionary(decoder, attrs)
            return decoder.value(name), (_names(decoder, dims), array, about)
        case _:
            raise malformed("a coordinate is not four parts")


def _dictionary(decoder: Decoder, node: Node) -> dict[Any, Any]:
    value = decoder.value(node)
    if not isinstance(value, dict):
        raise malformed("a dictionary is missing")
    return value


def _scales(encoder: Encoder, value: Any) -> Node:
    scales = []
    if value.data_vars or value.coords or value.parent is not None:
        raise unsendable("it has arrays at its root")
    for name, child in value.children.items():
        dataset = child.to_dataset()
        held = {each for array in dataset.data_vars.values() for each in array.coords}
        if child.children or set(dataset.coords) != held:
            raise unsendable("it is not a list of scales")
        arrays = [[each, encoder.node(array)] for each, array in dataset.data_vars.items()]
        scales.append([name, arrays, encoder.node(dict(dataset.attrs))])
    about = encoder.node(dict(value.attrs))
    return {"t": "scales", "v": scales, "a": about, "n": encoder.node(value.name)}


def _read_scales(decoder: Decoder, node: Node) -> object:
    import xarray

    scales: dict[str, Any] = {}
    for scale in items(node, "v"):
        match scale:
            case [str() as name, list() as arrays, attrs] if "/" not in name and name:
                held = {str(key): decoder.value(array) for key, array in arrays}
                if not all(isinstance(each, xarray.DataArray) for each in held.values()):
                    raise malformed("a scale holds what is no array")
                scales[f"/{name}"] = xarray.Dataset(held, attrs=_dictionary(decoder, attrs))
            case _:
                raise malformed("a scale is not three parts")
    name = cast(Any, decoder.value(field(node, "n")))
    made = xarray.DataTree.from_dict(scales, name=name)
    made.attrs = _dictionary(decoder, field(node, "a"))
    return made


def _holds_frame(value: Any) -> bool:
    """Whether a dask table is a table in memory, cut in parts, and nothing more."""
    expression: Any = getattr(value, "expr", None)
    if not hasattr(expression, "walk"):
        return False
    steps = {type(step).__name__ for step in expression.walk()}
    return "FromPandas" in steps and steps <= _JOINS


def _frame(encoder: Encoder, value: Any) -> Node:
    sources = [step for step in value.expr.walk() if type(step).__name__ == "FromPandas"]
    # Nothing is computed here: columns in memory are put side by side.
    frame = value.compute(scheduler="synchronous")
    if type(frame) is not pd.DataFrame:
        raise unsendable(_LAZY)
    return {
        "t": "dask_frame",
        "v": encoder.node(frame),
        "n": int(value.npartitions),
        "s": all(source.operand("sort") for source in sources),
        "u": all(source.operand("pyarrow_strings_enabled") for source in sources),
        "a": encoder.node(dict(getattr(value, "attrs", {}))),
    }


def _lazy_frame(encoder: Encoder, value: Any) -> Node:
    if not getattr(value, "attrs", None):
        return None
    # A pickle of dask's leaves out what spatialdata notes about a table.
    return {"t": "lazy_frame", "v": encoder.foreign(value), "a": encoder.node(dict(value.attrs))}


def _read_lazy(decoder: Decoder, node: Node) -> object:
    if not decoder.allow_pickle:
        raise malformed("it names what is computed as needed, which is never done on this side")
    return _with_attrs(decoder.value(field(node, "v")), decoder, node)


def _read_frame(decoder: Decoder, node: Node) -> object:
    dask: Any = import_module("dask")
    dataframe: Any = import_module("dask.dataframe")
    node = table(node)
    frame = decoder.value(field(node, "v"))
    parts = whole(field(node, "n"), 1, _MOST_PARTS)
    if type(frame) is not pd.DataFrame:
        raise malformed("a table is missing")
    with dask.config.set({"dataframe.convert-string": flag(node, "u")}):
        made = dataframe.from_pandas(frame, npartitions=parts, sort=flag(node, "s"))
    return _with_attrs(made, decoder, node)


def _with_attrs(value: Any, decoder: Decoder, node: Node) -> object:
    attrs = _dictionary(decoder, field(node, "a"))
    if attrs:
        # dask's tables have some only where spatialdata was imported: then they are updated.
        import_module("spatialdata")
        value.attrs.update(attrs)
    return cast(object, value)


_ENCODERS: dict[str, Callable[[Encoder, Any], Node]] = {
    "xarray.core.dataarray.DataArray": _array,
    "xarray.core.datatree.DataTree": _scales,
}
DECODERS: dict[str, Callable[[Decoder, Node], object]] = {
    "labelled": _read_array,
    "scales": _read_scales,
    "dask_frame": _read_frame,
    "lazy_frame": _read_lazy,
}
