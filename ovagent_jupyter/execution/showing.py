"""A display that waits to be seen, and the pace at which displays may come."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ovagent_jupyter.execution.bundles import clean_bundle, clean_metadata
from ovagent_jupyter.execution.executor import Output, OutputKind


class Pace:
    """Lets so many things pass in a second, as many at once.

    Args:
        rate: How many.
        clock: Seconds, monotonic.
    """

    def __init__(self, rate: int, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._left = float(rate)
        self._seen_at = clock()

    def allows(self) -> bool:
        """Whether one more may pass now."""
        now = self._clock()
        self._left = min(self._rate, self._left + (now - self._seen_at) * self._rate)
        self._seen_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Shown:
    """A display as it came; cleaned when somebody looks, so that one replaced unseen costs nothing.

    Args:
        kind: Which kind of output it becomes.
        data: Its allowed types, unchecked.
        metadata: As it came.
        display_id: Its identity.
        size: About how many characters it has.
    """

    __slots__ = ("_output", "data", "display_id", "kind", "metadata", "size")

    def __init__(
        self,
        kind: OutputKind,
        data: Mapping[str, object],
        metadata: object,
        display_id: str,
        size: int,
    ) -> None:
        self.kind = kind
        self.data = data
        self.metadata = metadata
        self.display_id = display_id
        self.size = size
        self._output: Output | None = None

    def updated(self, update: Shown) -> Shown:
        """The same place with other content."""
        return Shown(self.kind, update.data, update.metadata, self.display_id, update.size)

    @property
    def output(self) -> Output:
        """The display, clean."""
        if self._output is None:
            self._output = Output(
                self.kind,
                data=clean_bundle(self.data, self.metadata),
                metadata=clean_metadata(self.metadata),
                display_id=self.display_id,
            )
            self.data, self.metadata = {}, None
        return self._output
