"""A step on its way into a plan, while its parameters are collected."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a clause that no step can use, with the reason and the remedy."""

    clause: str
    why: str
    next_step: str = ""


@dataclass(slots=True)
class Wanted:
    """A step that the request asks for, or that another step needs."""

    id: str
    reason: str
    clause: int = -1
    params: dict[str, object] = field(default_factory=dict)
    """What the user said."""
    preset: dict[str, object] = field(default_factory=dict)
    """What a recipe or a following step says, where the user says nothing."""
    member: bool = False
    """Part of a recipe, or needed by another step: left out when its result is there."""
    recipe: str = ""
    clauses: set[int] = field(default_factory=set)
    """Clauses that ask for it."""
    direct: set[int] = field(default_factory=set)
    """Clauses that ask for it by its own name, not through a recipe."""
    forced: bool = False
    """Run again although its result is there."""
    because: str = ""
    """What needs it; empty when the user asked."""

    @property
    def values(self) -> dict[str, object]:
        """All parameters that differ from the defaults."""
        return {**self.preset, **self.params}
