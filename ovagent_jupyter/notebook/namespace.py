"""The user's variables: results are bound in one step, and every step can be undone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from ovagent_jupyter.errors import OVAgentError
from ovagent_jupyter.notebook.data_size import is_data
from ovagent_jupyter.notebook.undo_memory import UndoMemory
from ovagent_jupyter.notebook.undo_steps import (
    GONE,
    Binding,
    Checkpoint,
    Moment,
    Moments,
    Moved,
    Moving,
    UndoStep,
    first_words,
)

if TYPE_CHECKING:
    from ovagent_jupyter.agent.turn import Turn
    from ovagent_jupyter.execution.handover import ObjectDiff
    from ovagent_jupyter.execution.handover.saved import Saved
    from ovagent_jupyter.execution.handover.store import Store

_ABSENT: Final = object()
_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, type)
"""What cannot change needs no saving."""


class Namespace:
    """The variables of the user's kernel, changed only at the end of a turn or by a command.

    What an object was is kept in the store, where equal bytes are kept once, so a step costs
    what it changed. Nothing of it lives in a child.

    Args:
        variables: The live mapping (``shell.user_ns``).
        store: Gives the store that the hand-over uses as well.
        limit: Gives the bytes that steps and checkpoints may hold.
    """

    def __init__(
        self,
        variables: MutableMapping[str, object],
        store: Callable[[], Store],
        limit: Callable[[], int],
    ) -> None:
        self.variables = variables
        self._store = store
        self.memory = UndoMemory(limit)
        # The binding of each name as the last step left it: the next one takes it up. Weakly,
        # since what no step holds any more is not ours to keep.
        self._current: WeakValueDictionary[str, Binding] = WeakValueDictionary()

    @property
    def back(self) -> list[UndoStep]:
        """The steps that can be undone, the last one last."""
        return self.memory.back

    @property
    def forward(self) -> list[UndoStep]:
        """The steps that can be redone, the next one last."""
        return self.memory.forward

    @property
    def checkpoints(self) -> Mapping[str, Checkpoint]:
        """The checkpoints by name, the oldest first."""
        return self.memory.checkpoints

    def step_of(self, turn_id: str) -> UndoStep | None:
        """The step of a turn, undone or not."""
        return next((s for s in (*self.back, *self.forward) if s.turn_id == turn_id), None)

    def bind(self, turn: Turn, handed: Mapping[str, object]) -> tuple[str, ...]:
        """Bind the results of a turn; a turn that binds nothing changes nothing.

        Args:
            turn: The turn, at its end.
            handed: The user's variables as they were at its beginning.

        Returns:
            What the user must be told.
        """
        fresh = {
            name: value
            for name, value in turn.bindings.items()
            if self.variables.get(name, _ABSENT) is not value
        }
        if not fresh:
            return ()
        before = self._now(fresh, self._known(turn, handed))
        saved = self._save(fresh)
        after = {name: Moment(Binding(value), saved.get(name)) for name, value in fresh.items()}
        rebound = [
            name
            for name in fresh
            if self.variables.get(name, _ABSENT) is not handed.get(name, _ABSENT)
        ]
        self._push(turn.turn_id, turn.request, before, after, turn.diff)
        notices = self.memory.make_room(self.variables)
        if not rebound:
            return notices
        names = ", ".join(rebound)
        told = (
            f"{names}: bound anew, or deleted, while the code ran. The result is bound now; "
            "yours is one %ovagent undo away."
        )
        return (told, *notices)

    def undo(self, steps: int = 1) -> tuple[Moved, ...]:
        """Take back the last steps, one by one; fewer when there are not as many.

        A name that the user has bound anew since its step is left alone. An object that the
        user has changed in place since is saved as it is first, for ``redo``.

        Raises:
            HandoverError: An object cannot be rebuilt; the steps before it are undone.
        """
        moved = []
        for _ in range(min(steps, len(self.back))):
            step = self.back[-1]
            moving = self._prepare(step.after, step.before)
            former = _bring_back(moving)
            # Recorded before it is done: an interrupt between the two loses no state.
            self.back.pop()
            self.forward.append(replace(step, after={**step.after, **moving.found}))
            moved.append(self._carry_out(step.request, moving, former))
        return tuple(moved)

    def redo(self, steps: int = 1) -> tuple[Moved, ...]:
        """Take back the last ``undo``, step by step, under the same rules.

        Raises:
            HandoverError: An object cannot be rebuilt; the steps before it are redone.
        """
        moved = []
        for _ in range(min(steps, len(self.forward))):
            step = self.forward[-1]
            moving = self._prepare(step.before, step.after)
            former = _bring_back(moving)
            self.forward.pop()
            self.back.append(replace(step, before={**step.before, **moving.found}))
            moved.append(self._carry_out(step.request, moving, former))
        return tuple(moved)

    def checkpoint(self, name: str) -> tuple[Checkpoint, tuple[str, ...]]:
        """Keep the user's data as it is now: data objects, and what turns have bound.

        Returns:
            The checkpoint, and what the user must be told.

        Raises:
            HandoverError: There is no room to save it.
        """
        bound = {name for step in (*self.back, *self.forward) for name in step.after}
        objects = {
            key: value
            for key, value in self.variables.items()
            if not key.startswith("_") and (key in bound or is_data(value))
        }
        saved = self._keep(objects)
        held = {key: Moment(Binding(v), saved.get(key)) for key, v in objects.items()}
        made = Checkpoint(name=name, when=_now(), held=held)
        self.memory.keep(made)
        return made, self.memory.make_room(self.variables)

    def restore(self, name: str) -> tuple[Moved, tuple[str, ...]]:
        """Give the names of a checkpoint what they had then; a step that can be undone.

        Names that are not in it are left alone.

        Returns:
            What became of the names, and what the user must be told.

        Raises:
            KeyError: There is no such checkpoint.
            HandoverError: An object cannot be rebuilt; nothing was changed.
        """
        held = self.checkpoints[name].held
        # A binding of its own each time: the checkpoint must not follow what becomes of it.
        targets = {
            key: Moment(Binding(moment.binding.value), moment.saved)
            for key, moment in held.items()
            if self.variables.get(key, _ABSENT) is not moment.binding.value or moment.changed
        }
        if not targets:
            return Moved(), ()
        before = self._now(targets, {})
        request = f"restore {name}"
        moving = Moving(found=dict(before), targets=dict(targets))
        former = _bring_back(moving)
        self._push("", request, before, targets)
        return self._carry_out(request, moving, former), self.memory.make_room(self.variables)

    def _push(
        self,
        turn_id: str,
        request: str,
        before: Moments,
        after: Moments,
        diff: tuple[ObjectDiff, ...] = (),
    ) -> None:
        # Recorded before it is done: an interrupt between the two loses no state.
        self.forward.clear()
        self.back.append(
            UndoStep(
                turn_id=turn_id,
                request=first_words(request),
                when=_now(),
                before=before,
                after=after,
                diff=diff,
            )
        )
        self._bind(after)

    def _known(self, turn: Turn, handed: Mapping[str, object]) -> Mapping[int, Saved]:
        """Objects that are as they were handed over, by identity, with what they were saved as."""
        return {
            id(handed[name]): saved
            for name, saved in turn.before.items()
            if name in handed and name not in turn.changed_meanwhile
        }

    def _now(self, names: Iterable[str], known: Mapping[int, Saved]) -> dict[str, Moment | None]:
        """What the names are bound to, saved as it is."""
        values = {name: self.variables[name] for name in names if name in self.variables}
        saved = {name: known[id(value)] for name, value in values.items() if id(value) in known}
        saved |= self._save({n: v for n, v in values.items() if n not in saved})
        return {
            name: Moment(self._binding(values[name]), saved.get(name)) if name in values else None
            for name in names
        }

    def _binding(self, value: object) -> Binding:
        known = (held for held in self._current.values() if held.value is value)
        return next(known, None) or Binding(value)

    def _save(self, objects: Mapping[str, object]) -> Mapping[str, Saved]:
        """Keep objects as they are; those that there is no room for only by reference."""
        try:
            return self._keep(objects)
        except (OVAgentError, OSError, MemoryError):
            return {}

    def _keep(self, objects: Mapping[str, object]) -> Mapping[str, Saved]:
        """Save what can change, and lay it on what was saved, so that it is held once.

        Raises:
            HandoverError: There is no room.
        """
        mutable = {name: value for name, value in objects.items() if not _is_plain(value)}
        if not mutable:
            return {}
        from ovagent_jupyter.execution.handover.adopt import adopt

        saved = self._store().save(mutable)
        for name, each in saved.items():
            adopt(mutable[name], each)
        return saved

    def _prepare(self, here: Moments, there: Moments) -> Moving:
        """What a move from one side of a step to the other takes; nothing is changed yet."""
        moving = Moving()
        for name, moment in here.items():
            expected = _ABSENT if moment is None else moment.binding.value
            if self.variables.get(name, _ABSENT) is not expected:
                moving.kept.append(name)
                continue
            moving.targets[name] = there[name]
            if moment is not None and (moment.saved is None or moment.changed):
                if moment.saved is not None:
                    moving.changed.append(name)
                fresh = self._save({name: moment.binding.value}).get(name)
                moment = Moment(moment.binding, fresh)
            moving.found[name] = moment
        return moving

    def _carry_out(self, request: str, moving: Moving, former: Mapping[str, object]) -> Moved:
        """Bind what was prepared, all of it in one go."""
        self._bind(moving.targets)
        return Moved(
            request=request,
            restored=tuple(former),
            removed=tuple(n for n, m in moving.targets.items() if m is None),
            kept=tuple(moving.kept),
            changed=tuple(moving.changed),
            rebuilt=tuple(
                name
                for name, old in former.items()
                if old is not GONE and self.variables[name] is not old
            ),
        )

    def _bind(self, moments: Moments) -> None:
        for name, moment in moments.items():
            if moment is None:
                self._current.pop(name, None)
                self.variables.pop(name, None)
            else:
                self._current[name] = moment.binding
                self.variables[name] = moment.binding.value


def _bring_back(moving: Moving) -> Mapping[str, object]:
    """Rebuild what a move binds and is not as it was; the objects as they were found."""
    former = {n: m.binding.value for n, m in moving.targets.items() if m is not None}
    for moment in moving.targets.values():
        if moment is not None:
            moment.bring_back()
    return former


def _is_plain(value: object) -> bool:
    return isinstance(value, _PLAIN)


def _now() -> datetime:
    return datetime.now(UTC).astimezone()
