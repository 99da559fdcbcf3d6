"""Knowing the data: the state card, the steps of an analysis, and the offline planner."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ovagent_jupyter.omics.planner import Plan, PlannedStep, plan
    from ovagent_jupyter.omics.state import DataState
    from ovagent_jupyter.omics.state_card import describe
    from ovagent_jupyter.omics.step import STEPS, Step

__all__ = ["STEPS", "DataState", "Plan", "PlannedStep", "Step", "describe", "plan"]

_PLACES = {
    "describe": "state_card",
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
