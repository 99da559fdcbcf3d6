"""The offline planner, through its public door: plans are exact, and nothing wrong is planned."""

from __future__ import annotations

import ast
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ovagent_jupyter import omics
from ovagent_jupyter.errors import WorkflowNeedsFallback
from ovagent_jupyter.omics.planner.simulate import after
from ovagent_jupyter.omics.state import XState
from ovagent_jupyter.omics.step import STEPS, XKind
from tests.omics import cards

_HERE = Path(__file__).parent
_MOST_LINES = 6


def _prompts(name: str) -> list[Any]:
    rows = tomllib.loads((_HERE / name).read_text(encoding="utf-8"))["prompt"]
    return [pytest.param(row, id=f"{row['state']}: {row['request'][:60]}") for row in rows]


@pytest.mark.parametrize("prompt", _prompts("prompts_in_scope.toml"))
def test_plan_is_exact(prompt: dict[str, Any]) -> None:
    state = cards.card(prompt["state"])
    plan = omics.plan(prompt["request"], state)
    ids = [step.id for step in plan.steps]
    assert ids == prompt.get("steps", " ".join(ids)).split()
    assert set(prompt.get("has", "").split()) <= set(ids)
    assert not set(prompt.get("lacks", "").split()) & set(ids)
    for step in plan.steps:
        for name, value in prompt.get("params", {}).get(step.id, {}).items():
            assert step.params[name] == value
    ast.parse(plan.code)
    assert plan.code.startswith("import anndata as ad")
    assert all(row.why for row in plan.as_table())


@pytest.mark.parametrize("prompt", _prompts("prompts_refused.toml"))
def test_nothing_wrong_runs(prompt: dict[str, Any]) -> None:
    with pytest.raises(WorkflowNeedsFallback) as caught:
        omics.plan(prompt["request"], cards.card(prompt["state"]))
    error = caught.value
    assert len(error.lines()) <= _MOST_LINES
    assert all(len(line) < 300 for line in error.lines())
    assert error.next_step


def test_enough_prompts() -> None:
    assert len(_prompts("prompts_in_scope.toml")) >= 140
    assert len(_prompts("prompts_refused.toml")) >= 40


def test_the_main_request() -> None:
    plan = omics.plan(
        "QC these cells, cluster them, and show me which genes mark each cluster", cards.raw()
    )
    ids = [step.id for step in plan.steps]
    for first, second in zip(
        ("flag_gene_sets", "qc_metrics", "stash_counts", "normalize", "log1p", "hvg", "pca"),
        ("qc_metrics", "stash_counts", "normalize", "log1p", "hvg", "pca", "neighbors"),
        strict=True,
    ):
        assert ids.index(first) < ids.index(second)
    assert ids[-3:] == ["markers", "marker_table", "plot_dotplot"]
    assert "filter_cells" not in ids
    assert plan.outputs == ("markers_df",)
    assert plan.inserted_because["neighbors"] == "leiden needs obsp/connectivities"
    assert plan.reasons["leiden"] == "you asked: 'cluster them'"


def test_record_is_plain() -> None:
    record = omics.plan("cluster at resolution 0.5", cards.raw()).as_record()
    assert record["request"] == "cluster at resolution 0.5"
    steps = record["steps"]
    assert isinstance(steps, list)
    assert {"id", "params", "code", "reason", "inserted_because"} == set(steps[0])


def test_partial_plan_comes_with_the_refusal() -> None:
    with pytest.raises(WorkflowNeedsFallback) as caught:
        omics.plan("cluster the cells, then run RNA velocity", cards.raw())
    partial = caught.value.partial_plan
    assert isinstance(partial, omics.Plan)
    assert "leiden" in [step.id for step in partial.steps]
    assert caught.value.unresolved_clauses == ("run RNA velocity",)
    assert partial.unresolved == ("run RNA velocity",)


def test_missing_slot_is_named() -> None:
    with pytest.raises(WorkflowNeedsFallback) as caught:
        omics.plan("cluster without pca", cards.raw())
    assert caught.value.missing_slots == ("obsm/X_pca",)


def test_missing_package_is_named() -> None:
    with pytest.raises(WorkflowNeedsFallback, match="igraph"):
        omics.plan("cluster", cards.raw(), available=())
    assert omics.plan("cluster", cards.raw(), available=("igraph",)).steps


def test_uncertain_matrix_stops_until_the_user_says() -> None:
    state = cards.unsure()
    with pytest.raises(WorkflowNeedsFallback, match="not certain"):
        omics.plan("normalize", state)
    plan = omics.plan("the data are raw counts; normalize", state)
    assert [step.id for step in plan.steps] == ["stash_counts", "normalize"]
    assert omics.plan("plot umap coloured by leiden", cards.unsure(cards.clustered())).steps


def test_counts_stand_in_for_a_while() -> None:
    plan = omics.plan("find doublets", cards.log())
    assert [step.id for step in plan.steps] == ["doublets"]
    code = plan.steps[0].code
    assert code.index('layers["counts"]') < code.index("scrublet") < code.index(".pop(")


def test_raw_is_used_when_x_is_scaled() -> None:
    plan = omics.plan("find markers by louvain", cards.scaled())
    assert plan.params["markers"]["use_raw"] is True


def test_a_filter_makes_clusters_stale() -> None:
    plan = omics.plan("remove doublets and show the umap", cards.clustered())
    ids = [step.id for step in plan.steps]
    assert ids.index("drop_doublets") < ids.index("pca") < ids.index("umap")
    only = omics.plan("remove doublets", cards.clustered())
    assert any("Out of date" in finding.message for finding in only.findings)


def test_variable_is_named_as_the_users() -> None:
    state = cards.raw()
    plan = omics.plan("load pbmc.h5ad", None, name="pbmc")
    assert plan.name == "pbmc"
    assert "pbmc = sc.read_h5ad" in plan.code
    assert omics.plan("qc", state).name == state.name


def test_order_does_not_follow_the_words() -> None:
    plan = omics.plan("find markers, cluster the cells and normalize", cards.raw())
    ids = [step.id for step in plan.steps]
    assert ids.index("normalize") < ids.index("leiden") < ids.index("markers")


def test_markers_are_of_the_groups_they_are_shown_for() -> None:
    state = cards.scaled()
    assert state.made_with["uns/rank_genes_groups"] == "bulk_labels"
    again = replace(state, made_with={"uns/rank_genes_groups": "louvain"})
    shown = omics.plan("dotplot of the top 3 markers per cluster", again)
    assert [step.id for step in shown.steps] == ["plot_dotplot"]
    unnamed = omics.plan("marker table", state)
    assert any("are of bulk_labels" in finding.message for finding in unnamed.findings)


def test_markers_go_stale_with_their_groups() -> None:
    state = after(cards.clustered(), STEPS.get("markers"), {"groupby": "leiden"})
    assert state.made_with == {"uns/rank_genes_groups": "leiden"}
    compared = {"groupby": "leiden", "group": "0"}
    state = after(state, STEPS.get("de_two_groups"), compared)
    state = after(state, STEPS.get("leiden"), {})
    assert not state.made_with
    assert not state.has("uns/rank_genes_groups")
    assert not state.has("uns/de")


def test_clusters_are_kept_when_only_shown() -> None:
    plan = omics.plan("umap with 30 neighbors", cards.clustered())
    assert "leiden" not in [step.id for step in plan.steps]
    assert any("earlier graph" in finding.message for finding in plan.findings)


def test_no_groups_no_colour() -> None:
    plan = omics.plan("plot the umap", replace(cards.raw(), obs={}))
    assert plan.params["plot_umap"]["color"] == []
    assert "color=" not in plan.code


@pytest.mark.parametrize("request_text", ["remove clusters 3 and 5", "keep only cluster 3"])
def test_cells_are_not_chosen_by_label(request_text: str) -> None:
    with pytest.raises(WorkflowNeedsFallback) as caught:
        omics.plan(request_text, cards.clustered())
    assert "No offline step keeps or drops cells by label" in str(caught.value.why)


def test_names_are_quoted_whole() -> None:
    with pytest.raises(WorkflowNeedsFallback) as caught:
        omics.plan("compare T cells and B cells", cards.clustered())
    assert caught.value.why == "No step explains 'T cells', 'B cells'."


def test_unknown_public_name() -> None:
    with pytest.raises(AttributeError):
        _ = omics.nothing_of_that_name


def test_gaps_are_named_before_anything_is_asked() -> None:
    unsure = XState(XKind.UNKNOWN, 0.5, "Some values are NaN or infinite.")
    state = replace(cards.raw(), x=unsure, has_nan=True)
    with pytest.raises(WorkflowNeedsFallback, match=r"np\.isnan"):
        omics.plan("QC these cells", state)
