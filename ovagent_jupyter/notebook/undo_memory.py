"""What undo may hold: the steps and checkpoints that are kept, and which go when room is short."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from ovagent_jupyter.config.values import MIB, written
from ovagent_jupyter.notebook.undo_steps import Checkpoint, Moment, UndoStep

if TYPE_CHECKING:
    from ovagent_jupyter.execution.handover.sealed import Segment

MOST_STEPS = 50
"""Each step keeps a few files open, of which a process may have 1,024 as a rule."""
HELD_STEPS = 5
"""Steps whose objects are held, to be there at once; those of older ones are rebuilt if need be.

An object on maps of its own keeps a file open for each.
"""


class UndoMemory:
    """Steps that can be undone and redone, and checkpoints, within a number of bytes.

    Args:
        limit: Gives the bytes.
    """

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self.back: list[UndoStep] = []
        self.forward: list[UndoStep] = []
        self.checkpoints: dict[str, Checkpoint] = {}
        self._warned: set[str] = set()

    @property
    def limit(self) -> int:
        """The bytes that may be held.

        Raises:
            ConfigError: The setting cannot be used.
        """
        return self._limit()

    def keep(self, checkpoint: Checkpoint) -> None:
        """Add a checkpoint; one of the same name goes."""
        self.drop(checkpoint.name)
        self.checkpoints[checkpoint.name] = checkpoint

    def drop(self, name: str) -> None:
        """Remove a checkpoint, if there is one of that name."""
        self.checkpoints.pop(name, None)
        self._warned.discard(name)

    def size(self, variables: Mapping[str, object]) -> int:
        """Bytes that would be free without steps and checkpoints, as an estimate.

        What is part of the objects that are bound now does not count.
        """
        bound = {id(value) for value in variables.values()}
        # Of an object that is bound, what it was saved as last.
        now = {id(m.binding.value): m for m in self._moments() if id(m.binding.value) in bound}
        # Memory goes with the whole segment, not with a part of it.
        segments = _segments(self._moments()) - _segments(now.values())
        others = {m.binding for m in self._moments() if id(m.binding.value) not in bound}
        return sum(segment.size for segment in segments) + sum(other.own_size for other in others)

    def make_room(self, variables: Mapping[str, object]) -> tuple[str, ...]:
        """Let the oldest steps go until the rest fits; the last one always stays.

        Checkpoints go last, the oldest first, and each only after it was told.

        Returns:
            What the user must be told.
        """
        limit = self.limit
        self._let_go()
        dropped = self._drop_steps(limit, variables)
        notices = []
        if dropped:
            steps = "The oldest step was" if dropped == 1 else f"The {dropped} oldest steps were"
            notices.append(
                f"{steps} dropped and cannot be undone any more: undo keeps {MOST_STEPS} at "
                f"most, in {written(limit)}. The setting undo_memory allows more."
            )
        if self.checkpoints and self.size(variables) > limit:
            notices += self._drop_checkpoints(limit, variables)
        return tuple(notices)

    def _let_go(self) -> None:
        """Hold only the objects of the nearest steps, and those that could not be rebuilt alike."""
        near = (*self.back[-HELD_STEPS:], *self.forward[-HELD_STEPS:])
        kept = {moment.binding for step in near for moment in step.moments}
        kept |= {moment.binding for moment in self._moments() if not moment.replaceable}
        for binding in {moment.binding for moment in self._moments()} - kept:
            binding.let_go()

    def _drop_steps(self, limit: int, variables: Mapping[str, object]) -> int:
        dropped = max(0, len(self.back) - MOST_STEPS)
        del self.back[:dropped]
        for steps, least in ((self.back, 1), (self.forward, 0)):
            while len(steps) > least and self.size(variables) > limit:
                del steps[0]
                dropped += 1
        return dropped

    def _drop_checkpoints(self, limit: int, variables: Mapping[str, object]) -> Iterator[str]:
        for name in tuple(self.checkpoints):
            if name not in self._warned:
                self._warned.add(name)
                yield (
                    f"The checkpoints hold more than {written(limit)}: {name} goes next. "
                    "The setting undo_memory allows more; %ovagent checkpoint drop NAME frees one."
                )
                return
            self.drop(name)
            yield f"The checkpoint {name} was dropped, as the checkpoints hold too much."
            if self.size(variables) <= limit:
                return

    def _moments(self) -> Iterator[Moment]:
        """All that is kept, in the order in which it was saved."""
        for checkpoint in self.checkpoints.values():
            yield from checkpoint.moments
        for step in (*self.back, *reversed(self.forward)):
            yield from step.moments


def shown_size(size: int) -> str:
    """Bytes as a reader wants them: what is below a megabyte is nothing here."""
    return written(size) if size >= MIB else "0"


def _segments(moments: Iterable[Moment]) -> set[Segment]:
    return {b.segment for moment in moments if moment.saved for b in moment.saved.blobs}
