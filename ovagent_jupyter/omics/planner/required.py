"""What a step cannot do without: filled in from the data, or asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ovagent_jupyter.omics.planner.naming import BATCHES
from ovagent_jupyter.omics.planner.wanted import Problem, Wanted
from ovagent_jupyter.omics.state import DataState
from ovagent_jupyter.omics.step import STEPS, Param


def fill_required(wanted_steps: Mapping[str, Wanted], state: DataState | None) -> list[Problem]:
    """Batch columns are guessed by name; anything else required must have been said."""
    problems: list[Problem] = []
    for wanted in wanted_steps.values():
        for param in _missing(wanted):
            held = None
            if param.name in ("batch_key", "sample") and state is not None:
                held = next((name for name in BATCHES if name in state.obs), None)
            if held:
                wanted.params[param.name] = held
            elif wanted.clauses:
                why, next_step = _missing_text(wanted.id, param, state)
                problems.append(Problem(wanted.reason[12:-1], why, next_step))
        key = wanted.preset
        for name, value in list(key.items()):
            if isinstance(value, list):
                batch = wanted_steps.get("harmony")
                known = batch.params.get("batch_key") if batch else None
                key[name] = [str(known) if item == "{batch_key}" else item for item in value]
    return problems


def _missing(wanted: Wanted) -> Iterator[Param]:
    for param in STEPS.get(wanted.id).params:
        if param.required and param.name not in wanted.params:
            yield param


def _missing_text(step: str, param: Param, state: DataState | None) -> tuple[str, str]:
    columns = [] if state is None else [
        c.name for c in state.obs.values() if c.kind in ("categorical", "string")
    ]  # fmt: skip
    said = f" (columns: {', '.join(columns[:6])})" if columns else ""
    texts = {
        "batch_key": (f"It is not said which column holds the batches{said}.",
                      "Name it: 'integrate by <column>'."),
        "sample": (f"It is not said which column holds the samples{said}.",
                   "Name it: 'per <column>'."),
        "path": ("No file is named.", "Name it: 'load pbmc.h5ad', 'save to result.h5ad'."),
        "genes": ("No gene of the data is named.", "Name genes: 'score CD3D, CD3E'."),
        "group": ("It is not said which groups to compare.",
                  "Name two: 'compare cluster 0 vs 3', or 'cluster 0 vs rest'."),
        "mapping": ("The new names are missing.", "Say 'rename cluster 0 to T cells'."),
        "adatas": ("It is not said which variables to combine.", "Say 'merge @a and @b'."),
        "ref": ("No reference is named.", "Say 'transfer labels from @ref'."),
        "label": ("It is not said which column of the reference to transfer.",
                  "Say 'transfer labels from @ref by <column>'."),
    }  # fmt: skip
    return texts.get(param.name, (f"{step} needs {param.name}.", f"Say {param.name}=..."))
