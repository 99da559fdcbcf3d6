"""Finding the step that a clause asks for: BM25, phrases and fuzzy matching, then a gate."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from rapidfuzz import fuzz

from ovagent_jupyter.omics.planner.recipes import recipes
from ovagent_jupyter.omics.planner.words import pairs, tokens, vocabulary
from ovagent_jupyter.omics.step import STEPS

GATE = 0.4
"""Share of a clause's weight that the winner has to explain."""
MARGIN = 0.06
"""Lead over the second, relative to the winner, below which the planner asks."""
_LIGHT = 0.25
"""Weight of words such as "cells", which say little."""
_UNKNOWN = 1.6
"""Weight of an unknown word, relative to the rarest known one."""
_PHRASE, _BM25, _FUZZY = 0.6, 0.2, 0.2
_K1, _B = 1.2, 0.5
_KEPT = 200
"""Searches that are kept."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What can be asked for: a step or a recipe, with the phrases users say."""

    id: str
    title: str
    steps: tuple[str, ...]
    phrases: tuple[tuple[str, ...], ...]
    words: frozenset[str]
    """All words of the phrases."""
    is_recipe: bool


@dataclass(frozen=True, slots=True)
class Match:
    """How well an entry fits a clause."""

    entry: Entry
    score: float
    coverage: float
    """Share of the clause's weight that the entry explains."""
    exact: bool
    """The clause says one of the entry's phrases, word for word."""


@dataclass(frozen=True, slots=True)
class Index:
    """All entries and the weights of their words."""

    entries: tuple[Entry, ...]
    weights: Mapping[str, float]
    rarest: float
    mean_length: float
    found: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Match]] = field(
        default_factory=dict, compare=False
    )
    """Searches of late: the clauses of one request are looked up several times."""

    @property
    def known(self) -> frozenset[str]:
        """All words of all entries."""
        return frozenset(self.weights)

    def weight(self, word: str) -> float:
        """How much a word says; unknown words say most."""
        return self.weights.get(word, _UNKNOWN * self.rarest)

    def total(self, words: Iterable[str]) -> float:
        """Weight of several words."""
        return sum(self.weight(word) for word in words)


@cache
def build_index(step_ids: tuple[str, ...]) -> Index:
    """The index over these steps and all recipes whose steps are among them."""
    entries = [_step_entry(name) for name in step_ids]
    for recipe in recipes().values():
        if set(recipe.steps) <= set(step_ids):
            # a question's phrases are recipes' phrases too
            phrases = (*recipe.phrases, *recipe.questions)
            entries.append(_entry(recipe.id, recipe.title, recipe.steps, phrases, is_recipe=True))
    spread = Counter(word for entry in entries for word in entry.words)
    light = vocabulary().light
    weights = {
        word: math.log(1 + (len(entries) - n + 0.5) / (n + 0.5)) * (_LIGHT if word in light else 1)
        for word, n in spread.items()
    }
    lengths = [len(phrase) for entry in entries for phrase in entry.phrases]
    return Index(
        tuple(entries), weights, max(weights.values()), sum(lengths) / max(1, len(lengths))
    )


def current_index() -> Index:
    """The index over the steps that are registered now."""
    return build_index(tuple(STEPS))


def _step_entry(name: str) -> Entry:
    step = STEPS.get(name)
    phrases = (*step.aliases, *vocabulary().phrases.get(name, ()))
    return _entry(name, step.title, (name,), phrases, is_recipe=False)


def _entry(
    name: str, title: str, steps: tuple[str, ...], phrases: Sequence[str], *, is_recipe: bool
) -> Entry:
    cut = tuple(dict.fromkeys(key for key in (_key(tokens(phrase)) for phrase in phrases) if key))
    return Entry(
        id=name,
        title=title,
        steps=steps,
        phrases=cut,
        words=frozenset(word for phrase in cut for word in phrase),
        is_recipe=is_recipe,
    )


def _key(words: Iterable[str]) -> tuple[str, ...]:
    """The words of a phrase in one order, so that word order does not matter."""
    return tuple(sorted(set(words)))


def clause_words(text: str, index: Index) -> list[tuple[str, str]]:
    """The content words of a clause: (stem, as written), typing errors undone."""
    return pairs(text, index.known)


def search(words: Sequence[str], index: Index, among: Collection[str] = ()) -> list[Match]:
    """Entries by how well they fit the words of a clause, best first.

    Args:
        words: Stems of the clause.
        index: The entries.
        among: Ids of the entries to look at; empty for all.
    """
    clause = _key(words)
    if not clause:
        return []
    asked = (clause, tuple(among))
    if asked in index.found:
        return list(index.found[asked])
    matches = [
        _match(clause, entry, index)
        for entry in index.entries
        if (not among or entry.id in among) and entry.words & set(clause)
    ]
    matches.sort(key=lambda match: (-match.score, not match.entry.is_recipe))
    if len(index.found) >= _KEPT:
        index.found.clear()
    index.found[asked] = matches
    return list(matches)


def _match(clause: tuple[str, ...], entry: Entry, index: Index) -> Match:
    best, exact = 0.0, clause in entry.phrases
    joined = " ".join(clause)
    for phrase in entry.phrases:
        shared = index.total(set(clause) & set(phrase))
        if not shared:
            continue
        dice = 2 * shared / (index.total(clause) + index.total(phrase))
        fuzzy = fuzz.token_sort_ratio(joined, " ".join(phrase)) / 100
        best = max(best, _PHRASE * dice + _FUZZY * fuzzy)
    coverage = index.total(set(clause) & entry.words) / index.total(clause)
    score = best + _BM25 * _bm25(clause, entry, index)
    return Match(entry, 1.0 + score if exact else score, coverage, exact)


def _bm25(clause: tuple[str, ...], entry: Entry, index: Index) -> float:
    """BM25 of the clause against the entry's best phrase, as a share of the highest possible."""
    total = index.total(clause)
    best = 0.0
    for phrase in entry.phrases:
        norm = _K1 * (1 - _B + _B * len(phrase) / index.mean_length)
        got = sum(index.weight(word) * (_K1 + 1) / (1 + norm) for word in clause if word in phrase)
        best = max(best, got)
    return min(1.0, best / (total * (_K1 + 1)))
