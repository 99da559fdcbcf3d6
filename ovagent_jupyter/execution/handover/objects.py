"""Which kind an object is of, how it comes apart, and how it is put together again."""

from __future__ import annotations

import sys
from typing import Any, cast

from ovagent_jupyter.execution.handover.fields import malformed
from ovagent_jupyter.execution.handover.slots import Slots, Tree, build_dict, open_dict, opens


def kind_of(value: object) -> str:
    """Which kind of tree an object is, told without importing its package."""
    for package, names in _KINDS.items():
        module = cast(Any, sys.modules.get(package))
        for name, kind in names.items() if module else ():
            if isinstance(value, getattr(module, name, ())):
                ours = type(value).__module__.partition(".")[0] in ("anndata", "mudata", "pandas")
                return kind if ours else "value"
    return "dict" if opens(value) else "value"


_KINDS = {
    "mudata": {"MuData": "mudata"},
    "anndata": {"AnnData": "anndata"},
    "pandas": {"DataFrame": "dataframe"},
}


def open_object(value: object) -> Tree:
    """The parts of an object; arrays are the object's own, not copies.

    A view of an AnnData is materialised, a backed one loaded.
    """
    kind = kind_of(value)
    slots: Slots = {}
    if kind == "anndata":
        from ovagent_jupyter.execution.handover import annotated

        annotated.open_anndata(slots, value)
    elif kind == "mudata":
        from ovagent_jupyter.execution.handover import annotated

        annotated.open_mudata(slots, value)
    elif kind == "dataframe":
        from ovagent_jupyter.execution.handover import table

        table.open_frame(slots, table.FRAME, value)
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
    if tree.kind in ("anndata", "mudata"):
        from ovagent_jupyter.execution.handover import annotated

        build = annotated.build_anndata if tree.kind == "anndata" else annotated.build_mudata
        return build(slots)
    if tree.kind == "dataframe":
        from ovagent_jupyter.execution.handover import table

        return table.build_frame(slots, table.FRAME)
    if tree.kind == "dict":
        return build_dict(slots, ())
    if tree.kind != "value" or set(slots) != {()}:
        raise malformed("an object is of an unknown kind")
    return slots[()]
