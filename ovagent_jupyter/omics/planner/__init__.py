"""The offline planner: parameter grammar, clauses, retrieval and backward chaining."""

from ovagent_jupyter.omics.planner.plan import Plan, PlannedStep, PlanRow
from ovagent_jupyter.omics.planner.planner import plan

__all__ = ["Plan", "PlanRow", "PlannedStep", "plan"]
