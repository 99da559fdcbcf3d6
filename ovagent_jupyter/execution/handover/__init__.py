"""Data across the process border: there by shared memory, back without executing anything."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ovagent_jupyter.execution.handover.report import (
    Changes,
    HandoverReport,
    LeftBehind,
    ObjectDiff,
    SlotChange,
)

if TYPE_CHECKING:
    from ovagent_jupyter.execution.handover.export import Parcel, export_objects
    from ovagent_jupyter.execution.handover.incoming import read_changes

__all__ = [
    "Changes",
    "HandoverReport",
    "LeftBehind",
    "ObjectDiff",
    "Parcel",
    "SlotChange",
    "export_objects",
    "read_changes",
]

_LAZY = {
    "Parcel": "export",
    "export_objects": "export",
    "read_changes": "incoming",
}


def __getattr__(name: str) -> object:
    """Import what needs numpy when it is first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
