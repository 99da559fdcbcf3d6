"""What a model has read already, so that the next turn of a conversation reads only what is new."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WORTH_COPYING = 64
"""Tokens: a memory that would lose more to another conversation is copied and stays."""


@dataclass(slots=True)
class Reading:
    """An engine's cache, and the tokens that are in it."""

    cache: list[object]
    tokens: list[int]


class PromptMemory:
    """The latest readings of one model. Used by the thread of the model only.

    Args:
        make: Makes an empty cache.
        trim: Drops the last tokens of a cache; False where it cannot.
        size: Bytes of a cache.
        most: How many are kept.
        cap: Bytes of all that are kept; the latest one is kept whatever it takes.
    """

    def __init__(
        self,
        make: Callable[[], list[object]],
        trim: Callable[[list[object], int], bool],
        size: Callable[[list[object]], int],
        *,
        most: int,
        cap: int,
    ) -> None:
        self._make, self._trim, self._size = make, trim, size
        self._most, self._cap = most, cap
        self._kept: list[Reading] = []

    def take(self, prompt: Sequence[int]) -> Reading:
        """A cache that holds as much of the beginning of a prompt as any; at most all but one.

        It is taken out, so that a generation that fails leaves nothing half-read behind.
        """
        best = max(self._kept, key=lambda kept: common(kept.tokens, prompt), default=None)
        shared = 0 if best is None else min(common(best.tokens, prompt), len(prompt) - 1)
        if best is None or shared == 0:
            return Reading(self._make(), [])
        lost = len(best.tokens) - shared
        if lost > WORTH_COPYING:
            best = Reading(copy.deepcopy(best.cache), best.tokens)
        else:
            self._kept = [kept for kept in self._kept if kept is not best]
        if lost and not self._trim(best.cache, lost):
            return Reading(self._make(), [])
        return Reading(best.cache, best.tokens[:shared])

    def keep(self, reading: Reading) -> None:
        """Remember a reading; the oldest ones make room."""
        self._kept.append(reading)
        del self._kept[: max(0, len(self._kept) - self._most)]
        while (
            len(self._kept) > 1 and sum(self._size(each.cache) for each in self._kept) > self._cap
        ):
            del self._kept[0]

    def __len__(self) -> int:
        return len(self._kept)


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two begin with alike."""
    for number, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return number
    return min(len(one), len(other))
