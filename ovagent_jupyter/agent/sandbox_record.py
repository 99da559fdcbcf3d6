"""Where the code of a turn ran: the level in force, and what led there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ovagent_jupyter.events import AgentEvent, Category, Level
from ovagent_jupyter.execution.executors import level_name

if TYPE_CHECKING:
    from ovagent_jupyter.execution.executor import Executor


_NOT_CONFINED = {
    "process": "Not confined: the code can read your files and use the network.",
    "in_process": "Not confined: the code runs in your own process, with all that is in it.",
}
"""Levels below the boundary of the operating system, and what that means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxRecord:
    """Where the code of a turn ran, and why there."""

    level: str = ""
    """Name of the level in force; empty when nothing ran."""
    requested: str = ""
    """Name of the level that was asked for; differs after a step down."""
    reason: str = ""
    """Why the level that was asked for was not to be had."""
    probe: Mapping[str, object] = field(default_factory=dict)
    """What was found on this machine at the step down."""
    told: bool = True
    """Whether the policy says that a step down is shown; a silent one is only recorded."""
    protections: Mapping[str, str] = field(default_factory=dict)
    """Each as measured where the code ran."""

    @property
    def stepped_down(self) -> bool:
        """Whether it is weaker than what was asked for."""
        return bool(self.requested) and self.level != self.requested

    @property
    def label(self) -> str:
        """The level in two words."""
        if self.level in _NOT_CONFINED:
            return f"no sandbox ({self.level})"
        return f"sandbox: {self.level}" if self.level else ""

    @property
    def banner(self) -> str:
        """What a reader must see above every turn that ran here; empty when all is well."""
        said = _NOT_CONFINED.get(self.level, "")
        if self.stepped_down and (self.told or said):
            why = f" instead of {self.requested}: {self.reason}"
            return f"{said} Level {self.level}{why}".strip()
        return said

    def as_summary(self) -> dict[str, object]:
        """The level, and after a step down what was requested, why, and what was found."""
        if not self.stepped_down:
            return {"level": self.level} if self.level else {}
        return {
            "level": self.level,
            "requested": self.requested,
            "actual": self.level,
            "reason": self.reason,
            "probe": dict(self.probe),
        }

    def as_record(self) -> dict[str, object]:
        """As JSON-able values: the summary, with each protection."""
        protections = {"protections": dict(self.protections)} if self.protections else {}
        return {**self.as_summary(), **protections}


class Watch:
    """Keeps what an executor tells of stepping down, for all turns that follow."""

    def __init__(self) -> None:
        self._steps_down: list[AgentEvent] = []
        self._settled = False

    def note(self, event: AgentEvent) -> None:
        """Remember an event of the executor, if it is a step down."""
        if event.category is Category.SANDBOX_FALLBACK:
            self._steps_down.append(event)

    def starting(self) -> None:
        """The executor is about to be started; a start that failed before is forgotten."""
        if not self._settled:
            self._steps_down.clear()

    def started(self, executor: Executor) -> SandboxRecord:
        """Where code runs now that the executor is up."""
        self._settled = True
        level = level_name(executor.isolation)
        protections = dict(executor.protections)
        if not self._steps_down:
            return SandboxRecord(level=level, requested=level, protections=protections)
        first, last = self._steps_down[0], self._steps_down[-1]
        probe = last.data.get("probe")
        return SandboxRecord(
            level=level,
            requested=str(first.data.get("requested", "")),
            reason=" ".join(str(event.data.get("reason", "")) for event in self._steps_down),
            probe=dict(probe) if isinstance(probe, dict) else {},
            told=any(event.level is not Level.DEBUG for event in self._steps_down),
            protections=protections,
        )
