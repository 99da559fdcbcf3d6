"""Steps of quality control: flags, metrics, filters and doublets."""

from __future__ import annotations

from ovagent_jupyter.omics.rendering import Code, call, filled, literal, words
from ovagent_jupyter.omics.slots import DERIVED, MARKERS
from ovagent_jupyter.omics.step import Param, Params, Step, XKind

_COUNTS = frozenset({XKind.COUNTS})
_ALLOW_LARGE = Param(
    "allow_large", "bool", default=False, words=("allow large", "anyway", "even if most are lost")
)


def _drop_cells(name: Code, keep: str, params: Params, cutoffs: list[tuple[str, object]]) -> str:
    """Code that keeps cells, but refuses with a histogram when more than half would go."""
    lines = [f"keep = {keep}"]
    if not params.get("allow_large"):
        lines.append("if keep.mean() < 0.5:")
        if cutoffs:
            column, _ = cutoffs[0]
            lines.append(f"    {name}.obs[{literal(column)}].plot.hist(bins=60)")
            lines += [
                f'    plt.axvline({literal(value)}, color="red")'
                for other, value in cutoffs
                if other == column
            ]
            lines += [f"    plt.xlabel({literal(column)})", "    plt.show()"]
        lines += [
            "    raise ValueError(",
            '        f"This filter would drop {(~keep).sum():,} of {keep.size:,} cells, so "',
            '        "nothing was dropped. Choose a milder threshold, or set allow_large=True."',
            "    )",
        ]
    lines += [
        'print(f"{keep.sum():,} of {keep.size:,} cells kept")',
        f"{name} = {name}[keep.to_numpy()].copy()",
    ]
    return "\n".join(lines)


def _flag_gene_sets(name: Code, params: Params) -> str:
    prefix = str(params["mt_prefix"]).upper()
    return f"""\
symbols = {name}.var_names.str.upper()  # human MT-CO1 and mouse mt-Co1 alike
{name}.var["mt"] = symbols.str.startswith({literal(prefix)})
{name}.var["ribo"] = symbols.str.match(r"RP[SL](?:\\d+(?!\\d|K)|P\\d|A$)")
{name}.var["hb"] = symbols.str.match(r"HB[ABDEGMQZ]\\d?[AB]?(?:-\\w+)?$")"""


_FLAGS = (Param("mt_prefix", "str", "MT-", words=("mito prefix", "mitochondrial prefix")),)

FLAG_GENE_SETS = Step(
    id="flag_gene_sets",
    group="qc",
    title="Flag mitochondrial, ribosomal and haemoglobin genes",
    render=filled(_flag_gene_sets, _FLAGS),
    aliases=(
        "flag mitochondrial genes",
        "mitochondrial genes",
        "ribosomal genes",
        "hemoglobin genes",
        "mark mito genes",
    ),
    writes=("var/mt", "var/ribo", "var/hb"),
    params=_FLAGS,
)


def _qc_metrics(name: Code, params: Params) -> str:
    return call(
        "sc.pp.calculate_qc_metrics",
        name,
        qc_vars=words(params["qc_vars"]),
        percent_top=[params["percent_top"]],
        log1p=True,
        inplace=True,
    )


_QC = (
    Param("qc_vars", "str", ("mt", "ribo", "hb"), words=("gene sets", "qc vars")),
    Param("percent_top", "int", 20, words=("percent top",)),
)

QC_METRICS = Step(
    id="qc_metrics",
    group="qc",
    title="Compute quality metrics for cells and genes",
    render=filled(_qc_metrics, _QC),
    aliases=(
        "qc",
        "quality control",
        "quality metrics",
        "qc metrics",
        "compute qc",
        "percent mito",
        "umi counts per cell",
    ),
    needs_x=_COUNTS,
    reads=("var/{qc_vars}",),
    writes=(
        "obs/n_genes_by_counts",
        "obs/log1p_n_genes_by_counts",
        "obs/total_counts",
        "obs/log1p_total_counts",
        "obs/pct_counts_in_top_{percent_top}_genes",
        *(
            f"obs/{kind}_{{qc_vars}}"
            for kind in ("total_counts", "log1p_total_counts", "pct_counts")
        ),
        "var/n_cells_by_counts",
        "var/mean_counts",
        "var/log1p_mean_counts",
        "var/pct_dropout_by_counts",
        "var/total_counts",
        "var/log1p_total_counts",
    ),
    params=_QC,
)

_FILTER_CELLS = (
    Param("min_genes", "int", words=("min genes", "at least genes", "ngene", "nfeature", "genes")),
    Param("max_genes", "int", words=("max genes", "at most genes")),
    Param("min_counts", "int", words=("min counts", "numi", "umi", "ncount", "counts", "umis")),
    Param("max_counts", "int", words=("max counts", "at most counts")),
    _ALLOW_LARGE,
)
_DEFAULT_MIN_GENES = 200


def _filter_cells(name: Code, params: Params) -> str:
    given = {p.name: params[p.name] for p in _FILTER_CELLS[:4] if params[p.name] is not None}
    given = given or {"min_genes": _DEFAULT_MIN_GENES}
    cutoffs = [(f"n_{key.partition('_')[2]}", value) for key, value in given.items()]
    signs = [">=" if key.startswith("min") else "<=" for key in given]
    tests = [
        f"({name}.obs[{literal(column)}] {sign} {literal(value)})"
        for (column, value), sign in zip(cutoffs, signs, strict=True)
    ]
    keep = tests[0][1:-1] if len(tests) == 1 else " & ".join(tests)
    lines = [f'{name}.obs["n_genes"] = np.asarray(({name}.X > 0).sum(axis=1)).ravel()']
    if any(column == "n_counts" for column, _ in cutoffs):
        lines.append(f'{name}.obs["n_counts"] = np.asarray({name}.X.sum(axis=1)).ravel()')
    return "\n".join([*lines, _drop_cells(name, keep, params, cutoffs)])


FILTER_CELLS = Step(
    id="filter_cells",
    group="qc",
    title="Drop cells with too few or too many genes or counts",
    render=filled(_filter_cells, _FILTER_CELLS),
    aliases=(
        "filter cells",
        "remove low quality cells",
        "drop empty cells",
        "cells with at least genes",
        "minimum counts per cell",
        "nUMI threshold",
    ),
    needs_x=_COUNTS,
    writes=("obs/n_genes", "cells"),
    params=_FILTER_CELLS,
    makes_stale=DERIVED,
)

_FILTER_GENES = (
    Param("min_cells", "int", 3, words=("min cells", "at least cells", "cells")),
    Param("min_counts", "int", words=("min counts per gene",)),
    Param("max_cells", "int", words=("max cells",)),
)


def _filter_genes(name: Code, params: Params) -> str:
    given = {p.name: params[p.name] for p in _FILTER_GENES if params[p.name] is not None}
    lines = ["genes_before = " + f"{name}.n_vars"]
    # scanpy takes one threshold a call; n_cells is only written by the thresholds on cells
    lines += [f"sc.pp.filter_genes({name}, {key}={literal(value)})" for key, value in given.items()]
    lines.append(f'print(f"{{{name}.n_vars:,}} of {{genes_before:,}} genes kept")')
    return "\n".join(lines)


FILTER_GENES = Step(
    id="filter_genes",
    group="qc",
    title="Drop genes seen in too few cells",
    render=filled(_filter_genes, _FILTER_GENES),
    aliases=(
        "filter genes",
        "drop rarely expressed genes",
        "remove rare genes",
        "genes in at least cells",
    ),
    needs_x=_COUNTS,
    writes=("var/n_cells", "genes"),
    params=_FILTER_GENES,
    makes_stale=MARKERS,
)

_FILTER_MITO = (
    Param(
        "max_pct_mt",
        "float",
        20,
        words=("mito", "mt", "percent mito", "pct_counts_mt", "mitochondrial", "max mito"),
    ),
    _ALLOW_LARGE,
)


def _filter_mito(name: Code, params: Params) -> str:
    limit = params["max_pct_mt"]
    keep = f'{name}.obs["pct_counts_mt"] < {literal(limit)}'
    return _drop_cells(name, keep, params, [("pct_counts_mt", limit)])


FILTER_MITO = Step(
    id="filter_mito",
    group="qc",
    title="Drop cells with many mitochondrial counts",
    render=filled(_filter_mito, _FILTER_MITO),
    aliases=(
        "filter mito",
        "remove high mitochondrial cells",
        "drop dying cells",
        "mitochondrial threshold",
        "filter by mitochondrial percentage",
    ),
    reads=("obs/pct_counts_mt",),
    writes=("cells",),
    params=_FILTER_MITO,
    makes_stale=DERIVED,
)

_FILTER_MAD = (Param("nmads", "float", 5, words=("mads", "mad", "nmads")), _ALLOW_LARGE)
_MAD_COLUMNS = ("log1p_total_counts", "log1p_n_genes_by_counts", "pct_counts_in_top_20_genes")


def _filter_mad(name: Code, params: Params) -> str:
    return f"""\
metrics = {name}.obs[{literal(_MAD_COLUMNS)}]
distance = (metrics - metrics.median()).abs()
{name}.obs["outlier"] = (distance > {literal(params["nmads"])} * distance.median()).any(axis=1)
{_drop_cells(name, f'~{name}.obs["outlier"]', params, [])}"""


FILTER_MAD = Step(
    id="filter_mad",
    group="qc",
    title="Drop outlier cells by median absolute deviations",
    render=filled(_filter_mad, _FILTER_MAD),
    aliases=(
        "mad filter",
        "adaptive thresholds",
        "automatic outlier filtering",
        "remove outlier cells",
        "median absolute deviation",
    ),
    reads=tuple(f"obs/{column}" for column in _MAD_COLUMNS),
    writes=("obs/outlier", "cells"),
    params=_FILTER_MAD,
    makes_stale=DERIVED,
)

_DOUBLETS = (
    Param("expected_doublet_rate", "float", 0.05, words=("doublet rate", "expected rate")),
    Param("batch_key", "obs_column", words=("per batch", "by sample", "batch", "sample")),
)


def _doublets(name: Code, params: Params) -> str:
    code = call(
        "sc.pp.scrublet",
        name,
        expected_doublet_rate=params["expected_doublet_rate"],
        batch_key=params["batch_key"],
        random_state=0,
    )
    return f"""\
{code}
if {name}.obs["predicted_doublet"].isna().all():
    print("Scrublet found no clear threshold: judge obs['doublet_score'] by eye")
# a cell too small to be scored counts as a singlet
{name}.obs["predicted_doublet"] = {name}.obs["predicted_doublet"].eq(True)
n_doublets = {name}.obs["predicted_doublet"].sum()
print(f"{{n_doublets:,}} of {{{name}.n_obs:,}} cells look like doublets")"""


DOUBLETS = Step(
    id="doublets",
    group="qc",
    title="Score doublets with Scrublet",
    render=filled(_doublets, _DOUBLETS),
    aliases=("find doublets", "doublet detection", "scrublet", "multiplets", "doublet score"),
    needs_x=_COUNTS,
    writes=("obs/doublet_score", "obs/predicted_doublet", "uns/scrublet"),
    params=_DOUBLETS,
    requires=("skimage",),
    reads_if={"batch_key": ("obs/{batch_key}",)},
)


def _drop_doublets(name: Code, params: Params) -> str:
    return _drop_cells(name, f'~{name}.obs["predicted_doublet"].astype(bool)', params, [])


DROP_DOUBLETS = Step(
    id="drop_doublets",
    group="qc",
    title="Drop the cells called doublets",
    render=filled(_drop_doublets, (_ALLOW_LARGE,)),
    aliases=("remove doublets", "drop doublets", "filter doublets", "discard multiplets"),
    reads=("obs/predicted_doublet",),
    writes=("cells",),
    params=(_ALLOW_LARGE,),
    makes_stale=DERIVED,
)

_SUBSAMPLE = (
    Param("n", "int", words=("cells", "n", "number of cells")),
    Param("fraction", "float", words=("fraction", "percent", "percent of cells")),
)
_DEFAULT_SAMPLE = 1000


def _subsample(name: Code, params: Params) -> str:
    if params["fraction"] is not None:
        return call("sc.pp.sample", name, fraction=params["fraction"], rng=0)
    n = literal(params["n"] or _DEFAULT_SAMPLE)
    return call("sc.pp.sample", name, n=Code(f"min({n}, {name}.n_obs)"), rng=0)


SUBSAMPLE = Step(
    id="subsample",
    group="qc",
    title="Keep a random sample of cells",
    render=filled(_subsample, _SUBSAMPLE),
    aliases=("subsample", "downsample cells", "take random cells", "random sample of cells"),
    writes=("cells",),
    params=_SUBSAMPLE,
    makes_stale=DERIVED,
)
