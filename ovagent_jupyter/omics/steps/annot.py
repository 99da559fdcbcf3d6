"""Steps that give cells and clusters their names."""

from __future__ import annotations

from ovagent_jupyter.omics.rendering import Code, call, filled, literal, mapping, variable
from ovagent_jupyter.omics.step import Param, Params, Step, XKind

_GROUPBY = Param("groupby", "obs_column", "leiden", words=("by", "clusters", "of", "in"))
_LOGNORM = frozenset({XKind.LOGNORM})

BLOOD_SIGNATURES = {
    "CD4 T": ["CD3D", "CD3E", "IL7R", "CD4", "LTB"],
    "CD8 T": ["CD3D", "CD8A", "CD8B", "GZMK"],
    "NK": ["NKG7", "GNLY", "KLRD1", "PRF1", "FGFBP2"],
    "B": ["CD79A", "CD79B", "MS4A1", "CD19"],
    "Plasma": ["MZB1", "JCHAIN", "IGJ", "SDC1"],
    "CD14 monocyte": ["CD14", "LYZ", "S100A8", "S100A9"],
    "FCGR3A monocyte": ["FCGR3A", "MS4A7", "LST1"],
    "Dendritic": ["FCER1A", "CST3", "CLEC10A", "CD1C"],
    "Plasmacytoid dendritic": ["LILRA4", "IRF7", "GZMB", "SERPINF1"],
    "Platelet": ["PPBP", "PF4", "GNG11"],
    "Progenitor": ["CD34", "SPINK2"],
}
"""Well-known markers of human blood cells, used when the user names none."""

_TRANSFER = (
    Param("ref", "name", required=True, words=("from", "reference", "ref", "to")),
    Param("label", "obs_column", required=True, words=("label", "labels", "column")),
    Param("k", "int", 15, words=("neighbors", "neighbours", "k")),
)


def _label_transfer(name: Code, params: Params) -> str:
    ref, label = variable(params["ref"]), str(params["label"])
    return f"""\
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

shared = {ref}.var_names.intersection({name}.var_names)
if "highly_variable" in {ref}.var:
    shared = shared[{ref}.var.loc[shared, "highly_variable"].to_numpy()]
if len(shared) < 3:
    raise ValueError("The reference and the data share fewer than 3 usable genes.")
n_pcs = min(30, len(shared) - 1, {ref}.n_obs - 1)
space = PCA(n_pcs, svd_solver="arpack", random_state=0).fit({ref}[:, shared].X)
nearest = KNeighborsClassifier({literal(params["k"])}, weights="distance")
nearest.fit(space.transform({ref}[:, shared].X), {ref}.obs[{literal(label)}].astype(str))
{name}.obsm["X_pca_ref"] = space.transform({name}[:, shared].X)
probability = nearest.predict_proba({name}.obsm["X_pca_ref"])
{name}.obs[{literal(label)}] = pd.Categorical(nearest.classes_[probability.argmax(axis=1)])
{name}.obs[{literal(label + "_confidence")}] = probability.max(axis=1)"""


LABEL_TRANSFER = Step(
    id="label_transfer",
    group="annot",
    title="Transfer labels from a reference by nearest neighbours on its PCA",
    render=filled(_label_transfer, _TRANSFER),
    aliases=(
        "label transfer",
        "map to reference",
        "transfer labels",
        "reference mapping",
    ),
    needs_x=_LOGNORM,
    writes=("obsm/X_pca_ref", "obs/{label}", "obs/{label}_confidence"),
    params=_TRANSFER,
)

_SIGNATURES = Param(
    "signatures", "mapping", BLOOD_SIGNATURES, words=("signatures", "markers", "using")
)
_KEY_ADDED = Param("key_added", "str", "cell_type", words=("as", "column", "key", "called"))
_ANNOTATE = (
    _SIGNATURES,
    _GROUPBY,
    Param("min_margin", "float", 0.05, words=("margin", "min margin")),
    _KEY_ADDED,
    Param("use_raw", "bool", default=False, words=("use raw", "from raw")),
)


def _annotate_signatures(name: Code, params: Params) -> str:
    groupby, key = literal(params["groupby"]), literal(params["key_added"])
    use_raw = literal(params["use_raw"])
    names = f"{name}.raw.var_names" if params["use_raw"] else f"{name}.var_names"
    return f"""\
{mapping("signatures", params["signatures"])}
known = {{gene.upper(): gene for gene in {names}}}
for cell_type, genes in signatures.items():
    genes = [known[gene.upper()] for gene in genes if gene.upper() in known]
    if genes:
        score = f"{{cell_type}}_score"
        sc.tl.score_genes({name}, genes, score_name=score, use_raw={use_raw}, random_state=0)

scored = [cell_type for cell_type in signatures if f"{{cell_type}}_score" in {name}.obs]
if not scored:
    raise ValueError("None of the signature genes is in the data.")
clusters = {name}.obs.groupby({groupby}, observed=True)
scores = clusters[[f"{{cell_type}}_score" for cell_type in scored]].mean()
scores.columns = scored
best = scores.idxmax(axis=1)
if len(scored) > 1:
    ranked = np.sort(scores.to_numpy(), axis=1)
    best[ranked[:, -1] - ranked[:, -2] < {literal(params["min_margin"])}] = "unclear"
{name}.obs[{key}] = {name}.obs[{groupby}].map(best).astype("category")
scores.round(2).assign(cell_type=best)"""


ANNOTATE_SIGNATURES = Step(
    id="annotate_signatures",
    group="annot",
    title="Name clusters by the best scoring marker signature (human blood cells by default)",
    render=filled(_annotate_signatures, _ANNOTATE),
    aliases=(
        "annotate cell types",
        "name clusters from markers",
        "annotate clusters",
        "cell type annotation",
        "assign cell types",
    ),
    needs_x=_LOGNORM,
    reads=("obs/{groupby}",),
    writes=("obs/{key_added}",),
    params=_ANNOTATE,
)

_RENAME = (
    Param("mapping", "mapping", required=True, words=("as", "to", "is")),
    _GROUPBY,
    _KEY_ADDED,
)


def _rename_clusters(name: Code, params: Params) -> str:
    given = params["mapping"]
    names = {str(k): str(v) for k, v in given.items()} if isinstance(given, dict) else {}
    old, new = literal(params["groupby"]), literal(params["key_added"])
    return f"""\
{mapping("new_names", names)}
{name}.obs[{new}] = {name}.obs[{old}].astype(str).replace(new_names).astype("category")
{name}.obs[{new}].value_counts()"""


RENAME_CLUSTERS = Step(
    id="rename_clusters",
    group="annot",
    title="Give clusters new names",
    render=filled(_rename_clusters, _RENAME),
    aliases=("rename clusters", "label cluster as", "name cluster", "call cluster"),
    reads=("obs/{groupby}",),
    writes=("obs/{key_added}",),
    params=_RENAME,
)

_OVERLAP = (
    _SIGNATURES,
    Param("top_n", "int", 50, words=("top", "genes")),
    Param("key", "str", "rank_genes_groups", words=("key", "results")),
)


def _marker_overlap(name: Code, params: Params) -> str:
    key = params["key"]
    run = call(
        "sc.tl.marker_gene_overlap",
        name,
        Code("{cell_type: set(genes) for cell_type, genes in signatures.items()}"),
        key=None if key == "rank_genes_groups" else key,
        top_n_markers=params["top_n"],
    )
    return f"{mapping('signatures', params['signatures'])}\noverlap_df = {run}\noverlap_df"


MARKER_OVERLAP = Step(
    id="marker_overlap",
    group="annot",
    title="Count how many markers of each cluster are known cell type markers",
    render=filled(_marker_overlap, _OVERLAP),
    aliases=("marker overlap", "overlap with known markers", "compare with known markers"),
    reads=("uns/{key}",),
    params=_OVERLAP,
    outputs=("overlap_df",),
)

_COMPOSITION = (
    Param("sample", "obs_column", required=True, words=("per", "by", "sample", "across", "in")),
    Param("groupby", "obs_column", "leiden", words=("of", "cell type", "clusters")),
)


def _composition(name: Code, params: Params) -> str:
    rows, columns = (f"{name}.obs[{literal(params[key])}]" for key in ("sample", "groupby"))
    return (
        f'composition_df = pd.crosstab({rows}, {columns}, normalize="index")\n'
        "composition_df.round(3)"
    )


COMPOSITION = Step(
    id="composition",
    group="annot",
    title="Tabulate the share of each cluster in each sample",
    render=filled(_composition, _COMPOSITION),
    aliases=(
        "cell type proportions",
        "composition table",
        "composition",
        "fraction of clusters per sample",
        "cell type composition",
    ),
    reads=("obs/{sample}", "obs/{groupby}"),
    params=_COMPOSITION,
    outputs=("composition_df",),
)
