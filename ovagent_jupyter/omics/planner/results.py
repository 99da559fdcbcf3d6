"""Results of a plan: whose markers they are, which are out of date, which values they took."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from ovagent_jupyter.errors import WorkflowNeedsFallback
from ovagent_jupyter.omics.checks import Finding
from ovagent_jupyter.omics.planner.naming import CELL_TYPES
from ovagent_jupyter.omics.planner.plan import PlannedStep
from ovagent_jupyter.omics.planner.wanted import Wanted
from ovagent_jupyter.omics.state import DataState
from ovagent_jupyter.omics.step import STEPS, Params, Step

RANKED = "uns/rank_genes_groups"
"""Slot of the markers."""
SHOWS = frozenset(
    "marker_table plot_dotplot plot_markers plot_heatmap filter_markers marker_overlap".split()
)
"""Steps that show or use the markers of some groups."""
_MOST_COLOURS = 50
_SHOWN = 4
_DEFAULT = re.compile(
    r" \((?:[\d,]+ (?:counts|genes)[^)]*|[^)]* test|[^)]*by default|[^)]*if nothing[^)]*)\)$"
)


def shows_markers(step: str, params: Params) -> bool:
    """Whether a step shows markers that were found, not genes that were named."""
    return step in SHOWS and not params.get("genes")


def grouping(state: DataState) -> str | None:
    """A column of groups to colour by: cell types where there are, else the first one."""
    fit = [
        column.name
        for column in state.obs.values()
        if column.kind == "categorical" and 1 < (column.n_unique or 0) <= _MOST_COLOURS
    ]
    return next((name for name in CELL_TYPES if name in fit), fit[0] if fit else None)


def other_groups(step: str, made: str | None, shown: str) -> WorkflowNeedsFallback:
    """Two groupings in one plan: their markers cannot be held at the same time."""
    return WorkflowNeedsFallback(
        f"{step} would show markers of {made}, not of {shown}.",
        nearest_steps=(step,),
        next_step="Ask for one grouping at a time, or name the genes.",
    )


def unused_value(
    wanted: Mapping[str, Wanted], planned: Sequence[PlannedStep], findings: Sequence[Finding]
) -> WorkflowNeedsFallback | None:
    """The refusal of a plan that would drop a value of the request without a word."""
    held = {row.id for row in planned}
    told = " ".join(finding.message for finding in findings)
    for step in wanted.values():
        if step.params and step.id not in held and f"{step.id} is left out" not in told:
            values = ", ".join(f"{name}={value}" for name, value in step.params.items())
            return WorkflowNeedsFallback(
                f"No step of this plan uses {values}.",
                nearest_steps=(step.id,),
                why=f"It is a value of {step.id}, which would not run.",
                next_step=f"Leave it out, or ask for {step.id}.",
            )
    return None


def note_stale(
    before: DataState, now: DataState, planned: Sequence[PlannedStep], old: Collection[str]
) -> Finding | None:
    """Which results no longer describe the data when the plan is through."""
    touched = {slot for row in planned if row.id in STEPS for slot in STEPS.get(row.id).makes_stale}
    touched |= set(before.made_with)
    stale = [
        slot for slot in sorted(touched) if before.has(slot) and (slot in old or not now.has(slot))
    ]
    if not stale:
        return None
    more = f" and {len(stale) - _SHOWN} more" if len(stale) > _SHOWN else ""
    return Finding(
        "warn",
        f"Out of date after this: {', '.join(stale[:_SHOWN])}{more}.",
        "Compute them again before use.",
    )


def titled(step: Step, wanted: Wanted) -> str:
    """The step's title, without the default that it names where the user set another value."""
    return _DEFAULT.sub("", step.title) if wanted.params else step.title


def decoration(slot: str) -> bool:
    """Slots that say how a result was made; other tools leave them out."""
    return slot.startswith("uns/") and not re.search(r"neighbors|rank_genes|paga|dendrogram", slot)


def complete_pca(
    params: dict[str, object], wanted: Mapping[str, Wanted], done: Collection[str]
) -> None:
    """PCA starts from the scaled layer that this plan makes, and makes enough components."""
    scaled = wanted.get("scale")
    if scaled is not None and "scale" in done and "layer" not in params:
        params["layer"] = scaled.values.get("layer", "scaled")
    graph = wanted.get("neighbors")
    asked = graph.params.get("n_pcs") if graph else 0
    if "n_comps" not in params and isinstance(asked, int) and asked > 50:  # noqa: PLR2004 - the default
        params["n_comps"] = asked
