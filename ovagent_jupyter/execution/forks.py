"""Several places that begin with the data of one, each free to change it: for parameter sweeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ovagent_jupyter.execution.executor import Executor

if TYPE_CHECKING:
    from ovagent_jupyter.execution.handover import HandoverReport

AT_ONCE = 4
"""Places that start at a time."""


@asynccontextmanager
async def forked(
    source: Executor,
    handed: HandoverReport,
    make: Callable[[], Executor],
    count: int,
    names: Sequence[str] = (),
) -> AsyncIterator[tuple[Executor, ...]]:
    """Fresh executors that hold what the source holds now; they end with the block.

    What the source changed is fetched once. Where all of them use one store, each place maps
    the same memory copy-on-write, so a further one costs what it changes and no copy. Only
    data goes: imports and functions that the source's code made stay there.

    Args:
        source: Where the data is; it goes on as it was.
        handed: What its last ``put`` said.
        make: Builds one that is not started; with the store of the source.
        count: How many.
        names: Variables that the source's code made, which are to go as well.

    Yields:
        The executors, started, each with the variables.

    Raises:
        HandoverError: What the source sent is malformed, or there is no room.
        ChildStartError: One cannot be started; those that were are ended.
    """
    state = await _state_of(source, handed, names)
    made = tuple(make() for _ in range(count))
    turns = asyncio.Semaphore(AT_ONCE)

    async def begin(executor: Executor) -> None:
        async with turns:
            await executor.start()
            await executor.put(state)

    try:
        outcomes = await asyncio.gather(*map(begin, made), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome
        yield made
    finally:
        await asyncio.gather(*(executor.shutdown() for executor in made), return_exceptions=True)


async def _state_of(
    source: Executor, handed: HandoverReport, names: Sequence[str]
) -> Mapping[str, object]:
    """The variables of a place as they are now: what it changed, and what it left as it came."""
    changes = await source.changes(names)
    gone = {diff.name for diff in changes.diffs if diff.kind == "removed"}
    kept = [name for name in handed.names if name not in changes.objects and name not in gone]
    return {
        **{name: handed.saved[name].restore() for name in kept},
        **changes.objects,
    }
