"""The parameter grammar: numbers, thresholds, names and paths, taken out before words are read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from ovagent_jupyter.omics.planner.naming import DataNames

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


_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.\d+|\.\d+|\d+)(?:e[+-]?\d+)?(?:k\b)?"
_LESS = (
    r"(?:<=?|≤|(?:is |are |be |to |at )?(?:below|under|less than|fewer than|lower than|smaller than|"
    r"at most|up to|no more than|not more than|max(?:imum)?(?: of)?|a max(?:imum)? of|"
    r"does not exceed))"
)
_MORE = (
    r"(?:>=?|≥|(?:is |are |be |to |at )?(?:above|over|more than|greater than|higher than|larger than|"
    r"at least|no less than|not less than|no fewer than|min(?:imum)?(?: of)?|a min(?:imum)? of|"
    r"exceeding|exceeds))"
)
_MITO = (
    r"(?:(?:the )?(?:percent(?:age)?|fraction|pct|%)?(?: of)?[ ._-]?(?:mitochondri(?:al|a)|mito|mt)"
    r"(?:[ ._-]?(?:reads?|counts?|content|genes?|fraction|percent(?:age)?|pct|rna|%))*|"
    r"pct_counts_mt|percent\.mt|percent_mito)"
)
_GENES = (
    r"(?:n_?genes?(?:_by_counts)?|n_?features?(?:_rna)?|genes detected|detected genes|"
    r"expressed genes|genes per cell|genes expressed|number of genes|genes|features)"
)
_COUNTS = (
    r"(?:n_?umis?|n_?counts?(?:_rna)?|total[_ ](?:counts|umis?)|umi[_ ]counts?|number of umis?|"
    r"umis?|reads|counts|library size)"
)
_CELLS = r"(?:n_?cells|cells)"
_FIELDS = {"mito": _MITO, "genes": _GENES, "counts": _COUNTS, "cells": _CELLS}
_DROPS = re.compile(
    r"\b(?:remov\w*|drop\w*|exclud\w*|discard\w*|get rid of|throw(?: away| out)?|eliminat\w*|"
    r"filter(?:ing)? out|trim\w*)\b",
    re.IGNORECASE,
)
_KEEPS = re.compile(r"\b(?:keep\w*|retain\w*|subset\w*|select\w*|requir\w*|with at least|only)\b", re.IGNORECASE)
_FILTERS = re.compile(r"\bfilter\w*\b", re.IGNORECASE)
_SIGNS = re.compile(r"[<>≤≥]")
_FRACTION = 1.0


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_THRESHOLDS = tuple(
    (name, direction, _compile(pattern))
    for name, words in _FIELDS.items()
    for direction, compare in (("max", _LESS), ("min", _MORE))
    for pattern in (
        rf"\b{words}\s*(?:(?:that|which) )?(?:is |are |of )?{compare}\s*"
        rf"(?P<value>{_NUMBER})\s*(?P<unit>%|percent\b)?(?!\s*(?:mads?|pcs?)\b)",
        rf"(?:\b(?:with|have|having|has|in|by|expressing|of)\s+)?{compare}\s*(?P<value>{_NUMBER})"
        rf"\s*(?P<unit>%|percent(?:age)?\b)?\s*(?:of )?(?:the )?(?:their )?"
        rf"(?:reads |counts )?(?:from |in )?(?:a )?(?:different |expressed |detected )?{words}\b",
    )
)
_MITO_LIMIT = (
    _compile(
        rf"\b{_MITO}\s*(?:cut-?off|threshold|limit|filter)?\s*(?:of|to|at|=|:|is)?\s*"
        rf"(?P<value>{_NUMBER})\s*(?P<unit>%|percent\b)"
    ),
    _compile(
        rf"(?P<value>{_NUMBER})\s*(?P<unit>%|percent)\s*{_MITO}\s*(?:cut-?off|threshold|limit)\b"
    ),
)
_BETWEEN = tuple(
    (
        name,
        _compile(
            rf"\b(?:{words}\s+)?(?:between|from)\s+(?P<low>{_NUMBER})\s*(?:and|to|-|–)\s*"  # noqa: RUF001
            rf"(?P<high>{_NUMBER})(?:\s+{words})?\b|"
            rf"(?P<least>{_NUMBER})\s*<=?\s*{words}\s*<=?\s*(?P<most>{_NUMBER})"
        ),
        _compile(rf"\b{words}\b"),
    )
    for name, words in _FIELDS.items()
    if name in ("genes", "counts")
)
_ASSIGNED = _compile(
    rf"\b(?P<name>[a-z]\w*)\s*=\s*(?P<value>{_NUMBER}%?|true|false|none|'[^']*'|\"[^\"]*\"|[\w.-]+)"
)
_LINK = r"\s*(?:(?:parameter|value|set)\s+)?(?:of|to|at|is|:|=|equal to|equals|set to)?\s*"

_WORDED: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (key, _compile(pattern))
    for key, pattern in (
        ("resolution", rf"\b(?:resolutions?|res(?:ol)?)\b{_LINK}(?P<value>{_NUMBER})"
                       rf"(?:\s*(?:and|,|or)\s*(?P<more>{_NUMBER}))?"),
        ("resolution", rf"\b(?P<value>{_NUMBER})\s*resolution\b"),
        ("nmads", rf"\b(?P<value>{_NUMBER})\s*(?:mads?|median absolute deviations?)\b"),
        ("nmads", rf"\b(?:n_?mads?)\b{_LINK}(?P<value>{_NUMBER})"),
        ("n_pcs", rf"\b(?:the )?(?:first |top )?(?P<value>{_NUMBER})\s*"
                  r"(?:pcs?|principal components?|pca components?|pc dimensions)\b"),
        ("n_pcs", rf"\b(?:n_?pcs|pcs|number of pcs)\b{_LINK}(?P<value>{_NUMBER})"),
        ("n_comps", rf"\b(?P<value>{_NUMBER})\s*(?:components?|comps|dimensions|dims)\b"),
        ("n_comps", rf"\b(?:n_?comps|components|dims)\b{_LINK}(?P<value>{_NUMBER})"),
        ("n_neighbors", rf"\b(?P<value>{_NUMBER})[\s-]*(?:nearest[\s-])?neighbou?rs?\b"),
        ("n_neighbors", rf"\b(?:n_?neighbou?rs|k|neighbou?rs)\b{_LINK}(?P<value>{_NUMBER})"),
        ("n_top_genes", rf"\b(?:the )?(?:top )?(?P<value>{_NUMBER})(?=\s*(?:most |top )?"
                        r"(?:highly[ -])?variable|\s*hvgs?\b|\s*informative)"),
        ("n_top_genes", rf"\b(?:n_?top_?genes|hvgs)\b{_LINK}(?P<value>{_NUMBER})"),
        ("top", rf"\b(?:top|best|first|strongest)[ -]?(?P<value>{_NUMBER})\b"),
        ("top", rf"\b(?P<value>{_NUMBER})\s*(?=(?:top |best )?(?:marker|genes (?:per|for|each)))"),
        ("min_dist", rf"\bmin(?:imum)?[ _-]?dist(?:ance)?\b{_LINK}(?P<value>{_NUMBER})"),
        ("spread", rf"\bspread\b{_LINK}(?P<value>{_NUMBER})"),
        ("perplexity", rf"\bperplexity\b{_LINK}(?P<value>{_NUMBER})"),
        ("target_sum", rf"\b(?:target[ _]sum|scale factor|size factor|counts per cell)\b"
                       rf"{_LINK}(?P<value>{_NUMBER})"),
        ("target_sum", rf"\b(?:to|per)\s+(?P<value>{_NUMBER})\s*(?:total )?(?:counts?|umis?|reads)"
                       r"(?:\s*(?:per|in each|for each) cell)?"),
        ("max_value", rf"\b(?:clip\w*|max(?:imum)?[ _]value|cap\w*)\b{_LINK}(?P<value>{_NUMBER})"),
        ("doublet_rate", rf"\b(?:expected )?(?:doublet )?rate\b{_LINK}(?P<value>{_NUMBER})"
                         r"\s*(?P<unit>%|percent\b)?"),
        ("doublet_rate", rf"\b(?P<value>{_NUMBER})\s*(?P<unit>%|percent)\s*(?=doublet)"),
        ("pval", rf"\bp\s*(?:<=?|≤)\s*(?P<value>{_NUMBER})"),
        ("pval", rf"\b(?:p[ -]?val(?:ue)?s?|padj|fdr|adjusted p)\b\s*(?:<|≤|below|under|of|=)?\s*"
                 rf"(?P<value>{_NUMBER})"),
        ("lfc", rf"\b(?:log2?[ -]?fold[ -]?change|log2?fc|lfc|fold[ -]?change)\b\s*"
                rf"(?:>=?|≥|above|over|of|at least|=)?\s*(?P<value>{_NUMBER})"),
        ("fraction", rf"\b(?P<value>{_NUMBER})\s*(?P<unit>%|percent)\s*(?:of )?(?:the |all )?"
                     r"(?=cells|data)"),
        ("fraction", rf"\bfraction\b{_LINK}(?P<value>{_NUMBER})"),
        ("n_cells", rf"\b(?:to|only|just|take|keep|random|of|n|sample|subsample|downsample)\s+"
                    rf"(?P<value>{_NUMBER})\s*(?=(?:random |randomly chosen )?cells\b)"),
        ("n_cells", rf"\b(?P<value>{_NUMBER})\s+(?=(?:random|randomly \w+) cells\b)"),
        ("n_dcs", rf"\b(?P<value>{_NUMBER})\s*(?:diffusion components|dcs)\b"),
        ("theta", rf"\btheta\b{_LINK}(?P<value>{_NUMBER})"),
        ("n_genes_shown", rf"\b(?P<value>{_NUMBER})\s*(?:genes|features)\b(?!\s*(?:in|per cell))"),
        ("umap_dims", r"\b(?:in )?(?P<value>[23])[- ]?d(?:imensions|imensional)?\b"),
    )
)  # fmt: skip
_CHOICES: tuple[tuple[str, str, re.Pattern[str]], ...] = tuple(
    (key, value, _compile(pattern))
    for key, value, pattern in (
        ("method", "t-test", r"\b(?:with |using )?(?:an? )?(?:welch'?s? )?t[- ]?test\b"),
        ("method", "logreg", r"\b(?:with |using )?logistic regression\b|\blogreg\b"),
        ("method", "wilcoxon", r"\b(?:using |with )(?:the |a )?wilcoxon(?: rank[- ]sum)?(?: test)?\b"),
        ("metric", "cosine", r"\bcosine(?: distance| metric| similarity)?\b"),
        ("metric", "manhattan", r"\bmanhattan(?: distance| metric)?\b"),
        ("metric", "correlation", r"\bcorrelation (?:distance|metric)\b"),
        ("legend", "on data", r"\blegends? on (?:the )?(?:data|plot|clusters)\b|"
                              r"\blabels? on (?:the )?(?:data|plot|clusters)\b"),
        ("flavor", "cell_ranger", r"\bcell[ _]?ranger flavou?r\b"),
        ("style", "matrixplot", r"\b(?=matrix[ -]?plots?\b)"),
        ("style", "stacked_violin", r"\b(?=stacked[ -]violins?\b)"),
        ("use_rep", "X_pca_harmony", r"\b(?:on|using|from|with) (?:the )?"
                                     r"(?:harmony|integrated|corrected)(?:[- ]corrected)?"
                                     r" (?:embedding|pcs|space|representation|pca)\b"),
        ("use_rep", "X_umap", r"\b(?:on|using|from) (?:the )?umap"
                              r"(?: (?:coordinates|embedding|space))\b|"
                              r"(?<=cluster )(?:on|using|from) (?:the )?umap\b|"
                              r"(?<=cells )(?:on|using|from) (?:the )?umap\b(?= *(?:$|[,.;]))"),
        ("use_raw", "true", r"\b(?:from|using|use|in) (?:the )?\.?raw\b(?! counts?)"),
        ("layout", "fa", r"\b(?:force ?atlas ?2?|fa2)\b"),
    )
)  # fmt: skip
_CLAIMS = (
    ("counts", _compile(r"\b(?:x|it|the data|data|the matrix|values?) (?:is|are|holds?|contains?) "
                        r"(?:raw |umi )*counts\b")),
    ("lognorm", _compile(r"\b(?:x|it|the data|data|the matrix|values?) (?:is|are|holds?|contains?) "
                         r"(?:already )?log[- ]?normali[sz]ed\b")),
)  # fmt: skip
_PATH = _compile(
    r"(?P<quote>['\"])(?P<quoted>[^'\"]*[/.][^'\"]*)(?P=quote)|"
    r"(?<![\w/])(?P<plain>(?:(?:~|\.{1,2})?/|\w:\\)?[\w./\\+-]*\.(?:h5ad|h5|mtx|loom|csv|tsv|txt|rds|"
    r"zarr|parquet|png|pdf|svg|ipynb)(?:\.gz)?)(?!\w)|"
    r"(?<![\w/.])(?P<folder>(?:~|\.{1,2})?/[\w.+-]+(?:/[\w.+-]*)*|[\w.+-]+/(?:[\w.+-]+/)*"
    r"(?:[\w.+-]*filtered\w*[\w.+-]*|[\w.+-]*raw_feature\w*)?/?(?=\s|$)|"
    r"\bfiltered_feature_bc_matrix\b/?)"
)
_MENTION = _compile(r"@[a-z_]\w*")
_QUOTED = _compile(r"(?<!\w)(?P<quote>['\"`])(?P<inner>[^'\"`\n]{1,80})(?P=quote)(?!\w)")
_KEY_ADDED = _compile(
    r"\b(?:as|called|named|into|store[ds]? (?:it )?(?:in|as|under)|key_added\s*=|key)\s+"
    r"(?P<name>[a-z][a-z0-9]*(?:_[a-z0-9]+)+)\b"
)
_CLUSTERS = _compile(
    r"\b(?:leiden |louvain )?clusters?\s*(?:#|no\.?|number)?\s*(?P<all>\d+(?:\s*(?:,|and|&|or|\+|,\s*and)\s*"
    r"(?:clusters?\s*)?\d+)*)(?!\s*(?:as|to|is|=|:)\s*[a-z])(?![\w.])"
)
_VERSUS_NUMBER = _compile(
    r"(?:\b(?:vs\.?|versus|against|with|to|and|from)\s+(?:clusters?\s*)?)(?P<all>\d+)\b(?![.\d%])"
)
_REST = _compile(
    r"\b(?:vs\.?|versus|against|with|to|from|and)\s+(?:the )?(?:rest|all(?: the)? others?(?: cells| "
    r"clusters)?|everything(?: else)?|all other (?:cells|clusters)|(?:the )?(?:remaining|other)"
    r"(?: cells| clusters)?|the others|others)\b"
)
_RENAMING = _compile(r"\b(?:rename|relabel|label|name|call)\b")
_PAIR = _compile(
    r"\b(?:clusters?\s+)?(?P<old>\d+)\s*(?:as|to|is|=|:|->|→|into)\s*(?P<quote>['\"]?)"
    r"(?P<new>[a-z][\w+ /-]*?)(?P=quote)\s*(?=,|;|\.|$|\band\s+(?:clusters?\s+)?\d|\bthen\b|"
    r"\band\s+(?:plot|show|save))"
)
_VARIABLES = _compile(r"\b(?:merge|concat\w*|combine|join)\s+(?:the )?(?:samples |datasets |objects )?")


def read(request: str, names: DataNames) -> Reading:
    """The facts of a request and the text that is left.

    Args:
        request: What the user typed.
        names: Names in the data: columns, levels, genes.
    """
    reading = Reading(request)
    for hit in reading.hits(_MENTION):
        reading.take("mention", hit)
    for hit in reading.hits(_PATH):
        reading.take("path", hit, value=hit["quoted"] or hit["plain"] or hit["folder"])
    for kind, pattern in _CLAIMS:
        for hit in reading.hits(pattern):
            reading.take("claim", hit, value=kind)
    _renames(reading)
    _thresholds(reading)
    _names_in_quotes(reading, names)
    for hit in reading.hits(_KEY_ADDED):
        if hit["name"].lower() not in names.columns:
            reading.take("name", hit, value=hit["name"])
    _assigned(reading)
    _worded(reading)
    _clusters(reading, names)
    names.find(reading)
    for hit in reading.hits(_compile(rf"(?<![\w.]){_NUMBER}(?:\s*%)?(?![\w])")):
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
    if not _RENAMING.search(reading.text):
        return
    for hit in reading.hits(_PAIR):
        reading.take("rename", hit, key=hit["old"], value=hit["new"].strip())


def _thresholds(reading: Reading) -> None:
    for name, pattern, words in _BETWEEN:
        for hit in reading.hits(pattern):
            if words.search(hit.group()):
                low = number(hit["low"] or hit["least"])
                high = number(hit["high"] or hit["most"])
                reading.take("param", hit, f"min_{name}", low)
                reading.facts.append(
                    Fact("param", hit.start(), hit.end(), hit.group(), f"max_{name}", high)
                )
    for pattern in _MITO_LIMIT:
        for hit in reading.hits(pattern):
            reading.take("param", hit, "max_mito", number(hit["value"]))
    for name, direction, pattern in _THRESHOLDS:
        for hit in reading.hits(pattern):
            key, value = _bound(reading.text, hit, name, direction)
            reading.take("param", hit, key, value)


def _bound(text: str, hit: re.Match[str], name: str, direction: str) -> tuple[str, object]:
    """Which cells a threshold keeps, from the verb before it."""
    value = number(hit["value"])
    clause = re.split(r"[;.]\s|\bthen\b|\band (?=remove|keep|drop|filter)", text[: hit.start()])[-1]
    drops = [m.end() for m in _DROPS.finditer(clause)]
    keeps = [m.end() for m in _KEEPS.finditer(clause)]
    inverted = bool(drops) and (not keeps or keeps[-1] < drops[-1])
    if inverted and re.search(r"[(:,]|\b(?:by|using)\b", clause[drops[-1] :]):
        return _criterion(name, direction, value, percent=bool(hit["unit"]))
    if inverted:
        direction = "min" if direction == "max" else "max"
    if name == "mito":
        if not hit["unit"] and value < _FRACTION:
            value = round(value * 100, 6)
        wrong = direction == "min" and (inverted or keeps)
        return ("keep_high_mito" if wrong else "max_mito"), value
    vague = _FILTERS.search(clause) and not (inverted or keeps) and not _SIGNS.search(hit.group())
    if vague and name in ("genes", "counts", "cells"):
        # "filter cells with fewer than 200 genes" can only mean: drop them
        if direction == "max":
            return f"min_{name}", value
        least = re.search(r"least|min", hit.group(), re.IGNORECASE)
        return (f"min_{name}" if least else f"unclear_{name}"), value
    return f"{direction}_{name}", value


def _criterion(
    name: str, direction: str, value: float, *, percent: bool
) -> tuple[str, object]:
    """A threshold listed after "remove low-quality cells": what is good, or what is bad?"""
    if name == "mito":
        scaled = value if percent or value >= _FRACTION else round(value * 100, 6)
        return "max_mito", scaled
    # fewer than 500 UMIs can only be bad, more than 500 can be either
    return (f"min_{name}" if direction == "max" else f"unclear_{name}"), value


def _names_in_quotes(reading: Reading, names: DataNames) -> None:
    for hit in reading.hits(_QUOTED):
        kind, key, value = names.resolve(hit["inner"].strip())
        reading.take(kind, hit, key, value)


def _assigned(reading: Reading) -> None:
    for hit in reading.hits(_ASSIGNED):
        text = hit["value"].strip("'\"")
        constants: dict[str, object] = {"true": True, "false": False, "none": None}
        value: object = constants.get(text.lower(), text)
        if re.fullmatch(rf"{_NUMBER}%?", text, re.IGNORECASE):
            value = number(text)
        reading.take("param", hit, f"={hit['name']}", value)


def _worded(reading: Reading) -> None:
    for key, value, pattern in _CHOICES:
        for hit in reading.hits(pattern):
            reading.take("param", hit, key, True if value == "true" else value)
    for key, pattern in _WORDED:
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
    for hit in reading.hits(_REST):
        reading.take("rest", hit)
    for pattern in (_CLUSTERS, _VERSUS_NUMBER):
        if pattern is _VERSUS_NUMBER and not any(f.kind == "group" for f in reading.facts):
            continue
        for hit in reading.hits(pattern):
            levels = re.findall(r"\d+", hit["all"])
            reading.take("group", hit, names.column_of_clusters(levels), tuple(levels))
