"""Settings that change while we run: a file is read again once it is another one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Generic, TypeVar

from ovagent_jupyter.errors import ConfigError

T = TypeVar("T")

POLL = 1.0
"""Seconds between two looks at the file, where the system does not tell of changes."""

Subscriber = Callable[[T, T], None]
"""Told of the settings before and after a change."""

_Stamp = tuple[int, int, int] | None
"""Time, size and number of a file; None where there is none."""


class SettingsWatch(Generic[T]):
    """The settings of a file, always those that it has now.

    It is looked at when the settings are asked for, which takes microseconds; ``watch`` also looks
    while nobody asks. A file that cannot be used changes nothing: the settings stay as they were,
    and a notice says what is wrong, once for each such file. One that is removed is read like any
    other state of it: ``read`` gives the defaults.

    Args:
        path: The file; it need not exist.
        read: Reads it; raises ``ConfigError``.
        notice: Told what is wrong with a new file.

    Raises:
        ConfigError: The first reading failed.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[Path], T],
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.path = path
        self._read = read
        self._notice = notice
        self._subscribers: list[Subscriber[T]] = []
        self._stamp = _stamp(path)
        self._settings = read(path)

    @property
    def settings(self) -> T:
        """The settings as of the last look."""
        return self._settings

    def current(self) -> T:
        """The settings that the file has now, or had when it could last be used."""
        stamp = _stamp(self.path)
        if stamp != self._stamp:
            # Noted before it is read: what is written meanwhile is another change.
            self._stamp = stamp
            self._reload()
        return self._settings

    def subscribe(self, subscriber: Subscriber[T]) -> Callable[[], None]:
        """Tell of each change from now on.

        Args:
            subscriber: Given the settings before and after; what it raises ends at a notice.

        Returns:
            Ends the subscription.
        """
        self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return unsubscribe

    async def watch(self, poll: float = POLL) -> None:
        """Look whenever the file changes, until cancelled.

        With the package watchfiles the system tells of changes; without, the file is looked at
        every ``poll`` seconds.
        """
        async for _ in _changes(self.path, poll):
            self.current()

    def _reload(self) -> None:
        try:
            settings = self._read(self.path)
        except ConfigError as error:
            why = " ".join(filter(None, (error.what, error.why, error.next_step)))
            self._notice(f"The settings stay as they were: {why}")
            return
        before, self._settings = self._settings, settings
        if settings == before:
            return
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(before, settings)
            except Exception as error:  # noqa: BLE001 - one part must not keep the others from it
                self._notice(f"A part did not take the new settings: {error!r}")


def _changes(path: Path, poll: float) -> AsyncIterator[None]:
    """Ticks when the file may have changed."""
    installed = find_spec("watchfiles") is not None
    return _told(path) if installed and path.parent.is_dir() else _polled(poll)


async def _polled(poll: float) -> AsyncIterator[None]:
    while True:
        await asyncio.sleep(poll)
        yield


async def _told(path: Path) -> AsyncIterator[None]:
    from watchfiles import awatch

    # The folder, not the file: editors put a new file in its place.
    async for changes in awatch(path.parent, recursive=False):
        if any(Path(changed) == path for _, changed in changes):
            yield


def _stamp(path: Path) -> _Stamp:
    try:
        found = os.stat(path)  # noqa: PTH116 - at each use of a setting: pathlib doubles its time
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
