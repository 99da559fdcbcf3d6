"""The neighbour graph of the cells."""

from __future__ import annotations

from ovagent_jupyter.omics.rendering import Code, call, filled, literal
from ovagent_jupyter.omics.slots import GRAPH_BASED
from ovagent_jupyter.omics.step import Param, Params, Step

_NEIGHBORS = (
    Param("n_neighbors", "int", 15, words=("neighbors", "neighbours", "k", "n_neighbors", "knn")),
    Param("n_pcs", "int", words=("pcs", "n pcs", "n_pcs", "principal components")),
    Param("use_rep", "str", "X_pca", words=("representation", "use_rep", "on", "embedding")),
    Param(
        "metric",
        "choice",
        "euclidean",
        choices=("euclidean", "cosine", "manhattan", "correlation"),
        words=("metric", "distance"),
    ),
)


def _neighbors(name: Code, params: Params) -> str:
    rep = literal(params["use_rep"])
    n_pcs = params["n_pcs"]
    return call(
        "sc.pp.neighbors",
        name,
        n_neighbors=params["n_neighbors"],
        n_pcs=n_pcs and Code(f"min({literal(n_pcs)}, {name}.obsm[{rep}].shape[1])"),
        use_rep=params["use_rep"],
        metric=None if params["metric"] == "euclidean" else params["metric"],
        random_state=0,
    )


NEIGHBORS = Step(
    id="neighbors",
    group="graph",
    title="Build the graph of nearest neighbours",
    render=filled(_neighbors, _NEIGHBORS),
    aliases=(
        "neighbors",
        "neighbours",
        "knn graph",
        "neighborhood graph",
        "neighbour graph",
        "nearest neighbors",
    ),
    reads=("obsm/{use_rep}",),
    writes=("obsp/connectivities", "obsp/distances", "uns/neighbors"),
    params=_NEIGHBORS,
    makes_stale=GRAPH_BASED,
)
