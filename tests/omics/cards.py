"""State cards to plan on: real cells as far as they can be had quickly, the rest by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from ovagent_jupyter.omics.state import Column, DataState, XState
from ovagent_jupyter.omics.state_card import describe
from ovagent_jupyter.omics.step import XKind
from tests.omics import cells


@cache
def raw() -> DataState:
    """UMI counts with one column of labels, nothing done yet."""
    adata = cells.counts()
    adata.obs = adata.obs[["bulk_labels"]]
    return describe(adata)


def log() -> DataState:
    """Log-normalised, the counts in a layer."""
    before = raw()
    return replace(
        before,
        x=XState(XKind.LOGNORM, 1.0, "exp(x) - 1 sums to about 10,000 in every cell."),
        layers={"counts": before.x},
        uns=frozenset({"log1p"}),
    )


def clustered() -> DataState:
    """Analysed up to Leiden clusters and a UMAP, with two batches; no markers yet."""
    card = log()
    n = card.n_obs
    levels = tuple(map(str, range(8)))
    return replace(
        card,
        obs={
            **card.obs,
            "leiden": Column("leiden", "categorical", 8, levels),
            "batch": Column("batch", "categorical", 2, ("a", "b")),
        },
        var={
            name: Column(name, "float", None)
            for name in ("highly_variable", "means", "dispersions", "dispersions_norm")
        },
        obsm={"X_pca": (n, 50), "X_umap": (n, 2)},
        varm={"PCs": (card.n_vars, 50)},
        obsp={"connectivities": (n, n), "distances": (n, n)},
        uns=frozenset({"log1p", "hvg", "pca", "neighbors", "umap", "leiden"}),
    )


@cache
def scaled() -> DataState:
    """The data that scanpy ships: X scaled, ``.raw`` log-normalised, Louvain clusters."""
    import scanpy as sc

    return describe(sc.datasets.pbmc68k_reduced())


def card(name: str) -> DataState | None:
    """The card of that name; None for "none"."""
    makers = {"raw": raw, "log": log, "clustered": clustered, "scaled": scaled}
    return makers[name]() if name in makers else None


def unsure(state: DataState | None = None) -> DataState:
    """A card whose X could not be told for certain."""
    held = state or raw()
    return replace(held, x=XState(held.x.kind, 0.6, "Whole numbers, but few of them."))
