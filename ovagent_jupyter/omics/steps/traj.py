"""Steps on trajectories."""

from __future__ import annotations

from ovagent_jupyter.omics.rendering import Code, call, filled, literal, words
from ovagent_jupyter.omics.step import Param, Params, Step

_GRAPH_READS = ("obsp/connectivities", "obsp/distances", "uns/neighbors")

_PAGA = (Param("groupby", "obs_column", "leiden", words=("by", "of", "for", "groups")),)


def _paga(name: Code, params: Params) -> str:
    return call("sc.tl.paga", name, groups=params["groupby"])


PAGA = Step(
    id="paga",
    group="traj",
    title="Measure how clusters connect (PAGA)",
    render=filled(_paga, _PAGA),
    aliases=("paga", "abstracted graph", "connectivity of clusters", "cluster connectivity"),
    reads=(*_GRAPH_READS, "obs/{groupby}"),
    writes=("uns/paga", "uns/{groupby}_sizes"),
    params=_PAGA,
    requires=("igraph",),
)

_DPT = (
    Param(
        "root_cluster", "level", words=("root at", "root cluster", "starting at", "root", "from")
    ),
    Param("groupby", "obs_column", "leiden", words=("of", "in", "column")),
    Param("root_cell", "str", words=("root cell", "starting cell")),
    Param("root_gene", "genes", words=("root gene", "highest", "gene")),
    Param("n_dcs", "int", 10, words=("diffusion components", "n_dcs")),
)


def _dpt(name: Code, params: Params) -> str:
    n_dcs = Code(f'min({literal(params["n_dcs"])}, {name}.obsm["X_diffmap"].shape[1])')
    return f"{_root(name, params)}\n{call('sc.tl.dpt', name, n_dcs=n_dcs)}"


def _root(name: Code, params: Params) -> str:
    cell, cluster, genes = params["root_cell"], params["root_cluster"], words(params["root_gene"])
    root = f'{name}.uns["iroot"]'
    if isinstance(cell, int):
        return f"{root} = {cell}"
    if cell is not None:
        return f"{root} = {name}.obs_names.get_loc({literal(cell)})"
    if cluster is not None:
        column = f"{name}.obs[{literal(params['groupby'])}]"
        return f"""\
# the root is the cell of the cluster that lies farthest out on the first diffusion component
members = np.flatnonzero({column}.astype(str) == {literal(str(cluster))})
position = {name}.obsm["X_diffmap"][:, 1]
{root} = int(members[np.abs(position[members] - np.median(position)).argmax()])"""
    if genes:
        return f"{root} = int(sc.get.obs_df({name}, {literal(genes[0])}).to_numpy().argmax())"
    return f"""\
if "iroot" not in {name}.uns:
    raise ValueError("Pseudotime needs a root: name a cluster, a cell or a marker gene.")"""


DPT = Step(
    id="dpt",
    group="traj",
    title="Compute diffusion pseudotime from a root",
    render=filled(_dpt, _DPT),
    aliases=("pseudotime", "trajectory", "dpt", "diffusion pseudotime", "order cells in time"),
    reads=(*_GRAPH_READS, "obsm/X_diffmap", "uns/diffmap_evals"),
    writes=("obs/dpt_pseudotime", "uns/iroot"),
    params=_DPT,
    reads_if={"root_cluster": ("obs/{groupby}",)},
)
