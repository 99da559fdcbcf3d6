"""What the planner answers: a plan, shown as a table and as code that can be edited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ovagent_jupyter.omics.checks import Finding
from ovagent_jupyter.omics.rendering import PRELUDE
from ovagent_jupyter.omics.step import STEPS


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step of a plan."""

    id: str
    title: str
    params: Mapping[str, object]
    """What was set; the step's defaults fill in the rest."""
    code: str
    reason: str
    """The words that asked for it, or what needs it."""
    inserted_because: str = ""
    """What needs it; empty for a step that the user asked for."""
    writes: tuple[str, ...] = ()
    """Slots that it makes."""
    outputs: tuple[str, ...] = ()
    """Variables that it binds beside the AnnData."""

    @property
    def settings(self) -> dict[str, object]:
        """All parameters as they will be used: those that were set, and the defaults."""
        return {**STEPS.get(self.id).defaults(), **self.params}


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One line of a plan's table."""

    n: int
    step: str
    parameters: str
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps that answer a request, in the order in which they run."""

    request: str
    steps: tuple[PlannedStep, ...]
    confidence: float
    """0 to 1: how well the words of the request are explained, at the weakest clause."""
    findings: tuple[Finding, ...] = ()
    """Warnings of the science guards."""
    unresolved: tuple[str, ...] = ()
    """Clauses that were not understood; only a partial plan has any."""
    name: str = "adata"
    """Variable that holds the data."""

    @property
    def params(self) -> Mapping[str, Mapping[str, object]]:
        """Parameters by step id."""
        return {step.id: step.params for step in self.steps}

    @property
    def reasons(self) -> Mapping[str, str]:
        """Why each step is there, by step id."""
        return {step.id: step.reason for step in self.steps}

    @property
    def inserted_because(self) -> Mapping[str, str]:
        """What needs the steps that were added, by step id."""
        return {step.id: step.inserted_because for step in self.steps if step.inserted_because}

    @property
    def outputs(self) -> tuple[str, ...]:
        """New variables, in the order in which they are bound."""
        return tuple(dict.fromkeys(name for step in self.steps for name in step.outputs))

    @property
    def code(self) -> str:
        """The whole plan as code that runs as it is."""
        return "\n\n".join([PRELUDE, *(f"# {step.title}\n{step.code}" for step in self.steps)])

    def as_table(self) -> list[PlanRow]:
        """The plan as rows to show."""
        return [
            PlanRow(n, step.title, parameters(step.settings), step.reason)
            for n, step in enumerate(self.steps, start=1)
        ]

    def as_record(self) -> dict[str, object]:
        """The plan as plain values, for the log."""
        return {
            "request": self.request,
            "name": self.name,
            "confidence": round(self.confidence, 3),
            "unresolved": list(self.unresolved),
            "findings": [{"level": f.level, "message": f.message} for f in self.findings],
            "steps": [
                {
                    "id": step.id,
                    "params": {key: _plain(value) for key, value in step.params.items()},
                    "code": step.code,
                    "reason": step.reason,
                    "inserted_because": step.inserted_because,
                }
                for step in self.steps
            ],
        }


def parameters(params: Mapping[str, object]) -> str:
    """Parameters in one short line."""
    return ", ".join(f"{key}={_short(value)}" for key, value in params.items())


def _short(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return str(value)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
