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

    def undo(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Put back what the last turn replaced.

        A name that the user has bound anew since then is left alone.

        Returns:
            (names put back or removed, names left alone).
        """
        swap, self._last = self._last, None
        if swap is None:
            return (), ()
        restored, kept = [], []
        for name, old in swap.before.items():
            if self.variables.get(name, _ABSENT) is not swap.after[name]:
                kept.append(name)
                continue
            restored.append(name)
            if old is _ABSENT:
                self.variables.pop(name, None)
            else:
                self.variables[name] = old
        return tuple(restored), tuple(kept)
