"""Steps that can be undone: what names were bound to before and after, and as what it was saved."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

from ovagent_jupyter.notebook.data_size import own_size

if TYPE_CHECKING:
    from ovagent_jupyter.execution.handover import ObjectDiff
    from ovagent_jupyter.execution.handover.saved import Saved

_WORDS = 8


GONE: Final = object()
"""Stands for an object that nobody holds any more."""
_REBUILT_ALIKE = ("anndata", "mudata", "dataframe")
"""Kinds that are the same again, but for their identity, when they are rebuilt."""


class Binding:
    """The object under a name; one that was rebuilt takes the place of the one it stands for.

    Args:
        value: The object.
    """

    __slots__ = ("__weakref__", "_held", "_loose", "_own_size")

    def __init__(self, value: object) -> None:
        self._held = value
        self._loose: weakref.ref[object] | None = None
        self._own_size: int | None = None

    @property
    def value(self) -> object:
        """The object; ``GONE`` when it was let go and nobody else held it."""
        if self._loose is None:
            return self._held
        found = self._loose()
        return GONE if found is None else found

    @property
    def own_size(self) -> int:
        """Bytes that are taken up only because it is held here, as an estimate."""
        if self._own_size is None:
            self._own_size = own_size(self._held)
        return self._own_size

    def replace(self, value: object) -> None:
        """Put a rebuilt object in the place of this one."""
        self._held, self._loose, self._own_size = value, None, None

    def hold(self) -> None:
        """Hold an object that was let go, while somebody still does."""
        if self._loose is not None:
            self.replace(self.value)

    def let_go(self) -> None:
        """Leave it to others to hold the object: it can be rebuilt."""
        if self._loose is None:
            self._loose = weakref.ref(self._held)
            self._held, self._own_size = None, 0


class Moment:
    """What a name was bound to at a moment.

    Args:
        binding: The object.
        saved: How it was then; None for what cannot change, or could not be saved.
    """

    __slots__ = ("binding", "saved")

    def __init__(self, binding: Binding, saved: Saved | None = None) -> None:
        self.binding = binding
        self.saved = saved
        if saved is None:
            binding.hold()

    @property
    def changed(self) -> bool:
        """Whether the object is no longer as it was."""
        return self.saved is not None and (
            self.binding.value is GONE or self.saved.differs(self.binding.value)
        )

    @property
    def replaceable(self) -> bool:
        """Whether nobody who does not hold the object itself could tell a rebuilt one from it."""
        if self.saved is None or self.saved.opaque or self.saved.kind not in _REBUILT_ALIKE:
            return False
        value = self.binding.value
        special = (
            getattr(value, "is_view", False)
            or getattr(value, "isbacked", False)
            or (self.saved.kind == "anndata" and value is not GONE and _has_more(value))
        )
        return (not special and type(value).__weakrefoffset__ != 0) or value is GONE

    def bring_back(self) -> object:
        """The object as it was: the very one when it still is, else rebuilt.

        Raises:
            HandoverError: It cannot be rebuilt.
        """
        if self.saved is not None and self.changed:
            self.binding.replace(self.saved.restore())
        return self.binding.value

    def as_it_was(self) -> object:
        """The same for looking at; the name is not concerned."""
        return self.saved.restore() if self.saved is not None else self.binding.value


def _has_more(value: object) -> bool:
    """Whether the user has set attributes of their own on an AnnData."""
    return bool(vars(value).keys() - vars(type(value)()).keys())


Moments = Mapping[str, Moment | None]
"""Names with what they were bound to; None where there was no such name."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class UndoStep:
    """One change of the user's variables that can be undone and redone."""

    turn_id: str
    """Id of the turn; empty for a checkpoint that was restored."""
    request: str
    """The first words of what was asked."""
    when: datetime
    before: Moments
    after: Moments
    diff: tuple[ObjectDiff, ...] = ()

    @property
    def moments(self) -> Iterator[Moment]:
        """All that it keeps."""
        for moments in (self.before, self.after):
            yield from (moment for moment in moments.values() if moment is not None)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Checkpoint:
    """The user's data at a moment, under a name."""

    name: str
    when: datetime
    held: Mapping[str, Moment]

    @property
    def moments(self) -> Iterator[Moment]:
        """All that it keeps."""
        yield from self.held.values()


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of the names of one step that was undone, redone or made by a checkpoint."""

    request: str = ""
    restored: tuple[str, ...] = ()
    """They have the value they had."""
    removed: tuple[str, ...] = ()
    """They were not there."""
    kept: tuple[str, ...] = ()
    """The user has bound them anew, so they were left alone."""
    changed: tuple[str, ...] = ()
    """The user had changed the object in place; the opposite command brings that back."""
    rebuilt: tuple[str, ...] = ()
    """The former object is no longer what it was, so a new one is bound with its former content."""


@dataclass(slots=True)
class Moving:
    """The same in the making, with what to bind."""

    found: dict[str, Moment | None] = field(default_factory=dict)
    """What the names were bound to, as it is now."""
    targets: dict[str, Moment | None] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


def first_words(request: str) -> str:
    """The beginning of a request, for a list."""
    words = request.split()
    return " ".join(words[:_WORDS]) + (" …" if len(words) > _WORDS else "")
