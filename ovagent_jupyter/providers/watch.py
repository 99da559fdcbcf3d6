"""A limit on waiting that costs next to nothing while nothing is late."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic


class Watch:
    """Ends a wait that takes too long with ``TimeoutError``.

    ``asyncio.timeout`` sets a timer for each wait. Here one timer serves all waits of an answer:
    it is moved when it fires, and fires in nobody's code, so a consumer of a stream may take its
    time. A wait is ``watch.begin(seconds)`` … ``watch.end()``, and who is cancelled within one
    asks ``watch.has_fired()``; ``with watch.within(seconds)`` is the same in one.

    Args:
        total: Seconds for all waits and what lies between them.
    """

    __slots__ = (
        "_cancelling", "_deadline", "_end", "_expired", "_fires_at", "_loop", "_seconds", "_task",
        "_timer", "_total",
    )  # fmt: skip

    def __init__(self, total: float) -> None:
        self._total = total
        self._seconds = total
        self._loop = asyncio.get_running_loop()
        self._end = monotonic() + total
        self._deadline = self._end
        self._fires_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._expired = False

    def begin(self, seconds: float) -> None:
        """A wait begins.

        Raises:
            TimeoutError: The time for all of it is up; a flood of pieces never has to wait.
        """
        now = monotonic()
        if now >= self._end:
            raise self._late()
        deadline = self._deadline = now + seconds
        self._seconds = seconds
        self._task = asyncio.current_task()
        if self._timer is None or self._fires_at > deadline:
            self._set_timer()

    @property
    def left(self) -> float:
        """Seconds that are left of this wait."""
        return max(0.0, self._deadline - monotonic())

    def end(self) -> None:
        """The wait is over."""
        self._task = None

    def has_fired(self) -> TimeoutError | None:
        """The reason why the wait was cancelled, if that was the watch and nobody else."""
        task, self._task = self._task, None
        if not self._expired or task is None:
            return None
        self._expired = False
        return None if task.uncancel() > self._cancelling else self._late()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """One wait."""
        self.begin(seconds)
        try:
            yield
        except asyncio.CancelledError:
            late = self.has_fired()
            if late is None:
                raise
            raise late from None
        finally:
            self.end()

    def close(self) -> None:
        """No more waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> TimeoutError:
        if monotonic() >= self._end:
            return TimeoutError(f"It did not end within {self._total:g} s.")
        return TimeoutError(f"Nothing came for {self._seconds:.3g} s.")

    def _set_timer(self) -> None:
        self.close()
        # Between two waits there is no deadline but the one for all.
        due = self._end if self._task is None else min(self._deadline, self._end)
        self._fires_at = due
        self._timer = self._loop.call_later(due - monotonic(), self._fire)

    def _fire(self) -> None:
        self._timer = None
        task = self._task
        if task is None:
            return
        if monotonic() < min(self._deadline, self._end):
            self._set_timer()
        else:
            self._expired = True
            self._cancelling = task.cancelling()
            task.cancel()
