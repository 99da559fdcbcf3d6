"""The parts of an object as it was handed over, each built when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover.objects import open_object
from ovagent_jupyter.execution.handover.saved import Saved
from ovagent_jupyter.execution.handover.slots import Path, Tree


class Kept(Mapping[Path, object]):
    """What the parent has of one object; arrays share no memory with any other object.

    Args:
        saved: The object as it was.
        live: The object itself, for a part that can be pickled but not unpickled.
    """

    def __init__(self, saved: Saved, live: object = None) -> None:
        self.kind = saved.kind
        self._saved = saved
        self._live = live
        self._order = dict.fromkeys(saved.order or saved.slots)
        self._ground = saved.ground()
        self._built: dict[Path, object] = {}
        self._shared = set(saved.opaque)

    def __getitem__(self, path: Path) -> object:
        """One part; asked for again, it is the same object.

        Raises:
            KeyError: There is no such part.
            HandoverError: It cannot be had any more.
        """
        if path not in self._order:
            raise KeyError(path)
        if path not in self._built:
            self._built[path] = self._build(path)
        return self._built[path]

    def __iter__(self) -> Iterator[Path]:
        """The paths, in order."""
        return iter(self._order)

    def __len__(self) -> int:
        """How many parts there are."""
        return len(self._order)

    def __contains__(self, path: object) -> bool:
        """Whether there is such a part; nothing is built for that."""
        return path in self._order

    @property
    def paths(self) -> Tree:
        """The paths alone, as a tree whose parts are not there."""
        return Tree(self.kind, dict.fromkeys(self._order))

    def is_shared(self, path: Path) -> bool:
        """Whether a part is the user's own object, since it could not be kept as it was."""
        self[path]
        return path in self._shared

    def _build(self, path: Path) -> object:
        try:
            return self._saved.value(path, self._ground)
        except HandoverError:
            # It can be pickled and not unpickled.
            own = open_object(self._live).slots
            if path not in own:
                raise
            self._shared.add(path)
            return own[path]
