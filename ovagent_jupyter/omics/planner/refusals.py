"""Why a step cannot run on what X holds, said so that the user can act on it."""

from __future__ import annotations

from collections.abc import Collection

from ovagent_jupyter.errors import WorkflowNeedsFallback
from ovagent_jupyter.omics.checks import gaps_remedy
from ovagent_jupyter.omics.planner.order import PRODUCERS
from ovagent_jupyter.omics.state import DataState
from ovagent_jupyter.omics.step import Step, XKind

HOLDS = {
    XKind.COUNTS: "counts", XKind.NORM: "normalised values", XKind.LOGNORM: "log-normalised values",
    XKind.SCALED: "scaled values", XKind.RESIDUAL: "residuals",
    XKind.CORRECTED: "batch-corrected values", XKind.UNKNOWN: "values of unknown kind",
}  # fmt: skip
"""What X holds, in words."""


def unsure(step: Step, state: DataState, *, loaded: bool) -> WorkflowNeedsFallback:
    """The step depends on X, and it is not certain what X holds.

    Args:
        step: The step.
        state: The data when the step would run.
        loaded: Whether the plan itself loads or changes X before.
    """
    return WorkflowNeedsFallback(
        f"It is not certain what X of {state.name} holds, and {step.id} depends on it.",
        missing_slots=("X",),
        nearest_steps=(step.id,),
        why=state.x.evidence,
        next_step=_how_to_be_sure(state, loaded=loaded),
    )


def _how_to_be_sure(state: DataState, *, loaded: bool) -> str:
    if loaded:
        return "Load it first, and ask for the rest in the next request."
    if state.has_nan:
        return gaps_remedy(state.name)
    return "Say it: add 'the data are raw counts' or 'the data are log-normalised'."


def unfit(step: Step, state: DataState) -> WorkflowNeedsFallback:
    """X holds what the step cannot use."""
    wanted = " or ".join(sorted(HOLDS[kind] for kind in step.needs_x))
    counts = XKind.COUNTS in step.needs_x
    return WorkflowNeedsFallback(
        f"{step.id} needs {wanted}, but X holds {HOLDS[state.x.kind]}.",
        missing_slots=("layers/counts",) if counts else ("X",),
        nearest_steps=(step.id,),
        why=state.x.evidence,
        next_step="Load the data with its counts, in X or in layers['counts']."
        if counts
        else "Start from log-normalised values or from counts.",
    )


def missing(
    slot: str, step: Step, start: DataState, excluded: Collection[str]
) -> WorkflowNeedsFallback:
    """The step needs a slot that nothing makes, or whose maker is to be left out."""
    left = PRODUCERS.get(slot) in excluded
    columns = ", ".join(list(start.obs)[:6])
    next_step = "Ask for the step that makes it, or load data that has it."
    if slot.startswith("obs/") and not left:
        next_step = f"Name a column that is there: {columns or 'there is none'}."
    return WorkflowNeedsFallback(
        f"{step.id} needs {slot}, and nothing makes it.",
        missing_slots=(slot,),
        nearest_steps=(step.id,),
        why=f"{PRODUCERS.get(slot)}, which makes it, was to be left out." if left else "",
        next_step=next_step,
    )
