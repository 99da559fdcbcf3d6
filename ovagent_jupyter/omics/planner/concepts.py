"""What the values of a request are called, and which parameters take them."""

from __future__ import annotations

from collections.abc import Mapping

CONCEPTS: Mapping[str, tuple[str, ...]] = {
    "resolution": ("leiden.resolution",),
    "n_pcs": ("pca.n_comps", "plot_pca_var.n_pcs", "neighbors.n_pcs", "tsne.n_pcs"),
    "n_comps": ("pca.n_comps", "diffmap.n_comps"),
    "n_neighbors": ("neighbors.n_neighbors", "label_transfer.k"),
    "n_top_genes": ("hvg.n_top_genes", "hvg_v3.n_top_genes"),
    "top": ("marker_table.n_top", "plot_dotplot.n_genes", "plot_heatmap.n_genes",
            "plot_markers.n_genes", "marker_overlap.top_n", "hvg.n_top_genes",
            "hvg_v3.n_top_genes"),
    "min_dist": ("umap.min_dist",), "spread": ("umap.spread",),
    "perplexity": ("tsne.perplexity",), "target_sum": ("normalize.target_sum",),
    "max_value": ("scale.max_value",), "theta": ("pearson_norm.theta",),
    "doublet_rate": ("doublets.expected_doublet_rate",),
    "nmads": ("filter_mad.nmads",), "pval": ("marker_table.pval_cutoff",),
    "lfc": ("marker_table.log2fc_min", "filter_markers.min_fold_change"),
    "fraction": ("subsample.fraction",), "n_cells": ("subsample.n",), "n_dcs": ("dpt.n_dcs",),
    "min_genes": ("filter_cells.min_genes",), "max_genes": ("filter_cells.max_genes",),
    "min_counts": ("filter_cells.min_counts",), "max_counts": ("filter_cells.max_counts",),
    "max_mito": ("filter_mito.max_pct_mt",), "min_cells": ("filter_genes.min_cells",),
    "min_gene_counts": ("filter_genes.min_counts",),
    "method": ("markers.method", "de_two_groups.method"), "metric": ("neighbors.metric",),
    "legend": ("plot_umap.legend_loc",), "flavor": ("hvg.flavor",),
    "n_genes_shown": ("hvg.n_top_genes", "hvg_v3.n_top_genes", "marker_table.n_top",
                      "plot_dotplot.n_genes", "plot_heatmap.n_genes", "plot_markers.n_genes"),
    "style": ("plot_heatmap.style",), "layout": ("draw_graph.layout",),
    "use_rep": ("neighbors.use_rep", "tsne.use_rep"),
    "use_raw": ("plot_umap.use_raw", "plot_dotplot.use_raw", "plot_heatmap.use_raw",
                "markers.use_raw", "de_two_groups.use_raw", "score_genes.use_raw"),
}  # fmt: skip
"""What a value is called → the parameters that take it, the likeliest first."""
SHORT_NAMES = {
    "k": "n_neighbors", "res": "resolution", "pcs": "n_pcs", "npcs": "n_pcs", "dims": "n_pcs",
    "nfeatures": "n_top_genes", "n_hvgs": "n_top_genes", "n_hvg": "n_top_genes",
    "ncomps": "n_comps", "n_components": "n_comps", "max_mt": "max_mito",
    "nneighbors": "n_neighbors",
}  # fmt: skip
"""Short names of parameters → concept."""
FOR_ALL = frozenset({"top", "use_raw", "n_genes_shown"})
"""Concepts that go to every step that takes them."""
UPSTREAM = {"n_pcs": "neighbors.n_pcs", "n_comps": "pca.n_comps"}
"""Where a concept goes when no asked step of the clause takes it."""
MISTAKEN = {
    "keep_high_mito": ("It would keep the cells with many mitochondrial counts.",
                       "Say 'mito < 20%' or 'remove cells with mito > 20%'."),
    "unclear_genes": ("It could mean keeping or dropping these cells.",
                      "Say 'keep cells with ...' or 'remove cells with ...'."),
    "unclear_counts": ("It could mean keeping or dropping these cells.",
                       "Say 'keep cells with ...' or 'remove cells with ...'."),
    "share_genes": ("Cells are kept by a number of genes, not by a share.",
                    "Say it as a number: 'at least 200 genes'."),
    "share_counts": ("Cells are kept by a number of counts, not by a share.",
                     "Say it as a number: 'at least 500 counts'."),
    "share_cells": ("Genes are kept by a number of cells, not by a share.",
                    "Say it as a number: 'keep genes in at least 3 cells'."),
    "unclear_cells": ("It could mean keeping or dropping these genes.",
                      "Say 'keep genes in at least 3 cells'."),
    "unclear_gene_counts": ("It could mean keeping or dropping these genes.",
                            "Say 'keep genes with at least 10 counts'."),
    "max_gene_counts": ("Genes can be kept by the least number of counts only.",
                        "Say 'keep genes with at least 10 counts'."),
    "umap_dims": ("Plots are drawn in two dimensions.", "Say 'plot the umap'."),
    "max_cells": ("Genes can be kept by the least number of cells only.",
                  "Say 'keep genes in at least 3 cells'."),
}  # fmt: skip
"""Values that cannot be meant so: why, and what to say instead."""
