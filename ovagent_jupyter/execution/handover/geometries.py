"""Shapes of geopandas: their coordinates as arrays, so that no parser reads what a child wrote."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ovagent_jupyter.execution.handover import trees
from ovagent_jupyter.execution.handover.arrays import as_array, as_vector, vectors
from ovagent_jupyter.execution.handover.codec import Decoder, Encoder
from ovagent_jupyter.execution.handover.fields import (
    Node,
    field,
    items,
    malformed,
    text,
    unsendable,
)

_LEVELS = {0: 0, 1: 1, 3: 2, 4: 1, 5: 2, 6: 3}
"""Type of a shape, by shapely's number → lists in lists above its coordinates: a point has none,
a polygon has rings, a multipolygon has polygons."""
_PARTS = (4, 5, 6)
"""Types that consist of others."""
_AUTHORITY = re.compile(r"([A-Za-z]{2,12}):([A-Za-z0-9]{1,16})")
"""A coordinate reference system by its entry in a public list: ``EPSG:4326``."""


def encode(encoder: Encoder, value: object) -> Node:
    """The node of a GeoDataFrame or of a column of shapes, or None when it is neither."""
    import geopandas

    if type(value) is geopandas.GeoDataFrame:
        return encoder.typed(lambda: _frame(encoder, value))
    if type(value) is geopandas.array.GeometryArray:
        return encoder.typed(lambda: _shapes(encoder, value))
    return None


def _frame(encoder: Encoder, value: Any) -> Node:
    plain = pd.DataFrame(value)
    plain.attrs = dict(value.attrs)
    return {
        "t": "geo_frame",
        "v": trees.encode(encoder, plain),
        "g": encoder.node(value.active_geometry_name),
    }


def _shapes(encoder: Encoder, value: Any) -> Node:
    import shapely

    shapes = np.asarray(value, dtype=object)
    kinds = shapely.get_type_id(shapes)
    _check_sendable(shapes, kinds)
    # Two groups for one type where some have a height: the others must not get one.
    groups = np.where(kinds < 0, -1, 2 * kinds + shapely.has_z(shapes)).astype(np.int8)
    parts = []
    for group in np.unique(groups[groups >= 0]).tolist():
        _, coordinates, offsets = shapely.to_ragged_array(
            shapes[groups == group], include_z=bool(group % 2)
        )
        nodes = [encoder.node(np.asarray(each, np.int64)) for each in offsets]
        parts.append([group, encoder.node(np.ascontiguousarray(coordinates)), nodes])
    return {"t": "geometries", "k": encoder.node(groups), "p": parts, "c": _crs_text(value.crs)}


def _check_sendable(shapes: NDArray[Any], kinds: NDArray[Any]) -> None:
    import shapely

    if not set(np.unique(kinds).tolist()) <= {-1, *_LEVELS}:
        raise unsendable("shapes of its type have no typed form")
    inner = shapely.get_parts(shapes[np.isin(kinds, _PARTS)])
    if shapely.is_empty(shapes).any() or shapely.is_empty(inner).any():
        raise unsendable("empty shapes have no typed form")
    measured = getattr(shapely, "has_m", None)
    if (measured is not None and measured(shapes).any()) or (shapely.get_srid(shapes) > 0).any():
        raise unsendable("shapes with measures or an SRID have no typed form")


def _crs_text(crs: Any) -> str | None:
    if crs is None:
        return None
    name = ":".join(crs.to_authority() or ())
    if not _AUTHORITY.fullmatch(name) or _crs(name) != crs:
        raise unsendable("its coordinate reference system is not one of a public list")
    return name


def _crs(name: str | None) -> object:
    if name is None:
        return None
    found = _AUTHORITY.fullmatch(name)
    if found is None:
        raise malformed("a coordinate reference system has an impossible name")
    from pyproj import CRS

    return CRS.from_authority(*found.groups())


def _read_shapes(decoder: Decoder, node: Node) -> object:
    from geopandas.array import GeometryArray

    groups = as_vector(decoder.value(field(node, "k")), "i")
    shapes = np.full(len(groups), None, dtype=object)
    seen = {-1}
    for part in items(node, "p"):
        match part:
            case [int() as group, coordinates, list() as offsets] if group not in seen:
                seen.add(group)
                where = np.flatnonzero(groups == group)
                shapes[where] = _part(decoder, group, len(where), coordinates, offsets)
            case _:
                raise malformed("a group of shapes is not three parts")
    if not np.isin(groups, list(seen)).all():
        raise malformed("shapes are missing")
    crs = None if field(node, "c") is None else text(node, "c")
    return GeometryArray(shapes, crs=cast(Any, _crs(crs)))


def _part(
    decoder: Decoder, group: int, count: int, coordinates: Node, offsets: list[Node]
) -> NDArray[Any]:
    """The shapes of one type; each offset is checked before shapely's C code follows it."""
    import shapely

    kind, high = divmod(group, 2)
    levels = [as_vector(each, "i") for each in vectors(decoder, offsets)]
    points = as_array(decoder.value(coordinates), "f")
    if len(levels) != _LEVELS.get(kind, -1) or points.ndim != 2 or points.dtype != np.float64:  # noqa: PLR2004
        raise malformed("shapes are of an unknown type")
    below, width = points.shape
    for level in levels:
        # Compared, not subtracted: a difference of far numbers wraps around.
        ends = len(level) > 0 and level[0] == 0 and level[-1] == below
        if not ends or (level[1:] <= level[:-1]).any():
            raise malformed("the offsets of shapes do not fit")
        below = len(level) - 1
    if below != count or width != 2 + high:
        raise malformed("there are not as many shapes as there should be")
    kinds = shapely.GeometryType
    made = shapely.from_ragged_array(kinds(kind), points, tuple(levels) or None)
    return cast("NDArray[Any]", made)


def _read_frame(decoder: Decoder, node: Node) -> object:
    import geopandas

    frame = decoder.value(field(node, "v"))
    if type(frame) is not pd.DataFrame:
        raise malformed("a table is missing")
    name = decoder.value(field(node, "g"))
    made = geopandas.GeoDataFrame(frame) if name is None else _with_geometry(frame, name)
    made.attrs = frame.attrs
    return made


def _with_geometry(frame: pd.DataFrame, name: Any) -> Any:
    import geopandas

    column: Any = frame[name] if name in frame.columns else None
    if type(getattr(column, "array", None)) is not geopandas.array.GeometryArray:
        raise malformed("a table has no column of shapes")
    return geopandas.GeoDataFrame(frame, geometry=name)


DECODERS: dict[str, Callable[[Decoder, Node], object]] = {
    "geometries": _read_shapes,
    "geo_frame": _read_frame,
}
