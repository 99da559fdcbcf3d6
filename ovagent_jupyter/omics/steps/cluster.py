"""Steps that group cells and order the groups."""

from __future__ import annotations

from ovagent_jupyter.omics.rendering import Code, call, filled
from ovagent_jupyter.omics.slots import MARKERS
from ovagent_jupyter.omics.step import Param, Params, Step

_GRAPH_READS = ("obsp/connectivities", "uns/neighbors")
_CLUSTER_STALE = ("uns/paga", "uns/dendrogram_leiden", *MARKERS)

_LEIDEN = (
    Param("resolution", "float", 1.0, words=("resolution", "res", "at")),
    Param("key_added", "str", "leiden", words=("key", "column", "as", "name", "key_added")),
)


def _leiden(name: Code, params: Params) -> str:
    key = params["key_added"]
    return call(
        "sc.tl.leiden",
        name,
        resolution=params["resolution"],
        key_added=None if key == "leiden" else key,
        flavor="igraph",
        n_iterations=2,
        directed=False,
        random_state=0,
    )


LEIDEN = Step(
    id="leiden",
    group="cluster",
    title="Cluster cells with Leiden",
    render=filled(_leiden, _LEIDEN),
    aliases=(
        "cluster",
        "clustering",
        "leiden",
        "cluster the cells",
        "find clusters",
        "leiden clustering",
        "communities",
    ),
    reads=_GRAPH_READS,
    writes=("obs/{key_added}", "uns/{key_added}"),
    params=_LEIDEN,
    requires=("igraph",),
    makes_stale=_CLUSTER_STALE,
)

_LOUVAIN = (Param("key_added", "str", "louvain", words=("key", "column", "as", "key_added")),)


def _louvain(name: Code, params: Params) -> str:
    key = params["key_added"]
    return call(
        "sc.tl.louvain",
        name,
        key_added=None if key == "louvain" else key,
        flavor="igraph",
        directed=False,
        random_state=0,
    )


LOUVAIN = Step(
    id="louvain",
    group="cluster",
    title="Cluster cells with Louvain",
    render=filled(_louvain, _LOUVAIN),
    aliases=("louvain", "louvain clustering"),
    reads=_GRAPH_READS,
    writes=("obs/{key_added}", "uns/{key_added}"),
    params=_LOUVAIN,
    requires=("igraph",),
)

_DENDROGRAM = (
    Param("groupby", "obs_column", "leiden", words=("by", "of", "for")),
    Param("use_rep", "str", "X_pca", words=("representation", "use_rep")),
)


def _dendrogram(name: Code, params: Params) -> str:
    return call("sc.tl.dendrogram", name, groupby=params["groupby"], use_rep=params["use_rep"])


DENDROGRAM = Step(
    id="dendrogram",
    group="cluster",
    title="Order clusters by similarity",
    render=filled(_dendrogram, _DENDROGRAM),
    aliases=("dendrogram", "hierarchical order of clusters", "cluster tree"),
    reads=("obsm/{use_rep}", "obs/{groupby}"),
    writes=("uns/dendrogram_{groupby}",),
    params=_DENDROGRAM,
)
