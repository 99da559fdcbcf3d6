"""Keeps what happened in a session: log, history and notebook are written here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ovagent_jupyter.agent.turn import StepRecord, Turn, TurnRequest
from ovagent_jupyter.config.schema import OFFLINE
from ovagent_jupyter.errors import StorageError
from ovagent_jupyter.events import AgentEvent, Category
from ovagent_jupyter.omics.files import reading_code
from ovagent_jupyter.omics.rendering import PRELUDE
from ovagent_jupyter.storage.history import HistoryEntry, SessionHistory
from ovagent_jupyter.storage.notebook_outputs import notebook_outputs
from ovagent_jupyter.storage.redaction import Redactor
from ovagent_jupyter.storage.session_log import SessionLog
from ovagent_jupyter.storage.session_notebook import (
    RecordedCell,
    RecordedTurn,
    SessionNotebook,
    preload,
)


class Recorder:
    """Writes each event to the log, and each turn to the history and the notebook.

    A file that cannot be written never stops a turn: the user is told once per file, and
    writing is tried again with the next turn.

    Args:
        log: The session's log.
        notebook: The session's notebook.
        history: The history of all sessions; None when it is switched off.
    """

    def __init__(
        self,
        log: SessionLog,
        notebook: SessionNotebook,
        history: SessionHistory | None,
    ) -> None:
        self.log = log
        self.notebook = notebook
        self.history = history
        self._told: set[str] = set()

    @classmethod
    def at(
        cls, directory: Path, session_id: str, redactor: Redactor, history: SessionHistory | None
    ) -> Recorder:
        """The recorder whose log and notebook are in a directory."""
        log = SessionLog(directory, session_id, redactor)
        return cls(log, SessionNotebook(directory, session_id, redactor), history)

    @staticmethod
    def prepare() -> None:
        """Load what writing the first turn needs, which takes a second; safe in any thread."""
        preload()

    def event(self, event: AgentEvent) -> tuple[str, ...]:
        """Append one event to the log; returns what the user must be told.

        Pieces of an answer are left out: what they add up to follows as one event.
        """
        if event.category is Category.MODEL_DELTA:
            return ()
        return self._keep("log", lambda: self.log.append(event))

    def turn(self, turn: Turn, request: TurnRequest) -> tuple[str, ...]:
        """Append one turn to notebook and history; returns what the user must be told."""
        told = self._keep("notebook", lambda: self.notebook.append_turn(_recorded(turn, request)))
        history = self.history
        if history is not None:
            entry = _entry(turn, request.cell_id)
            told += self._keep("history", lambda: history.append(entry))
        return told

    def _keep(self, what: str, write: Callable[[], None]) -> tuple[str, ...]:
        try:
            write()
        except StorageError as error:
            if what in self._told:
                return ()
            self._told.add(what)
            return (f"{error.what} ({error.why}) The turn itself goes on. {error.next_step}",)
        self._told.discard(what)
        return ()


def _entry(turn: Turn, cell_id: str) -> HistoryEntry:
    return HistoryEntry(
        session_id=turn.session_id,
        request=turn.request,
        generated_code=turn.code,
        result_summary=turn.answer,
        usage=turn.usage,
        priority_used=turn.priority_used,
        success=turn.ok,
        cell_id=cell_id,
        model=turn.model or OFFLINE,
        cost=turn.cost,
        duration=turn.duration,
        data_diff="; ".join(diff.summary() for diff in turn.diff),
        sandbox=turn.sandbox.as_summary(),
    )


def _recorded(turn: Turn, request: TurnRequest) -> RecordedTurn:
    cells = [_cell(step) for step in turn.steps]
    if turn.plan is not None and cells:
        cells.insert(0, RecordedCell(code=PRELUDE, step="imports"))
        # Read again, as the turn before left other data under the name.
        cells[1:1] = [
            RecordedCell(code=f"{name} = {reading_code(path)}", step="read")
            for name, path in request.sources.items()
        ]
    return RecordedTurn(
        request=turn.request,
        turn_id=turn.turn_id,
        plan=tuple(step.title for step in turn.plan.steps) if turn.plan else (),
        cells=cells,
        result=turn.answer,
    )


def _cell(step: StepRecord) -> RecordedCell:
    return RecordedCell(
        code=step.code,
        outputs=notebook_outputs(step.outputs, step.error),
        step=step.id,
        seconds=step.duration,
    )
