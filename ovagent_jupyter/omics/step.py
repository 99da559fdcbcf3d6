"""What a step of an analysis is: what it needs of the data, what it makes, and its code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from ovagent_jupyter.registry import Registry


class XKind(StrEnum):
    """What the matrix X of an AnnData holds."""

    COUNTS = "counts"
    NORM = "norm"
    LOGNORM = "lognorm"
    SCALED = "scaled"
    RESIDUAL = "residual"
    CORRECTED = "corrected"
    UNKNOWN = "unknown"


ParamKind = Literal[
    "int",
    "float",
    "bool",
    "str",
    "choice",
    "path",
    "obs_column",
    "genes",
    "level",
    "mapping",
    "name",
]
Params = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Param:
    """One setting of a step."""

    name: str
    """Keyword as the code uses it."""
    kind: ParamKind
    """What the value is; the planner resolves columns, levels and genes against the data."""
    default: object = None
    """Value when the user says nothing; None with ``required`` means it must be found."""
    required: bool = False
    """The step cannot run without a value."""
    choices: tuple[str, ...] = ()
    """Allowed values of a ``choice``."""
    words: tuple[str, ...] = ()
    """What a user calls it ("resolution", "top", "n pcs")."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an analysis, as data plus one function that writes its code."""

    id: str
    group: str
    """io, qc, norm, feat, batch, embed, graph, cluster, traj, annot, de or plot."""
    title: str
    """What it does, in the words of the field ("Normalise each cell to 10,000 counts")."""
    render: Callable[[str, Params], str]
    """(name of the AnnData variable, params) → Python code, with no trailing newline."""
    aliases: tuple[str, ...] = ()
    """Phrases a user says; the planner retrieves by them."""
    needs_x: frozenset[XKind] = frozenset()
    """States of X it can run on; empty means any."""
    leaves_x: XKind | None = None
    """State of X afterwards; None means unchanged."""
    reads: tuple[str, ...] = ()
    """Slots it needs ("obsm/X_pca", "obs/{groupby}"; braces hold a param's name)."""
    writes: tuple[str, ...] = ()
    """Slots it makes; "cells" or "genes" when it drops some; "fig", "file" for those."""
    params: tuple[Param, ...] = ()
    requires: tuple[str, ...] = ()
    """Import names of the packages beyond scanpy that it needs."""
    outputs: tuple[str, ...] = ()
    """Names of new variables that it binds beside the AnnData ("markers_df")."""
    needs_data: bool = True
    """False for steps that load data."""
    makes_stale: tuple[str, ...] = field(default=())
    """Slots that no longer describe the data afterwards."""
    reads_unless: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Param name → slots it needs as well when that param has no value (top markers of a plot)."""

    reads_if: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Param name → slots it needs as well when that param has a value (the cluster of a root)."""

    def defaults(self) -> dict[str, object]:
        """The parameters with their defaults, those without one left out."""
        return {p.name: p.default for p in self.params if p.default is not None}

    def read_slots(self, params: Params) -> tuple[str, ...]:
        """The slots it needs with these parameters, names filled in."""
        values = {**self.defaults(), **params}
        more = [
            slot
            for wanted, table in ((True, self.reads_if), (False, self.reads_unless))
            for name, slots in table.items()
            if (values.get(name) not in (None, "", (), [], {})) is wanted
            for slot in slots
        ]
        return fill_slots((*self.reads, *more), values)

    def written_slots(self, params: Params) -> tuple[str, ...]:
        """The slots it makes with these parameters, names filled in."""
        return fill_slots(self.writes, {**self.defaults(), **params})


def fill_slots(slots: Iterable[str], params: Params) -> tuple[str, ...]:
    """Put parameter values into slots such as ``obs/{groupby}``.

    A list gives one slot for each item; a slot whose parameter has no value is left out.
    """
    filled: list[str] = []
    for slot in slots:
        variants = [slot]
        for name in re.findall(r"\{(\w+)\}", slot):
            value = params.get(name)
            items = value if isinstance(value, list | tuple) else [] if value is None else [value]
            variants = [v.replace(f"{{{name}}}", str(i)) for v in variants for i in items]
        filled.extend(variants)
    return tuple(dict.fromkeys(filled))


STEPS: Registry[Step] = Registry("step")
"""All steps: rows are lazy, ``steps/<group>.py`` holds them."""

_ROWS = {
    "io": "load_h5ad load_10x_mtx load_10x_h5 load_demo_pbmc make_unique concat stash_counts"
    " save_h5ad",
    "qc": "flag_gene_sets qc_metrics filter_cells filter_genes filter_mito filter_mad doublets"
    " drop_doublets subsample",
    "norm": "normalize log1p freeze_raw pearson_norm",
    "feat": "hvg hvg_v3 subset_hvg regress_out scale cell_cycle score_genes",
    "batch": "combat harmony",
    "embed": "pca umap tsne diffmap draw_graph embedding_density",
    "graph": "neighbors",
    "cluster": "leiden louvain dendrogram",
    "traj": "paga dpt",
    "de": "markers de_two_groups filter_markers marker_table pseudobulk",
    "annot": "label_transfer annotate_signatures rename_clusters marker_overlap composition",
    "plot": "plot_qc_violin plot_qc_scatter plot_hvg plot_pca_var plot_umap plot_dotplot"
    " plot_heatmap plot_markers plot_paga",
}

for _group, _ids in _ROWS.items():
    for _id in _ids.split():
        STEPS.register_lazy(_id, f"ovagent_jupyter.omics.steps.{_group}:{_id.upper()}")
