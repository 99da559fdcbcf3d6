"""From what the child sent back to what the user reads and gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ovagent_jupyter.agent.turn import StepRecord, TurnRequest
from ovagent_jupyter.errors import TurnFailed
from ovagent_jupyter.execution.executor import ExecutionStatus
from ovagent_jupyter.omics.state import is_anndata

if TYPE_CHECKING:
    from ovagent_jupyter.execution.handover import Changes, ObjectDiff
    from ovagent_jupyter.omics import DataState

_ENDED = {
    ExecutionStatus.TIMEOUT: "ran longer than its time limit and was stopped",
    ExecutionStatus.DEAD: "ended the child kernel",
    ExecutionStatus.LIMIT: "went over a limit and was stopped",
    ExecutionStatus.INTERRUPTED: "was interrupted",
}
_NEXT = {
    ExecutionStatus.TIMEOUT: "Allow more with --timeout SECONDS, or try on a subsample.",
    ExecutionStatus.DEAD: "Run the cell again: a fresh child kernel starts with your data.",
}


def bindings_of(
    changes: Changes, request: TurnRequest, state: DataState | None
) -> tuple[dict[str, object], tuple[ObjectDiff, ...]]:
    """What to bind in the user's namespace, and the difference as shown.

    With explicit outputs only those are bound; a new name that the user already has is bound
    too, as ``undo`` gives the old one back.
    """
    objects: Mapping[str, object] = changes.objects
    if request.outputs:
        # What was asked for by name is bound also when the code left it as it was.
        held = {**request.namespace, **objects}
        bindings = {new: held[old] for new, old in request.outputs.items() if old in held}
    else:
        bindings = dict(objects)
    diffs = tuple(
        _with_x_states(diff, changes.objects.get(diff.name), state)
        for diff in changes.diffs
        if diff.kind != "unchanged"
    )
    if request.outputs:
        diffs = tuple(
            replace(diff, name=new)
            for new, old in request.outputs.items()
            for diff in diffs
            if diff.name == old
        )
    return bindings, diffs


def _with_x_states(diff: ObjectDiff, after: object, before: DataState | None) -> ObjectDiff:
    """Say what X held and holds: ``~X counts → lognorm``."""
    if before is None or before.name != diff.name or not is_anndata(after):
        return diff
    from ovagent_jupyter.omics import describe

    now = describe(after, diff.name).x.kind
    if now == before.x.kind:
        return diff
    slots = tuple(
        replace(slot, note=f"{before.x.kind} → {now}") if slot.path == "X" else slot
        for slot in diff.slots
    )
    return replace(diff, slots=slots)


def answer_for(diffs: tuple[ObjectDiff, ...]) -> str:
    """The difference as one paragraph."""
    return "; ".join(diff.summary() for diff in diffs) or "Nothing changed in your data."


def explain_failure(step: StepRecord, *, sent: bool) -> TurnFailed:
    """Why a step failed, in a few lines; the traceback stays with the turn."""
    error = step.error
    if step.status in _ENDED:
        what = f"{step.title}: the code {_ENDED[step.status]}."
        why = error.message if error and step.status is ExecutionStatus.DEAD else ""
    else:
        what = f"{step.title}: the code failed."
        why = f"{error.name}: {_first_lines(error.message)}" if error else ""
    kept = " Your data is as it was before this cell." if sent else ""
    advice = _NEXT.get(step.status, "See %ovagent traceback, or change the request.")
    return TurnFailed(what, why=why, next_step=advice + kept)


def _first_lines(text: str, limit: int = 300) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
