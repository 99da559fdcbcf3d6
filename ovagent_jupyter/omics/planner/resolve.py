"""From clauses to the steps they ask for, or to the reason why none was found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ovagent_jupyter.omics.planner.clauses import Clause
from ovagent_jupyter.omics.planner.grammar import Fact
from ovagent_jupyter.omics.planner.retrieval import (
    GATE,
    MARGIN,
    Index,
    Match,
    clause_words,
    search,
)
from ovagent_jupyter.omics.planner.words import vocabulary
from ovagent_jupyter.omics.step import STEPS

_WEAKEST = 0.35
_STRONG = 0.5
_QUESTION = re.compile(
    r"^\W*(?:what|why|who|whose|when|where|which|how|is|are|was|were|does|did|should|has|have|am|"
    r"do (?:i|we|you|they|these|those|my|the)|explain|describe|define|tell|what's|whats)\b",
    re.IGNORECASE,
)
_DEFINITION = re.compile(
    r"^\W*(?:what(?:'s| is| are| does| do)?(?: a| an)?(?: \w+){1,2}\W*$|what(?:'s| is) (?:a|an)\b|"
    r"why\b|explain\b|define\b|who\b|when\b|where\b)",
    re.IGNORECASE,
)
_HOW_MANY_PCS = re.compile(r"\bhow many (?:pcs?|principal components|components)\b", re.IGNORECASE)
_MEANS = re.compile(
    r"\b(?:using|with|via|by|from|on|in|against|between|within|into|as)\s+(?:the |a |an |my )?$"
)
_IMPLIED = {
    "min_genes": "filter_cells", "max_genes": "filter_cells", "unclear_genes": "filter_cells",
    "min_counts": "filter_cells", "max_counts": "filter_cells", "unclear_counts": "filter_cells",
    "max_mito": "filter_mito", "keep_high_mito": "filter_mito", "min_cells": "filter_genes",
    "nmads": "filter_mad",
}  # fmt: skip
_FILTER_WORDS = frozenset(
    "filter remove keep cell gene count lowquality qc threshold cutoff umi mito fraction require "
    "outlier detect express dead dy".split()
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A step or recipe that a clause asks for."""

    entry_id: str
    steps: tuple[str, ...]
    clause: int
    confidence: float
    is_recipe: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """A clause that no step explains."""

    clause: str
    why: str
    nearest: tuple[str, ...] = ()
    """Ids of steps that come closest."""
    kind: Literal["unknown", "question", "refused", "ambiguous", "vague"] = "unknown"


@dataclass(slots=True)
class Resolution:
    """What the clauses of a request came to."""

    asked: list[Asked] = field(default_factory=list)
    excluded: set[str] = field(default_factory=set)
    rejected: list[Rejected] = field(default_factory=list)
    facts: dict[int, list[Fact]] = field(default_factory=dict)
    """Number of a clause → its facts; clauses without words give theirs to a neighbour."""
    texts: list[str] = field(default_factory=list)
    """The clauses as the user typed them."""


class Resolver:
    """Reads clauses against an index.

    Args:
        request: What the user typed.
        facts: What the grammar understood.
        index: The steps and recipes.
    """

    def __init__(self, request: str, facts: Sequence[Fact], index: Index) -> None:
        self.request = request
        self.facts = facts
        self.index = index

    def is_action(self, text: str) -> bool:
        """Whether a piece of masked text asks for something by itself."""
        words = self._content(text)
        if not words:
            return False
        best = search([word for word, _ in clause_words(text, self.index)], self.index)
        return bool(best) and (best[0].exact or best[0].coverage > _STRONG < best[0].score)

    def _content(self, text: str) -> list[str]:
        light = vocabulary().light
        return [word for word, _ in clause_words(text, self.index) if word not in light]

    def resolve(self, clauses: Sequence[Clause]) -> Resolution:
        """Find what every clause asks for."""
        found = Resolution()
        for number, clause in enumerate(clauses):
            found.texts.append(self.request[clause.start : clause.end].strip(" \t\n,.;:"))
            found.facts[number] = [
                f for f in self.facts if clause.start <= f.start < max(clause.end, clause.start + 1)
            ]
        self._lend_facts(clauses, found)
        for number, clause in enumerate(clauses):
            if clause.negated:
                self._exclude(clause, number, found)
            else:
                self._clause(clause, number, clauses, found)
        return found

    def _lend_facts(self, clauses: Sequence[Clause], found: Resolution) -> None:
        """Give the facts of clauses without words ("using 30 pcs") to the clause before."""
        for number, clause in enumerate(clauses):
            held = found.facts[number]
            if clause.negated or self._content(clause.text) or self._implied(held):
                continue
            before = [n for n in range(number) if self._content(clauses[n].text)]
            after = [n for n in range(number + 1, len(clauses)) if self._content(clauses[n].text)]
            near = [n for n in [*before[::-1], *after] if not clauses[n].negated]
            if held and near:
                found.facts[near[0]].extend(held)
                found.facts[number] = []

    def _clause(
        self, clause: Clause, number: int, clauses: Sequence[Clause], found: Resolution
    ) -> None:
        text, facts = found.texts[number], found.facts[number]
        refused = self._refused(clause.text)
        if refused is not None:
            found.rejected.append(Rejected(text, refused, kind="refused"))
            return
        implied = self._implied(facts)
        words = clause_words(clause.text, self.index)
        content = [word for word, _ in words if word not in vocabulary().light]
        if implied:
            self._filtering(text, number, implied, words, found)
            return
        if not content:
            if facts and not self._lends(facts, clause):
                found.rejected.append(Rejected(text, "It does not say what to do.", kind="vague"))
            elif not facts and words:
                found.rejected.append(Rejected(text, "It does not say what to do.", kind="vague"))
            return
        outcome = self._borrowed(clause, number, clauses) or self._steps(words, clause, facts)
        self._keep(outcome, number, text, found)

    def _lends(self, facts: Iterable[Fact], clause: Clause) -> bool:
        return all(fact.kind in ("mention", "claim") for fact in facts) and not clause.negated

    def _keep(
        self, outcome: list[Match] | Rejected, number: int, text: str, found: Resolution
    ) -> None:
        if isinstance(outcome, Rejected):
            found.rejected.append(
                Rejected(text or outcome.clause, outcome.why, outcome.nearest, outcome.kind)
            )
            return
        for match in outcome:
            entry = match.entry
            sure = 1.0 if match.exact else min(1.0, match.coverage)
            found.asked.append(Asked(entry.id, entry.steps, number, sure, entry.is_recipe))

    def _refused(self, text: str) -> str | None:
        for row in vocabulary().refused:
            hit = row.pattern.search(text)
            if hit:
                return f"{row.topic} is not among the offline steps ({hit.group()!r})."
        return None

    # -- thresholds ------------------------------------------------------------------------------

    def _implied(self, facts: Iterable[Fact]) -> list[str]:
        keys = [fact.key.removeprefix("=") for fact in facts if fact.kind == "param"]
        return list(dict.fromkeys(_IMPLIED[key] for key in keys if key in _IMPLIED))

    def _filtering(
        self,
        text: str,
        number: int,
        implied: list[str],
        words: list[tuple[str, str]],
        found: Resolution,
    ) -> None:
        """A clause with thresholds filters; what else it says must be about filtering or QC."""
        left = [word for word, _ in words if word not in _FILTER_WORDS]
        more: list[Match] = []
        if left:
            more = search(left, self.index, ("qc", "filter", "doublets", "drop_doublets"))
            if not more or not more[0].exact:
                why = f"It mixes a filter with {', '.join(repr(w) for w in left[:3])}."
                found.rejected.append(Rejected(text, why, tuple(implied)))
                return
        said = {word for word, _ in words}
        if "qc" in said:
            more = search(["qc"], self.index, ("qc",))
        found.asked += [
            Asked(m.entry.id, m.entry.steps, number, 1.0, m.entry.is_recipe) for m in more[:1]
        ]
        found.asked += [Asked(name, (name,), number, 1.0) for name in implied]

    # -- retrieval -------------------------------------------------------------------------------

    def _borrowed(
        self, clause: Clause, number: int, clauses: Sequence[Clause]
    ) -> list[Match] | None:
        """The clause read with the verb of the one before: "remove X and Y"."""
        if not number or clauses[number - 1].negated:
            return None
        between = self.request[clauses[number - 1].end : clause.start]
        if not re.fullmatch(r"\s*(?:,|and|&|plus|\s)*\s*", between, re.IGNORECASE):
            return None
        before = [word for word, _ in clause_words(clauses[number - 1].text, self.index)]
        here = [word for word, _ in clause_words(clause.text, self.index)]
        if not before or before[0] not in ("remove", "filter", "plot"):
            return None
        exact = [m for m in search([before[0], *here], self.index) if m.exact]
        alone = search(here, self.index)
        if before[0] == "plot" and alone and alone[0].exact:
            return None
        return exact[:1] or None

    def _steps(
        self, words: list[tuple[str, str]], clause: Clause, facts: Sequence[Fact]
    ) -> list[Match] | Rejected:
        """The entries that together explain a clause."""
        roots = [word for word, _ in words]
        typed = self.request[clause.start : clause.end]
        if _HOW_MANY_PCS.search(typed):
            return search(["elbow", "plot"], self.index, ("plot_pca_var",))[:1]
        if _QUESTION.search(typed) and not self._answerable(typed, roots, facts):
            near = tuple(match.entry.id for match in search(roots, self.index)[:2])
            return Rejected("", "It asks a question instead of naming a step.", near, "question")
        matches = search(roots, self.index)
        nearest = tuple(match.entry.id for match in matches[:3])
        if not matches:
            return Rejected("", f"No step is called {_quoted(words)}.")
        best = self._best(matches)
        why = self._gate(best, words, typed)
        if why:
            return Rejected("", why, nearest)
        rival = self._rival(best, matches)
        if rival is not None:
            why = f"It could mean {best.entry.id} or {rival.entry.id}."
            return Rejected("", why, (best.entry.id, rival.entry.id), "ambiguous")
        return self._with_rest(best, words, nearest)

    def _answerable(self, typed: str, roots: Sequence[str], facts: Sequence[Fact]) -> bool:
        """Questions that are requests: which genes mark, or differ between, groups."""
        if _DEFINITION.search(typed):
            return False
        genes = {"marker", "gene", "de"} & set(roots)
        groups = {"cluster", "celltype"} & set(roots) or any(
            fact.kind in ("group", "column") for fact in facts
        )
        which = re.match(r"\W*(?:which|what|tell me (?:which|what))\b", typed, re.IGNORECASE)
        return bool(genes and groups and which)

    def _best(self, matches: list[Match]) -> Match:
        """The best match; one that explains everything beats a slightly better partial one."""
        first = matches[0]
        if first.exact:
            return first
        whole = [m for m in matches if m.coverage > 0.999 and m.score > 0.8 * first.score]  # noqa: PLR2004
        return whole[0] if whole else first

    def _gate(self, best: Match, words: list[tuple[str, str]], typed: str) -> str:
        """Why the best match is not good enough; empty when it is."""
        unknown = [(w, t) for w, t in words if w not in self.index.known]
        explained = best.entry.words
        if best.coverage < GATE or best.score < _WEAKEST:
            return f"No step explains {_quoted(unknown or words)}."
        for _, written in unknown:
            before = typed.lower().partition(written)[0]
            if _MEANS.search(before):
                return f"No step explains {written!r}."
        verbs = vocabulary().destructive
        light = vocabulary().light
        drops = any({"cells", "genes", "file"} & set(STEPS.get(s).writes) for s in best.entry.steps)
        acts = [w for w, _ in words if w in verbs]
        lost = [t for w, t in words if w not in explained and w not in light]
        if (drops or acts) and lost:
            # what drops cells or writes files runs only when every word is understood
            return f"No step explains {', '.join(repr(word) for word in lost[:3])}."
        return ""

    def _rival(self, best: Match, matches: Sequence[Match]) -> Match | None:
        if best.exact:
            return None
        for other in matches:
            if other.entry.id == best.entry.id:
                continue
            same = set(other.entry.steps) & set(best.entry.steps)
            if other.score > best.score * (1 - MARGIN) and not same:
                return other
        return None

    def _with_rest(
        self, best: Match, words: list[tuple[str, str]], nearest: tuple[str, ...]
    ) -> list[Match] | Rejected:
        """Known words that the winner leaves over must be explained by one further entry."""
        light = vocabulary().light
        known = self.index.known
        rest = [w for w, _ in words if w not in best.entry.words and w not in light and w in known]
        if best.exact or not rest:
            return self._drawn([best], words)
        second = search(rest, self.index)
        if second and second[0].exact and not self._drops(second[0]):
            return self._drawn([best, second[0]], words)
        written = [(w, t) for w, t in words if w in rest]
        return Rejected("", f"{best.entry.id} does not explain {_quoted(written)}.", nearest)

    def _drops(self, match: Match) -> bool:
        return any({"cells", "genes", "file"} & set(STEPS.get(s).writes) for s in match.entry.steps)

    def _drawn(self, chosen: list[Match], words: list[tuple[str, str]]) -> list[Match] | Rejected:
        """A clause that asks for a picture gets one."""
        asks = any(word in vocabulary().drawing for word, _ in words)
        steps = [STEPS.get(name) for match in chosen for name in match.entry.steps]
        if asks and not any("fig" in step.writes or step.outputs for step in steps):
            ids = tuple(match.entry.id for match in chosen)
            return Rejected("", f"No step draws {', '.join(ids)}.", ("plot_umap", *ids))
        return chosen

    # -- exclusions ------------------------------------------------------------------------------

    def _exclude(self, clause: Clause, number: int, found: Resolution) -> None:
        for part in re.split(r",|\bor\b|\band\b|\bnor\b|&", clause.text):
            words = clause_words(part, self.index)
            roots = [word for word, _ in words]
            if not self._content(part):
                if roots and "count" not in roots:
                    found.rejected.append(
                        Rejected(found.texts[number], "It is not clear what to leave out.")
                    )
                continue
            groups = _groups(roots)
            if groups:
                found.excluded |= groups
                continue
            matches = search(roots, self.index)
            if not matches or matches[0].coverage < GATE or matches[0].score < _WEAKEST:
                why = f"It is not clear what to leave out: {_quoted(words)}."
                found.rejected.append(Rejected(found.texts[number], why))
                continue
            top = matches[0]
            best = [m for m in matches if m.exact] or [top]
            found.excluded |= {step for match in best for step in match.entry.steps}
            found.excluded |= _with_it(found.excluded)


def _groups(roots: Sequence[str]) -> set[str]:
    """Whole groups that are excluded by one word: filtering, plots."""
    steps = [STEPS.get(name) for name in STEPS]
    said = set(roots) - vocabulary().light
    if said <= {"filter", "remove"}:
        return {step.id for step in steps if "cells" in step.writes or step.id == "filter_genes"}
    if said <= {"plot"}:
        return {step.id for step in steps if step.group == "plot"}
    if said <= {"qc"}:
        return {"flag_gene_sets", "qc_metrics", "plot_qc_violin", "plot_qc_scatter"}
    return set()


def _with_it(excluded: set[str]) -> set[str]:
    """Steps that make no sense once others are left out."""
    goes = {"drop_doublets": "doublets", "doublets": "drop_doublets", "umap": "plot_umap"}
    return {goes[name] for name in excluded if name in goes}


def _quoted(words: Sequence[tuple[str, str]]) -> str:
    return ", ".join(repr(written) for _, written in words[:3])
