"""Real cells to test on: 700 blood cells, analysed as far as a test needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ovagent_jupyter.omics.rendering import PRELUDE
from ovagent_jupyter.omics.step import STEPS, XKind

Namespace = dict[str, Any]

WHOLE_ANALYSIS: tuple[tuple[str, Mapping[str, object]], ...] = (
    ("flag_gene_sets", {}),
    ("qc_metrics", {}),
    ("stash_counts", {}),
    ("normalize", {}),
    ("log1p", {}),
    ("hvg", {"n_top_genes": 300}),
    ("pca", {"n_comps": 20}),
    ("neighbors", {}),
    ("umap", {}),
    ("diffmap", {}),
    ("leiden", {}),
    ("paga", {}),
    ("markers", {}),
)
"""Steps, in order, after which an AnnData holds what any other step may read."""


def run(step_id: str, params: Mapping[str, object], names: Mapping[str, object]) -> Namespace:
    """Run the code of a step as a child does, on variables of the given names."""
    namespace: Namespace = dict(names)
    exec(PRELUDE, namespace)
    exec(STEPS.get(step_id).render("adata", params), namespace)
    return namespace


def counts() -> Any:
    """UMI counts of 700 cells, with two batches of equal make-up and predicted doublets."""
    import numpy as np
    import pandas as pd

    adata = run("load_demo_pbmc", {}, {})["adata"]
    adata.obs["batch"] = pd.Categorical(np.where(np.arange(adata.n_obs) % 2, "a", "b"))
    adata.obs["predicted_doublet"] = np.arange(adata.n_obs) % 50 == 0
    return adata


def analysed() -> Any:
    """The cells after the whole analysis; X is log-normalised."""
    adata = counts()
    for step_id, params in WHOLE_ANALYSIS:
        adata = run(step_id, params, {"adata": adata})["adata"]
    return adata


def matrices(adata: Any) -> dict[XKind, Any]:
    """X of the cells in each state that a step may start from."""
    import numpy as np

    logged = adata.X
    return {
        XKind.COUNTS: adata.layers["counts"],
        XKind.NORM: logged.expm1(),
        XKind.LOGNORM: logged,
        XKind.SCALED: np.asarray((logged - logged.mean(axis=0)) / logged.toarray().std(axis=0)),
    }


def holding(adata: Any, matrix: Any, slots: Iterable[str]) -> Any:
    """A new AnnData with this X and of the slots no others than these."""
    import anndata as ad
    import pandas as pd

    made = ad.AnnData(
        matrix.copy(),
        obs=pd.DataFrame(index=adata.obs_names.copy()),
        var=pd.DataFrame(index=adata.var_names.copy()),
    )
    for slot in slots:
        place, _, key = slot.partition("/")
        if place != "X":
            value = getattr(adata, place)[key]
            getattr(made, place)[key] = value.copy() if hasattr(value, "copy") else value
    return made
