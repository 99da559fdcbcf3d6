"""From what the child sent back to what the user reads and gets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ovagent_jupyter.agent.turn import StepRecord, TurnRequest
from ovagent_jupyter.errors import ResourceLimitExceeded, TurnFailed
from ovagent_jupyter.execution.executor import ExecutionStatus
from ovagent_jupyter.execution.limits import SIZES, describe
from ovagent_jupyter.omics.state import is_anndata

if TYPE_CHECKING:
    from ovagent_jupyter.execution.executor import LimitHit
    from ovagent_jupyter.execution.handover import Changes, ObjectDiff
    from ovagent_jupyter.omics import DataState

_ENDED = {
    ExecutionStatus.DEAD: "ended the child kernel",
    ExecutionStatus.INTERRUPTED: "was interrupted",
}
WALL_TIME = "wall_time"
RAISED_BY_POLICY = frozenset({"memory", "cpu_time", "processes", "file_size", "disk"})
"""Limits that are settings of the sandbox."""
_OTHERWISE = {
    "output": "Let the code print and display less.",
    "files": "Let the code make fewer files, or allow more with %ovagent policy disk.",
}
_NEXT = {
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


def answer_for(diffs: tuple[ObjectDiff, ...], files: tuple[Path, ...] = ()) -> str:
    """The difference as one paragraph, and where the files are that were asked for."""
    changed = "; ".join(diff.summary() for diff in diffs)
    written = f"Written: {', '.join(map(str, files))}." if files else ""
    if changed:
        return f"{changed}. {written}" if written else changed
    return f"Nothing changed in your data. {written}".strip()


def explain_failure(step: StepRecord, *, sent: bool) -> TurnFailed | ResourceLimitExceeded:
    """Why a step failed, in a few lines; the traceback stays with the turn."""
    error = step.error
    kept = " Your data is as it was before this cell." if sent else ""
    if step.limit is not None:
        return _over_limit(step.title, step.limit, kept)
    if step.status in _ENDED:
        what = f"{step.title}: the code {_ENDED[step.status]}."
        why = error.message if error and step.status is ExecutionStatus.DEAD else ""
    else:
        what = f"{step.title}: the code failed."
        why = f"{error.name}: {_first_lines(error.message)}" if error else ""
    advice = _NEXT.get(step.status, "See %ovagent traceback, or change the request.")
    return TurnFailed(what, why=why, next_step=advice + kept)


def _over_limit(title: str, hit: LimitHit, kept: str) -> ResourceLimitExceeded:
    """Which cap a step went over, by how much, and what raises it."""
    ended = "ran longer than its time limit" if hit.limit == WALL_TIME else "went over a cap"
    return ResourceLimitExceeded(
        f"{title}: the code {ended} and was stopped; {describe(hit)}",
        limit=hit.limit,
        cap=hit.cap,
        used=hit.used,
        next_step=_raise_cap(hit) + kept,
    )


def _raise_cap(hit: LimitHit) -> str:
    """What allows twice as much, in a notebook and in a shell."""
    if hit.limit == WALL_TIME:
        return f"Allow more with --timeout {2 * hit.cap:g}, or try on a subsample."
    if hit.limit not in RAISED_BY_POLICY:
        return _OTHERWISE.get(hit.limit, "Try on a subsample.")
    more = _twice(hit)
    flag = hit.limit.replace("_", "-")
    return (
        f"Allow more with %ovagent policy {hit.limit} {more} (in a shell: --{flag} {more}), "
        "or try on a subsample."
    )


def _twice(hit: LimitHit) -> str:
    """Twice a cap, as it is typed: ``16G``, ``600M``, ``7200``."""
    double = math.ceil(2 * hit.cap)
    if hit.limit not in SIZES:
        return str(double)
    for unit, size in (("G", 1 << 30), ("M", 1 << 20)):
        if double >= 10 * size or double % size == 0:
            return f"{math.ceil(double / size)}{unit}"
    return str(double)


def _first_lines(text: str, limit: int = 300) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
