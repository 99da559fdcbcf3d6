"""Slots of an AnnData: which go stale together, and which are there."""

from __future__ import annotations

from typing import Any

GRAPH_BASED = (
    "obsm/X_umap",
    "obsm/X_diffmap",
    "obsm/X_draw_graph_fr",
    "obsm/X_draw_graph_fa",
    "uns/diffmap_evals",
    "obs/leiden",
    "obs/louvain",
    "uns/paga",
    "obs/dpt_pseudotime",
)
"""What is computed from the neighbour graph."""

GRAPH = ("obsp/connectivities", "obsp/distances", "uns/neighbors", *GRAPH_BASED)
"""The neighbour graph and what is computed from it."""

MARKERS = ("uns/rank_genes_groups", "uns/rank_genes_groups_filtered")
"""Tables of marker genes."""

EMBEDDED = (
    "obsm/X_pca",
    "varm/PCs",
    "uns/pca",
    "obsm/X_pca_harmony",
    "obsm/X_tsne",
    "uns/dendrogram_leiden",
    *GRAPH,
)
"""The PCA and all that follows from it."""

DERIVED = ("var/highly_variable", "uns/hvg", *EMBEDDED, *MARKERS)
"""All that is computed from the values of X."""


def slots(adata: Any) -> list[str]:
    """The slots of an AnnData, as the child lists them after a step."""
    found = ["X"] if adata.X is not None else []
    if adata.raw is not None:
        found.append("raw")
    for place in ("obs", "var", "layers", "obsm", "varm", "obsp", "varp", "uns"):
        # anndata 0.13 lists X among the layers, under None
        found.extend(f"{place}/{key}" for key in getattr(adata, place) if key is not None)
    return found
