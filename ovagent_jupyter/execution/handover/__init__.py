"""Data across the process border: there by shared memory, back without executing anything."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ovagent_jupyter.execution.handover.left_behind import LeftBehind
from ovagent_jupyter.execution.handover.report import (
    Changes,
    HandoverReport,
    ObjectDiff,
    SlotChange,
)

if TYPE_CHECKING:
    from ovagent_jupyter.execution.handover.incoming import Handed, read_changes
    from ovagent_jupyter.execution.handover.lazy import files_of
    from ovagent_jupyter.execution.handover.saved import Saved
    from ovagent_jupyter.execution.handover.store import Store

__all__ = [
    "Changes",
    "Handed",
    "HandoverReport",
    "LeftBehind",
    "ObjectDiff",
    "Saved",
    "SlotChange",
    "Store",
    "files_of",
    "read_changes",
]

_LAZY = {
    "Handed": "incoming",
    "Saved": "saved",
    "Store": "store",
    "files_of": "lazy",
    "read_changes": "incoming",
}


def __getattr__(name: str) -> object:
    """Import what needs numpy when it is first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
