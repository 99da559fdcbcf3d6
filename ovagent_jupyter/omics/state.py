"""The state card: what an AnnData holds and what has been done to it, without copying it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeGuard

from ovagent_jupyter.omics.step import XKind

if TYPE_CHECKING:
    from anndata import AnnData

ColumnKind = Literal["categorical", "bool", "int", "float", "string", "other"]


def is_anndata(value: object) -> TypeGuard[AnnData]:
    """Whether a value is an AnnData; never imports anndata, which has made it if it is one."""
    anndata = sys.modules.get("anndata")
    return anndata is not None and isinstance(value, anndata.AnnData)


@dataclass(frozen=True, slots=True)
class XState:
    """What a matrix holds, with how sure we are and why."""

    kind: XKind
    confidence: float
    """0 to 1; below 0.9 the planner flags instead of acting."""
    evidence: str
    """One sentence a user can check."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of obs or var."""

    name: str
    kind: ColumnKind
    n_unique: int | None
    """Number of distinct values; None when it was not counted."""
    levels: tuple[str, ...] = ()
    """Values of a categorical, string or bool column, at most 200; else empty."""
    sizes: tuple[int, ...] = ()
    """Rows of each level, in the order of ``levels``; of a sample where ``n_unique`` is None."""


@dataclass(frozen=True, slots=True)
class DataState:
    """The state card of one AnnData."""

    name: str
    """Name of the variable."""
    n_obs: int
    n_vars: int
    x: XState
    obs: Mapping[str, Column]
    var: Mapping[str, Column]
    layers: Mapping[str, XState]
    obsm: Mapping[str, tuple[int, ...]]
    varm: Mapping[str, tuple[int, ...]]
    obsp: Mapping[str, tuple[int, ...]]
    varp: Mapping[str, tuple[int, ...]]
    uns: frozenset[str]
    raw: XState | None
    """State of ``.raw.X``; None without a raw."""
    genes: Mapping[str, str]
    """Upper-case gene name → name as in var_names."""
    species: Literal["human", "mouse"] | None
    unique_obs_names: bool
    unique_var_names: bool
    has_nan: bool
    """NaN or infinite values in the sampled rows of X."""
    made_with: Mapping[str, str] = field(default_factory=dict)
    """Slot of a result → the column of obs it was made by ("uns/rank_genes_groups" → "leiden")."""

    def has(self, slot: str) -> bool:
        """Whether a slot such as ``obs/leiden``, ``obsm/X_pca`` or ``raw`` is there."""
        place, _, key = slot.partition("/")
        if place == "raw":
            return self.raw is not None
        if place == "X":
            return True
        held = getattr(self, place, None)
        return held is not None and key in held
