"""Numbers written as words, where they stand for a value: "top five", "two hundred genes"."""

from __future__ import annotations

import re

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70,
    "eighty": 80, "ninety": 90,
}  # fmt: skip
_VALUES = {**{word: value for value, word in enumerate(_UNITS)}, **_TENS}
_SCALES = {"hundred": 100, "thousand": 1000}
_WORD = rf"(?:{'|'.join(sorted(_VALUES, key=len, reverse=True))})"
_SPOKEN = rf"(?P<value>{_WORD})(?:[ -](?P<scale>hundred|thousand))?"
_BEFORE = (
    r"(?P<before>\b(?:top|best|first|strongest|at least|at most|fewer than|less than|more than|"
    r"under|over|below|above|to|only|random)\s+)"
)
_AFTER = (
    r"(?=\s*(?:%|(?:percent|markers?|genes?|pcs?|components?|neighbou?rs?|cells|counts|umis?|reads|"
    r"mads?|hvgs?|highly|variable|principal)\b))"
)
_PATTERN = re.compile(
    rf"{_BEFORE}{_SPOKEN}\b|(?<![\w-]){_SPOKEN.replace('<value', '<v2').replace('<scale', '<s2')}"
    rf"\b{_AFTER}",
    re.IGNORECASE,
)


def in_digits(text: str) -> str:
    """The text with such numbers in digits; "one" alone and other words stay as they are."""
    return _PATTERN.sub(_digits, text)


def _digits(hit: re.Match[str]) -> str:
    word, scale = (hit["value"] or hit["v2"]).lower(), hit["scale"] or hit["s2"]
    value = _VALUES[word] * (_SCALES[scale.lower()] if scale else 1)
    return f"{hit['before'] or ''}{value}"
