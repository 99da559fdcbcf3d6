"""Describing an AnnData as a state card, in bounded work and without copying it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from ovagent_jupyter.errors import DataError
from ovagent_jupyter.omics.sample import MAX_ROWS, has_gaps, take_sample
from ovagent_jupyter.omics.slots import slots
from ovagent_jupyter.omics.state import Column, ColumnKind, DataState, XState, is_anndata
from ovagent_jupyter.omics.step import XKind
from ovagent_jupyter.omics.xstate import classify, detect

if TYPE_CHECKING:
    from anndata import AnnData

MAX_LEVELS = 200
"""Levels of a column that are kept."""
MAX_COUNTED = 20_000
"""Values of a column of text or numbers that are looked at; longer ones are not counted."""
MAX_LAYERS = 8
"""Layers looked into; what further ones hold is unknown."""


def describe(adata: object, name: str = "adata") -> DataState:
    """The state card of an AnnData: what it holds and what has been done to it.

    Args:
        adata: In memory, backed or a view; it is not changed, copied or made dense.
        name: Name of the user's variable.

    Raises:
        DataError: It is no AnnData.
    """
    if not is_anndata(adata):
        raise DataError(
            f"{name} is a {type(adata).__name__}; an AnnData is needed.",
            next_step="Make one with anndata.AnnData(...), or name another variable.",
        )
    shown = _without_copies(adata)
    hints = frozenset(slots(shown))
    x, has_nan = _x_state(shown, hints)
    names = adata.var_names.astype(str)
    return DataState(
        name=name,
        n_obs=adata.n_obs,
        n_vars=adata.n_vars,
        x=x,
        obs=_columns(adata.obs),
        var=_columns(adata.var),
        layers=_layers(shown, hints),
        obsm={str(key): (adata.n_obs, *_width(shown.obsm[key])) for key in shown.obsm},
        varm={str(key): (adata.n_vars, *_width(shown.varm[key])) for key in shown.varm},
        obsp={str(key): (adata.n_obs, adata.n_obs) for key in shown.obsp},
        varp={str(key): (adata.n_vars, adata.n_vars) for key in shown.varp},
        uns=frozenset(str(key) for key in adata.uns),
        raw=None if shown.raw is None else detect(shown.raw.X, hints & {"uns/log1p"}),
        genes={gene.upper(): gene for gene in reversed(names.tolist())},
        species=species_of(names),
        unique_obs_names=bool(adata.obs_names.is_unique),
        unique_var_names=bool(adata.var_names.is_unique),
        has_nan=has_nan,
        made_with=_made_with(adata),
    )


def _made_with(adata: AnnData) -> dict[str, str]:
    """Which column of obs the results in uns were made by, where they say so."""
    made = {}
    for key, result in adata.uns.items():
        params = result.get("params") if isinstance(result, Mapping) else None
        column = params.get("groupby") if isinstance(params, Mapping) else None
        if isinstance(params, Mapping) and isinstance(column, str):
            reference = str(params.get("reference", "rest"))
            # set against one group, they are no markers of that column's groups
            made[f"uns/{key}"] = (
                str(column) if reference == "rest" else f"{column} against {reference}"
            )
    return made


def _without_copies(adata: AnnData) -> Any:
    """An AnnData like this one whose matrices cost nothing to ask for.

    The matrices of a view are copies of its part, so that part is made small first. A view of a
    file cannot be cut again; there the whole file answers, which holds the same kind of values.
    """
    if not adata.is_view:
        return adata
    return adata._adata_ref if adata.isbacked else adata[_some(adata.n_obs)]


def _some(length: int) -> Any:
    return np.unique(np.linspace(0, max(0, length - 1), min(MAX_ROWS, length)).astype(int))


def _x_state(shown: Any, hints: frozenset[str]) -> tuple[XState, bool]:
    matrix = shown.X
    sample = None if matrix is None or 0 in matrix.shape else take_sample(matrix)
    if sample is None:
        return detect(matrix, hints), False
    return classify(sample, hints), has_gaps(matrix) or not np.isfinite(sample.values).all()


def _layers(shown: Any, hints: frozenset[str]) -> dict[str, XState]:
    held = {}
    # anndata 0.13 lists X among the layers, under None
    for number, key in enumerate(key for key in shown.layers if key is not None):
        if number < MAX_LAYERS:
            held[str(key)] = detect(shown.layers[key], hints & {"uns/log1p"})
        else:
            held[str(key)] = XState(XKind.UNKNOWN, 0.0, "Not looked into: there are many layers.")
    return held


def _width(value: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in getattr(value, "shape", ())[1:])


def _columns(frame: Any) -> Mapping[str, Column]:
    return {
        str(label): _column(str(label), frame.iloc[:, position])
        for position, label in enumerate(frame.columns)
    }


def _column(name: str, values: pd.Series[Any]) -> Column:
    if isinstance(values.dtype, pd.CategoricalDtype):
        categories = values.cat.categories
        levels = tuple(str(level) for level in categories[:MAX_LEVELS])
        codes = values.cat.codes.to_numpy()
        sizes = np.bincount(codes[codes >= 0], minlength=len(categories))[:MAX_LEVELS]
        return Column(name, "categorical", len(categories), levels, tuple(sizes.tolist()))
    kind = _kind(values)
    if kind in ("float", "other"):
        return Column(name, kind, None)
    if kind == "bool":
        return _counted(name, kind, values)
    if len(values) > MAX_COUNTED:
        # the levels seen first are worth having, their number would be wrong
        part = _counted(name, kind, values.iloc[:: len(values) // MAX_COUNTED + 1])
        return Column(name, kind, None, part.levels, part.sizes)
    return _counted(name, kind, values)


def _counted(name: str, kind: ColumnKind, values: pd.Series[Any]) -> Column:
    if kind == "int":
        return Column(name, kind, values.nunique())
    counts = values.value_counts(sort=False)  # in the order in which they are met
    first = counts.iloc[:MAX_LEVELS]
    rows = sorted((str(level), int(size)) for level, size in first.items())
    levels, sizes = tuple(level for level, _ in rows), tuple(size for _, size in rows)
    return Column(name, kind, len(counts), levels, sizes)


def _kind(values: pd.Series[Any]) -> ColumnKind:
    dtype = values.dtype
    if pd.api.types.is_bool_dtype(dtype):
        return "bool"
    if pd.api.types.is_integer_dtype(dtype):
        return "int"
    if pd.api.types.is_float_dtype(dtype):
        return "float"
    if isinstance(dtype, pd.StringDtype):
        return "string"
    seen = pd.api.types.infer_dtype(values.iloc[:MAX_ROWS], skipna=True)
    kinds: dict[str, ColumnKind] = {"string": "string", "boolean": "bool"}
    return kinds.get(seen, "other")


def species_of(genes: pd.Index[Any]) -> Literal["human", "mouse"] | None:
    """The species, by how symbols are written: human MT-CO1 and CD3E, mouse mt-Co1 and Cd3e."""
    sampled = [gene for gene in genes[_some(len(genes))].tolist() if gene]
    if sum(gene.startswith("ENSG0") for gene in sampled) > len(sampled) / 2:
        return "human"
    if sum(gene.startswith("ENSMUSG") for gene in sampled) > len(sampled) / 2:
        return "mouse"
    symbols = [gene for gene in sampled if sum(map(str.isalpha, gene)) > 1 and gene.isascii()]
    if len(symbols) < 3 or any(gene.startswith("ENS") for gene in symbols[:3]):  # noqa: PLR2004
        return None
    upper = sum(gene.upper() == gene for gene in symbols) / len(symbols)
    title = sum(gene[0].isupper() and gene[1:].lower() == gene[1:] for gene in symbols)
    if upper > 0.6:  # noqa: PLR2004 - C1orf43 and AC004.1 are human too
        return "human"
    return "mouse" if title > 0.6 * len(symbols) else None
