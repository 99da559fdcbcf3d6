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
from ovagent_jupyter.omics.planner.words import stem, tokens, vocabulary
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
_AGAINST = re.compile(r"\b(?:between|vs\.?|versus|against|compared)\b", re.IGNORECASE)
_MEANS = re.compile(
    r"\b(?:using|with|via|by|from|on|in|of|for|about|against|between|within|into|as)\s+"
    r"(?:the |a |an |my )?$"
)
_IMPLIED = {
    "min_genes": "filter_cells", "max_genes": "filter_cells", "unclear_genes": "filter_cells",
    "min_counts": "filter_cells", "max_counts": "filter_cells", "unclear_counts": "filter_cells",
    "max_mito": "filter_mito", "keep_high_mito": "filter_mito", "min_cells": "filter_genes",
    "nmads": "filter_mad",
}  # fmt: skip
_FILTER_WORDS = frozenset(
    stem(word)
    for word in "filter remove keep cell gene count lowquality qc threshold cutoff umi mito fraction "
    "require subset select restrict metric outlier detected expressed dead dying basic limit high low many few adaptive".split()
)
_SHOWS = {
    "paga": "plot_paga", "umap": "plot_umap", "leiden": "plot_umap", "louvain": "plot_umap",
    "markers": "plot_dotplot", "hvg": "plot_hvg", "pca": "plot_pca_var", "dpt": "plot_umap",
    "qc_metrics": "plot_qc_violin", "annotate_signatures": "plot_umap",
}  # fmt: skip
"""What "plot them" means after a step."""
_REMOVES = {"doublets": "drop_doublets"}
_RENAMING = frozenset(stem(word) for word in ("rename", "relabel", "label", "name", "call"))
_METRIC_WORDS = frozenset(stem(w) for w in ("mito", "fraction", "ribo", "hb", "umi"))
"""Names of quality metrics: in a list they are items, not requests."""
_HARMLESS = frozenset(stem(w) for w in ("cell", "group", "column"))
"""Light words that may stand beside any other: "markers of each group"."""
_REGULATED = frozenset(stem(w) for w in ("upregulated", "downregulated", "differ", "different"))
_REMOVE, _GENE, _CELL_TYPE = stem("remove"), stem("gene"), stem("celltype")


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
        if not words or set(words) <= _METRIC_WORDS:
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
            meant = self._meant(text, facts)
            if meant:
                self._keep(meant, number, text, found)
            elif facts and not self._lends(facts, clause):
                found.rejected.append(Rejected(text, "It does not say what to do.", kind="vague"))
            elif not facts and words:
                found.rejected.append(Rejected(text, "It does not say what to do.", kind="vague"))
            return
        outcome = (
            self._special(content, facts, number, found)
            or self._borrowed(clause, number, clauses)
            or self._steps(words, clause, facts)
        )
        self._keep(outcome, number, text, found)

    def _special(
        self, content: Sequence[str], facts: Sequence[Fact], number: int, found: Resolution
    ) -> list[Match] | Rejected | None:
        """Clauses that stand on facts or on the clause before: "plot them", "remove them"."""
        kinds = {fact.kind for fact in facts}
        said = set(content)
        if "rename" in kinds and said <= {*_RENAMING, "cluster", "leiden", "louvain", _CELL_TYPE}:
            return search(["cluster", "renam"], self.index, ("rename_clusters",))[:1]
        if said == {"plot"} and kinds & {"genes", "column"}:
            return search(["plot", "umap"], self.index, ("plot_umap",))[:1]
        if said not in ({"plot"}, {_REMOVE}):
            return None
        before = [step for asked in found.asked if asked.clause < number for step in asked.steps]
        shown = _REMOVES if said == {_REMOVE} else _SHOWS
        follow = next((shown[name] for name in reversed(before) if name in shown), None)
        if follow is None:
            verb = "remove" if said == {_REMOVE} else "plot"
            return Rejected("", f"It does not say what to {verb}.", kind="vague")
        return search([content[0], *tokens(follow.replace("_", " "))], self.index, (follow,))[:1]

    def _meant(self, text: str, facts: Sequence[Fact]) -> list[Match]:
        """A parameter that stands for its step: "resolution 0.7", "compute 20 PCs"."""
        keys = {fact.key.removeprefix("=") for fact in facts if fact.kind != "mention"}
        if keys == {"resolution"}:
            return search(["cluster"], self.index, ("cluster",))
        computes = re.search(r"\b(?:compute|calculate|run)\b", text, re.IGNORECASE)
        if keys and keys <= {"n_pcs", "n_comps"} and computes:
            return search(["pca"], self.index, ("pca",))
        return []

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
        if not before or before[0] not in (_REMOVE, "filter", "plot"):
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
        best = self._contrast(self._best(matches), typed, facts)
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
        genes = {"marker", _GENE, "de", *_REGULATED} & set(roots)
        groups = {"cluster", _CELL_TYPE} & set(roots) or any(
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

    def _contrast(self, best: Match, typed: str, facts: Sequence[Fact]) -> Match:
        """Markers of one group against another are a comparison of two groups."""
        against = any(fact.kind == "rest" for fact in facts) or _AGAINST.search(typed)
        groups = any(fact.kind == "group" for fact in facts)
        if against and groups and "markers" in best.entry.steps:
            found = search(["compar"], self.index, ("de",))
            return found[0] if found and found[0].exact else best
        return best

    def _gate(self, best: Match, words: list[tuple[str, str]], typed: str) -> str:
        """Why the best match is not good enough; empty when it is."""
        unknown = [(w, t) for w, t in words if w not in self.index.known]
        explained = best.entry.words
        if best.coverage < GATE or best.score < _WEAKEST:
            return f"No step explains {_quoted(unknown or words)}."
        content = {word for word, _ in words} - vocabulary().light
        extra = {word for word, _ in words} & vocabulary().light - _HARMLESS
        named = any(content == set(phrase) for phrase in best.entry.phrases)
        if len(content) == 1 and not best.exact and (extra or not named):
            # one word alone has to be a phrase of its own: "batch" is no request
            return f"It does not say what to do with {_quoted(words)}."
        for _, written in unknown:
            if any(map(str.isdigit, written)):
                return f"{written!r} is no step, column, group or gene here."
            before = typed.lower().partition(written)[0]
            if _MEANS.search(before):
                return f"{written!r} is no step, column, group or gene here."
        whole = {word for word in content if word in self.index.known}
        if unknown and not any(whole == set(p) - vocabulary().light for p in best.entry.phrases):
            return f"No step explains {_quoted(unknown)}."
        roots = {word for word, _ in words}
        if _GENE in roots and "cell" not in roots and not best.exact and self._drops_cells(best):
            return "It speaks of genes, and the nearest step drops cells."
        verbs = vocabulary().destructive
        light = vocabulary().light
        drops = any({"cells", "genes", "file"} & set(STEPS.get(s).writes) for s in best.entry.steps)
        acts = [w for w, _ in words if w in verbs]
        lost = [t for w, t in words if w not in explained and w not in light]
        if (drops or acts) and lost:
            # what drops cells or writes files runs only when every word is understood
            return f"No step explains {', '.join(repr(word) for word in lost[:3])}."
        return ""

    def _drops_cells(self, match: Match) -> bool:
        return any("cells" in STEPS.get(name).writes for name in match.entry.steps)

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
        step = bool(second) and second[0].exact and not second[0].entry.is_recipe
        if step and not self._drops(second[0]):
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
            exact = [m for m in matches if m.exact]
            best = [m for m in exact if not m.entry.is_recipe] or exact or [top]
            found.excluded |= {step for match in best for step in match.entry.steps}
            found.excluded |= _with_it(found.excluded)


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
    goes = {"drop_doublets": "doublets", "doublets": "drop_doublets", "umap": "plot_umap"}
    return {goes[name] for name in excluded if name in goes}


def _quoted(words: Sequence[tuple[str, str]]) -> str:
    return ", ".join(repr(written) for _, written in words[:3])
