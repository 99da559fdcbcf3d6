"""Which axes a slot lies along, taking part of it, and copies that share nothing."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from ovagent_jupyter.execution.handover.frames import as_index
from ovagent_jupyter.execution.handover.kept import Kept
from ovagent_jupyter.execution.handover.slots import ROWS, WITHOUT_INDEX, Path, inside

Positions = NDArray[np.intp]
_IMMUTABLE = (str, bytes, int, float, complex, bool, type(None), type(pd.NA), type(pd.NaT))
_ALONG: dict[str, tuple[str, ...]] = {
    "X": ("obs_names", "var_names"),
    "layers": ("obs_names", "var_names"),
    "obs": ("obs_names",),
    "obsm": ("obs_names",),
    "obsp": ("obs_names", "obs_names"),
    "var": ("var_names",),
    "varm": ("var_names",),
    "varp": ("var_names", "var_names"),
    "column": ("index",),
}


def axes_of(path: Path) -> tuple[Path, ...]:
    """The index of each dimension of a slot, outermost first; empty for one that has none."""
    within = inside(path)
    if within != path:
        return tuple((*path[:2], *axis) for axis in axes_of(within))
    if path[:1] == ("raw",) and len(path) > 1:
        names: dict[str, Path] = {"obs_names": ("obs_names",), "var_names": ("raw", "var_names")}
        return tuple(names[axis] for axis in _ALONG.get(str(path[1]), ()))
    return tuple((axis,) for axis in _ALONG.get(str(path[0]), ())) if path else ()


def positions(
    own: Kept, fresh: Mapping[Path, object], indexes: Iterable[Path]
) -> dict[Path, Positions | None]:
    """For each index that changed: where its entries were, or None when that cannot be told.

    Args:
        own: The object as it was.
        fresh: Its parts that changed.
        indexes: Which of the parts are the indexes of its frames.
    """
    found: dict[Path, Positions | None] = {}
    for path in indexes:
        if fresh.get(path) is not None and own.get(path) is not None:
            found[path] = _positions(as_index(own[path]), as_index(fresh[path]))
    if own.kind in WITHOUT_INDEX and ROWS in fresh and own.get(ROWS) != fresh[ROWS]:
        found["index",] = None
    return found


def _positions(before: pd.Index[Any], after: pd.Index[Any]) -> Positions | None:
    if not before.is_unique or not after.is_unique:
        return None
    try:
        where = cast(Positions, before.get_indexer(cast(Any, after)))
    except (TypeError, ValueError):
        return None
    return None if (where < 0).any() else where


def for_sure(
    own: Kept, fresh: Mapping[Path, object], moved: Mapping[Path, Positions | None]
) -> dict[Path, Positions | None]:
    """The positions without those that only count rows: row 0 may be another one by now."""
    return {
        path: None
        if isinstance(fresh.get(path), pd.RangeIndex) and isinstance(own.get(path), pd.RangeIndex)
        else where
        for path, where in moved.items()
    }


def take(value: Any, path: Path, moved: Mapping[Path, Positions | None]) -> object | None:
    """The value on the axes as they are now; None when it does not fit them.

    Args:
        value: A slot's value on the axes as they were; it is returned when they did not change.
        path: Where it is.
        moved: The axes that changed.
    """
    axes = axes_of(path)
    if not any(axis in moved for axis in axes):
        return cast(object, value)
    if any(moved.get(axis, ()) is None for axis in axes) or not hasattr(value, "shape"):
        return None
    for dimension, axis in enumerate(axes):
        where = moved.get(axis)
        if where is not None:
            value = _along(value, dimension, where)
    return cast(object, value)


def _along(value: Any, dimension: int, where: Positions) -> Any:
    if isinstance(value, pd.DataFrame):
        return value.iloc[where] if dimension == 0 else value.iloc[:, where]
    if isinstance(value, pd.api.extensions.ExtensionArray):
        return value.take(cast(Any, where))
    if sparse.issparse(value) and value.format not in ("csr", "csc"):
        value = value.tocsr()
    return value[where] if dimension == 0 else value[:, where]


def independent(value: Any) -> object:
    """A copy that shares no memory that can be written; what cannot be copied is shared."""
    if isinstance(value, (*_IMMUTABLE, pd.Index)):
        return value
    if type(value) is np.ndarray and not value.dtype.hasobject:
        return value.copy(order="K")
    if type(value) is np.ndarray and value.dtype == object and _all_immutable(value):
        return value.copy(order="K")
    if sparse.issparse(value) or isinstance(value, pd.api.extensions.ExtensionArray):
        return cast(object, value.copy())
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001 - a foreign __deepcopy__ may raise anything; the value stays usable
        return cast(object, value)


def _all_immutable(value: NDArray[Any]) -> bool:
    return set(map(type, value.ravel().tolist())) <= set(_IMMUTABLE)
