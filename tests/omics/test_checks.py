"""Science guards: each stops or warns where it must, and is silent on a sound analysis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from ovagent_jupyter.omics.checks import check_step, missing_after, stale_after
from ovagent_jupyter.omics.slots import slots
from ovagent_jupyter.omics.state import DataState, XState
from ovagent_jupyter.omics.state_card import describe
from ovagent_jupyter.omics.step import STEPS, XKind
from tests.omics import cells


@pytest.fixture(scope="module")
def raw_cells(counts: Any) -> DataState:
    """State of untouched counts."""
    return describe(counts)


@pytest.fixture(scope="module")
def logged(lognorm: Any) -> DataState:
    """State after normalising and logging, the counts kept."""
    return describe(lognorm)


def levels(step_id: str, params: Mapping[str, object], state: DataState) -> list[str]:
    """Levels of the findings."""
    return [finding.level for finding in check_step(STEPS.get(step_id), params, state)]


def said(step_id: str, params: Mapping[str, object], state: DataState) -> str:
    """All that the guards say, as text."""
    found = check_step(STEPS.get(step_id), params, state)
    return "\n".join(f"{f.level}: {f.message} {f.next_step}" for f in found)


def holding(state: DataState, kind: XKind, confidence: float = 0.95) -> DataState:
    """The same card, X holding something else."""
    return replace(state, x=XState(kind, confidence, "As told."))


def test_sound_analysis_passes_in_silence(counts: Any) -> None:
    adata = counts.copy()
    for step_id, params in cells.WHOLE_ANALYSIS:
        assert check_step(STEPS.get(step_id), params, describe(adata)) == (), step_id
        adata = cells.run(step_id, params, {"adata": adata})["adata"]


def test_never_log_twice(logged: DataState) -> None:
    text = said("log1p", {}, logged)
    assert text.startswith("stop: X holds logged values already")
    assert "Leave this step out" in text


@pytest.mark.parametrize("step_id", ["normalize", "doublets", "pearson_norm", "qc_metrics"])
def test_counts_are_needed_and_where_they_are(step_id: str, logged: DataState) -> None:
    text = said(step_id, {}, logged)
    assert text.startswith("stop:")
    assert "adata.layers['counts']" in text


@pytest.mark.parametrize("step_id", ["markers", "score_genes", "plot_dotplot", "hvg"])
def test_counts_are_not_logged_values(step_id: str, raw_cells: DataState) -> None:
    params = {"genes": ["CD3D"], "groupby": "batch"}
    text = said(step_id, params, raw_cells)
    assert "stop:" in text
    assert "Normalise and log first." in text


def test_scaled_values_give_way_to_raw(logged: DataState) -> None:
    state = replace(holding(logged, XKind.SCALED), raw=logged.x)
    assert "use_raw=True" in said("markers", {"groupby": "batch"}, state)
    assert levels("markers", {"groupby": "batch", "use_raw": True}, state) == []


def test_corrected_values_are_not_for_tests(logged: DataState) -> None:
    state = holding(logged, XKind.CORRECTED)
    assert "Batch-corrected" in said("markers", {"groupby": "batch"}, state)
    assert levels("pca", {}, state) == []


def test_unsure_state_warns_only(logged: DataState) -> None:
    assert levels("log1p", {}, holding(logged, XKind.LOGNORM, 0.7)) == ["warn"]
    assert levels("hvg", {}, holding(logged, XKind.LOGNORM, 0.7)) == ["warn"]


def test_logged_twice_goes_nowhere(lognorm: Any) -> None:
    adata = lognorm.copy()
    adata.X = adata.X.log1p()
    assert "stop" in levels("hvg", {}, describe(adata))


def test_counts_layer_must_hold_counts(logged: DataState) -> None:
    wrong = replace(logged, layers={"counts": logged.x})
    assert "stop" in levels("hvg_v3", {}, wrong)
    assert "stop" in levels("pseudobulk", {"sample": "batch"}, wrong)
    assert levels("hvg_v3", {}, logged) == []


def test_scaling_in_place_warns(logged: DataState) -> None:
    assert levels("scale", {"layer": None}, logged) == ["warn"]
    assert levels("scale", {}, logged) == []


@pytest.mark.parametrize("rep", ["X_umap", "X_tsne"])
def test_never_cluster_on_a_picture(rep: str, logged: DataState) -> None:
    state = replace(logged, obsm={rep: (700, 2)})
    assert "made for the eye" in said("neighbors", {"use_rep": rep}, state)


@pytest.mark.parametrize("step_id", ["neighbors", "tsne", "dendrogram"])
def test_pca_is_needed(step_id: str, logged: DataState) -> None:
    assert "obsm/X_pca" in said(step_id, {"groupby": "batch"}, logged)


def test_groups_must_be_groups(logged: DataState, lognorm: Any) -> None:
    adata = lognorm.copy()
    adata.obs["depth"] = 0.5
    adata.obs["same"] = pd.Categorical(["x"] * adata.n_obs)
    state = describe(adata)
    assert "does not hold groups" in said("markers", {"groupby": "depth"}, state)
    assert "one group only" in said("markers", {"groupby": "same"}, state)
    assert "obs/nowhere" in said("markers", {"groupby": "nowhere"}, logged)


def test_conditions_with_samples_ask_for_pseudobulk(lognorm: Any) -> None:
    adata = lognorm.copy()
    number = pd.Series(range(adata.n_obs), index=adata.obs_names)
    adata.obs["donor"] = pd.Categorical((number % 4).astype(str))
    adata.obs["condition"] = pd.Categorical((number % 2).astype(str))
    params = {"groupby": "condition", "group": "0", "reference": "1"}
    assert "pseudobulk by obs['donor']" in said("de_two_groups", params, describe(adata))


def test_group_that_is_not_there(logged: DataState) -> None:
    params = {"groupby": "batch", "group": "c", "reference": "rest"}
    text = said("de_two_groups", params, logged)
    assert text == "stop: obs['batch'] has no group 'c'. It has: a, b."


def test_t_test_is_not_the_first_choice(logged: DataState) -> None:
    assert levels("markers", {"groupby": "batch", "method": "t-test"}, logged) == ["warn"]


def test_pseudotime_needs_a_root(logged: DataState) -> None:
    assert "Pseudotime needs a root." in said("dpt", {}, logged)
    assert "needs a root" not in said("dpt", {"root_cell": "x"}, logged)


def test_mito_threshold_is_in_percent(lognorm: Any) -> None:
    adata = lognorm.copy()
    adata.obs["pct_counts_mt"] = 1.0
    state = describe(adata)
    assert "20 %" in said("filter_mito", {"max_pct_mt": 0.2}, state)
    assert levels("filter_mito", {}, state) == []
    no_mito = replace(state, genes={"CD3D": "CD3D"})
    assert "MT-" in said("filter_mito", {}, no_mito)


def test_sample_size_is_asked_for(logged: DataState) -> None:
    assert levels("subsample", {}, logged) == ["stop"]
    assert levels("subsample", {"n": 10}, logged) == []


def test_one_batch_is_nothing_to_correct(logged: DataState, lognorm: Any) -> None:
    adata = lognorm.copy()
    adata.obs["batch"] = pd.Categorical(["x"] * adata.n_obs)
    assert "one batch" in said("combat", {"batch_key": "batch"}, describe(adata))
    assert levels("combat", {"batch_key": "batch"}, logged) == []


def test_unknown_genes(logged: DataState) -> None:
    assert levels("score_genes", {"genes": ["NOPE"]}, logged) == ["stop"]
    assert levels("score_genes", {"genes": ["NOPE", "cd3d"]}, logged) == ["warn"]
    params = {"genes": {"T": ["CD3D", "NOPE"]}, "groupby": "batch"}
    assert levels("plot_dotplot", params, logged) == ["stop"]


def test_gene_is_as_good_a_colour_as_a_column(logged: DataState) -> None:
    state = replace(logged, obsm={"X_umap": (700, 2)})
    assert levels("plot_umap", {"color": ["CD3D", "batch"]}, state) == []
    assert levels("plot_umap", {"color": ["nothing"]}, state) == ["stop"]


def test_blood_signatures_are_for_blood(logged: DataState) -> None:
    mouse = replace(logged, species="mouse")
    assert "look like mouse" in said("annotate_signatures", {"groupby": "batch"}, mouse)
    own = {"groupby": "batch", "signatures": {"T": ["CD3D"]}}
    assert levels("annotate_signatures", own, mouse) == []


def test_filtering_makes_results_stale() -> None:
    state = describe(cells.analysed())
    stale = stale_after(STEPS.get("filter_mito"), state)
    assert {"obsp/connectivities", "obsm/X_umap", "obs/leiden", "uns/rank_genes_groups"} <= {*stale}
    assert "no longer describe" in said("filter_mito", {}, state)


def test_empty_data_stops(lognorm: Any) -> None:
    assert "has no cells" in said("hvg", {}, describe(lognorm[:0]))


def test_missing_package_is_named(logged: DataState) -> None:
    step = replace(STEPS.get("leiden"), requires=("surely_not_installed",))
    found = check_step(step, {}, logged)
    assert found[0].level == "stop"
    assert "surely_not_installed" in found[0].message


def test_loading_needs_no_data(logged: DataState) -> None:
    empty = replace(logged, n_obs=0)
    assert levels("load_h5ad", {"path": "x"}, empty) == []


def test_broken_promises_are_found(lognorm: Any) -> None:
    step = STEPS.get("pca")
    assert missing_after(step, {}, slots(lognorm)) == ("obsm/X_pca", "varm/PCs", "uns/pca")
    assert missing_after(STEPS.get("log1p"), {}, slots(lognorm)) == ()
    leiden = missing_after(STEPS.get("leiden"), {"key_added": "fine"}, slots(lognorm))
    assert leiden == ("obs/fine", "uns/fine")


def test_filter_that_drops_most_cells_refuses(counts: Any) -> None:
    import matplotlib.pyplot as plt

    with pytest.raises(ValueError, match="would drop 700 of 700 cells, so nothing was dropped"):
        cells.run("filter_cells", {"min_genes": 5000}, {"adata": counts.copy()})
    assert plt.get_fignums(), "the histogram is shown"
    plt.close("all")
    anyway = {"min_genes": 280, "allow_large": True}
    kept = cells.run("filter_cells", anyway, {"adata": counts.copy()})
    assert 0 < kept["adata"].n_obs < 350
