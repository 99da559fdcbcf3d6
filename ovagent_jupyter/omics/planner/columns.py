"""Which parameter of a step a column, a group or a gene of the request is for."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ovagent_jupyter.omics.planner.naming import BATCHES, CELL_TYPES
from ovagent_jupyter.omics.planner.reading import Fact
from ovagent_jupyter.omics.planner.wanted import Wanted
from ovagent_jupyter.omics.state import DataState
from ovagent_jupyter.omics.step import STEPS

_GROUPED = frozenset(
    "markers de_two_groups filter_markers annotate_signatures rename_clusters paga dendrogram "
    "embedding_density plot_dotplot plot_heatmap dpt".split()
)
_BATCHED = frozenset({"harmony", "combat", "hvg", "hvg_v3", "doublets"})
_GENE_PARAMS = {
    "plot_umap": "color", "plot_dotplot": "genes", "plot_heatmap": "genes",
    "plot_qc_violin": "keys", "score_genes": "genes", "dpt": "root_gene",
}  # fmt: skip
_COLOURING = frozenset(
    {"plot_umap", "embed_umap", "cluster", "annotate", "trajectory", "integrate"}
)


def place_column(fact: Fact, steps: Sequence[Wanted], state: DataState | None) -> bool:
    """Give a column to the steps of its clause; whether one of them takes it."""
    column = str(fact.value)
    taken = False
    for wanted in steps:
        if wanted.id in _GROUPED and fact.key != "color":
            taken |= _once(wanted, "groupby", column)
        elif wanted.id in _BATCHED and fact.key != "color":
            taken |= _once(wanted, "batch_key", column)
        elif wanted.id == "plot_umap" and _colours(wanted, fact):
            taken |= _append(wanted, "color", column)
        elif wanted.id == "regress_out":
            taken |= _append(wanted, "keys", column)
        elif wanted.id in ("composition", "pseudobulk"):
            taken |= _sample_or_group(wanted, fact, column)
        elif wanted.id == "plot_qc_violin":
            taken |= _violin(wanted, column, state)
        elif wanted.id == "plot_qc_scatter":
            taken |= _scatter(wanted, fact, column, state)
        elif wanted.id == "label_transfer":
            taken |= _once(wanted, "label", column)
    return taken


_METRICS = (
    (r"\b(?:counts?|umis?|depth|library size)\b", ("total_counts",)),
    (r"\b(?:n_?)?genes?(?:_by_counts)?\b", ("n_genes_by_counts",)),
    (r"\b(?:mito\w*|mt)\b", ("pct_counts_mt",)),
    (r"\bribo\w*\b", ("pct_counts_ribo",)),
    (r"\bcell[ -]?cycle\b", ("S_score", "G2M_score")),
)
CLUSTERS = "@clusters"
"""Stands for the column of clusters until it is known which one that is."""
_PER_CLUSTER = re.compile(r"\b(?:per|by|across|each|between|for)\s+(?:\w+\s+)?clusters?\b", re.I)
_CLUSTERS = re.compile(r"\bclusters\b", re.I)
_CELL_TYPE = re.compile(r"\bcell[ _-]?types?\b", re.I)
_TYPED = frozenset({"composition", "markers", "plot_dotplot", "plot_heatmap", "pseudobulk"})


def fill_from_words(wanted: Wanted, text: str, state: DataState | None) -> None:
    """Columns that a clause names in ordinary words: "per cluster", "total counts"."""
    direct = bool(wanted.direct)
    if direct and wanted.id in ("regress_out", "plot_qc_violin") and not wanted.params.get("keys"):
        plain = text.replace("_", " ").lower()
        keys = [key for words, held in _METRICS if re.search(words, plain) for key in held]
        if keys and not (wanted.id == "plot_qc_violin" and "S_score" in keys):
            wanted.params["keys"] = keys
    ungrouped = wanted.id == "plot_qc_violin" and "groupby" not in wanted.params
    if ungrouped and direct and _PER_CLUSTER.search(text):
        wanted.params["groupby"] = CLUSTERS
    if wanted.id == "plot_umap" and state is not None and _colours_by_name(wanted):
        named = _columns_in(text, state)
        if len(named) > 1:
            held = wanted.params.get("color", [])
            every = dict.fromkeys([*named, *(held if isinstance(held, list) else ())])
            wanted.params["color"] = sorted(every, key=lambda name: _place(name, text))
    if wanted.id == "plot_umap" and "color" not in wanted.values and _CLUSTERS.search(text):
        wanted.preset["color"] = [CLUSTERS]
    if wanted.id in _TYPED and "groupby" not in wanted.values and _CELL_TYPE.search(text):
        held = next((c for c in CELL_TYPES if state is not None and c in state.obs), None)
        if held:
            wanted.preset["groupby"] = held


def _colours_by_name(wanted: Wanted) -> bool:
    return bool(wanted.direct) or wanted.recipe == "embed_umap"


def _columns_in(text: str, state: DataState) -> list[str]:
    """Columns that a text names, as they follow each other: "leiden and batch"."""
    places = {
        name: hit.start()
        for name in state.obs
        if (hit := re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", text, re.I))
    }
    return sorted(places, key=places.__getitem__)


def _place(name: str, text: str) -> int:
    at = text.lower().find(name.lower())
    return at if at >= 0 else len(text)


def place_genes(fact: Fact, steps: Sequence[Wanted]) -> bool:
    """Give genes to the steps of their clause; whether one of them takes them."""
    taken = False
    genes = fact.value if isinstance(fact.value, tuple) else ()
    for wanted in steps:
        name = _GENE_PARAMS.get(wanted.id)
        named = wanted.direct or wanted.recipe == "embed_umap"
        if name is None or not (named or wanted.id == "dpt"):
            continue
        if wanted.id == "dpt":
            taken |= _once(wanted, name, list(genes))
            continue
        for gene in genes:
            taken |= _append(wanted, name, gene)
    return taken


def place_groups(fact: Fact, steps: Sequence[Wanted]) -> str:
    """Give groups ("cluster 0", "vs rest") to the steps; why not, or an empty text."""
    ids = {wanted.id: wanted for wanted in steps}
    levels = tuple(map(str, fact.value)) if isinstance(fact.value, tuple) else ("rest",)
    if "de_two_groups" in ids:
        return _compare(ids["de_two_groups"], fact, levels)
    if fact.kind == "rest":
        return f"No step of this clause uses {fact.text!r}."
    if "dpt" in ids and len(levels) == 1:
        ids["dpt"].params["root_cluster"] = levels[0]
        ids["dpt"].params["groupby"] = fact.key
        return ""
    if "marker_table" in ids:
        held = ids["marker_table"].params.setdefault("group", [])
        if isinstance(held, list):
            held.extend(level for level in levels if level not in held)
        for name in ("markers", "plot_dotplot"):
            if name in ids and not ids[name].params.get("groupby"):
                ids[name].params["groupby"] = fact.key
        return ""
    return f"The steps of this clause work on all cells, not on {fact.text!r} alone."


def _compare(wanted: Wanted, fact: Fact, levels: Sequence[str]) -> str:
    params = wanted.params
    if fact.key and params.setdefault("groupby", fact.key) != fact.key:
        return f"The groups are of two columns: {params['groupby']} and {fact.key}."
    for level in levels:
        if "group" not in params and level != "rest":
            params["group"] = level
        elif "reference" not in params:
            params["reference"] = level
        elif level not in (params["group"], params["reference"]):
            return f"Two groups can be compared, {level!r} is a third."
    return ""


def _once(wanted: Wanted, name: str, value: object) -> bool:
    if name in wanted.params:
        return wanted.params[name] == value
    wanted.params[name] = value
    return True


def _append(wanted: Wanted, name: str, value: str) -> bool:
    held = wanted.params.setdefault(name, [])
    if isinstance(held, list) and value not in held:
        held.append(value)
    return True


def _colours(wanted: Wanted, fact: Fact) -> bool:
    if wanted.direct or wanted.recipe == "embed_umap":
        return True
    return fact.key == "color" and wanted.recipe in _COLOURING


def _sample_or_group(wanted: Wanted, fact: Fact, column: str) -> bool:
    samples = column.lower() in BATCHES or (fact.key == "by" and "sample" not in wanted.params)
    first, second = ("sample", "groupby") if samples else ("groupby", "sample")
    return _once(wanted, first, column) or _once(wanted, second, column)


def _scatter(wanted: Wanted, fact: Fact, column: str, state: DataState | None) -> bool:
    """Numbers go on the axes; a column of groups can only be a colour."""
    held = state.obs.get(column) if state is not None else None
    groups = held is not None and held.kind in ("categorical", "string", "bool")
    if groups and fact.key != "color" and not wanted.direct:
        return False  # "qc by batch": the violins are split, the scatter is not
    names = ("color",) if groups or fact.key == "color" else ("x", "y", "color")
    free = [name for name in names if name not in wanted.params]
    return bool(free) and _once(wanted, free[0], column)


def _violin(wanted: Wanted, column: str, state: DataState | None) -> bool:
    held = state.obs.get(column) if state is not None else None
    kinds = ("categorical", "string", "bool")
    grouping = held.kind in kinds if held is not None else column in ("leiden", "louvain", "phase")
    return _once(wanted, "groupby", column) if grouping else _append(wanted, "keys", column)


def has_param(step: str, name: str) -> bool:
    """Whether a step has a parameter of that name."""
    return any(param.name == name for param in STEPS.get(step).params)
