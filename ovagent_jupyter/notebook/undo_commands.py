"""``%ovagent undo``, ``redo``, ``checkpoint``, ``restore`` and ``diff``: what they answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ovagent_jupyter.agent.turn import Turn
from ovagent_jupyter.errors import ConfigError
from ovagent_jupyter.notebook.arguments import DROP
from ovagent_jupyter.notebook.namespace import Namespace
from ovagent_jupyter.notebook.shown import Shown
from ovagent_jupyter.notebook.undo_details import COLUMNS, rows_of
from ovagent_jupyter.notebook.undo_memory import shown_size
from ovagent_jupyter.notebook.undo_steps import Moved

_NEAR = 0.5
"""Share of a name that must be right to be what was meant."""


class UndoCommands:
    """The commands that go back and forth in the user's variables.

    Args:
        namespace: The user's variables.
        last_turn: Gives the last turn of the current session.
    """

    def __init__(self, namespace: Namespace, last_turn: Callable[[], Turn | None]) -> None:
        self._namespace = namespace
        self._last_turn = last_turn

    def undo(self, argument: str) -> Shown:
        """Take back the last step, or the last N."""
        steps = number(argument, 1, "undo")
        if not self._namespace.back:
            return Shown("There is nothing to undo")
        return _told("Undone", self._namespace.undo(steps), steps, "%ovagent redo")

    def redo(self, argument: str) -> Shown:
        """Take back the last ``undo``, or the last N."""
        steps = number(argument, 1, "redo")
        if not self._namespace.forward:
            return Shown("There is nothing to redo")
        return _told("Done again", self._namespace.redo(steps), steps, "%ovagent undo")

    def checkpoint(self, argument: str) -> Shown:
        """Keep the data under a name, drop a checkpoint, or list all."""
        first, _, rest = argument.partition(" ")
        if not argument:
            return self._list()
        if first == DROP and rest:
            self._namespace.memory.drop(self._known(rest.strip()))
            return Shown(f"Dropped: {rest.strip()}")
        if not argument.isidentifier() or argument == DROP:
            raise ConfigError(
                f"{argument!r} cannot be the name of a checkpoint.",
                next_step="Use letters, digits and _, as in %ovagent checkpoint before_qc.",
            )
        replaced = argument in self._namespace.checkpoints
        made, notices = self._namespace.checkpoint(argument)
        again = ", in place of the former one" if replaced else ""
        names = ", ".join(made.held) or "no data yet"
        note = f"%ovagent restore {argument} brings it back."
        return Shown(f"Checkpoint {argument}{again}: {names}", note=" ".join([note, *notices]))

    def restore(self, argument: str) -> Shown:
        """Bring back what a checkpoint holds."""
        if not argument:
            raise ConfigError("restore needs the name of a checkpoint.", next_step=self._names())
        name = self._known(argument)
        moved, notices = self._namespace.restore(name)
        if not moved.restored:
            return Shown(f"Your data is as in checkpoint {name}")
        title = f"Restored from {name}: {', '.join(moved.restored)}"
        return Shown(title, note=" ".join([_remarks(moved), "%ovagent undo undoes it.", *notices]))

    def diff(self, argument: str) -> Shown:
        """What the last turn changed, or the step that many steps back."""
        if argument:
            back = number(argument, 1, "diff")
            if back > len(self._namespace.back):
                raise ConfigError(
                    f"There are only {len(self._namespace.back)} steps to look at.",
                    next_step="%ovagent status says how many can be undone.",
                )
            step = self._namespace.back[-back]
        else:
            turn = self._last_turn()
            if turn is None:
                return Shown("No turn yet")
            found = self._namespace.step_of(turn.turn_id)
            if found is None:
                rows = tuple((line,) for diff in turn.diff for line in diff.lines())
                return Shown(turn.answer if rows else "The last turn changed nothing", ("",), rows)
            step = found
        title = f"{step.request} · {step.when:%H:%M}"
        return Shown(title, COLUMNS, rows_of(step))

    def state(self) -> str:
        """For ``status``: how far back and forward, how many checkpoints, how much memory."""
        space = self._namespace
        size, limit = space.memory.size(space.variables), space.memory.limit
        return (
            f"{_counted(len(space.back), 'step')} back, {len(space.forward)} forward, "
            f"{_counted(len(space.checkpoints), 'checkpoint')}, "
            f"{shown_size(size)} of {shown_size(limit)}"
        )

    def _list(self) -> Shown:
        rows = tuple(
            (each.name, f"{each.when:%Y-%m-%d %H:%M}", ", ".join(each.held))
            for each in self._namespace.checkpoints.values()
        )
        title = "Checkpoints" if rows else "There is no checkpoint yet"
        note = "%ovagent checkpoint NAME makes one; restore NAME, checkpoint drop NAME."
        return Shown(title, ("name", "when", "holds"), rows, note)

    def _known(self, name: str) -> str:
        """The name of a checkpoint that is there.

        Raises:
            ConfigError: There is none of that name.
        """
        if name in self._namespace.checkpoints:
            return name
        near = _nearest(name, self._namespace.checkpoints)
        raise ConfigError(
            f"There is no checkpoint {name!r}.",
            next_step=f"Did you mean {near}?" if near else self._names(),
        )

    def _names(self) -> str:
        names = ", ".join(self._namespace.checkpoints)
        return f"There are: {names}." if names else "Make one with %ovagent checkpoint NAME."


def number(text: str, default: int, command: str) -> int:
    """The number behind a command.

    Raises:
        ConfigError: It is none, or below 1.
    """
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise ConfigError(
            f"{text!r} is not a number of turns.", next_step=f"As in %ovagent {command} 2."
        )
    return int(text)


def _nearest(name: str, names: Iterable[str]) -> str:
    # Only a name that is not there needs it.
    from rapidfuzz import process
    from rapidfuzz.distance import OSA

    found = process.extractOne(name, list(names), scorer=OSA.normalized_similarity)
    return found[0] if found is not None and found[1] >= _NEAR else ""


def _told(verb: str, moved: tuple[Moved, ...], wanted: int, opposite: str) -> Shown:
    """What became of the names, a row for each step."""
    rows = tuple((each.request, _names_of(each), _remarks(each)) for each in moved)
    what = moved[0].request if len(moved) == 1 else _counted(len(moved), "step")
    fewer = f" (there were no more than {len(moved)})" if len(moved) < wanted else ""
    note = f"{opposite} takes that back."
    return Shown(f"{verb}: {what}{fewer}", ("step", "variables", "note"), rows, note)


def _names_of(moved: Moved) -> str:
    parts = [*moved.restored, *(f"{name} (removed)" for name in moved.removed)]
    return ", ".join(parts) or "none"


def _remarks(moved: Moved) -> str:
    remarks = {
        "left alone, as you bound it anew": moved.kept,
        "you had changed it since, which is kept": moved.changed,
        "a new object with the former content": moved.rebuilt,
    }
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in remarks.items() if names)


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'s' * (count != 1)}"
