"""SpatialData in parts, and built from parts; its transformations as plain values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from ovagent_jupyter.execution.handover.annotated import build_anndata, open_anndata, quiet
from ovagent_jupyter.execution.handover.arrays import vectors
from ovagent_jupyter.execution.handover.codec import Decoder, Encoder
from ovagent_jupyter.execution.handover.fields import Node, items, malformed, text
from ovagent_jupyter.execution.handover.lazy import StorePath
from ovagent_jupyter.execution.handover.slots import (
    BRANCH,
    Path,
    Slots,
    below,
    build_dict,
    open_dict,
)

_ELEMENTS = ("images", "labels", "points", "shapes")
_ATTRS: Final[Path] = ("attrs",)
_PATH: Final[Path] = ("path",)
_FIELDS = {
    "Identity": (),
    "MapAxis": ("map_axis",),
    "Translation": ("translation", "axes"),
    "Scale": ("scale", "axes"),
    "Affine": ("matrix", "input_axes", "output_axes"),
    "Sequence": ("transformations",),
}
"""Transformation → what it is made of, as its constructor takes it and checks it."""


def open_spatialdata(slots: Slots, value: object) -> None:
    """Add the parts of a SpatialData: each element is one, each table comes apart."""
    sdata = cast(Any, value)
    if sdata.path is not None:
        slots[_PATH] = StorePath(sdata.path)
    for group in _ELEMENTS:
        slots[group,] = BRANCH
        for name, element in getattr(sdata, group).items():
            slots[group, name] = element
    slots["tables",] = BRANCH
    for name, adata in sdata.tables.items():
        slots["tables", name] = BRANCH
        open_anndata(slots, adata, ("tables", name))
    open_dict(slots, _ATTRS, sdata.attrs)


def build_spatialdata(slots: Slots) -> object:
    """The SpatialData of its parts; its constructor checks each against its own rules."""
    from spatialdata import SpatialData

    parts: dict[str, dict[str, Any]] = {group: _group(slots, group) for group in _ELEMENTS}
    parts["tables"] = {
        name: build_anndata(slots, ("tables", name)) for name in _branches(slots, "tables")
    }
    place = slots.get(_PATH)
    if not isinstance(place, StorePath | None):
        raise malformed("a place on disk is told, which is the parent's to choose")
    known = (*parts, *_ATTRS, *_PATH)
    if any(path[:1] not in {(name,) for name in known} for path in slots):
        raise malformed("a slot lies where nothing can be")
    with quiet():
        sdata = SpatialData(**cast(Any, parts), attrs=cast(Any, build_dict(slots, _ATTRS)))
    sdata.path = None if place is None else cast(Any, place.path)
    return sdata


def _group(slots: Slots, group: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, value in below(slots, (group,)):
        if len(path) != len((group, "name")) or value is BRANCH:
            raise malformed("a slot lies where nothing can be")
        found[str(path[1])] = value
    return found


def _branches(slots: Slots, group: str) -> list[str]:
    names: list[str] = []
    for path, value in below(slots, (group,)):
        if len(path) == len((group, "name")):
            if value is not BRANCH:
                raise malformed("a table is not in parts")
            names.append(cast(str, path[1]))
    return names


def encode(encoder: Encoder, value: object) -> Node:
    """The node of a coordinate transformation, or None when it is none of them."""
    kind: Any = type(value)
    names = _FIELDS.get(kind.__name__)
    if names is None or getattr(_transformations(), kind.__name__) is not kind:
        return None
    parts = [encoder.node(getattr(value, name)) for name in names]
    return {"t": "transformation", "k": kind.__name__, "v": parts}


def _transformations() -> Any:
    from spatialdata import transformations

    return transformations


def _read(decoder: Decoder, node: Node) -> object:
    kind = text(node, "k")
    parts = vectors(decoder, items(node, "v"))
    if len(parts) != len(_FIELDS.get(kind, (None,) * 9)):
        raise malformed("there is no such transformation")
    module = _transformations()
    if kind == "Sequence":
        inner = parts[0]
        if not isinstance(inner, list) or not all(
            isinstance(each, module.BaseTransformation) for each in inner
        ):
            raise malformed("a sequence holds what is no transformation")
    return cast(object, getattr(module, kind)(*parts))


DECODERS: dict[str, Callable[[Decoder, Node], object]] = {"transformation": _read}
