"""What one turn is asked, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ovagent_jupyter.agent.sandbox_record import SandboxRecord
from ovagent_jupyter.messages import Usage

if TYPE_CHECKING:
    from ovagent_jupyter.errors import OVAgentError
    from ovagent_jupyter.execution.executor import CodeError, ExecutionStatus, LimitHit, Output
    from ovagent_jupyter.execution.handover import LeftBehind, ObjectDiff, Saved
    from ovagent_jupyter.omics import Plan

TURN_MIME = "application/vnd.ovagent.turn.v1+json"
"""MIME type under which a notebook keeps the record of a turn."""
Mode = Literal["run", "plan", "code", "ask"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRequest:
    """One request, with the data it may use."""

    text: str
    """What the user wrote."""
    mode: Mode = "run"
    """``plan`` shows the steps, ``code`` also the code, ``ask`` has a model answer in words."""
    namespace: Mapping[str, object] = field(default_factory=dict)
    """The user's variables; only those that are chosen leave the user's kernel."""
    inputs: tuple[str, ...] = ()
    """Names handed to the child; empty: those the request mentions, or the only AnnData."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Name to bind → name in the child; empty: whatever changed or is new."""
    dry_run: bool = False
    """Say what asking a model would cost, and ask nothing."""
    timeout: float | None = None
    """Seconds per step; None for the configured limit."""
    cell_id: str = ""
    """Id of the notebook cell, where there is one."""
    sources: Mapping[str, Path] = field(default_factory=dict)
    """Name → file it was read from, so that the session notebook can be run again."""


class TurnStatus(StrEnum):
    """How a turn ended."""

    FINISHED = "finished"
    PLANNED = "planned"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One step as it really ran."""

    id: str
    title: str
    code: str
    status: ExecutionStatus
    duration: float
    """Seconds of wall time."""
    outputs: tuple[Output, ...] = ()
    error: CodeError | None = None
    limit: LimitHit | None = None
    """The cap it went over, if that ended it."""

    def as_record(self) -> dict[str, object]:
        """As JSON-able values, without the outputs."""
        return {
            "id": self.id,
            "title": self.title,
            "code": self.code,
            "status": self.status.value,
            "duration": round(self.duration, 3),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one turn gave: how it ended, what ran, and what changed."""

    request: str
    session_id: str
    turn_id: str
    status: TurnStatus
    answer: str
    """One paragraph for the user: what was done and what changed."""
    plan: Plan | None = None
    code: str = ""
    """All code of the plan, runnable by itself where ``data`` is bound."""
    steps: tuple[StepRecord, ...] = ()
    """The steps that ran, in order; the last one may have failed."""
    bindings: Mapping[str, object] = field(default_factory=dict)
    """Names to bind to new objects; empty when nothing changed or the turn failed."""
    data_name: str = "adata"
    data: object = None
    """The main object after the turn: the changed one, or the one that was given."""
    diff: tuple[ObjectDiff, ...] = ()
    before: Mapping[str, Saved] = field(default_factory=dict)
    """What was handed over, as it was then; ``turn.before["adata"].restore()`` gives it again."""
    changed_meanwhile: tuple[str, ...] = ()
    """Objects that you changed in place while the code ran; the results know nothing of that."""
    left_behind: tuple[LeftBehind, ...] = ()
    """What could not cross the border, with the reason."""
    effects: tuple[str, ...] = ()
    """What the code does to the user's work, read from the code before it runs."""
    files: tuple[Path, ...] = ()
    """Files that the user asked for, where they are now."""
    sandbox: SandboxRecord = field(default_factory=SandboxRecord)
    """Where the code ran."""
    error: OVAgentError | None = None
    """Why the turn failed, for a reader."""
    code_error: CodeError | None = None
    """The exception of the failed step, with its traceback."""
    usage: Usage = field(default_factory=Usage)
    cost: float | None = 0.0
    """Money spent on models in US dollars; None when a price is not known."""
    duration: float = 0.0
    """Seconds of wall time."""
    priority_used: int = 1
    """1: the offline planner answered; 2: a model did."""
    model: str = ""
    """Model that answered, as its service names it; empty where none was asked."""

    @property
    def outputs(self) -> tuple[Output, ...]:
        """All outputs of all steps, in order."""
        return tuple(output for step in self.steps for output in step.outputs)

    @property
    def ok(self) -> bool:
        """Whether the turn did what it set out to do."""
        return self.status in {TurnStatus.FINISHED, TurnStatus.PLANNED}

    def __repr__(self) -> str:
        return f"<Turn {self.turn_id} {self.status.value}: {self.answer or self.request}>"

    def as_record(self) -> dict[str, object]:
        """The turn as JSON-able values, without data or outputs."""
        return {
            "request": self.request,
            "session_id": self.session_id,
            "turn_id": self.turn_id,
            "status": self.status.value,
            "answer": self.answer,
            "steps": [step.as_record() for step in self.steps],
            "effects": list(self.effects),
            "files": [str(path) for path in self.files],
            "sandbox": self.sandbox.as_record(),
            "diff": [change.summary() for change in self.diff],
            "priority_used": self.priority_used,
            "model": self.model,
            "usage": self.usage.as_record(),
            "cost": self.cost,
            "duration": round(self.duration, 3),
        }
