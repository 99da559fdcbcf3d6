"""Steps that place cells in few dimensions."""

from __future__ import annotations

from ovagent_jupyter.omics.rendering import Code, call, filled, literal
from ovagent_jupyter.omics.slots import GRAPH
from ovagent_jupyter.omics.step import Param, Params, Step, XKind

_GRAPH_READS = ("obsp/connectivities", "uns/neighbors")

_PCA = (
    Param("n_comps", "int", 50, words=("components", "n comps", "pcs", "n_comps", "dimensions")),
    Param("layer", "str", words=("layer",)),
    Param(
        "svd_solver",
        "choice",
        choices=("arpack", "randomized", "covariance_eigh"),
        words=("solver", "svd solver"),
    ),
)


def _pca(name: Code, params: Params) -> str:
    run = call(
        "sc.pp.pca",
        name,
        n_comps=Code(f"min({literal(params['n_comps'])}, {name}.n_obs - 1, n_genes - 1)"),
        mask_var=Code("genes"),
        layer=params["layer"],
        svd_solver=params["svd_solver"],
        random_state=0,
    )
    return f"""\
genes = "highly_variable" if "highly_variable" in {name}.var else None
n_genes = {name}.var[genes].sum() if genes else {name}.n_vars
{run}"""


PCA = Step(
    id="pca",
    group="embed",
    title="Compute principal components, on the highly variable genes if selected",
    render=filled(_pca, _PCA),
    aliases=("pca", "principal components", "principal component analysis", "reduce dimensions"),
    needs_x=frozenset({XKind.LOGNORM, XKind.SCALED, XKind.RESIDUAL, XKind.CORRECTED}),
    writes=("obsm/X_pca", "varm/PCs", "uns/pca"),
    params=_PCA,
    makes_stale=("obsm/X_pca_harmony", "obsm/X_tsne", "uns/dendrogram_leiden", *GRAPH),
)

_UMAP = (
    Param("min_dist", "float", 0.5, words=("min dist", "minimum distance", "min_dist")),
    Param("spread", "float", 1.0, words=("spread",)),
    Param("n_components", "int", 2, words=("dimensions", "n_components", "components")),
)


def _umap(name: Code, params: Params) -> str:
    return call(
        "sc.tl.umap",
        name,
        min_dist=params["min_dist"],
        spread=_unless(params["spread"], 1.0),
        n_components=_unless(params["n_components"], 2),
        random_state=0,
    )


def _unless(value: object, default: object) -> object:
    return None if value == default else value


UMAP = Step(
    id="umap",
    group="embed",
    title="Compute a UMAP from the neighbour graph",
    render=filled(_umap, _UMAP),
    aliases=("umap", "compute umap", "run umap", "embed cells in 2d", "umap embedding"),
    reads=_GRAPH_READS,
    writes=("obsm/X_umap", "uns/umap"),
    params=_UMAP,
)

_TSNE = (
    Param("perplexity", "float", 30, words=("perplexity",)),
    Param("n_pcs", "int", words=("pcs", "n pcs", "n_pcs")),
    Param("use_rep", "str", "X_pca", words=("representation", "use_rep")),
)


def _tsne(name: Code, params: Params) -> str:
    return call(
        "sc.tl.tsne",
        name,
        use_rep=params["use_rep"],
        n_pcs=params["n_pcs"],
        perplexity=params["perplexity"],
        random_state=0,
    )


TSNE = Step(
    id="tsne",
    group="embed",
    title="Compute a t-SNE from the principal components",
    render=filled(_tsne, _TSNE),
    aliases=("tsne", "t-sne", "compute tsne", "t-SNE embedding"),
    reads=("obsm/{use_rep}",),
    writes=("obsm/X_tsne", "uns/tsne"),
    params=_TSNE,
)

_DIFFMAP = (Param("n_comps", "int", 15, words=("components", "n comps", "n_comps")),)


def _diffmap(name: Code, params: Params) -> str:
    return call("sc.tl.diffmap", name, n_comps=params["n_comps"], random_state=0)


DIFFMAP = Step(
    id="diffmap",
    group="embed",
    title="Compute a diffusion map",
    render=filled(_diffmap, _DIFFMAP),
    aliases=("diffusion map", "diffmap", "diffusion components"),
    reads=_GRAPH_READS,
    writes=("obsm/X_diffmap", "uns/diffmap_evals"),
    params=_DIFFMAP,
    makes_stale=("obs/dpt_pseudotime",),
)

_LAYOUTS = ("fr", "fa", "kk", "lgl", "drl")
_DRAW = (Param("layout", "choice", "fr", choices=_LAYOUTS, words=("layout",)),)


def _draw_graph(name: Code, params: Params) -> str:
    return call("sc.tl.draw_graph", name, layout=params["layout"], random_state=0)


DRAW_GRAPH = Step(
    id="draw_graph",
    group="embed",
    title="Compute a force-directed layout of the graph",
    render=filled(_draw_graph, _DRAW),
    aliases=("force directed layout", "forceatlas", "draw graph", "force-directed graph"),
    reads=_GRAPH_READS,
    writes=("obsm/X_draw_graph_{layout}", "uns/draw_graph"),
    params=_DRAW,
    requires=("igraph",),
)

_DENSITY = (
    Param("groupby", "obs_column", "leiden", words=("by", "per", "group")),
    Param("basis", "str", "umap", words=("on", "basis", "embedding")),
)


def _embedding_density(name: Code, params: Params) -> str:
    return call("sc.tl.embedding_density", name, basis=params["basis"], groupby=params["groupby"])


EMBEDDING_DENSITY = Step(
    id="embedding_density",
    group="embed",
    title="Compute how densely each group of cells lies on an embedding",
    render=filled(_embedding_density, _DENSITY),
    aliases=("embedding density", "density of cells on umap", "cell density"),
    reads=("obsm/X_{basis}", "obs/{groupby}"),
    writes=("obs/{basis}_density_{groupby}", "uns/{basis}_density_{groupby}_params"),
    params=_DENSITY,
)
