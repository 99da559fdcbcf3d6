"""Steps that load, combine and save data."""

from __future__ import annotations

from ovagent_jupyter.omics.rendering import Code, call, filled, literal, variable, words
from ovagent_jupyter.omics.step import Param, Params, Step, XKind

_PATH = Param("path", "path", required=True, words=("file", "from", "path", "folder"))


def _load_h5ad(name: Code, params: Params) -> str:
    return f"{name} = {call('sc.read_h5ad', params['path'])}"


LOAD_H5AD = Step(
    id="load_h5ad",
    group="io",
    title="Read an h5ad file",
    render=filled(_load_h5ad, (_PATH,)),
    aliases=("load h5ad", "open h5ad", "read h5ad", "import file", "load data", "read the file"),
    writes=("X",),
    params=(_PATH,),
    needs_data=False,
)


def _load_10x_mtx(name: Code, params: Params) -> str:
    return f"{name} = {call('sc.read_10x_mtx', params['path'], var_names='gene_symbols')}"


LOAD_10X_MTX = Step(
    id="load_10x_mtx",
    group="io",
    title="Read a Cell Ranger matrix folder",
    render=filled(_load_10x_mtx, (_PATH,)),
    aliases=(
        "10x folder",
        "read 10x",
        "cellranger output",
        "cell ranger matrix",
        "matrix.mtx",
        "filtered_feature_bc_matrix",
    ),
    leaves_x=XKind.COUNTS,
    writes=("X", "var/gene_ids"),
    params=(_PATH,),
    needs_data=False,
)


def _load_10x_h5(name: Code, params: Params) -> str:
    return (
        f"{name} = {call('sc.read_10x_h5', params['path'])}\n"
        f"{name}.var_names_make_unique()  # some gene symbols stand for two Ensembl ids"
    )


LOAD_10X_H5 = Step(
    id="load_10x_h5",
    group="io",
    title="Read a Cell Ranger h5 file",
    render=filled(_load_10x_h5, (_PATH,)),
    aliases=("10x h5", "read 10x h5", "filtered_feature_bc_matrix.h5", "cellranger h5"),
    leaves_x=XKind.COUNTS,
    writes=("X", "var/gene_ids"),
    params=(_PATH,),
    needs_data=False,
)


def _load_demo_pbmc(name: Code, _params: Params) -> str:
    return f"""\
# scanpy ships 700 blood cells, log-normalised: undo that to get the UMI counts back
shipped = sc.datasets.pbmc68k_reduced()
per_10k = shipped.raw.X.expm1()
counts = per_10k.multiply(shipped.obs["n_counts"].to_numpy()[:, None] / 1e4).tocsr().rint()
{name} = ad.AnnData(
    counts.astype("float32"),
    obs=shipped.obs[["bulk_labels"]].copy(),
    var=pd.DataFrame(index=shipped.raw.var_names),
)"""


LOAD_DEMO_PBMC = Step(
    id="load_demo_pbmc",
    group="io",
    title="Load UMI counts of 700 blood cells that ship with scanpy",
    render=filled(_load_demo_pbmc),
    aliases=("demo data", "example data", "example pbmc", "test dataset", "load pbmc", "pbmc demo"),
    leaves_x=XKind.COUNTS,
    writes=("X", "obs/bulk_labels"),
    needs_data=False,
)


def _make_unique(name: Code, _params: Params) -> str:
    return f"{name}.var_names_make_unique()\n{name}.obs_names_make_unique()"


MAKE_UNIQUE = Step(
    id="make_unique",
    group="io",
    title="Make gene and cell names unique",
    render=filled(_make_unique),
    aliases=(
        "make names unique",
        "duplicate gene names",
        "duplicated cell names",
        "fix duplicate names",
    ),
    writes=("var_names",),
)

_CONCAT = (
    Param("adatas", "name", required=True, words=("samples", "datasets", "objects")),
    Param("batch_key", "str", "batch", words=("batch", "label", "sample column")),
    Param("join", "choice", "inner", choices=("inner", "outer"), words=("join", "genes")),
)


def _concat(name: Code, params: Params) -> str:
    given = params["adatas"]
    pairs = given if isinstance(given, dict) else {item: item for item in words(given)}
    samples = {str(label): variable(item) for label, item in pairs.items()}
    outer = params["join"] == "outer"
    code = call(
        "ad.concat",
        samples,
        label=params["batch_key"],
        join=params["join"],
        merge="same",
        index_unique="-",
        fill_value=0 if outer else None,
    )
    return f"{name} = {code}"


CONCAT = Step(
    id="concat",
    group="io",
    title="Combine several samples into one AnnData",
    render=filled(_concat, _CONCAT),
    aliases=("merge samples", "combine datasets", "concatenate", "join samples", "concat"),
    writes=("X", "obs/{batch_key}"),
    params=_CONCAT,
    needs_data=False,
)


def _stash_counts(name: Code, _params: Params) -> str:
    return f'{name}.layers["counts"] = {name}.X.copy()'


STASH_COUNTS = Step(
    id="stash_counts",
    group="io",
    title="Keep the counts in a layer",
    render=filled(_stash_counts),
    aliases=("keep raw counts", "save counts layer", "store counts", "stash counts"),
    needs_x=frozenset({XKind.COUNTS}),
    writes=("layers/counts",),
)

_SAVE = (
    Param("path", "path", required=True, words=("file", "to", "as", "path")),
    Param("compression", "choice", "gzip", choices=("gzip", "lzf"), words=("compression",)),
)


def _save_h5ad(name: Code, params: Params) -> str:
    path = literal(params["path"])
    return call(f"{name}.write_h5ad", Code(path), compression=params["compression"])


SAVE_H5AD = Step(
    id="save_h5ad",
    group="io",
    title="Write the data to an h5ad file",
    render=filled(_save_h5ad, _SAVE),
    aliases=("save", "save h5ad", "write h5ad", "export h5ad", "save the data", "write to disk"),
    reads=("X",),
    writes=("file",),
    params=_SAVE,
)
