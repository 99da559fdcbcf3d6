"""Recipes: requests that stand for several steps, from ``recipes.toml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from ovagent_jupyter.omics.planner.words import catalogue


@dataclass(frozen=True, slots=True)
class Recipe:
    """Several steps that users ask for in one word."""

    id: str
    title: str
    steps: tuple[str, ...]
    phrases: tuple[str, ...]
    questions: tuple[str, ...]
    """What it answers when it is asked as a question ("which genes ...")."""
    params: Mapping[str, Mapping[str, object]]
    """Step id → parameters that differ from the step's defaults."""


@cache
def recipes() -> Mapping[str, Recipe]:
    """All recipes by id, read once."""
    return {
        name: Recipe(
            id=name,
            title=row["title"],
            steps=tuple(row["steps"]),
            phrases=tuple(row["phrases"]),
            questions=tuple(row.get("questions", ())),
            params=row.get("params", {}),
        )
        for name, row in catalogue("recipes.toml").items()
    }
