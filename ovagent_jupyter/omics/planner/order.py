"""The order of an analysis, and which step makes what another needs."""

from __future__ import annotations

from functools import cache

from ovagent_jupyter.omics.step import STEPS, Step, XKind

ORDER = (
    "load_h5ad load_10x_mtx load_10x_h5 load_demo_pbmc concat make_unique flag_gene_sets "
    "qc_metrics plot_qc_violin plot_qc_scatter filter_cells filter_mito filter_mad filter_genes "
    "doublets drop_doublets subsample stash_counts normalize log1p pearson_norm hvg hvg_v3 "
    "plot_hvg cell_cycle score_genes freeze_raw regress_out combat subset_hvg scale pca "
    "plot_pca_var harmony neighbors leiden louvain umap tsne diffmap draw_graph label_transfer "
    "dpt annotate_signatures rename_clusters embedding_density plot_umap dendrogram paga plot_paga "
    "composition markers filter_markers marker_table marker_overlap plot_markers plot_dotplot "
    "plot_heatmap de_two_groups pseudobulk save_h5ad"
).split()
"""Steps as they follow each other in an analysis."""

PRODUCERS = {
    "var/mt": "flag_gene_sets", "var/ribo": "flag_gene_sets", "var/hb": "flag_gene_sets",
    "layers/counts": "stash_counts", "raw": "freeze_raw", "uns/log1p": "log1p",
    "var/highly_variable": "hvg", "var/means": "hvg", "uns/hvg": "hvg",
    "obsm/X_pca": "pca", "uns/pca": "pca", "varm/PCs": "pca",
    "obsm/X_pca_harmony": "harmony",
    "obsp/connectivities": "neighbors", "obsp/distances": "neighbors", "uns/neighbors": "neighbors",
    "obsm/X_umap": "umap", "obsm/X_tsne": "tsne", "obsm/X_diffmap": "diffmap",
    "uns/diffmap_evals": "diffmap", "obs/leiden": "leiden", "obs/louvain": "louvain",
    "uns/paga": "paga", "uns/rank_genes_groups": "markers",
    "obs/predicted_doublet": "doublets", "obs/doublet_score": "doublets",
    "obs/phase": "cell_cycle", "obs/S_score": "cell_cycle", "obs/G2M_score": "cell_cycle",
    "obs/total_counts": "qc_metrics", "obs/n_genes_by_counts": "qc_metrics",
    "obs/pct_counts_mt": "qc_metrics", "obs/pct_counts_ribo": "qc_metrics",
    "obs/pct_counts_hb": "qc_metrics", "obs/log1p_total_counts": "qc_metrics",
    "obs/log1p_n_genes_by_counts": "qc_metrics",
    "obs/pct_counts_in_top_20_genes": "qc_metrics",
}  # fmt: skip
"""Slot → the step that is added when the slot is missing. What drops cells is never added."""


def rank(step: str) -> int:
    """Place of a step in the order of an analysis; steps of third parties come last but one."""
    return ORDER.index(step) if step in ORDER else len(ORDER) - 1


@cache
def ancestors(name: str) -> frozenset[str]:
    """The steps that may have to run before this one, from raw counts on."""
    step = STEPS.get(name)
    found: set[str] = set()
    for slot in step.read_slots({}):
        maker = PRODUCERS.get(slot)
        if maker and maker != name:
            found |= {maker, *ancestors(maker)}
    if name != "normalize" and XKind.LOGNORM in step.needs_x:
        found |= {"normalize", "log1p"}
    if name == "log1p":
        found |= {"normalize"}
    if name == "pca":
        found |= {"hvg"}
    if name in ("plot_umap", "embedding_density"):
        found |= {"leiden"}
    return frozenset(found)


def drops(step: Step) -> bool:
    """Whether a step removes cells."""
    return "cells" in step.writes
