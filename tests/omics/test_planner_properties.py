"""Whatever is typed, the planner answers with a closed plan or one of our errors."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovagent_jupyter import omics
from ovagent_jupyter.errors import OVAgentError
from ovagent_jupyter.omics.planner import Plan
from ovagent_jupyter.omics.planner.simulate import after
from ovagent_jupyter.omics.state import DataState
from ovagent_jupyter.omics.step import STEPS
from tests.omics import cards

_STATES = ("raw", "log", "clustered", "scaled", "none")
_WORDS = (
    "qc cluster the cells leiden umap plot show find markers filter remove keep doublets mito < > "
    "20% 0.5 200 genes cells counts and then , . ; without not by bulk_labels batch CD3D LYZ pca "
    "neighbors resolution top 10 compare vs cluster 3 0 rest normalize log1p hvg heatmap dotplot "
    "violin save load x.h5ad 'a' ( ) = annotate integrate harmony pseudotime from root scale "
    "subsample to 1,000 at using 30 pcs don't between n_pcs=20 \n what is how many"
).split(" ")
_REQUESTS = st.one_of(
    st.text(max_size=200),
    st.lists(st.sampled_from(_WORDS), max_size=14).map(" ".join),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(request=_REQUESTS, name=st.sampled_from(_STATES))
def test_closed_plan_or_our_error(request: str, name: str) -> None:
    state = cards.card(name)
    try:
        plan = omics.plan(request, state)
    except OVAgentError as error:
        refusal = error
    else:
        assert plan.steps
        _assert_closed(plan, state)
        return
    assert len(refusal.lines()) <= 6


def _assert_closed(plan: Plan, state: DataState | None) -> None:
    """Each step finds what it reads, made by the data or by a step before it."""
    for planned in plan.steps:
        step = STEPS.get(planned.id)
        if step.needs_data:
            assert state is not None
            for slot in step.read_slots(planned.params):
                gene = slot.partition("/")[2].upper() in state.genes
                assert state.has(slot) or (step.group == "plot" and gene), (planned.id, slot)
        loaded = state or cards.raw()
        state = after(loaded, step, planned.params)
