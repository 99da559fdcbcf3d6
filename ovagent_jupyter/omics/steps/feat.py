"""Steps on genes: selection, scaling, regression and scores."""

from __future__ import annotations

from ovagent_jupyter.omics.rendering import Code, call, filled, literal, words
from ovagent_jupyter.omics.slots import DERIVED, EMBEDDED
from ovagent_jupyter.omics.step import Param, Params, Step, XKind

_LOGNORM = frozenset({XKind.LOGNORM})
_CONTINUOUS = frozenset({XKind.LOGNORM, XKind.CORRECTED})
_HVG_WORDS = ("top genes", "variable genes", "n_top_genes", "top", "hvgs", "genes")
_BATCH = Param("batch_key", "obs_column", words=("batch", "per batch", "by sample", "by batch"))

_HVG = (
    Param("n_top_genes", "int", 2000, words=_HVG_WORDS),
    Param("flavor", "choice", "seurat", choices=("seurat", "cell_ranger"), words=("flavor",)),
    _BATCH,
)


def _hvg(name: Code, params: Params) -> str:
    return call(
        "sc.pp.highly_variable_genes",
        name,
        flavor=params["flavor"],
        n_top_genes=_at_most(params["n_top_genes"], f"{name}.n_vars"),
        batch_key=params["batch_key"],
    )


def _at_most(number: object, bound: str) -> Code:
    return Code(f"min({literal(number)}, {bound})")


HVG = Step(
    id="hvg",
    group="feat",
    title="Select highly variable genes",
    render=filled(_hvg, _HVG),
    aliases=(
        "hvg",
        "highly variable genes",
        "variable genes",
        "feature selection",
        "select variable genes",
        "find variable features",
    ),
    needs_x=_CONTINUOUS,
    writes=(
        "var/highly_variable",
        "var/means",
        "var/dispersions",
        "var/dispersions_norm",
        "uns/hvg",
    ),
    params=_HVG,
    makes_stale=EMBEDDED,
    reads_if={"batch_key": ("obs/{batch_key}",)},
)

_HVG_V3 = (Param("n_top_genes", "int", 2000, words=_HVG_WORDS), _BATCH)


def _hvg_v3(name: Code, params: Params) -> str:
    return call(
        "sc.pp.highly_variable_genes",
        name,
        flavor="seurat_v3",
        layer="counts",
        n_top_genes=_at_most(params["n_top_genes"], f"{name}.n_vars"),
        batch_key=params["batch_key"],
    )


HVG_V3 = Step(
    id="hvg_v3",
    group="feat",
    title="Select highly variable genes from the counts (Seurat v3)",
    render=filled(_hvg_v3, _HVG_V3),
    aliases=(
        "hvg seurat v3",
        "seurat_v3",
        "seurat v3 variable genes",
        "variable genes from counts",
    ),
    reads=("layers/counts",),
    writes=(
        "var/highly_variable",
        "var/highly_variable_rank",
        "var/means",
        "var/variances",
        "var/variances_norm",
        "uns/hvg",
    ),
    params=_HVG_V3,
    requires=("skmisc",),
    makes_stale=EMBEDDED,
    reads_if={"batch_key": ("obs/{batch_key}",)},
)


def _subset_hvg(name: Code, _params: Params) -> str:
    return f'{name} = {name}[:, {name}.var["highly_variable"]].copy()'


SUBSET_HVG = Step(
    id="subset_hvg",
    group="feat",
    title="Keep only the highly variable genes",
    render=filled(_subset_hvg),
    aliases=("keep only variable genes", "subset to hvg", "restrict to variable genes"),
    reads=("var/highly_variable",),
    writes=("genes",),
)

_REGRESS = (
    Param(
        "keys",
        "obs_column",
        ("total_counts", "pct_counts_mt"),
        words=("effect of", "regress out", "covariates", "effects"),
    ),
)


def _regress_out(name: Code, params: Params) -> str:
    return call("sc.pp.regress_out", name, words(params["keys"]))


REGRESS_OUT = Step(
    id="regress_out",
    group="feat",
    title="Regress unwanted effects out of X",
    render=filled(_regress_out, _REGRESS),
    aliases=("regress out", "remove effect of depth", "regress covariates"),
    needs_x=_CONTINUOUS,
    leaves_x=XKind.RESIDUAL,
    reads=("obs/{keys}",),
    writes=("X",),
    params=_REGRESS,
    makes_stale=DERIVED,
)

_SCALE = (
    Param("max_value", "float", 10, words=("max value", "clip", "clip at")),
    Param("zero_center", "bool", default=True, words=("zero center", "center")),
    Param("layer", "str", "scaled", words=("layer",)),
)


def _scale(name: Code, params: Params) -> str:
    kept = f"{name}.layers[{literal(params['layer'])}]"
    code = call(
        "sc.pp.scale",
        name,
        layer=params["layer"],
        max_value=params["max_value"],
        zero_center=None if params["zero_center"] else Code("False"),
    )
    if params["zero_center"]:
        return (
            f"# in a layer of its own, dense: X stays log-normalised for markers and plots\n"
            f"{kept} = {name}.to_df().to_numpy(copy=True)\n{code}"
        )
    return f"{kept} = {name}.X.copy()\n{code}"


SCALE = Step(
    id="scale",
    group="feat",
    title="Scale genes to unit variance, in a layer",
    render=filled(_scale, _SCALE),
    aliases=("scale", "z-score", "standardise", "standardize genes", "scale genes"),
    needs_x=frozenset({XKind.LOGNORM, XKind.CORRECTED, XKind.RESIDUAL}),
    writes=("layers/{layer}", "var/mean", "var/std"),
    params=_SCALE,
)

# Tirosh et al., Science 352:189 (2016), as used for cell-cycle scoring in this field
_S_GENES = (
    "MCM5 PCNA TYMS FEN1 MCM2 MCM4 RRM1 UNG GINS2 MCM6 CDCA7 DTL PRIM1 UHRF1 MLF1IP HELLS RFC2 "
    "RPA2 NASP RAD51AP1 GMNN WDR76 SLBP CCNE2 UBR7 POLD3 MSH2 ATAD2 RAD51 RRM2 CDC45 CDC6 EXO1 "
    "TIPIN DSCC1 BLM CASP8AP2 USP1 CLSPN POLA1 CHAF1B BRIP1 E2F8"
)
_G2M_GENES = (
    "HMGB2 CDK1 NUSAP1 UBE2C BIRC5 TPX2 TOP2A NDC80 CKS2 NUF2 CKS1B MKI67 TMPO CENPF TACC3 "
    "FAM64A SMC4 CCNB2 CKAP2L CKAP2 AURKB BUB1 KIF11 ANP32E TUBB4B GTSE1 KIF20B HJURP CDCA3 "
    "HN1 CDC20 TTK CDC25C KIF2C RANGAP1 NCAPD2 DLGAP5 CDCA2 CDCA8 ECT2 KIF23 HMMR AURKA PSRC1 "
    "ANLN LBR CKAP5 CENPE CTCF NEK2 G2E3 GAS2L3 CBX5 CENPA"
)
_CYCLE = (
    Param("s_genes", "genes", words=("s genes", "s phase genes")),
    Param("g2m_genes", "genes", words=("g2m genes",)),
)


def _cell_cycle(name: Code, params: Params) -> str:
    lines = [f"known = {{gene.upper(): gene for gene in {name}.var_names}}"]
    for key, builtin in (("s_genes", _S_GENES), ("g2m_genes", _G2M_GENES)):
        genes = words(params[key]) or builtin.split()
        lines += [
            f'{key} = """',
            *_wrapped([gene.upper() for gene in genes]),
            '""".split()',
            f"{key} = [known[gene] for gene in {key} if gene in known]",
        ]
    lines.append(f"sc.tl.score_genes_cell_cycle({name}, s_genes=s_genes, g2m_genes=g2m_genes)")
    return "\n".join(lines)


def _wrapped(genes: list[str]) -> list[str]:
    # names go into a triple-quoted string: what could end it cannot be a gene symbol
    safe = [gene for gene in genes if not set(gene) & set('"\\ \n')]
    return [f"    {' '.join(safe[start : start + 10])}" for start in range(0, len(safe), 10)]


CELL_CYCLE = Step(
    id="cell_cycle",
    group="feat",
    title="Score the cell cycle and assign phases",
    render=filled(_cell_cycle, _CYCLE),
    aliases=("cell cycle", "cell cycle phase", "S score", "G2M score", "score cell cycle"),
    needs_x=_LOGNORM,
    writes=("obs/S_score", "obs/G2M_score", "obs/phase"),
    params=_CYCLE,
)

_SCORE = (
    Param("genes", "genes", required=True, words=("genes", "signature", "gene list")),
    Param("score_name", "str", "score", words=("name", "called", "as")),
    Param("use_raw", "bool", default=False, words=("use raw", "from raw")),
)


def _score_genes(name: Code, params: Params) -> str:
    return call(
        "sc.tl.score_genes",
        name,
        words(params["genes"]),
        score_name=params["score_name"],
        use_raw=params["use_raw"],
        random_state=0,
    )


SCORE_GENES = Step(
    id="score_genes",
    group="feat",
    title="Score a gene signature in every cell",
    render=filled(_score_genes, _SCORE),
    aliases=("gene signature", "module score", "score genes", "signature score", "gene set score"),
    needs_x=_LOGNORM,
    writes=("obs/{score_name}",),
    params=_SCORE,
)
