"""Texts at which an answer ends, for a wire that has no place to ask for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class StopTexts:
    """Passes text on until one of the texts comes.

    Only what may be the beginning of one is held back.

    Args:
        say: Takes what is passed on.
        stops: The texts.
    """

    __slots__ = ("_held", "_say", "_stops", "met")

    def __init__(self, say: Callable[[str], None], stops: Sequence[str]) -> None:
        self._say = say
        self._stops = tuple(filter(None, stops))
        self._held = ""
        self.met = ""
        """The text that came; then nothing more is passed on."""

    def feed(self, piece: str) -> None:
        """The next characters."""
        if self.met:
            return
        said = self._held + piece
        places = [(said.find(stop), -len(stop), stop) for stop in self._stops if stop in said]
        if places:
            place, _, self.met = min(places)
            self._held = ""
            self._say(said[:place])
            return
        certain = len(said) - max((_begun(said, stop) for stop in self._stops), default=0)
        self._held = said[certain:]
        self._say(said[:certain])

    def end(self) -> None:
        """No more text comes: what was held back is no stop."""
        held, self._held = self._held, ""
        self._say(held)


def _begun(said: str, stop: str) -> int:
    """Characters at the end of a text with which a stop begins."""
    longest = min(len(stop) - 1, len(said))
    return next((n for n in range(longest, 0, -1) if said.endswith(stop[:n])), 0)
