"""What is known of a running turn; it becomes the ``Turn``, however the turn ends."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ovagent_jupyter.agent.results import answer_for
from ovagent_jupyter.agent.sandbox_record import SandboxRecord
from ovagent_jupyter.agent.turn import StepRecord, Turn, TurnRequest, TurnStatus
from ovagent_jupyter.messages import Usage

if TYPE_CHECKING:
    from ovagent_jupyter.errors import OVAgentError
    from ovagent_jupyter.execution.executor import CodeError
    from ovagent_jupyter.execution.handover import Changes, ObjectDiff, Saved
    from ovagent_jupyter.omics import Plan
    from ovagent_jupyter.providers.client import Reply


class Draft:
    """A turn in the making.

    Args:
        request: What was asked.
        session_id: Id of the session.
        turn_id: Id of the turn.
    """

    def __init__(self, request: TurnRequest, session_id: str, turn_id: str) -> None:
        self.request = request
        self.plan: Plan | None = None
        self.effects: tuple[str, ...] = ()
        self.sandbox = SandboxRecord()
        self.before: Mapping[str, Saved] = {}
        self.steps: list[StepRecord] = []
        self.replies: list[Reply] = []
        self._ids = (session_id, turn_id)
        self._started = time.monotonic()

    def planned(self) -> Turn:
        """The turn whose code was not to be run."""
        count = counted(len(self.plan.steps) if self.plan else 0, "step")
        return replace(self._turn(TurnStatus.PLANNED), answer=f"{count} planned; nothing was run.")

    def answered(self, reply: Reply) -> Turn:
        """The turn whose question a model has answered."""
        self.replies.append(reply)
        refused = str(reply.details.get("refusal") or "")
        answer = reply.message.text.strip() or refused or "The model gave no answer."
        return replace(self._turn(TurnStatus.FINISHED), answer=answer, priority_used=2)

    def estimated(self, estimate: str) -> Turn:
        """The turn that only says what asking would cost."""
        return replace(self._turn(TurnStatus.PLANNED), answer=f"{estimate} Nothing was asked.")

    def failed(self, error: OVAgentError, code_error: CodeError | None = None) -> Turn:
        """The turn that could not be brought to its end."""
        turn = self._turn(TurnStatus.FAILED)
        spent = getattr(error, "usage", None)
        usage = turn.usage + spent if isinstance(spent, Usage) else turn.usage
        return replace(turn, answer=error.what, error=error, code_error=code_error, usage=usage)

    def interrupted(self) -> Turn:
        """The turn that the user stopped."""
        turn = self._turn(TurnStatus.INTERRUPTED)
        return replace(turn, answer="Stopped by the user; the data is as it was before.")

    def finished(
        self,
        bindings: Mapping[str, object],
        diffs: tuple[ObjectDiff, ...],
        changes: Changes,
        files: tuple[Path, ...],
    ) -> Turn:
        """The turn that did what it set out to do."""
        turn = self._turn(TurnStatus.FINISHED)
        return replace(
            turn,
            answer=answer_for(diffs, files),
            bindings=bindings,
            diff=diffs,
            left_behind=changes.left_behind,
            changed_meanwhile=changes.changed_meanwhile,
            files=files,
            data=bindings.get(turn.data_name, turn.data),
        )

    def _turn(self, status: TurnStatus) -> Turn:
        session_id, turn_id = self._ids
        name = self.plan.name if self.plan else "adata"
        return Turn(
            request=self.request.text,
            session_id=session_id,
            turn_id=turn_id,
            status=status,
            answer="",
            plan=self.plan,
            code=self.plan.code if self.plan else "",
            steps=tuple(self.steps),
            effects=self.effects,
            sandbox=self.sandbox,
            before=self.before,
            data_name=name,
            data=self.request.namespace.get(name),
            usage=sum((reply.usage for reply in self.replies), Usage()),
            cost=_sum(reply.cost for reply in self.replies),
            model=self.replies[-1].model if self.replies else "",
            duration=time.monotonic() - self._started,
        )


def _sum(costs: Iterable[float | None]) -> float | None:
    """What all calls cost; None as soon as one price is not known."""
    total = 0.0
    for cost in costs:
        if cost is None:
            return None
        total += cost
    return total


def counted(number: int, thing: str) -> str:
    """A number with its noun."""
    return f"{number} {thing}{'s' * (number != 1)}"
