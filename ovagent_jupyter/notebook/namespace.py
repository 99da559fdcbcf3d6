"""The user's variables: results are bound in one step, and can be put back."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Swap:
    """The bindings of one turn, and what they replaced."""

    turn_id: str
    before: Mapping[str, object]
    after: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Undone:
    """What became of the names of the last turn."""

    restored: tuple[str, ...] = ()
    """They have their former value again."""
    removed: tuple[str, ...] = ()
    """They were new."""
    kept: tuple[str, ...] = ()
    """The user has bound them anew."""


class Namespace:
    """The variables of the user's kernel, changed only at the end of a turn.

    Args:
        variables: The live mapping (``shell.user_ns``).
    """

    def __init__(self, variables: MutableMapping[str, object]) -> None:
        self.variables = variables
        self._last: Swap | None = None

    @property
    def can_undo(self) -> str:
        """Id of the turn whose bindings ``undo`` puts back; empty when there is none."""
        return self._last.turn_id if self._last else ""

    def bind(self, turn_id: str, bindings: Mapping[str, object]) -> None:
        """Bind the results of a turn; a turn that binds nothing leaves the last undo in place."""
        if not bindings:
            return
        before = {name: self.variables.get(name, _ABSENT) for name in bindings}
        self._last = Swap(turn_id, before, dict(bindings))
        self.variables.update(bindings)

    def undo(self) -> Undone:
        """Put back what the last turn replaced.

        A name that the user has bound anew since then is left alone.
        """
        swap, self._last = self._last, None
        if swap is None:
            return Undone()
        restored, removed, kept = [], [], []
        for name, old in swap.before.items():
            if self.variables.get(name, _ABSENT) is not swap.after[name]:
                kept.append(name)
            elif old is _ABSENT:
                removed.append(name)
                self.variables.pop(name, None)
            else:
                restored.append(name)
                self.variables[name] = old
        return Undone(tuple(restored), tuple(removed), tuple(kept))
