"""Knowing the data: the state card, the steps of an analysis, and the offline planner."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ovagent_jupyter.omics.describe import describe
    from ovagent_jupyter.omics.planner import Plan, PlannedStep, plan
    from ovagent_jupyter.omics.state import DataState
    from ovagent_jupyter.omics.step import STEPS, Step

__all__ = ["STEPS", "DataState", "Plan", "PlannedStep", "Step", "describe", "plan"]

_PLACES = {
    "describe": "describe",
    "plan": "planner",
    "Plan": "planner",
    "PlannedStep": "planner",
    "DataState": "state",
    "STEPS": "step",
    "Step": "step",
}


def __getattr__(name: str) -> object:
    """Public names are loaded on first use: numpy and anndata cost seconds."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_PLACES[name]}")
    value: object = getattr(module, name)
    globals()[name] = value
    return value


class _Room(ModuleType):
    """Keeps ``omics.describe`` the function: importing the module of that name would hide it."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _PLACES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Room
