"""Plans are run on real cells: what was planned is what the code does."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ovagent_jupyter import omics

# the code runs as it would in the child, where warnings of the libraries are only shown
pytestmark = pytest.mark.filterwarnings("default")

_PLANS = (
    (
        "QC these cells, filter cells with nUMI > 150, cluster at resolution 0.5 with 20 pcs and "
        "show me which genes mark each cluster",
        "leiden",
    ),
    ("remove doublets, then tsne and score genes CD3D, CD3E called 't_score'", "t_score"),
    ("integrate by batch and annotate cell types", "cell_type"),
    ("pseudotime from LYZ, composition per batch and dendrogram", "dpt_pseudotime"),
    ("regress out counts", "total_counts"),
)


@pytest.mark.parametrize(("request_text", "column"), _PLANS, ids=[p[1] for p in _PLANS])
def test_code_runs_and_makes_what_it_says(counts: Any, request_text: str, column: str) -> None:
    adata = counts.copy()
    plan = omics.plan(request_text, omics.describe(adata))
    names: dict[str, Any] = {"adata": adata}
    exec(plan.code, names)
    assert column in names["adata"].obs
    assert set(plan.outputs) <= set(names)


def test_counts_come_and_go(lognorm: Any) -> None:
    adata = lognorm.copy()
    before = adata.X.copy()
    plan = omics.plan("qc metrics and doublets", omics.describe(adata))
    names: dict[str, Any] = {"adata": adata}
    exec(plan.code, names)
    after = names["adata"]
    assert abs(after.X - before).max() == 0
    assert "X_before" not in after.layers
    # counts were used: totals are whole numbers
    assert (after.obs["total_counts"] % 1 == 0).all()
    assert re.search(r"scrublet", plan.code)
