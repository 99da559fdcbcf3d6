"""Steps of differential expression."""

from __future__ import annotations

from ovagent_jupyter.omics import slots
from ovagent_jupyter.omics.rendering import Code, call, filled, literal, words
from ovagent_jupyter.omics.step import Param, Params, Step, XKind

_LOGNORM = frozenset({XKind.LOGNORM})
_GROUPBY = Param("groupby", "obs_column", "leiden", words=("by", "for each", "per", "of", "in"))
_METHOD = Param(
    "method",
    "choice",
    "wilcoxon",
    choices=("wilcoxon", "t-test", "t-test_overestim_var", "logreg"),
    words=("method", "test", "using", "with"),
)
_USE_RAW = Param("use_raw", "bool", default=False, words=("use raw", "from raw"))
_LAYER = Param("layer", "str", words=("layer",))
_KEY = Param("key", "str", "rank_genes_groups", words=("key", "results"))

_MARKERS = (
    _GROUPBY,
    _METHOD,
    _USE_RAW,
    _LAYER,
    Param("key_added", "str", "rank_genes_groups", words=("key", "as", "key_added")),
)


def _markers(name: Code, params: Params) -> str:
    key = params["key_added"]
    return call(
        "sc.tl.rank_genes_groups",
        name,
        groupby=params["groupby"],
        method=params["method"],
        pts=True,
        use_raw=params["use_raw"],
        layer=params["layer"],
        key_added=None if key == "rank_genes_groups" else key,
    )


MARKERS = Step(
    id="markers",
    group="de",
    title="Find marker genes of each cluster (Wilcoxon test)",
    render=filled(_markers, _MARKERS),
    aliases=(
        "marker genes",
        "find markers",
        "markers",
        "cluster markers",
        "rank genes",
        "differentially expressed genes per cluster",
    ),
    needs_x=_LOGNORM,
    reads=("obs/{groupby}",),
    writes=("uns/{key_added}",),
    params=_MARKERS,
    makes_stale=slots.MARKERS[1:],
)

_TWO_GROUPS = (
    _GROUPBY,
    Param("group", "level", required=True, words=("group", "cluster", "compare")),
    Param("reference", "level", "rest", words=("vs", "versus", "against", "reference", "with")),
    _METHOD,
    _USE_RAW,
    _LAYER,
    Param("key_added", "str", "de", words=("key", "as", "key_added")),
)


def _de_two_groups(name: Code, params: Params) -> str:
    run = call(
        "sc.tl.rank_genes_groups",
        name,
        groupby=params["groupby"],
        groups=[str(params["group"])],
        reference=str(params["reference"]),
        method=params["method"],
        pts=True,
        use_raw=params["use_raw"],
        layer=params["layer"],
        key_added=params["key_added"],
    )
    table = call(
        "sc.get.rank_genes_groups_df", name, group=str(params["group"]), key=params["key_added"]
    )
    return f"{run}\nde_df = {table}\nde_df.head(20)"


DE_TWO_GROUPS = Step(
    id="de_two_groups",
    group="de",
    title="Compare two groups of cells, gene by gene",
    render=filled(_de_two_groups, _TWO_GROUPS),
    aliases=(
        "differential expression",
        "compare clusters",
        "de between clusters",
        "versus",
        "differentially expressed between",
    ),
    needs_x=_LOGNORM,
    reads=("obs/{groupby}",),
    writes=("uns/{key_added}",),
    params=_TWO_GROUPS,
    outputs=("de_df",),
)

_FILTER = (
    _GROUPBY,
    Param("min_in_group_fraction", "float", 0.25, words=("min fraction", "in group fraction")),
    Param("max_out_group_fraction", "float", 0.5, words=("max fraction", "out group fraction")),
    Param("min_fold_change", "float", 1, words=("fold change", "min fold change", "fc")),
    _USE_RAW,
    _KEY,
)


def _filter_markers(name: Code, params: Params) -> str:
    key = params["key"]
    return call(
        "sc.tl.filter_rank_genes_groups",
        name,
        key=None if key == "rank_genes_groups" else key,
        groupby=params["groupby"],
        min_in_group_fraction=params["min_in_group_fraction"],
        max_out_group_fraction=params["max_out_group_fraction"],
        min_fold_change=params["min_fold_change"],
        use_raw=params["use_raw"],
    )


FILTER_MARKERS = Step(
    id="filter_markers",
    group="de",
    title="Keep specific markers only",
    render=filled(_filter_markers, _FILTER),
    aliases=("filter markers", "specific markers only", "filter marker genes by fold change"),
    needs_x=_LOGNORM,
    reads=("uns/{key}", "obs/{groupby}", "uns/log1p"),
    writes=("uns/rank_genes_groups_filtered",),
    params=_FILTER,
)

_TABLE = (
    Param("n_top", "int", 10, words=("top", "genes", "first", "best")),
    Param("group", "level", words=("cluster", "group", "for cluster")),
    Param("pval_cutoff", "float", 0.05, words=("p value", "pval", "fdr", "p-value", "padj")),
    Param("log2fc_min", "float", words=("log fold change", "log2fc", "lfc", "fold change")),
    _KEY,
)


_UPWARD = 'markers_df = markers_df[markers_df["scores"] > 0]  # higher in the group than outside'


def _marker_table(name: Code, params: Params) -> str:
    groups = words(params["group"])
    key = params["key"]
    table = call(
        "sc.get.rank_genes_groups_df",
        name,
        group=Code("None") if len(groups) != 1 else groups[0],
        key=None if key == "rank_genes_groups" else key,
        pval_cutoff=params["pval_cutoff"],
        log2fc_min=params["log2fc_min"],
    )
    top = f"head({literal(params['n_top'])})"
    if len(groups) == 1:
        return f"markers_df = {table}\n{_UPWARD}\nmarkers_df.{top}"
    chosen = f'\nmarkers_df = markers_df[markers_df["group"].isin({literal(groups)})]'
    return f"""\
markers_df = {table}{chosen if groups else ""}
{_UPWARD}
if markers_df.empty:
    print("No gene is a marker at these cutoffs.")
top_genes = {{
    group: genes["names"].{top}.reset_index(drop=True)
    for group, genes in markers_df.groupby("group", observed=True, sort=False)
}}
pd.DataFrame(top_genes).fillna("")  # one column a cluster, best marker first"""


MARKER_TABLE = Step(
    id="marker_table",
    group="de",
    title="Show the top marker genes of each cluster as a table",
    render=filled(_marker_table, _TABLE),
    aliases=(
        "marker table",
        "export markers",
        "top genes per cluster",
        "table of markers",
        "list the markers",
        "top markers",
    ),
    reads=("uns/{key}",),
    params=_TABLE,
    outputs=("markers_df",),
)

_PSEUDOBULK = (
    Param("sample", "obs_column", required=True, words=("sample", "donor", "patient", "per", "by")),
    Param("groupby", "obs_column", words=("cell type", "cluster", "and", "within")),
    Param("layer", "str", "counts", words=("layer",)),
)


def _pseudobulk(name: Code, params: Params) -> str:
    by = words(params["sample"]) + words(params["groupby"])
    run = call("sc.get.aggregate", name, by=by, func="sum", layer=params["layer"])
    return f'pb = {run}\npb.X = pb.layers["sum"]\npb'


PSEUDOBULK = Step(
    id="pseudobulk",
    group="de",
    title="Sum the counts of each sample (and cell type) into a new AnnData",
    render=filled(_pseudobulk, _PSEUDOBULK),
    aliases=("pseudobulk", "pseudo-bulk", "aggregate counts per sample", "sum counts per sample"),
    reads=("layers/{layer}", "obs/{sample}", "obs/{groupby}"),
    params=_PSEUDOBULK,
    outputs=("pb",),
)
