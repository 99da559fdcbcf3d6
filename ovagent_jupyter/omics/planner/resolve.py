"""From clauses to the steps they ask for, or to the reason why none was found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from ovagent_jupyter.omics.planner.clauses import Clause
from ovagent_jupyter.omics.planner.exclusions import exclude
from ovagent_jupyter.omics.planner.judge import Judge, Rejected, quoted
from ovagent_jupyter.omics.planner.mood import counts_cells, is_question, not_an_order
from ovagent_jupyter.omics.planner.reading import Fact
from ovagent_jupyter.omics.planner.retrieval import Index, Match, clause_words, search
from ovagent_jupyter.omics.planner.words import stem, tokens, vocabulary

_STRONG = 0.5
_IMPLIED = {
    "min_genes": "filter_cells", "max_genes": "filter_cells", "unclear_genes": "filter_cells",
    "min_counts": "filter_cells", "max_counts": "filter_cells", "unclear_counts": "filter_cells",
    "max_mito": "filter_mito", "keep_high_mito": "filter_mito", "min_cells": "filter_genes",
    "share_genes": "filter_cells", "share_counts": "filter_cells", "share_cells": "filter_genes",
    "unclear_cells": "filter_genes", "max_cells": "filter_genes",
    "min_gene_counts": "filter_genes", "unclear_gene_counts": "filter_genes",
    "max_gene_counts": "filter_genes", "nmads": "filter_mad",
}  # fmt: skip
_FILTER_WORDS = frozenset(
    stem(word)
    for word in (
        "filter remove keep cell gene count lowquality qc threshold cutoff umi mito fraction "
        "require subset select restrict metric outlier detected expressed found present seen "
        "dead dying basic limit high low many few adaptive"
    ).split()
)
_SHOWS = {
    "paga": "plot_paga", "umap": "plot_umap", "leiden": "plot_umap", "louvain": "plot_umap",
    "markers": "plot_dotplot", "hvg": "plot_hvg", "pca": "plot_pca_var", "dpt": "plot_umap",
    "qc_metrics": "plot_qc_violin", "annotate_signatures": "plot_umap",
}  # fmt: skip
"""What "plot them" means after a step."""
_TITLE = re.compile(r"\bmarkers?(?:\s+genes?)?\s*(?:such as|like|:|\()?\s*$", re.I)
_QUALIFIED = re.compile(
    r"\b(?:(?:that|which|who)\s+(?:are|is|were|do|does|have)|cells|genes)\s*(?:not|n't)\s*$", re.I
)
_REMOVES = {"doublets": "drop_doublets"}
_RENAMING = frozenset(stem(word) for word in ("rename", "relabel", "label", "name", "call"))
_METRIC_WORDS = frozenset(stem(w) for w in ("mito", "fraction", "ribo", "hb", "umi"))
"""Names of quality metrics: in a list they are items, not requests."""
_REMOVE, _CELL_TYPE, _DOUBLET = stem("remove"), stem("celltype"), stem("doublet")
_SCALE = stem("scale")


_CHOOSES = frozenset(
    stem(w) for w in "remove drop keep exclude subset select restrict filter retain".split()
)
_CELLS = frozenset(stem(w) for w in "cell cluster group gene celltype leiden louvain".split())
_COMPARED = _CELLS | {stem(w) for w in "marker vs versus against compare de find show get".split()}
_VERSUS = re.compile(r"\b(?:vs\.?|versus|against|compared)\b", re.I)
BY_LABEL = "No offline step keeps or drops cells by label; use adata[adata.obs[...] == ...].copy()."
"""Why cells of a group cannot be chosen."""


def _levels(fact: Fact) -> tuple[object, ...]:
    return fact.value if isinstance(fact.value, tuple) else ()


@dataclass(frozen=True, slots=True)
class Asked:
    """A step or recipe that a clause asks for."""

    entry_id: str
    steps: tuple[str, ...]
    clause: int
    confidence: float
    is_recipe: bool = False


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
        self.judge = Judge(index)

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
        self._facts_between(clauses, found)
        self._lend_facts(clauses, found)
        for number, clause in enumerate(clauses):
            if clause.negated:
                left_out = self._excluded(clause, found.facts[number])
                if isinstance(left_out, Rejected):
                    found.rejected.append(replace(left_out, clause=found.texts[number]))
                else:
                    found.excluded |= left_out
            else:
                self._clause(clause, number, clauses, found)
        return found

    def _excluded(self, clause: Clause, facts: Sequence[Fact]) -> set[str] | Rejected:
        """What a negated clause leaves out; parts of the data and values cannot be left out."""
        named = [fact.text for fact in facts if fact.kind != "claim"]
        if named:
            why = f"No step leaves out {named[0]!r}; only whole steps can be left out."
            return Rejected(clause.text, why, kind="vague")
        if _QUALIFIED.search(self.request[: clause.start]):
            why = "It speaks of a part of the cells or genes; steps work on all of them."
            return Rejected(clause.text, why, kind="vague")
        return exclude(clause.text, self.index)

    def _facts_between(self, clauses: Sequence[Clause], found: Resolution) -> None:
        """Give facts that stand in a separator, "and [30 neighbours] then", to their clause."""
        held = {id(fact) for facts in found.facts.values() for fact in facts}
        for fact in self.facts if clauses else ():
            if id(fact) not in held:
                before = [n for n, clause in enumerate(clauses) if clause.start <= fact.start]
                found.facts[before[-1] if before else 0].append(fact)

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
        why = not_an_order(text)
        if why:
            found.rejected.append(Rejected(text, why, kind="vague"))
            return
        implied = self._implied(facts)
        words = clause_words(clause.text, self.index)
        words = self._without_title(words, clause, facts)
        content = [word for word, _ in words if word not in vocabulary().light]
        if implied:
            self._filtering(number, implied, words, found)
            return
        if not content:
            meant = self._meant(text, facts, bare=not clause.text.strip())
            if meant:
                self._keep(meant, number, text, found)
            elif (facts and not self._lends(facts, clause)) or (not facts and words):
                found.rejected.append(Rejected(text, "It does not say what to do.", kind="vague"))
            return
        outcome = (
            self._special(content, facts, number, found)
            or self._borrowed(clause, number, clauses)
            or self.judge.steps(words, self.request[clause.start : clause.end], facts)
        )
        self._keep(outcome, number, text, found)

    def _without_title(
        self, words: list[tuple[str, str]], clause: Clause, facts: Sequence[Fact]
    ) -> list[tuple[str, str]]:
        """The words without "marker genes" where that only introduces genes: "markers CD3D"."""
        first = next((fact for fact in facts if fact.kind == "genes"), None)
        if first is None or not _TITLE.search(self.request[clause.start : first.start]):
            return words
        left = [pair for pair in words if pair[0] != "marker"]
        return left if {word for word, _ in left} - vocabulary().light else words

    def _special(
        self, content: Sequence[str], facts: Sequence[Fact], number: int, found: Resolution
    ) -> list[Match] | Rejected | None:
        """Clauses that stand on facts or on the clause before: "plot them", "remove them"."""
        kinds = {fact.kind for fact in facts}
        said = set(content)
        groups = [level for fact in facts if fact.kind == "group" for level in _levels(fact)]
        if groups and said & _CHOOSES and said <= _CHOOSES | _CELLS:
            return Rejected("", BY_LABEL, kind="vague")
        against = _VERSUS.search(found.texts[number])
        if against and len(groups) > 1 and "marker" in said <= _COMPARED:
            return search(["compar"], self.index, ("de",))[:1]
        if "rename" in kinds and said <= {*_RENAMING, "cluster", "leiden", "louvain", _CELL_TYPE}:
            return search(["cluster", "renam"], self.index, ("rename_clusters",))[:1]
        if said == {"plot"} and kinds & {"genes", "column"}:
            return search(["plot", "umap"], self.index, ("plot_umap",))[:1]
        if said == {_SCALE} and any(fact.key == "target_sum" for fact in facts):
            return search([stem("normalize")], self.index, ("normalize",))[:1]
        if said not in ({"plot"}, {_REMOVE}):
            return None
        before = [step for asked in found.asked if asked.clause < number for step in asked.steps]
        shown = _REMOVES if said == {_REMOVE} else _SHOWS
        follow = next((shown[name] for name in reversed(before) if name in shown), None)
        if follow is None:
            verb = "remove" if said == {_REMOVE} else "plot"
            return Rejected("", f"It does not say what to {verb}.", kind="vague")
        return search([content[0], *tokens(follow.replace("_", " "))], self.index, (follow,))[:1]

    def _meant(self, text: str, facts: Sequence[Fact], *, bare: bool) -> list[Match]:
        """A parameter that stands for its step: "resolution 0.7", "compute 20 PCs"."""
        keys = {fact.key.removeprefix("=") for fact in facts if fact.kind != "mention"}
        if "method" in keys and any(fact.kind == "group" for fact in facts):
            return search(["compar"], self.index, ("de",))[:1]
        if "n_top_genes" in keys <= {"n_top_genes", "flavor"}:
            return search(["hvg"], self.index, ("hvg",))
        if keys == {"resolution"} and not bare:
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
        number: int,
        implied: list[str],
        words: list[tuple[str, str]],
        found: Resolution,
    ) -> None:
        """A clause with thresholds filters; what else it says must be about filtering or QC."""
        text = found.texts[number]
        if is_question(text) or counts_cells(text):
            why = "It asks about cells, and does not say to keep or remove any."
            found.rejected.append(Rejected(text, why, tuple(implied), "question"))
            return
        left = [word for word, _ in words if word not in _FILTER_WORDS]
        more: list[Match] = []
        if left:
            more = search(left, self.index, ("qc", "filter", "doublets", "drop_doublets"))
            if not more or not more[0].exact:
                odd = quoted([pair for pair in words if pair[0] in left])
                why = f"It mixes a filter with {odd}."
                found.rejected.append(Rejected(text, why, tuple(implied)))
                return
        said = {word for word, _ in words}
        if _DOUBLET in left and said & {_REMOVE, "filter"}:
            # "remove cells with < 200 genes and doublets": the verb is for both
            more = search([_REMOVE, *left], self.index, ("drop_doublets",))
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
