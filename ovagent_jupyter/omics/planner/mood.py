"""What is said but not asked for: questions, reports of the past, conditions, references back."""

from __future__ import annotations

import re

_QUESTION = re.compile(
    r"^\W*(?:(?:and|but|so|also|maybe|perhaps)\s+)?"
    r"(?:what|why|who|whose|when|where|which|how|is|are|was|were|does|did|should|shall|has|have|am|"
    r"can (?:i|we|it|they|one|this|these)|could (?:i|we|it|they|this)|may (?:i|we)|"
    r"would (?:it|that|this|i|we)|might|"
    r"do (?:i|we|you|they|these|those|my|the)|explain|describe|define|tell|what's|whats)\b",
    re.IGNORECASE,
)
_DONE = (
    r"(?:remov|dropp|exclud|discard|filter|kept|retain|eliminat|toss|cluster|reclust|normali[sz]|"
    r"logg|log-?transform|scal|integrat|annotat|subsampl|downsampl|regress|sav|load|merg|correct)"
    r"(?:t|ed)?"
)
_REPORT = re.compile(
    rf"\b(?:i|we|he|she|they|you|someone|my \w+)\s+(?:\w+ly\s+)?(?:have |has |had |'ve )?"
    rf"(?:already |just |previously )?{_DONE}(?<=t|d)\b|"
    rf"\b(?:was|were|has been|have been|had been|is already|are already|got)\s+"
    rf"(?:already |previously |now )?{_DONE}(?<=t|d)\b",
    re.IGNORECASE,
)
_CONDITION = re.compile(r"\b(?:if|unless|whether|otherwise|in case|depending on|either)\b", re.I)
_POLITE_IF = re.compile(r"\bif (?:you (?:can|could|please)|possible|you don't mind)\b", re.I)
_REFERENCE = re.compile(
    r"^\W*(?:do |and )?same\b|\b(?:the same(?: thing| again| as)?|like (?:before|last time)|"
    r"as (?:before|last time|above)|"
    r"(?:the )?previous (?:step|request|one|run|result)s?|what (?:i|we|you) (?:said|did))\b"
    r"(?! (?:cells?|genes?|umap|plot|colou?rs?|clusters?|resolution))",
    re.IGNORECASE,
)
_RELATIVE = re.compile(
    r"\b(?:more|fewer|less|finer|coarser|larger|smaller|bigger|higher|lower|increase|decrease|"
    r"raise|reduce|tighter|looser|stricter)\s+(?:the |a )?(?:\w+ )?"
    r"(?:clusters?|clustering|resolution|neighbou?rs|pcs|threshold|cut-?off|limit)\b",
    re.IGNORECASE,
)
_COUNTING = re.compile(
    r"^\W*(?:please )?(?:(?:the )?(?:number|share|percentage|fraction|proportion) of "
    r"(?:\w+ )?cells|(?:count|tally|highlight|flag|mark|label|tag)s? "
    r"(?:the |all |how many )?(?:\w+ )?cells)\b",
    re.IGNORECASE,
)


def is_question(typed: str) -> bool:
    """Whether a clause asks something instead of ordering it."""
    return bool(_QUESTION.search(typed))


def not_an_order(typed: str) -> str:
    """Why a clause is no order, though it names a step; empty when it may be one."""
    if _REPORT.search(typed):
        return "It tells what was done, and does not say what to do."
    if _CONDITION.search(_POLITE_IF.sub("", typed)):
        return "It depends on a condition; the offline planner cannot decide for you."
    if _REFERENCE.search(typed):
        return "It refers to an earlier request; each request has to stand for itself."
    if _RELATIVE.search(typed) and not any(map(str.isdigit, typed)):
        return "It says more or less, and no value: say 'cluster at resolution 1.2'."
    return ""


def counts_cells(typed: str) -> bool:
    """Whether a threshold is to count or mark cells, and not to drop them."""
    return bool(_COUNTING.search(typed))
