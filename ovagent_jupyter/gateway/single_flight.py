"""Identical calls at the same time: asked once, answered to all."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import fields, is_dataclass, replace

from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.gateway.layer import Call, Next
from ovagent_jupyter.messages import Usage
from ovagent_jupyter.providers.client import ModelDelta


class SingleFlight:
    """Lets identical calls share one answer; each caller gets all of its pieces.

    The answer belongs to none of them: one that goes away takes it from nobody, and the last one
    that goes ends it. What it has cost is told to the first who reads its end.
    """

    def __init__(self) -> None:
        self._flights: dict[object, _Flight] = {}

    @property
    def running(self) -> int:
        """Answers that are under way."""
        return len(self._flights)

    async def __call__(self, call: Call, call_next: Next) -> AsyncGenerator[ModelDelta, None]:
        """The stream, of one's own or shared.

        Raises:
            ProviderError: The one call failed.
        """
        key = identity((call.backend.name if call.backend else "", call.request))
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(call, call_next)
        try:
            async with aclosing(flight.listen()) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            if flight.over and self._flights.get(key) is flight:
                del self._flights[key]
                await flight.end()


class _Flight:
    """One answer under way, and all that has come of it."""

    def __init__(self, call: Call, call_next: Next) -> None:
        self._call_id = call.call_id
        self._deltas: list[ModelDelta] = []
        self._error: Exception | None = None
        self._listeners = 0
        self._told = False
        self._news = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._fly(call, call_next))
        self._task.add_done_callback(lambda _: self._wake())

    @property
    def over(self) -> bool:
        """Whether nobody can join any more."""
        return self._listeners == 0 or self._task.done()

    async def listen(self) -> AsyncGenerator[ModelDelta, None]:
        """All pieces, from the first."""
        self._listeners += 1
        read = 0
        try:
            while True:
                news = self._news
                while read < len(self._deltas):
                    read += 1
                    yield self._shared(self._deltas[read - 1])
                if self._task.done():
                    break
                await news.wait()
            if self._task.cancelled():
                raise asyncio.CancelledError
            if self._error is not None:
                raise self._shared_error(self._error) from self._error
        finally:
            self._listeners -= 1

    async def end(self) -> None:
        """End the call and wait until its connection is free."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _fly(self, call: Call, call_next: Next) -> None:
        try:
            async with aclosing(call_next(call)) as deltas:
                async for delta in deltas:
                    self._deltas.append(delta)
                    self._wake()
        except Exception as error:  # noqa: BLE001 - it is raised where somebody listens
            self._error = error

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _shared(self, delta: ModelDelta) -> ModelDelta:
        reply = delta.reply
        if reply is None:
            return delta
        if not self._told:
            self._told = True
            return delta
        details = {**reply.details, "shared_with": self._call_id}
        return replace(delta, reply=replace(reply, usage=Usage(), cost=0.0, details=details))

    def _shared_error(self, error: Exception) -> Exception:
        theirs = copy.copy(error)
        if isinstance(theirs, ProviderError) and self._told:
            theirs.usage = theirs.cost = None
        self._told = True
        return theirs


def identity(value: object) -> object:
    """A value by which equal requests are known: the same, with its tables made hashable."""
    if is_dataclass(value) and not isinstance(value, type):
        rows = (identity(getattr(value, row.name)) for row in fields(value))
        return (type(value).__name__, *rows)
    if isinstance(value, Mapping):
        return ("table", *sorted((str(key), identity(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return tuple(map(identity, value))
    # 1, 1.0 and True are equal, and not the same to a service.
    return (type(value).__name__, value)
