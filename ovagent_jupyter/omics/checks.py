"""Science guards: what scanpy would run without a word, but should not be run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from ovagent_jupyter.omics.rendering import words
from ovagent_jupyter.omics.state import DataState, XState
from ovagent_jupyter.omics.step import Params, Step, XKind

SURE = 0.9
"""Confidence in a matrix's state from which a guard stops instead of warning."""

LANDSCAPES = ("X_umap", "X_tsne", "X_draw_graph_fr", "X_draw_graph_fa")
"""Embeddings made for the eye: distances in them mean little."""

NOT_SLOTS = frozenset({"cells", "genes", "fig", "file", "var_names"})
"""What a step makes that is no slot."""

_HOLDS = {
    XKind.COUNTS: "counts",
    XKind.NORM: "normalised values that are not logged",
    XKind.LOGNORM: "log-normalised values",
    XKind.SCALED: "scaled values",
    XKind.RESIDUAL: "residuals",
    XKind.CORRECTED: "batch-corrected values",
    XKind.UNKNOWN: "values of unknown kind",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a guard says about a step."""

    level: Literal["stop", "warn"]
    message: str
    next_step: str = ""
    """What the user can do about it."""


Guard = Callable[[Step, Params, DataState], Iterator[Finding]]


def check_step(step: Step, params: Params, state: DataState) -> tuple[Finding, ...]:
    """What speaks against running a step on data in this state, stops first.

    Args:
        step: The step.
        params: Its parameters; defaults fill in the rest.
        state: State of the data right before the step.
    """
    values = {**step.defaults(), **params}
    guards: list[Guard] = [_packages]
    if step.needs_data:
        guards += [_emptiness, _finite, _slots_there, _matrix]
        guards += [_genes_there, _levels_there, _staleness]
    guards += _GUARDS.get(step.id, ())
    found = [finding for guard in guards for finding in guard(step, values, state)]
    return tuple(sorted(dict.fromkeys(found), key=lambda finding: finding.level != "stop"))


def missing_after(step: Step, params: Params, slots_after: Collection[str]) -> tuple[str, ...]:
    """The slots a step promised that are not there after it ran.

    Args:
        step: The step that ran.
        params: Its parameters.
        slots_after: What ``slots(adata)`` listed afterwards.
    """
    promised = step.written_slots(params)
    return tuple(slot for slot in promised if slot not in NOT_SLOTS and slot not in slots_after)


def stale_after(step: Step, state: DataState) -> tuple[str, ...]:
    """The slots of the data that the step makes stale."""
    return tuple(slot for slot in step.makes_stale if state.has(slot))


# -- guards of every step ------------------------------------------------------------------------


def _packages(step: Step, _params: Params, _state: DataState) -> Iterator[Finding]:
    missing = [name for name in step.requires if find_spec(name) is None]
    if missing:
        yield Finding(
            "stop",
            f"{step.id} needs {', '.join(missing)}, which is not installed.",
            "Install the extra: pip install 'ovagent-jupyter[omics]'.",
        )


def _emptiness(_step: Step, _params: Params, state: DataState) -> Iterator[Finding]:
    if not state.n_obs or not state.n_vars:
        what = "cells" if not state.n_obs else "genes"
        yield Finding("stop", f"{state.name} has no {what}.", "Load the data again.")


def _finite(step: Step, _params: Params, state: DataState) -> Iterator[Finding]:
    if state.has_nan and step.needs_x:
        yield Finding(
            "stop",
            f"X of {state.name} holds NaN or infinite values; {step.id} would fail or spread them.",
            gaps_remedy(state.name),
        )


def gaps_remedy(name: str) -> str:
    """What to do about NaN or infinite values in X."""
    return f"Find them with np.isnan({name}.X), then drop those genes or fill in values."


def _slots_there(step: Step, params: Params, state: DataState) -> Iterator[Finding]:
    for slot in step.read_slots(params):
        gene = slot.partition("/")[2].upper() in state.genes
        if not state.has(slot) and not (step.group == "plot" and gene):
            yield Finding("stop", f"{step.id} needs {slot}, which {state.name} does not have.")


def _matrix(step: Step, params: Params, state: DataState) -> Iterator[Finding]:
    if not step.needs_x:
        return
    place, held = _matrix_used(step, params, state)
    if held is None:
        yield Finding("stop", f"{step.id} would read {place}, which is not there.")
    elif held.kind in step.needs_x:
        if held.confidence < SURE:
            yield Finding("warn", f"{place} seems to hold {_HOLDS[held.kind]}. {held.evidence}")
    else:
        level: Literal["stop", "warn"] = "stop" if held.confidence >= SURE else "warn"
        yield Finding(level, _mismatch(step, place, held), _remedy(step, state))


def _matrix_used(step: Step, params: Params, state: DataState) -> tuple[str, XState | None]:
    """Which matrix the step reads, and what it holds."""
    layer = params.get("layer")
    if params.get("use_raw"):
        return ".raw", state.raw
    if layer and "layers/{layer}" not in step.writes:
        return f"layers['{layer}']", state.layers.get(str(layer))
    return "X", state.x


def _mismatch(step: Step, place: str, held: XState) -> str:
    seems = "holds" if held.confidence >= SURE else "seems to hold"
    if step.id == "log1p" and held.kind is XKind.LOGNORM:
        return f"{place} {seems} logged values already; logging twice distorts them."
    if step.group == "de" and held.kind is XKind.CORRECTED:
        return "Batch-corrected values are for embeddings, not for tests between groups."
    wanted = " or ".join(sorted(_HOLDS[kind] for kind in step.needs_x))
    return f"{step.id} needs {wanted}, but {place} {seems} {_HOLDS[held.kind]}. {held.evidence}"


def _remedy(step: Step, state: DataState) -> str:
    """Where the data holds what the step needs."""
    if state.raw is not None and state.raw.kind in step.needs_x:
        if any(param.name == "use_raw" for param in step.params):
            return "Ask for use_raw=True: .raw holds what is needed."
        return f"Start from .raw: {state.name} = {state.name}.raw.to_adata()."
    for layer, held in state.layers.items():
        if held.kind in step.needs_x:
            return f"Start from the layer: {state.name}.X = {state.name}.layers['{layer}'].copy()."
    if step.id in ("log1p", "normalize") and state.x.kind is XKind.LOGNORM:
        return "Leave this step out: the data is ready for variable genes and PCA."
    if XKind.COUNTS in step.needs_x:
        return "Load the data with its raw counts."
    if state.x.kind in (XKind.COUNTS, XKind.NORM):
        return "Normalise and log first."
    return "Load the data again, as counts or log-normalised."


def _genes_there(step: Step, params: Params, state: DataState) -> Iterator[Finding]:
    if params.get("use_raw") or not state.genes:
        return  # raw can hold more genes than the card lists; before loading none are known
    asked = [
        gene
        for param in step.params
        if param.kind == "genes"
        for gene in words(_flat(params.get(param.name)))
    ]
    missing = [gene for gene in asked if gene.upper() not in state.genes]
    if missing:
        partly = step.group == "feat" and len(missing) < len(asked)
        yield Finding(
            "warn" if partly else "stop",
            f"Not among the genes of {state.name}: {', '.join(missing[:8])}.",
            "Check the spelling, or whether the data names genes by Ensembl ids.",
        )


def _flat(value: object) -> object:
    if isinstance(value, dict):
        return [gene for genes in value.values() for gene in words(genes)]
    return value


def _levels_there(step: Step, params: Params, state: DataState) -> Iterator[Finding]:
    column = state.obs.get(str(params.get("groupby")))
    if column is None or not column.levels or (column.n_unique or 0) > len(column.levels):
        return
    for param in step.params:
        for level in words(params.get(param.name)) if param.kind == "level" else ():
            if level not in column.levels and level != "rest":
                yield Finding(
                    "stop",
                    f"obs['{column.name}'] has no group {level!r}.",
                    f"It has: {', '.join(column.levels[:12])}.",
                )


def _staleness(step: Step, _params: Params, state: DataState) -> Iterator[Finding]:
    stale = stale_after(step, state)
    if stale:
        more = f" and {len(stale) - 5} more" if len(stale) > 5 else ""  # noqa: PLR2004 - a line
        yield Finding(
            "warn",
            f"After {step.id} these no longer describe the data: {', '.join(stale[:5])}{more}.",
            "Compute them again before use.",
        )


# -- guards of single steps ----------------------------------------------------------------------


def _counts_in_layer(step: Step, params: Params, state: DataState) -> Iterator[Finding]:
    layer = str(params.get("layer") or "counts")
    held = state.layers.get(layer)
    if held is not None and held.kind is not XKind.COUNTS:
        yield Finding(
            "stop" if held.confidence >= SURE else "warn",
            f"{step.id} needs counts, but layers['{layer}'] holds {_HOLDS[held.kind]}.",
            "Name the layer that holds the counts.",
        )


def _scaled_in_place(_step: Step, params: Params, _state: DataState) -> Iterator[Finding]:
    if params.get("layer") is None:
        yield Finding(
            "warn",
            "This scales X itself: markers, scores and plots need log-normalised values.",
            "Scale into a layer, layer='scaled'.",
        )


def _landscape(_step: Step, params: Params, _state: DataState) -> Iterator[Finding]:
    if params.get("use_rep") in LANDSCAPES:
        yield Finding(
            "stop",
            f"{params['use_rep']} is made for the eye; its distances do not support clustering.",
            "Build the neighbours on X_pca or on an integrated embedding.",
        )


def _grouping(_step: Step, params: Params, state: DataState) -> Iterator[Finding]:
    column = state.obs.get(str(params.get("groupby")))
    if column is None:
        return
    if column.kind in ("int", "float", "other"):
        yield Finding(
            "stop",
            f"obs['{column.name}'] does not hold groups but {column.kind} values.",
            f"Name a column of groups, or make it one: "
            f"{state.name}.obs['{column.name}'].astype(str).astype('category').",
        )
    elif column.n_unique == 1:
        yield Finding("stop", f"obs['{column.name}'] has one group only: nothing to compare.")


_SAMPLE_WORDS = ("sample", "donor", "patient", "replicate", "subject", "individual", "mouse")
_CONDITION_WORDS = ("condition", "treatment", "disease", "status", "genotype", "stim", "timepoint")
_ENOUGH_SAMPLES = 4


def _conditions(_step: Step, params: Params, state: DataState) -> Iterator[Finding]:
    if not any(word in str(params.get("groupby")).lower() for word in _CONDITION_WORDS):
        return
    for column in state.obs.values():
        sample = any(word in column.name.lower() for word in _SAMPLE_WORDS)
        if sample and (column.n_unique or 0) >= _ENOUGH_SAMPLES:
            yield Finding(
                "warn",
                "Cells of one sample are not independent: p-values between conditions are far "
                "too small when every cell counts as a replicate.",
                f"Use pseudobulk by obs['{column.name}'] for conditions.",
            )
            return


def _method(_step: Step, params: Params, _state: DataState) -> Iterator[Finding]:
    if str(params.get("method")).startswith("t-test"):
        yield Finding("warn", "The t-test expects normal values; Wilcoxon is the safer choice.")


def _root(_step: Step, params: Params, state: DataState) -> Iterator[Finding]:
    given = any(params.get(k) is not None for k in ("root_cell", "root_cluster", "root_gene"))
    if not given and "iroot" not in state.uns:
        yield Finding(
            "stop",
            "Pseudotime needs a root.",
            "Name a cluster, a cell or a marker gene to start from.",
        )


def _mito(_step: Step, params: Params, state: DataState) -> Iterator[Finding]:
    limit = params.get("max_pct_mt")
    if isinstance(limit, int | float) and not isinstance(limit, bool) and 0 < limit <= 1:
        yield Finding(
            "warn",
            f"The threshold is in percent: {limit} means {limit} %, not {limit:.0%}.",
            f"Say {limit * 100:g} % if that is meant.",
        )
    if state.genes and not any(gene.startswith("MT-") for gene in state.genes):
        yield Finding("warn", "No gene name starts with MT-: the mitochondrial share is 0.")


def _sample_size(_step: Step, params: Params, _state: DataState) -> Iterator[Finding]:
    if params.get("n") is None and params.get("fraction") is None:
        yield Finding("stop", "How many cells?", "Give a number or a fraction of the cells.")


def _batches(_step: Step, params: Params, state: DataState) -> Iterator[Finding]:
    column = state.obs.get(str(params.get("batch_key")))
    if column is None:
        return
    if column.kind == "float":
        yield Finding("stop", f"obs['{column.name}'] holds fractions, not batches.")
    elif column.n_unique == 1:
        yield Finding("stop", f"obs['{column.name}'] has one batch only: nothing to correct.")


def _blood_only(step: Step, params: Params, state: DataState) -> Iterator[Finding]:
    if params.get("signatures") != step.defaults().get("signatures"):
        return
    species = " The genes look like mouse." if state.species == "mouse" else ""
    yield Finding(
        "warn",
        f"The built-in signatures are of human blood cells.{species}",
        "Give the marker genes of your tissue.",
    )


_DE: tuple[Guard, ...] = (_grouping, _conditions, _method)

_GUARDS: dict[str, tuple[Guard, ...]] = {
    "annotate_signatures": (_grouping, _blood_only),
    "combat": (_batches,),
    "de_two_groups": _DE,
    "dendrogram": (_grouping, _landscape),
    "doublets": (_batches,),
    "dpt": (_root,),
    "filter_mito": (_mito,),
    "harmony": (_batches,),
    "hvg_v3": (_counts_in_layer,),
    "marker_overlap": (_blood_only,),
    "markers": _DE,
    "neighbors": (_landscape,),
    "paga": (_grouping,),
    "pseudobulk": (_counts_in_layer,),
    "scale": (_scaled_in_place,),
    "subsample": (_sample_size,),
    "tsne": (_landscape,),
}
