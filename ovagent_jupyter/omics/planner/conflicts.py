"""What a request says and its steps cannot honour: found before anything is planned."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from ovagent_jupyter.omics.planner.naming import BATCHES, CLUSTERINGS
from ovagent_jupyter.omics.planner.wanted import Problem, Wanted
from ovagent_jupyter.omics.state import DataState
from ovagent_jupyter.omics.step import STEPS

_PER_CLUSTER = re.compile(
    r"\b(?:per|within|in (?:each|every)|for (?:each|every)|across)\s+(?:\w+\s+)?clusters?\b", re.I
)
_ONE_GROUPING = frozenset(
    "markers de_two_groups plot_dotplot plot_heatmap plot_qc_violin embedding_density".split()
)
_METRIC = re.compile(
    r"\b(?:counts?|umis?|(?:n_?)?genes?|mito\w*|mt|ribo\w*|doublet\w*|depth|complexity)\b", re.I
)
_ALL_GENES = re.compile(r"\ball (?:of )?(?:the |my )?(?:\d+ )?(?:genes|features)\b", re.I)
_AGAINST = re.compile(r"\b(?:vs\.?|versus|against)\b|~", re.I)
_SCORE = re.compile(r"\b(?:the |its |their )scores?\b", re.I)
_MARKERS_AND = re.compile(r"\bmarkers?(?: genes?)?\s*(?:,|and\b|&|plus\b|\+)", re.I)
_MADE_BY = {"leiden": "leiden", "louvain": "louvain"}
_SHOWN = 6


def conflicts(
    wanted: Mapping[str, Wanted], texts: Sequence[str], state: DataState | None
) -> list[Problem]:
    """Values and words that contradict the data or each other.

    Args:
        wanted: The asked steps with their parameters.
        texts: The clauses as typed.
        state: The data; None when nothing is loaded.
    """
    checks: tuple[_Check, ...] = (
        _two_groupings,
        _within,
        _metrics_of_mads,
        _all_genes,
        _gene_pair,
        _score,
        _markers_too,
    )
    found = [
        problem
        for step in wanted.values()
        for number in sorted(step.clauses)
        for check in checks
        for problem in check(step, texts[number])
    ]
    found += _out_of_turn(wanted, texts)
    if state is not None:
        found += _levels(wanted, texts, state)
        found += _too_many(wanted, texts, state)
    return list(dict.fromkeys(found))


_Check = Callable[[Wanted, str], Iterator[Problem]]


def _two_groupings(wanted: Wanted, text: str) -> Iterator[Problem]:
    column = wanted.params.get("groupby")
    named = isinstance(column, str) and column not in CLUSTERINGS and not column.startswith("@")
    if wanted.id in _ONE_GROUPING and named and _PER_CLUSTER.search(text):
        why = f"It names two groupings, {column} and the clusters; one is possible."
        yield Problem(text, why, f"Say one: 'by {column}' or 'per cluster'.")


def _within(wanted: Wanted, text: str) -> Iterator[Problem]:
    """Markers "in batch a" are asked of its cells alone; those "of batch a" set it off."""
    column = str(wanted.params.get("groupby", ""))
    inside = rf"\b(?:in|within|inside|among)\s+(?:the )?{re.escape(column)}s?\b"
    if wanted.id == "markers" and column in BATCHES and re.search(inside, text, re.I):
        why = "Markers are found among all cells, not in a part of them."
        yield Problem(text, why, "Make the part first: part = adata[...].copy()")


def _metrics_of_mads(wanted: Wanted, text: str) -> Iterator[Problem]:
    if wanted.id == "filter_mad" and _METRIC.search(text):
        why = "Outliers are found by counts, genes and top genes together, not by one of them."
        yield Problem(text, why, "Say 'remove outlier cells with 5 MADs'.")


def _all_genes(wanted: Wanted, text: str) -> Iterator[Problem]:
    if wanted.id in ("plot_heatmap", "plot_dotplot", "plot_umap") and _ALL_GENES.search(text):
        why = "All genes at once cannot be drawn."
        yield Problem(text, why, "Name genes, or say 'heatmap of the top 5 markers'.")


def _gene_pair(wanted: Wanted, text: str) -> Iterator[Problem]:
    colors = wanted.params.get("color")
    several = isinstance(colors, list) and len(colors) > 1
    if wanted.id == "plot_umap" and several and _AGAINST.search(text):
        why = "Genes are coloured on the UMAP one by one; no step draws one against another."
        yield Problem(text, why, "Say 'plot umap coloured by CD3D and LYZ'.")


def _score(wanted: Wanted, text: str) -> Iterator[Problem]:
    if wanted.id == "plot_umap" and not wanted.params.get("color") and _SCORE.search(text):
        why = "It is not said which score to show."
        yield Problem(text, why, "Name it: 'colour the umap by doublet_score'.")


def _markers_too(wanted: Wanted, text: str) -> Iterator[Problem]:
    listed = wanted.params.get("genes")
    if wanted.id not in ("plot_heatmap", "plot_dotplot") or not isinstance(listed, list):
        return
    apart = not any(str(gene).lower() in text.lower() for gene in listed)
    ends = apart and re.search(r"\bmarkers?(?: genes?)?\s*$", text, re.I)  # "markers" and "CD3D"
    if listed and (ends or _MARKERS_AND.search(text)):
        why = "One plot shows either the markers that are found or the genes that are named."
        yield Problem(text, why, "Ask for two plots.")


def _out_of_turn(wanted: Mapping[str, Wanted], texts: Sequence[str]) -> Iterator[Problem]:
    """Files are read first and written last; what says otherwise is for two requests."""
    for step in wanted.values():
        reads = step.id.startswith("load_")
        if step.clause < 0 or not (reads or step.id == "save_h5ad"):
            continue
        others = [w for w in wanted.values() if w is not step and _changes(w.id)]
        if reads and any(0 <= w.clause < step.clause for w in others):
            why = "Loading replaces the data, so it cannot come after other steps."
            yield Problem(texts[step.clause], why, "Ask for it in a request of its own.")
        if not reads and any(w.clause > step.clause for w in others):
            why = "The file is written last, with what the later steps change."
            yield Problem(texts[step.clause], why, "Ask for it in a request of its own.")


def _changes(name: str) -> bool:
    """Whether a step leaves something in the data or on disk."""
    step = STEPS.get(name)
    return any(slot != "fig" for slot in step.writes)


def _levels(
    wanted: Mapping[str, Wanted], texts: Sequence[str], state: DataState
) -> Iterator[Problem]:
    """Groups that the column does not have, unless this plan makes the column anew."""
    for step in wanted.values():
        column = str(step.params.get("groupby") or _groups_of(step, wanted) or "leiden")
        held = state.obs.get(column)
        if held is None or not held.levels or _MADE_BY.get(column) in wanted:
            continue
        for level in _named(step):
            if level not in held.levels:
                levels = ", ".join(held.levels[:_SHOWN])
                more = ", …" if len(held.levels) > _SHOWN else ""
                text = texts[step.clause] if step.clause >= 0 else step.reason
                why = f"{column} has no group {level!r} ({levels}{more})."
                yield Problem(text, why, "Name a group that is there.")


def _groups_of(step: Wanted, wanted: Mapping[str, Wanted]) -> object:
    markers = wanted.get("markers")
    return markers.params.get("groupby") if step.id == "marker_table" and markers else None


def _named(step: Wanted) -> list[str]:
    """The groups that a step's parameters name."""
    if step.id == "rename_clusters":
        mapping = step.params.get("mapping")
        return [str(key) for key in mapping] if isinstance(mapping, Mapping) else []
    if step.id == "marker_table":
        groups = step.params.get("group")
        return [str(group) for group in groups] if isinstance(groups, list) else []
    if step.id == "dpt" and "root_cluster" in step.params:
        return [str(step.params["root_cluster"])]
    return []


def _too_many(
    wanted: Mapping[str, Wanted], texts: Sequence[str], state: DataState
) -> Iterator[Problem]:
    sample = wanted.get("subsample")
    asked = sample.params.get("n") if sample else None
    if sample is not None and isinstance(asked, int) and asked > state.n_obs:
        why = f"The data have {state.n_obs:,} cells, fewer than {asked:,}."
        yield Problem(texts[sample.clause], why, "Say 'subsample to 500 cells'.")
