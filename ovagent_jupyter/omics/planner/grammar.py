"""The parameter grammar: numbers, thresholds, names and paths, taken out before words are read."""

from __future__ import annotations

import re
from dataclasses import replace

from ovagent_jupyter.omics.planner.naming import DataNames
from ovagent_jupyter.omics.planner.patterns import (
    ASSIGNED,
    BARE,
    BETWEEN,
    CHOICES,
    CLAIMS,
    CLUSTERS,
    CPM,
    DROPS,
    FILTERS,
    FRACTION,
    KEEPS,
    KEY_ADDED,
    MENTION,
    MITO_LIMIT,
    NAMED_LIMIT,
    NUMBER,
    OF_GENES,
    PAIR,
    PASSIVE,
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
from ovagent_jupyter.omics.planner.reading import Fact, Reading

_CHECKS = re.compile(r"\bqc\b|\bquality\b|\bthresholds?\b|\bcut-?offs?\b|\bmax", re.IGNORECASE)


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
    _assigned(reading)
    _names_in_quotes(reading, names)
    for hit in reading.hits(KEY_ADDED):
        if hit["name"].lower() not in names.columns:
            reading.take("name", hit, value=hit["name"])
    _worded(reading)
    _clusters(reading, names)
    names.find(reading)
    for hit in reading.hits(compiled(rf"(?<![\w.]){NUMBER}(?:\s*%)?(?![\w])")):
        reading.take("number", hit, value=number(hit.group()))
    _doubt_upper_limits(request, reading)
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
                _range(reading, hit, name)
    for pattern in MITO_LIMIT:
        for hit in reading.hits(pattern):
            reading.take("param", hit, "max_mito", number(hit["value"]))
    for hit in reading.hits(NAMED_LIMIT):
        what = {"umis": "counts"}.get(hit["what"].lower(), hit["what"].lower())
        reading.take("param", hit, f"{hit['bound'].lower()}_{what}", number(hit["value"]))
    for name, direction, pattern in THRESHOLDS:
        for hit in reading.hits(pattern):
            key, value = _bound(reading.text, hit, name, direction)
            reading.take("param", hit, key, value)


def _doubt_upper_limits(request: str, reading: Reading) -> None:
    """Which cells an upper limit alone means, such as n_genes < 200 with no verb, is a guess."""
    if any(words.search(request) for words in (DROPS, KEEPS, FILTERS, PASSIVE, _CHECKS)):
        return
    keys = {fact.key for fact in reading.facts}
    for place, fact in enumerate(reading.facts):
        name = fact.key.removeprefix("max_")
        if fact.key in ("max_genes", "max_counts") and f"min_{name}" not in keys:
            reading.facts[place] = replace(fact, key=f"unclear_{name}")


def _range(reading: Reading, hit: re.Match[str], name: str) -> None:
    """A range of genes or counts: what lies in it is kept."""
    if re.match(r"\s*cells?\b", reading.text[hit.end() :], re.I):
        # "genes between 3 and 500 cells" is a range of cells
        reading.take("param", hit, "max_cells", number(hit["high"] or hit["below"] or "1"))
        return
    low = number(hit["low"] or hit["least"] or hit["above"])
    high = number(hit["high"] or hit["most"] or hit["below"])
    drops, _, listed = _verbs(reading.text, hit)
    if drops != bool(hit["outside"]) and not listed:
        # "remove cells with 200 to 500 genes" would need the two sides kept
        reading.take("param", hit, f"unclear_{name}", low)
        return
    start, end, text = hit.start(), hit.end(), hit.group()
    reading.take("param", hit, f"min_{name}", low)
    reading.facts.append(Fact("param", start, end, text, f"max_{name}", high))


def _verbs(text: str, hit: re.Match[str]) -> tuple[bool, bool, bool]:
    """Whether the verb at a threshold drops, whether one keeps, whether it only introduces a list.

    "remove low-quality cells (<200 genes, ...)" names criteria: the verb is not the threshold's.
    """
    between = r"[;.]\s|\bthen\b|\band (?=remove|keep|drop|filter)"
    before = re.split(between, text[: hit.start()])[-1]
    drops = [m.end() for m in DROPS.finditer(before)]
    keeps = [m.end() for m in KEEPS.finditer(before)]
    inverted = bool(drops) and (not keeps or keeps[-1] < drops[-1])
    # a comma after a threshold, which is blank by now, only goes on with the same verb
    listed = inverted and bool(
        re.search(r"[(:]|\b(?:by|using)\b|^[^,]*[^\s,]\s?,", before[drops[-1] :])
    )
    follows = PASSIVE.search(re.split(between, text[hit.end() :])[0])
    if follows and not (drops or keeps):
        verb = follows["verb"] or follows["order"] or ""
        inverted = bool(DROPS.search(verb))
        return inverted, bool(KEEPS.search(verb)), False
    return inverted, bool(keeps), listed


def _bound(text: str, hit: re.Match[str], name: str, direction: str) -> tuple[str, object]:
    """Which cells a threshold keeps, from the verb before or after it."""
    value = number(hit["value"])
    inverted, keeps, listed = _verbs(text, hit)
    if hit["unit"] and name != "mito":
        return f"share_{name}", value
    if listed:
        return _criterion(name, direction, value, percent=bool(hit["unit"]))
    if inverted:
        direction = "min" if direction == "max" else "max"
    if name == "mito":
        if not hit["unit"] and value < FRACTION:
            value = round(value * 100, 6)
        drops = FILTERS.search(text[: hit.start()]) and not (keeps or inverted)
        wrong = direction == "min" and not drops
        return ("keep_high_mito" if wrong else "max_mito"), value
    before = text[: hit.start()]
    objects = list(OF_GENES.finditer(before))
    if name == "counts" and objects and not objects[-1]["what"].lower().startswith("cell"):
        name = "gene_counts"
    signed = SIGNS.search(hit.group())
    plain = not (inverted or keeps or signed)
    if plain and name != "mito" and FILTERS.search(before):
        # "filter cells with fewer than 200 genes" can only mean: drop them
        if direction == "max":
            return f"min_{name}", value
        least = re.search(r"least|min", hit.group(), re.IGNORECASE)
        return (f"min_{name}" if least else f"unclear_{name}"), value
    limit = re.search(r"least|most|min|max|up to|\bno\b|\bnot\b|exceed", hit.group(), re.I)
    if plain and BARE.search(before) and not limit:
        return f"unclear_{name}", value  # "cells with fewer than 200 genes": and what of them?
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
        if kind == "name":
            before = reading.text[: hit.start()].split()
            key = before[-1].lower() if before else ""
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
    for hit in reading.hits(CPM):
        reading.take("param", hit, "target_sum", 1_000_000)
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
