"""Which variables hold data, and how much memory their arrays take up by themselves."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any, cast

_DATA = {
    "anndata": ("AnnData",),
    "mudata": ("MuData",),
    "spatialdata": ("SpatialData",),
    "pandas": ("DataFrame", "Series"),
    "polars": ("DataFrame", "Series"),
    "pyarrow": ("Table",),
    "numpy": ("ndarray",),
    "scipy": ("spmatrix", "sparray"),
}
"""Package → its classes that hold data."""
_MAPPINGS = ("layers", "obsm", "varm", "obsp", "varp", "mod")
_MOST_COLUMNS = 1000
"""Columns of a table that are counted: one by one they take their time."""
_SPARSE = ("data", "indices", "indptr", "row", "col", "coords")


def is_data(value: object) -> bool:
    """Whether a value is an AnnData, a table, an array, a matrix or the like."""
    return bool(_kinds(value))


def own_size(value: object) -> int:
    """Bytes of the arrays of an object that lie in memory of their own.

    What lies on a map of a file or of sealed memory is not counted: it is there anyway. An
    estimate: arrays that two objects share count for both, and what is no array for nothing.
    """
    try:
        return sum(map(_array_size, _arrays(value)))
    except Exception:  # noqa: BLE001 - a broken object of the user may raise anything
        return 0


def _kinds(value: object) -> set[str]:
    return {
        package
        for base in type(value).__mro__
        for package in (base.__module__.partition(".")[0],)
        if base.__name__ in _DATA.get(package, ()) or base.__name__.lstrip("_") == "spbase"
    }


def _arrays(value: Any) -> Iterator[object]:
    """The arrays that an object consists of."""
    kinds = _kinds(value)
    if type(value) is dict:
        for item in value.values():
            yield from _arrays(item)
    elif kinds & {"anndata", "mudata"}:
        yield from _parts_of(value)
    elif "pandas" in kinds:
        yield from _columns(value)
    elif "scipy" in kinds:
        yield from (getattr(value, name) for name in _SPARSE if hasattr(value, name))
    elif hasattr(value, "nbytes"):
        yield value


def _parts_of(value: Any) -> Iterator[object]:
    # What a view shows belongs to its parent; what is backed lies in its file.
    if getattr(value, "is_view", False) or getattr(value, "isbacked", False):
        return
    for name in _MAPPINGS:
        for item in dict(getattr(value, name, None) or {}).values():
            yield from _arrays(item)
    raw = getattr(value, "raw", None)
    for part in (getattr(value, "X", None), value.obs, value.var, getattr(raw, "X", None)):
        yield from _arrays(part)


def _columns(frame: Any) -> Iterator[object]:
    """The numbers of each column, without a copy; the column itself when they are not plain."""
    series = (
        [frame]
        if frame.ndim == 1
        else [frame.iloc[:, i] for i in range(min(frame.shape[1], _MOST_COLUMNS))]
    )
    for array in (each.array for each in series):
        codes = getattr(array, "codes", None)
        yield getattr(array, "_ndarray", array) if codes is None else codes


def _array_size(array: Any) -> int:
    base = array
    while getattr(base, "base", None) is not None:
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    return 0 if isinstance(base, mmap.mmap) else cast(int, getattr(array, "nbytes", 0))
