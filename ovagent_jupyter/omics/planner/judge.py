"""Judging how well an entry fits a clause: the gate, rivals, questions and what is left over."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ovagent_jupyter.omics.planner.mood import is_question
from ovagent_jupyter.omics.planner.reading import Fact
from ovagent_jupyter.omics.planner.retrieval import GATE, MARGIN, Index, Match, search
from ovagent_jupyter.omics.planner.words import stem, vocabulary
from ovagent_jupyter.omics.step import STEPS

WEAKEST = 0.35
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
_HARMLESS = frozenset(stem(w) for w in ("cell", "group", "column"))
"""Light words that may stand beside any other: "markers of each group"."""
_REGULATED = frozenset(stem(w) for w in ("upregulated", "downregulated", "differ", "different"))
_OTHER_LAYOUTS = frozenset(stem(w) for w in ("tsne", "pca", "diffmap", "forcedirected"))
"""Embeddings that no step draws."""
_GENE, _CELL_TYPE = stem("gene"), stem("celltype")


@dataclass(frozen=True, slots=True)
class Rejected:
    """A clause that no step explains."""

    clause: str
    why: str
    nearest: tuple[str, ...] = ()
    """Ids of steps that come closest."""
    kind: Literal["unknown", "question", "refused", "ambiguous", "vague"] = "unknown"


class Judge:
    """Decides what the words of one clause ask for.

    Args:
        index: The steps and recipes.
    """

    def __init__(self, index: Index) -> None:
        self.index = index

    def steps(
        self, words: list[tuple[str, str]], typed: str, facts: Sequence[Fact]
    ) -> list[Match] | Rejected:
        """The entries that together explain a clause."""
        roots = [word for word, _ in words]
        if _HOW_MANY_PCS.search(typed):
            return search(["elbow", "plot"], self.index, ("plot_pca_var",))[:1]
        if is_question(typed) and not self._answerable(typed, roots, facts):
            near = tuple(match.entry.id for match in search(roots, self.index)[:2])
            why = (
                "It asks a question; `%%ovagent ask` or `ovagent ask`, with a model, answers those."
            )
            return Rejected("", why, near, "question")
        matches = [m for m in search(roots, self.index) if said(m, roots)]
        nearest = tuple(match.entry.id for match in matches[:3])
        if not matches:
            return Rejected("", f"No step is called {quoted(words)}.")
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
        words = as_typed(words, typed)
        unknown = [(w, t) for w, t in words if w not in self.index.known]
        explained = best.entry.words
        if best.coverage < GATE or best.score < WEAKEST:
            return f"No step explains {quoted(unknown or words)}."
        content = {word for word, _ in words} - vocabulary().light
        extra = {word for word, _ in words} & vocabulary().light - _HARMLESS
        named = any(content == set(phrase) for phrase in best.entry.phrases)
        if len(content) == 1 and not best.exact and (extra or not named):
            # one word alone has to be a phrase of its own: "batch" is no request
            return f"It does not say what to do with {quoted(words)}."
        odd = [(w, t) for w, t in unknown if t.lower() not in vocabulary().praise]
        for _, written in odd:
            before = typed.lower().partition(written.lower())[0]
            if any(map(str.isdigit, written)) or _MEANS.search(before):
                return f"{written!r} is no step, column, group or gene here."
        if odd:
            return f"No step explains {quoted(odd)}."
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
        return Rejected("", f"{best.entry.id} does not explain {quoted(written)}.", nearest)

    def _drops(self, match: Match) -> bool:
        return any({"cells", "genes", "file"} & set(STEPS.get(s).writes) for s in match.entry.steps)

    def _drawn(self, chosen: list[Match], words: list[tuple[str, str]]) -> list[Match] | Rejected:
        """A clause that asks for a picture gets one."""
        asks = any(word in vocabulary().drawing for word, _ in words)
        steps = [STEPS.get(name) for match in chosen for name in match.entry.steps]
        other = next((t for w, t in words if w in _OTHER_LAYOUTS), None)
        if other and any(step.id == "plot_umap" for step in steps):
            return Rejected("", f"No step draws {other!r}; the UMAP can be drawn.", ("plot_umap",))
        if asks and not any("fig" in step.writes or step.outputs for step in steps):
            ids = tuple(match.entry.id for match in chosen)
            return Rejected("", f"No step draws {', '.join(ids)}.", ("plot_umap", *ids))
        return chosen


def said(match: Match, roots: Sequence[str]) -> bool:
    """Whether the words that an entry cannot do without are among those of the clause."""
    needed = vocabulary().needs.get(match.entry.id)
    return needed is None or bool(needed & set(roots))


def quoted(words: Sequence[tuple[str, str]]) -> str:
    """A few words as the user wrote them."""
    return ", ".join(repr(written) for _, written in words[:3])


def as_typed(words: Sequence[tuple[str, str]], typed: str) -> list[tuple[str, str]]:
    """The words as they stand in the text, a letter with what it names: "T cells", not "t"."""
    shown = []
    for word, written in words:
        more = r"[ -]cells?" if len(written) == 1 else ""
        hit = re.search(rf"(?<!\w){re.escape(written)}(?!\w)(?:{more})?", typed, re.IGNORECASE)
        shown.append((word, hit.group() if hit else written))
    return shown
