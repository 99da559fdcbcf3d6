"""Steps of normalisation."""

from __future__ import annotations

from ovagent_jupyter.omics.rendering import Code, call, filled
from ovagent_jupyter.omics.slots import DERIVED
from ovagent_jupyter.omics.step import Param, Params, Step, XKind

_NORMALIZE = (
    Param("target_sum", "float", 1e4, words=("target sum", "counts per", "scale factor")),
)


def _normalize(name: Code, params: Params) -> str:
    return call("sc.pp.normalize_total", name, target_sum=params["target_sum"])


NORMALIZE = Step(
    id="normalize",
    group="norm",
    title="Normalise each cell to the same total (10,000 counts)",
    render=filled(_normalize, _NORMALIZE),
    aliases=("normalise", "normalize", "CP10K", "library size normalization", "normalize total"),
    needs_x=frozenset({XKind.COUNTS}),
    leaves_x=XKind.NORM,
    writes=("X",),
    params=_NORMALIZE,
    makes_stale=DERIVED,
)

_LOG1P = (Param("base", "float", words=("base", "log base")),)


def _log1p(name: Code, params: Params) -> str:
    return call("sc.pp.log1p", name, base=params["base"])


LOG1P = Step(
    id="log1p",
    group="norm",
    title="Take the logarithm, log(1 + x)",
    render=filled(_log1p, _LOG1P),
    aliases=("log transform", "log1p", "logarithm", "log normalize", "take the log"),
    needs_x=frozenset({XKind.NORM}),
    leaves_x=XKind.LOGNORM,
    writes=("X", "uns/log1p"),
    params=_LOG1P,
    makes_stale=DERIVED,
)


def _freeze_raw(name: Code, _params: Params) -> str:
    return f"{name}.raw = {name}.copy()"


FREEZE_RAW = Step(
    id="freeze_raw",
    group="norm",
    title="Keep the log-normalised values of all genes in .raw",
    render=filled(_freeze_raw),
    aliases=("freeze raw", "keep all genes in raw", "set raw", "store raw"),
    needs_x=frozenset({XKind.LOGNORM}),
    writes=("raw",),
)

_PEARSON = (Param("theta", "float", 100, words=("theta", "overdispersion")),)


def _pearson_norm(name: Code, params: Params) -> str:
    return call("sc.experimental.pp.normalize_pearson_residuals", name, theta=params["theta"])


PEARSON_NORM = Step(
    id="pearson_norm",
    group="norm",
    title="Replace counts by analytic Pearson residuals",
    render=filled(_pearson_norm, _PEARSON),
    aliases=("pearson residuals", "analytic pearson residuals", "sctransform"),
    needs_x=frozenset({XKind.COUNTS}),
    leaves_x=XKind.RESIDUAL,
    writes=("X", "uns/pearson_residuals_normalization"),
    params=_PEARSON,
    makes_stale=DERIVED,
)
