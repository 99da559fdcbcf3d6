"""Which kind an object is of, how it comes apart, and how it is put together again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

from ovagent_jupyter.execution.handover.fields import malformed
from ovagent_jupyter.execution.handover.slots import Slots, Tree, build_dict, open_dict, opens

_HERE = "ovagent_jupyter.execution.handover."
_KINDS = {
    "mudata": {"MuData": "mudata"},
    "anndata": {"AnnData": "anndata"},
    "pandas": {"DataFrame": "dataframe"},
    "pyarrow": {"Table": "arrow"},
    "polars": {"DataFrame": "polars"},
    "spatialdata": {"SpatialData": "spatialdata"},
}
"""Package → class → kind."""
_ROOMS = {
    "mudata": ("annotated", "open_mudata", "build_mudata"),
    "anndata": ("annotated", "open_anndata", "build_anndata"),
    "dataframe": ("table", "open_table", "build_table"),
    "arrow": ("arrow", "open_table", "build_table"),
    "polars": ("polars_frames", "open_frame", "build_frame"),
    "spatialdata": ("spatial", "open_spatialdata", "build_spatialdata"),
}
"""Kind → the module here that takes such an object apart, and its two functions for it."""


def kind_of(value: object) -> str:
    """Which kind of tree an object is, told without importing its package."""
    for package, names in _KINDS.items():
        module = cast(Any, sys.modules.get(package))
        for name, kind in names.items() if module else ():
            if isinstance(value, getattr(module, name, ())):
                # A class of somebody else's may carry more than its parts.
                ours = type(value).__module__.partition(".")[0] in _KINDS
                return kind if ours else "value"
    return "dict" if opens(value) else "value"


def open_object(value: object) -> Tree:
    """The parts of an object; arrays are the object's own, not copies.

    A view of an AnnData is materialised; the X of a backed one stays in its file.
    """
    kind = kind_of(value)
    slots: Slots = {}
    if kind in _ROOMS:
        module, take_apart, _ = _ROOMS[kind]
        cast(Callable[[Slots, object], None], _function(module, take_apart))(slots, value)
    elif kind == "dict":
        open_dict(slots, (), cast(dict[object, object], value))
    else:
        slots[()] = value
    return Tree(kind, slots)


def assemble(tree: Tree) -> object:
    """The object of its parts.

    Raises:
        HandoverError: The parts do not make one.
    """
    slots = tree.slots
    if tree.kind in _ROOMS:
        module, _, build = _ROOMS[tree.kind]
        return cast(Callable[[Slots], object], _function(module, build))(slots)
    if tree.kind == "dict":
        return build_dict(slots, ())
    if tree.kind != "value" or set(slots) != {()}:
        raise malformed("an object is of an unknown kind")
    return slots[()]


def _function(module: str, name: str) -> object:
    return getattr(import_module(_HERE + module), name)
