"""Names in the data: which words of a request are columns, levels or genes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ovagent_jupyter.omics.planner.reading import Reading
from ovagent_jupyter.omics.planner.words import stem, vocabulary
from ovagent_jupyter.omics.state import Column, DataState

CLUSTERINGS = ("leiden", "louvain", "seurat_clusters", "clusters", "cluster")
"""Columns that hold clusters, the usual one first."""
CELL_TYPES = (
    "cell_type", "celltype", "cell_types", "celltypes", "annotation", "cell_annotation",
    "bulk_labels", "labels", "cell_label", "cell_ontology_class",
)  # fmt: skip
BATCHES = (
    "batch", "sample", "sample_id", "donor", "donor_id", "patient", "patient_id", "orig.ident",
    "library", "replicate", "subject",
)  # fmt: skip
_MOST_LEVELS = 200
_GENE_START = r"(?<![\w./-])"
_GENE_END = r"(?![\w/])(?!-\w)"
_BY = (
    r"\b(?:colou?r(?:ed|ing)?(?: \w+)?(?: \w+)? (?:by|with)|by|per|across|in each|for each|over|"
    r"each|every|between|within)\s+(?:the\s+|each\s+)?"
)
_SPOKEN: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (r"leiden(?: clusters?| clustering| labels?)?", ("leiden",), "leiden"),
    (r"louvain(?: clusters?| clustering| labels?)?", ("louvain",), "louvain"),
    (r"cell[ _-]?types?|cell identit\w+|annotations?", CELL_TYPES, "cell_type"),
    (r"batch(?:es)?", ("batch", *BATCHES), "batch"),
    (r"samples?", ("sample", "sample_id", *BATCHES), "sample"),
    (r"donors?|patients?|subjects?", ("donor", "donor_id", "patient", *BATCHES), "donor"),
    (r"(?:total |umi )+counts|umis?|library size|depth", ("total_counts", "n_counts"),
     "total_counts"),
    (r"(?:number of |n )genes|genes detected", ("n_genes_by_counts", "n_genes"),
     "n_genes_by_counts"),
    (r"(?:percent(?:age)? |% ?|fraction )?(?:of )?(?:mito(?:chondrial)?|mt)(?: content| "
     r"fraction| percent(?:age)?| genes| counts)?", ("pct_counts_mt", "percent_mito"),
     "pct_counts_mt"),
    (r"doublet scores?", ("doublet_score",), "doublet_score"),
    (r"(?:diffusion |dpt )?pseudo-?time", ("dpt_pseudotime",), "dpt_pseudotime"),
    (r"(?:cell[ -]cycle )?phases?", ("phase",), "phase"),
)  # fmt: skip
"""What users call a column, where it may be, and its name when it is yet to be made."""
_ROLES = tuple(
    (re.compile(_BY + rf"(?:{words})\b", re.IGNORECASE), columns, fallback)
    for words, columns, fallback in _SPOKEN
)
_ON_UMAP = tuple(
    (
        re.compile(rf"\b(?:{words})(?=\s+(?:on|onto|over)\s+(?:the\s+|a\s+)?umap)", re.I),
        columns,
        name,
    )
    for words, columns, name in _SPOKEN
)


@dataclass(frozen=True, slots=True)
class DataNames:
    """Lookup of the names in one dataset, empty without data."""

    columns: Mapping[str, Column] = field(default_factory=dict)
    """Lower-case name → column of obs."""
    levels: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Lower-case level → (column, level); the column with the fewest levels wins."""
    genes: Mapping[str, str] = field(default_factory=dict)
    words: Collection[str] = ()
    """Stems that mean something to the planner; they are not taken for names lightly."""

    @classmethod
    def of(cls, state: DataState | None, words: Collection[str]) -> DataNames:
        """The names in the data."""
        if state is None:
            return cls(words=words)
        columns = {name.lower(): column for name, column in state.obs.items()}
        levels: dict[str, tuple[str, str]] = {}
        ranked = sorted(state.obs.values(), key=lambda column: len(column.levels))
        for column in ranked:
            if column.kind in ("categorical", "string") and len(column.levels) <= _MOST_LEVELS:
                for level in column.levels:
                    levels.setdefault(level.lower(), (column.name, level))
        return cls(columns, levels, state.genes, words)

    def resolve(self, text: str) -> tuple[Literal["column", "group", "genes", "name"], str, object]:
        """What a quoted text is: (kind of fact, key, value)."""
        low = text.lower()
        if low in self.columns:
            return "column", "", self.columns[low].name
        if low in self.levels:
            column, level = self.levels[low]
            return "group", column, (level,)
        if text.upper() in self.genes:
            return "genes", "", (self.genes[text.upper()],)
        return "name", "", text

    def column_of_clusters(self, levels: Collection[str]) -> str:
        """The clustering that holds these numbers; the usual one where none does."""
        for name in CLUSTERINGS:
            column = self.columns.get(name)
            if column is not None and (not column.levels or set(levels) <= set(column.levels)):
                return column.name
        return next((name for name in CLUSTERINGS if name in self.columns), "leiden")

    def find(self, reading: Reading) -> None:
        """Take columns, levels and genes out of the text that is left."""
        self._columns(reading)
        for pattern, columns, fallback in _ROLES:
            for hit in reading.hits(pattern):
                held = next((name for name in columns if name in self.columns), None)
                value = self.columns[held].name if held else fallback
                _take_column(reading, hit, value)
        for pattern, columns, fallback in _ON_UMAP:
            for hit in reading.hits(pattern):
                held = next((name for name in columns if name in self.columns), fallback)
                reading.take("column", hit, "color", held)
        self._listed(reading)
        self._levels_of_columns(reading)
        self._levels(reading)
        self._genes(reading)
        self._listed(reading)
        self._genes(reading)

    def _columns(self, reading: Reading) -> None:
        names = sorted(self.columns, key=len, reverse=True)
        for name in names:
            spelled = re.escape(name).replace("_", "[_ ]")
            ours = stem(name) in self.words or name in ("batch", "sample", "group", "condition")
            before = _BY if ours and name not in ("condition",) else r"(?:" + _BY + ")?"
            pattern = re.compile(rf"{before}(?<!\w){spelled}(?:\s+(?:column|labels?))?(?!\w)", re.I)
            for hit in reading.hits(pattern):
                _take_column(reading, hit, self.columns[name].name)

    def _listed(self, reading: Reading) -> None:
        """Further columns of a list: "by leiden, phase and batch"."""
        names = "|".join(re.escape(name) for name in sorted(self.columns, key=len, reverse=True))
        if not names:
            return
        more = re.compile(rf"\s*(?:,\s*and|,|and|&)\s+(?P<name>{names})(?!\w)", re.I)
        waiting = [fact for fact in reading.facts if fact.kind in ("column", "genes")]
        while waiting:
            fact = waiting.pop()
            hit = more.match(reading.text, fact.end)
            if hit:
                reading.take("column", hit, fact.key, self.columns[hit["name"].lower()].name)
                waiting.append(reading.facts[-1])

    def _levels_of_columns(self, reading: Reading) -> None:
        """Groups named after their column: "batch a and b", "batch a vs batch b"."""
        for name, column in self.columns.items():
            levels = [re.escape(level) for level in column.levels[:_MOST_LEVELS]]
            if not levels or column.kind not in ("categorical", "string") or name in CLUSTERINGS:
                continue
            one = rf"(?P<level>{'|'.join(sorted(levels, key=len, reverse=True))})(?![\w+])"
            of = re.compile(rf"(?<!\w){re.escape(name)}(?:e?s)?\s+{one}", re.I)
            more = re.compile(
                rf"\s*(?:,|and|&|or|vs\.?|versus|against|to|with)\s+(?:{re.escape(name)}\s+)?{one}",
                re.I,
            )
            for hit in reading.hits(of):
                place = hit.end()
                reading.take("group", hit, column.name, (self._level(column, hit["level"]),))
                while next_hit := more.match(reading.text, place):
                    place = next_hit.end()
                    level = self._level(column, next_hit["level"])
                    reading.take("group", next_hit, column.name, (level,))

    def _level(self, column: Column, text: str) -> str:
        return next(level for level in column.levels if level.lower() == text.lower())

    def _levels(self, reading: Reading) -> None:
        held = vocabulary()
        for name in sorted(self.levels, key=len, reverse=True):
            ordinary = stem(name) in self.words or name in held.stop
            if name.isdigit() or (len(name) > 1 and ordinary):
                continue
            pattern = re.compile(
                r"(?<![\w+])(?:(?:cell[ -]?types?|labels?|groups?|population)\s+)?"
                rf"{re.escape(name)}(?:s|\s+cells?|s?\s+(?:group|cluster))?(?![\w+])",
                re.I,
            )
            column, level = self.levels[name]
            if len(name) == 1:
                # one letter is too little to go by, unless it is set against another
                pattern = re.compile(
                    rf"(?<![\w+]){re.escape(level)}(?=\s+(?:vs|versus|against)\b)|"
                    rf"(?:(?<=\bvs )|(?<=\bversus ))\b{re.escape(level)}\b"
                )
            for hit in reading.hits(pattern):
                reading.take("group", hit, column, (level,))

    def _genes(self, reading: Reading) -> None:
        spans = list(self._gene_words(reading.text))
        run: list[tuple[int, int, str]] = []
        for span in [*spans, None]:
            joined = (
                run
                and span
                and re.fullmatch(
                    r"[\s,/&+]*(?:and|or)?[\s,/&+]*", reading.text[run[-1][1] : span[0]], re.I
                )
            )
            if run and not joined:
                genes = tuple(dict.fromkeys(gene for _, _, gene in run))
                reading.take_span("genes", run[0][0], run[-1][1], "", genes)
                run = []
            if span:
                run.append(span)

    def _gene_words(self, text: str) -> Iterator[tuple[int, int, str]]:
        stop = vocabulary().stop | vocabulary().english
        for hit in re.finditer(rf"{_GENE_START}[A-Za-z][\w.-]*\w{_GENE_END}", text):
            word = hit.group()
            gene = self.genes.get(word.upper())
            if gene is None:
                continue
            low = word.lower()
            ours = stem(low) in self.words
            shouted = word == gene and word.isupper() and len(word) > 2  # noqa: PLR2004
            if not ours and (shouted or low not in stop):
                yield hit.start(), hit.end(), gene


def _take_column(reading: Reading, hit: re.Match[str], column: str) -> None:
    """Take a column, but leave the verb and the plot before it: "color the umap by"."""
    by = re.match(r"colo\w*(?: \w+)*? (?=(?:by|with) )", hit.group(), re.IGNORECASE)
    start = hit.start() + (by.end() if by else 0)
    reading.take_span("column", start, hit.end(), _role(hit.group()), column)


def _role(text: str) -> str:
    """What a column is for, from the word before it: color, by or nothing."""
    low = text.lower()
    if low.startswith("colo"):
        return "color"
    found = re.match(r"(by|per|across|in each|for each|over|each|every|between|within)\b", low)
    return "by" if found else ""
