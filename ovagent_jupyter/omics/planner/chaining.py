"""Backward chaining: what is missing is added, what is there and fresh is left out."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace

from ovagent_jupyter.omics.checks import Finding, check_step
from ovagent_jupyter.omics.planner.naming import CELL_TYPES, CLUSTERINGS
from ovagent_jupyter.omics.planner.order import PRODUCERS, rank
from ovagent_jupyter.omics.planner.plan import PlannedStep
from ovagent_jupyter.omics.planner.simulate import (
    SURE,
    after,
    counts_layer,
    put_back_code,
    use_counts_code,
)
from ovagent_jupyter.omics.planner.wanted import Wanted
from ovagent_jupyter.omics.state import DataState, XState
from ovagent_jupyter.omics.step import STEPS, Params, Step, XKind

_PAST = {
    "normalize": frozenset(XKind) - {XKind.COUNTS, XKind.UNKNOWN},
    "log1p": frozenset({XKind.LOGNORM, XKind.SCALED, XKind.CORRECTED, XKind.RESIDUAL}),
}
"""Transforms of X that are behind us in these states."""
_HOLDS = {
    XKind.COUNTS: "counts", XKind.NORM: "normalised values", XKind.LOGNORM: "log-normalised values",
    XKind.SCALED: "scaled values", XKind.RESIDUAL: "residuals",
    XKind.CORRECTED: "batch-corrected values", XKind.UNKNOWN: "values of unknown kind",
}  # fmt: skip
_MAKES_X = {XKind.LOGNORM: "log1p", XKind.NORM: "normalize"}
_KEEPS_ALL = frozenset({"subset_hvg", "regress_out", "combat"})


class Blocked(Exception):  # noqa: N818 - replaced below
    """Placeholder."""


class Chain:
    """Builds the steps of a plan, one after the other, on a simulated state.

    Args:
        wanted: The steps asked for, by id.
        state: The data before the plan.
        excluded: Ids of steps that the user does not want.
    """

    def __init__(
        self, wanted: Mapping[str, Wanted], state: DataState, excluded: Collection[str]
    ) -> None:
        self.wanted = dict(wanted)
        self.start = state
        self.state = state
        self.excluded = frozenset(excluded)
        self.planned: list[PlannedStep] = []
        self.findings: list[Finding] = []
        self.done: set[str] = set()
        self.busy: list[str] = []
        self.borrowed = False
