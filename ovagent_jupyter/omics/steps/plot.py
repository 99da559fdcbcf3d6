"""Steps that draw; figures stay open, so that a notebook shows them when the cell ends.

Each call ends in a semicolon: a notebook then shows the figure without the list of its axes.
"""

from __future__ import annotations

from ovagent_jupyter.omics.rendering import Code, call, filled, literal, words
from ovagent_jupyter.omics.step import Param, Params, Step, XKind

_SHOWN_X = frozenset({XKind.LOGNORM, XKind.CORRECTED})
_METRICS = ("n_genes_by_counts", "total_counts", "pct_counts_mt")
_GROUPBY = Param("groupby", "obs_column", "leiden", words=("by", "per", "for each", "grouped by"))
_GENES = Param("genes", "genes", words=("of", "genes", "for", "showing"))
_N_GENES = Param("n_genes", "int", 5, words=("top", "genes", "n genes"))
_USE_RAW = Param("use_raw", "bool", default=False, words=("use raw", "from raw"))
_NO_SHOW = {"show": False}

_VIOLIN = (
    Param("keys", "obs_column", _METRICS, words=("of", "metrics", "show")),
    Param("groupby", "obs_column", words=("by", "per", "grouped by")),
)


def _plot_qc_violin(name: Code, params: Params) -> str:
    return (
        call(
            "sc.pl.violin",
            name,
            words(params["keys"]),
            groupby=params["groupby"],
            multi_panel=True,
            jitter=0.4,
            rotation=90 if params["groupby"] else None,
            **_NO_SHOW,
        )
        + ";"
    )


PLOT_QC_VIOLIN = Step(
    id="plot_qc_violin",
    group="plot",
    title="Draw violins of the quality metrics",
    render=filled(_plot_qc_violin, _VIOLIN),
    aliases=("qc violin", "violin plot", "qc plot", "plot qc", "plot quality metrics"),
    reads=("obs/{keys}", "obs/{groupby}"),
    writes=("fig",),
    params=_VIOLIN,
)

_SCATTER = (
    Param("x", "obs_column", "total_counts", words=("x",)),
    Param("y", "obs_column", "n_genes_by_counts", words=("y", "against")),
    Param("color", "obs_column", "pct_counts_mt", words=("color", "colour", "colored by")),
)


def _plot_qc_scatter(name: Code, params: Params) -> str:
    columns = {key: params[key] for key in ("x", "y", "color")}
    return call("sc.pl.scatter", name, **columns, **_NO_SHOW) + ";"


PLOT_QC_SCATTER = Step(
    id="plot_qc_scatter",
    group="plot",
    title="Draw genes against counts for each cell",
    render=filled(_plot_qc_scatter, _SCATTER),
    aliases=("scatter counts vs genes", "qc scatter", "scatter plot", "counts against genes"),
    reads=("obs/{x}", "obs/{y}", "obs/{color}"),
    writes=("fig",),
    params=_SCATTER,
)


def _plot_hvg(name: Code, _params: Params) -> str:
    return call("sc.pl.highly_variable_genes", name, **_NO_SHOW) + ";"


PLOT_HVG = Step(
    id="plot_hvg",
    group="plot",
    title="Draw dispersion against mean, variable genes marked",
    render=filled(_plot_hvg),
    aliases=("plot variable genes", "plot hvg", "dispersion plot", "show highly variable genes"),
    reads=("var/highly_variable", "var/means", "uns/hvg"),
    writes=("fig",),
)

_PCA_VAR = (Param("n_pcs", "int", 30, words=("pcs", "n pcs", "components", "top")),)


def _plot_pca_var(name: Code, params: Params) -> str:
    available = f'len({name}.uns["pca"]["variance_ratio"])'
    n_pcs = Code(f"min({literal(params['n_pcs'])}, {available})")
    return call("sc.pl.pca_variance_ratio", name, n_pcs=n_pcs, log=True, **_NO_SHOW) + ";"


PLOT_PCA_VAR = Step(
    id="plot_pca_var",
    group="plot",
    title="Draw the variance explained by each principal component",
    render=filled(_plot_pca_var, _PCA_VAR),
    aliases=("elbow plot", "scree plot", "pca variance", "how many pcs", "variance ratio"),
    reads=("uns/pca",),
    writes=("fig",),
    params=_PCA_VAR,
)

_UMAP = (
    Param(
        "color",
        "obs_column",
        ("leiden",),
        words=("color", "colour", "color by", "colored by", "by"),
    ),
    Param("ncols", "int", 3, words=("columns", "ncols")),
    Param("legend_loc", "choice", choices=("on data", "right margin", "none"), words=("legend",)),
    _USE_RAW,
)


def _plot_umap(name: Code, params: Params) -> str:
    color = words(params["color"])
    return (
        call(
            "sc.pl.umap",
            name,
            color=color or None,
            ncols=params["ncols"] if len(color) > 1 else None,
            wspace=0.6 if len(color) > 1 else None,  # room for the legends between panels
            legend_loc=params["legend_loc"],
            use_raw=params["use_raw"],
            frameon=False,
            **_NO_SHOW,
        )
        + ";"
    )


PLOT_UMAP = Step(
    id="plot_umap",
    group="plot",
    title="Draw the UMAP, coloured by obs columns or genes",
    render=filled(_plot_umap, _UMAP),
    aliases=(
        "plot umap",
        "show umap",
        "umap colored by",
        "color umap by",
        "show clusters",
        "show expression on umap",
    ),
    reads=("obsm/X_umap", "obs/{color}"),
    writes=("fig",),
    params=_UMAP,
)

_DOTPLOT = (
    _GENES,
    _GROUPBY,
    _N_GENES,
    Param("standard_scale", "choice", "var", choices=("var", "group"), words=("standard scale",)),
    _USE_RAW,
)
_TOP_MARKERS = {"genes": ("uns/rank_genes_groups",)}


def _gene_plot(kind: str, name: Code, params: Params, **extra: object) -> str:
    """A plot of given genes, or of each cluster's top markers when none are given."""
    genes = params["genes"] if isinstance(params["genes"], dict) else words(params["genes"])
    if genes:
        chosen = {"var_names": genes, "groupby": params["groupby"]}
        function = f"sc.pl.{kind}"
    else:
        chosen = {"n_genes": params["n_genes"]}
        function = f"sc.pl.rank_genes_groups_{kind}"
        extra["dendrogram"] = False
    return call(function, name, **chosen, use_raw=params["use_raw"], **extra, **_NO_SHOW) + ";"


def _plot_dotplot(name: Code, params: Params) -> str:
    return _gene_plot("dotplot", name, params, standard_scale=params["standard_scale"])


PLOT_DOTPLOT = Step(
    id="plot_dotplot",
    group="plot",
    title="Draw a dot plot of genes, or of each cluster's top markers",
    render=filled(_plot_dotplot, _DOTPLOT),
    aliases=("dotplot", "dot plot", "dot plot of markers", "dot plot of genes"),
    needs_x=_SHOWN_X,
    reads=("obs/{groupby}",),
    writes=("fig",),
    params=_DOTPLOT,
    reads_unless=_TOP_MARKERS,
)

_STYLES = ("heatmap", "matrixplot", "stacked_violin")
_HEATMAP = (
    _GENES,
    _GROUPBY,
    _N_GENES,
    Param("style", "choice", "heatmap", choices=_STYLES, words=("style", "as")),
    _USE_RAW,
)


def _plot_heatmap(name: Code, params: Params) -> str:
    style = str(params["style"])
    labels = {"show_gene_labels": True} if style == "heatmap" else {}
    return _gene_plot(style, name, params, **labels)


PLOT_HEATMAP = Step(
    id="plot_heatmap",
    group="plot",
    title="Draw a heat map of genes, or of each cluster's top markers",
    render=filled(_plot_heatmap, _HEATMAP),
    aliases=("heatmap", "heat map", "matrixplot", "stacked violin", "heatmap of markers"),
    needs_x=_SHOWN_X,
    reads=("obs/{groupby}",),
    writes=("fig",),
    params=_HEATMAP,
    reads_unless=_TOP_MARKERS,
)

_RANKING = (Param("n_genes", "int", 20, words=("top", "genes", "n genes")),)


def _plot_markers(name: Code, params: Params) -> str:
    n_genes = params["n_genes"]
    return call("sc.pl.rank_genes_groups", name, n_genes=n_genes, sharey=False, **_NO_SHOW) + ";"


PLOT_MARKERS = Step(
    id="plot_markers",
    group="plot",
    title="Draw the ranking of each cluster's marker genes",
    render=filled(_plot_markers, _RANKING),
    aliases=("plot marker ranking", "plot markers", "marker ranking", "plot ranked genes"),
    reads=("uns/rank_genes_groups",),
    writes=("fig",),
    params=_RANKING,
)

_PAGA = (Param("threshold", "float", words=("threshold",)),)


def _plot_paga(name: Code, params: Params) -> str:
    return call("sc.pl.paga", name, threshold=params["threshold"], **_NO_SHOW) + ";"


PLOT_PAGA = Step(
    id="plot_paga",
    group="plot",
    title="Draw the graph of connected clusters (PAGA)",
    render=filled(_plot_paga, _PAGA),
    aliases=("plot paga", "show paga", "paga graph"),
    reads=("uns/paga", "uns/neighbors"),
    writes=("fig", "uns/paga"),
    params=_PAGA,
    requires=("igraph",),
)
