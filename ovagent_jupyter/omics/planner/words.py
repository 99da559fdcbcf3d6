"""Words of a request: one spelling, one stem, and typing errors undone."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from rapidfuzz import process
from rapidfuzz.distance import OSA

_TOKEN = re.compile(r"[^\W_]+(?:[_'-][^\W_]+)*")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z][a-z]|UMAP|PCA|TSNE)")
_SUFFIXES = (
    ("isation", "iz"), ("ization", "iz"), ("ising", "iz"), ("izing", "iz"),
    ("ations", ""), ("ation", ""), ("ating", ""), ("ated", ""), ("ates", ""), ("ate", ""),
    ("ised", "iz"), ("ized", "iz"), ("ises", "iz"), ("izes", "iz"), ("ise", "iz"), ("ize", "iz"),
    ("ions", ""), ("ion", ""), ("ies", "y"), ("ing", ""), ("ers", "er"), ("ed", ""), ("es", ""),
    ("s", ""), ("e", ""),
)  # fmt: skip
_SHORTEST_STEM = 3
_LONG_WORD = 8
_FIXABLE = 4


@dataclass(frozen=True, slots=True)
class Refused:
    """A topic that no offline step covers."""

    topic: str
    pattern: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The planner's word lists, from ``vocabulary.toml``."""

    spellings: tuple[tuple[re.Pattern[str], str], ...]
    synonyms: Mapping[str, str]
    stop: frozenset[str]
    light: frozenset[str]
    english: frozenset[str]
    destructive: frozenset[str]
    praise: frozenset[str]
    """Words that change nothing about a request: "a beautiful umap"."""
    needs: Mapping[str, frozenset[str]]
    """Entry → stems of which a clause has to say one."""
    drawing: frozenset[str]
    refused: tuple[Refused, ...]
    phrases: Mapping[str, tuple[str, ...]]


def catalogue(name: str) -> dict[str, Any]:
    """One of the planner's TOML files."""
    return tomllib.loads(files(__package__).joinpath(name).read_text(encoding="utf-8"))


@cache
def vocabulary() -> Vocabulary:
    """The word lists, read once."""
    held = catalogue("vocabulary.toml")
    synonyms = {key: stem(value) for key, value in held["synonyms"].items()}
    return Vocabulary(
        spellings=tuple((re.compile(old), new) for old, new in held["spellings"]),
        synonyms=synonyms,
        stop=frozenset(held["stop"].split()),
        light=frozenset(stem(word) for word in held["light"]),
        english=frozenset(held["english"].split()),
        destructive=frozenset(stem(word) for word in held["destructive"]),
        praise=frozenset(held["praise"].split()),
        needs={key: frozenset(map(stem, value)) for key, value in held["needs"].items()},
        drawing=frozenset(held["drawing"]),
        refused=tuple(
            Refused(row["topic"], re.compile(rf"(?<!\w)(?:{row['pattern']})(?!\w)", re.IGNORECASE))
            for row in held["refused"]
        ),
        phrases={key: tuple(value) for key, value in held["phrases"].items()},
    )


def stem(word: str) -> str:
    """The part of a word that its forms share: normalise, normalized, normalization."""
    for suffix, instead in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= _SHORTEST_STEM:
            if suffix == "s" and word.endswith(("ss", "us", "is")):
                return word
            root = word[: len(word) - len(suffix)] + instead
            return root[:-1] if _doubled(root, suffix) else root
    return word


def _doubled(root: str, suffix: str) -> bool:
    twice = len(root) > _SHORTEST_STEM and root[-1] == root[-2]
    return suffix in ("ing", "ed") and twice and root[-1] not in "ls"


def spell(text: str) -> str:
    """Lower case, with written forms such as "t-SNE" and "dot plot" made one word."""
    text = _CAMEL.sub(" ", text.replace("AnnData", "anndata"))
    text = text.lower().replace("’", "'").replace("_", " ")
    for pattern, instead in vocabulary().spellings:
        text = pattern.sub(instead, text)
    return text


def tokens(text: str, known: frozenset[str] = frozenset()) -> list[str]:
    """The content words of a text as stems, synonyms merged, stop words left out.

    Args:
        text: The text.
        known: Stems that count as ours; words near one of them are taken for it.
    """
    return [token for token, _ in pairs(text, known)]


def pairs(text: str, known: frozenset[str] = frozenset()) -> list[tuple[str, str]]:
    """The content words of a text: (stem, word as it was written)."""
    held = vocabulary()
    found: list[tuple[str, str]] = []
    for written in _TOKEN.findall(spell(text)):
        word = written.removesuffix("'s")
        if word in held.stop:
            continue
        if word in held.synonyms:
            found.append((held.synonyms[word], written))
            continue
        root = stem(word)
        root = held.synonyms.get(root, root)
        if known and root not in known and root not in held.stop:
            root = corrected(word, known) or root
        if root not in held.stop:
            found.append((root, written))
    return found


def corrected(word: str, known: frozenset[str]) -> str | None:
    """The known stem that a mistyped word stands for, or None."""
    held = vocabulary()
    if len(word) < _FIXABLE or not word.isalpha() or word in held.english or word in held.stop:
        return None
    for candidate in dict.fromkeys((stem(word), word)):
        if len(candidate) < _FIXABLE:
            continue
        near = process.extractOne(
            candidate,
            [name for name in known if len(name) >= _FIXABLE and name[0] == candidate[0]],
            scorer=OSA.distance,
            score_cutoff=2 if len(candidate) >= _LONG_WORD else 1,
        )
        if near is not None:
            return str(near[0])
    return None
