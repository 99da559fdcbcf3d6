"""Cutting a request into clauses, each asking for one thing or excluding one."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

_HARD = re.compile(
    r"[.;!?\n]+(?=\s|$)|[;\n]|→|->|=>|"
    r"(?:,\s*)?\b(?:and\s+)?(?:then|afterwards|after that|finally)\b"
    r"|(?:,\s*)?\bfollowed by\b|\bas well as\b",
    re.IGNORECASE,
)
_SOFT = re.compile(r",\s*(?:and|plus|also)\b|,|&|\+|\band\b|\bplus\b", re.IGNORECASE)
_NEGATION = re.compile(
    r"\b(?:(?:but|and)\s+)?(?:do not|don'?t|dont|never|without|w/o|skip(?:ping)?|avoid(?:ing)?|"
    r"leave out|omit(?:ting)?|except(?: for)?|not|no|instead of|rather than)\b",
    re.IGNORECASE,
)
_BUT = re.compile(r"\bbut\b|\bthough\b|\bjust\b", re.IGNORECASE)
_IF_POSSIBLE = re.compile(
    r",?\s*\bif (?:you (?:can|could|please)|possible|you don't mind)\b", re.IGNORECASE
)
_BULLET = re.compile(r"(?m)^[ \t]*(?:\d{1,2}[.)]|[a-h]\)|[-*•–])(?=[ \t]+[A-Za-z])")
_COURTESY = re.compile(
    r"^\s*(?:(?:hi|hello|hey|dear)\b[\w ]{0,12},|(?:can|could|would|will) you(?: please)?\b|"
    r"(?:please|kindly|thanks|thank you)\b,?|i(?:'d| would)? (?:like|want|need)(?: you)?(?: to)?\b|"
    r"(?:thanks|thank you)(?: (?:a lot|so much|very much))?[.! ]*$|(?:in advance)\b|let'?s\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Clause:
    """A part of the request, by its place in the text."""

    start: int
    end: int
    text: str
    """Masked text: what the grammar ate is blank."""
    negated: bool = False


def split(
    masked: str, is_action: Callable[[str], bool], taken: Collection[int] = ()
) -> list[Clause]:
    """The clauses of a masked request.

    Args:
        masked: The request with parameters blanked out, so that decimals and lists stay whole.
        is_action: Whether a piece of text asks for something by itself; "and" and the comma
            separate clauses only where both sides do.
        taken: Places of what the grammar took; a clause of nothing else is still a clause.
    """
    found: list[Clause] = []
    for start, end in _cut(masked, 0, len(masked), _HARD):
        for piece in _signed(masked, start, end):
            if piece.negated:
                found.append(piece)
            else:
                found.extend(_soft(masked, piece.start, piece.end, is_action))
    return [
        clause
        for clause in found
        if clause.text.strip(" \t,.!?:-") or any(clause.start <= at < clause.end for at in taken)
    ]


def _cut(text: str, start: int, end: int, at: re.Pattern[str]) -> list[tuple[int, int]]:
    pieces, here = [], start
    for hit in at.finditer(text, start, end):
        pieces.append((here, hit.start()))
        here = hit.end()
    return [*pieces, (here, end)]


def _signed(text: str, start: int, end: int) -> list[Clause]:
    """The part before a negation, and the negated part up to a "but" or a comma."""
    pieces: list[Clause] = []
    here = start
    while here < end:
        no = _NEGATION.search(text, here, end)
        if no is None:
            break
        if no.start() > here:
            pieces.append(Clause(here, no.start(), text[here : no.start()]))
        stop = _end_of_negation(text, no.end(), end)
        pieces.append(Clause(no.end(), stop, text[no.end() : stop], negated=True))
        here = stop
    if here < end:
        pieces.append(Clause(here, end, text[here:end]))
    return pieces


def _end_of_negation(text: str, start: int, end: int) -> int:
    ends = [hit.start() for hit in (_BUT.search(text, start, end),) if hit]
    comma = text.find(",", start, end)
    if comma >= 0:
        ends.append(comma)
    return min(ends, default=end)


def _soft(text: str, start: int, end: int, is_action: Callable[[str], bool]) -> list[Clause]:
    """Cut at "and" and commas where both sides are actions; otherwise keep them together."""
    pieces = _cut(text, start, end, _SOFT)
    merged: list[tuple[int, int]] = []
    for begin, stop in pieces:
        alone = is_action(text[begin:stop])
        if merged and not (alone and is_action(text[merged[-1][0] : merged[-1][1]])):
            merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((begin, stop))
    return [Clause(begin, stop, text[begin:stop]) for begin, stop in merged]


def without_courtesy(text: str) -> str:
    """The text with its polite opening and its bullets blanked out, at the same length."""
    text = _IF_POSSIBLE.sub(lambda hit: " " * len(hit.group()), text)
    text = _BULLET.sub(lambda hit: " " * len(hit.group()), text)
    while hit := _COURTESY.match(text):
        if not hit.group().strip():
            break
        text = " " * hit.end() + text[hit.end() :]
    return text
