"""What a request says to leave out: "without plots", "don't filter"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ovagent_jupyter.omics.planner.judge import WEAKEST, Rejected, quoted
from ovagent_jupyter.omics.planner.retrieval import GATE, Index, Match, clause_words, search
from ovagent_jupyter.omics.planner.words import stem, vocabulary
from ovagent_jupyter.omics.step import STEPS

_REMOVE = stem("remove")
_GENES = frozenset({"ribo", "mito", "hb"})


def exclude(text: str, index: Index) -> set[str] | Rejected:
    """Ids of the steps that a negated clause excludes, or why that is not clear."""
    excluded: set[str] = set()
    for part in re.split(r",|\bor\b|\band\b|\bnor\b|&", text):
        words = clause_words(part, index)
        roots = [word for word, _ in words]
        if not set(roots) - vocabulary().light:
            if roots and "count" not in roots:
                return Rejected(text, "It is not clear what to leave out.")
            continue
        if _GENES & set(roots) and stem("gene") in roots:
            return Rejected(text, "No step leaves out single genes.")
        found = _groups(roots) or _named(roots, index)
        if not found:
            return Rejected(text, f"It is not clear what to leave out: {quoted(words)}.")
        excluded |= found
    return excluded | _with_it(excluded)


def _named(roots: Sequence[str], index: Index) -> set[str]:
    matches = search(roots, index)
    if not matches or matches[0].coverage < GATE or matches[0].score < WEAKEST:
        return set()
    exact = [match for match in matches if match.exact]
    content = set(roots) - vocabulary().light
    if len(content) == 1 and not exact and not _is_name(content, matches[0]):
        return set()
    best = [match for match in exact if not match.entry.is_recipe] or exact or matches[:1]
    return {step for match in best for step in match.entry.steps}


def _is_name(content: set[str], match: Match) -> bool:
    """Whether one word alone names an entry: "batch" does not."""
    return any(content == set(phrase) - vocabulary().light for phrase in match.entry.phrases)


def _groups(roots: Sequence[str]) -> set[str]:
    """Whole groups that are excluded by one word: filtering, plots."""
    steps = [STEPS.get(name) for name in STEPS]
    said = set(roots) - vocabulary().light
    if said <= {"filter", _REMOVE, "threshold"}:
        return {step.id for step in steps if "cells" in step.writes or step.id == "filter_genes"}
    if said <= {"plot"}:
        return {step.id for step in steps if step.group == "plot"}
    if said <= {"qc"}:
        return {"flag_gene_sets", "qc_metrics", "plot_qc_violin", "plot_qc_scatter"}
    return set()


def _with_it(excluded: set[str]) -> set[str]:
    """Steps that make no sense once others are left out."""
    goes = {"doublets": "drop_doublets", "umap": "plot_umap"}
    return {goes[name] for name in excluded if name in goes}
