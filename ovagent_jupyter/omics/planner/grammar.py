"""The parameter grammar: numbers, thresholds, names and paths, taken out before words are read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from ovagent_jupyter.omics.planner.naming import DataNames
from ovagent_jupyter.omics.planner.patterns import (
    ASSIGNED,
    BETWEEN,
    CHOICES,
    CLAIMS,
    CLUSTERS,
    DROPS,
    FILTERS,
    FRACTION,
    KEEPS,
    KEY_ADDED,
    MENTION,
    MITO_LIMIT,
    NUMBER,
    PAIR,
    PATH,
    QUOTED,
    RENAMING,
    REST,
    SIGNS,
    THRESHOLDS,
    VERSUS_NUMBER,
    WORDED,
    compiled,
)

FactKind = Literal[
    "mention", "path", "param", "rename", "group", "rest", "column", "genes", "number", "name",
    "claim", "unknown",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fact:
    """Something the grammar understood, and where it stands in the request."""

    kind: FactKind
    start: int
    end: int
    text: str
    key: str = ""
    """The concept of a param ("resolution"), the column of a group, the role of a column."""
    value: object = None


@dataclass(slots=True)
class Reading:
    """A request as it is read: what is left of the text, and the facts so far."""

    text: str
    facts: list[Fact] = field(default_factory=list)

    def take(self, kind: FactKind, hit: re.Match[str], key: str = "", value: object = None) -> None:
        """Keep a fact and blank its text, at the same length."""
        self.take_span(kind, hit.start(), hit.end(), key, value)

    def take_span(
        self, kind: FactKind, start: int, end: int, key: str = "", value: object = None
    ) -> None:
        """Keep a fact that stands between two places."""
        self.facts.append(Fact(kind, start, end, self.text[start:end].strip(), key, value))
        self.text = self.text[:start] + " " * (end - start) + self.text[end:]

    def hits(self, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
        """The matches of a pattern that no earlier one has blanked."""
        place = 0
        while hit := pattern.search(self.text, place):
            yield hit
            place = max(hit.end(), place + 1)


def read(request: str, names: DataNames) -> Reading:
    """The facts of a request and the text that is left.

    Args:
        request: What the user typed.
        names: Names in the data: columns, levels, genes.
    """
    reading = Reading(request)
    for hit in reading.hits(MENTION):
        reading.take("mention", hit)
    for hit in reading.hits(PATH):
        reading.take("path", hit, value=hit["quoted"] or hit["plain"] or hit["folder"])
    for kind, pattern in CLAIMS:
        for hit in reading.hits(pattern):
            reading.take("claim", hit, value=kind)
    _renames(reading)
    _thresholds(reading)
    _names_in_quotes(reading, names)
    for hit in reading.hits(KEY_ADDED):
        if hit["name"].lower() not in names.columns:
            reading.take("name", hit, value=hit["name"])
    _assigned(reading)
    _worded(reading)
    _clusters(reading, names)
    names.find(reading)
    for hit in reading.hits(compiled(rf"(?<![\w.]){NUMBER}(?:\s*%)?(?![\w])")):
        reading.take("number", hit, value=number(hit.group()))
    reading.facts.sort(key=lambda fact: fact.start)
    return reading


def number(text: str) -> float | int:
    """A number as written: thousands, percent, exponents, 5k."""
    text = text.strip().rstrip("%").strip().replace(",", "").lower()
    factor = 1000 if text.endswith("k") else 1
    value = float(text.removesuffix("k")) * factor
    return int(value) if value.is_integer() and abs(value) < 1e15 else value  # noqa: PLR2004


def _renames(reading: Reading) -> None:
    if not RENAMING.search(reading.text):
        return
    for hit in reading.hits(PAIR):
        reading.take("rename", hit, key=hit["old"], value=hit["new"].strip())


def _thresholds(reading: Reading) -> None:
    for name, pattern, words in BETWEEN:
        for hit in reading.hits(pattern):
            if words.search(hit.group()):
                low = number(hit["low"] or hit["least"])
                high = number(hit["high"] or hit["most"])
                reading.take("param", hit, f"min_{name}", low)
                reading.facts.append(
                    Fact("param", hit.start(), hit.end(), hit.group(), f"max_{name}", high)
                )
    for pattern in MITO_LIMIT:
        for hit in reading.hits(pattern):
            reading.take("param", hit, "max_mito", number(hit["value"]))
    for name, direction, pattern in THRESHOLDS:
        for hit in reading.hits(pattern):
            key, value = _bound(reading.text, hit, name, direction)
            reading.take("param", hit, key, value)


def _bound(text: str, hit: re.Match[str], name: str, direction: str) -> tuple[str, object]:
    """Which cells a threshold keeps, from the verb before it."""
    value = number(hit["value"])
    clause = re.split(r"[;.]\s|\bthen\b|\band (?=remove|keep|drop|filter)", text[: hit.start()])[-1]
    drops = [m.end() for m in DROPS.finditer(clause)]
    keeps = [m.end() for m in KEEPS.finditer(clause)]
    inverted = bool(drops) and (not keeps or keeps[-1] < drops[-1])
    if inverted and re.search(r"[(:,]|\b(?:by|using)\b", clause[drops[-1] :]):
        return _criterion(name, direction, value, percent=bool(hit["unit"]))
    if inverted:
        direction = "min" if direction == "max" else "max"
    if name == "mito":
        if not hit["unit"] and value < FRACTION:
            value = round(value * 100, 6)
        wrong = direction == "min" and (inverted or keeps)
        return ("keep_high_mito" if wrong else "max_mito"), value
    vague = FILTERS.search(clause) and not (inverted or keeps) and not SIGNS.search(hit.group())
    if vague and name in ("genes", "counts", "cells"):
        # "filter cells with fewer than 200 genes" can only mean: drop them
        if direction == "max":
            return f"min_{name}", value
        least = re.search(r"least|min", hit.group(), re.IGNORECASE)
        return (f"min_{name}" if least else f"unclear_{name}"), value
    return f"{direction}_{name}", value


def _criterion(name: str, direction: str, value: float, *, percent: bool) -> tuple[str, object]:
    """A threshold listed after "remove low-quality cells": what is good, or what is bad?"""
    if name == "mito":
        scaled = value if percent or value >= FRACTION else round(value * 100, 6)
        return "max_mito", scaled
    # fewer than 500 UMIs can only be bad, more than 500 can be either
    return (f"min_{name}" if direction == "max" else f"unclear_{name}"), value


def _names_in_quotes(reading: Reading, names: DataNames) -> None:
    for hit in reading.hits(QUOTED):
        kind, key, value = names.resolve(hit["inner"].strip())
        reading.take(kind, hit, key, value)


def _assigned(reading: Reading) -> None:
    for hit in reading.hits(ASSIGNED):
        text = hit["value"].strip("'\"")
        constants: dict[str, object] = {"true": True, "false": False, "none": None}
        value: object = constants.get(text.lower(), text)
        if re.fullmatch(rf"{NUMBER}%?", text, re.IGNORECASE):
            value = number(text)
        reading.take("param", hit, f"={hit['name']}", value)


def _worded(reading: Reading) -> None:
    for key, value, pattern in CHOICES:
        for hit in reading.hits(pattern):
            reading.take("param", hit, key, True if value == "true" else value)
    for key, pattern in WORDED:
        for hit in reading.hits(pattern):
            found = number(hit["value"])
            if "unit" in pattern.groupindex and hit["unit"]:
                found = found / 100
            more = hit["more"] if "more" in pattern.groupindex else None
            reading.take("param", hit, key, found)
            if more:
                reading.facts.append(
                    Fact("param", hit.start(), hit.end(), hit.group(), key, number(more))
                )


def _clusters(reading: Reading, names: DataNames) -> None:
    for hit in reading.hits(REST):
        reading.take("rest", hit)
    for pattern in (CLUSTERS, VERSUS_NUMBER):
        if pattern is VERSUS_NUMBER and not any(f.kind == "group" for f in reading.facts):
            continue
        for hit in reading.hits(pattern):
            levels = re.findall(r"\d+", hit["all"])
            reading.take("group", hit, names.column_of_clusters(levels), tuple(levels))
