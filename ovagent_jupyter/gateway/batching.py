"""Many requests at once: a bound on how many, results as they come, a failure costs only itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from ovagent_jupyter.errors import OVAgentError, ProviderError
from ovagent_jupyter.providers.client import ModelDelta, ModelRequest, Reply, collect

AT_ONCE = 8
"""Requests that run at the same time."""

Status = Literal["answered", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """What came of one request of a batch."""

    index: int
    """Its place in the batch, from 0."""
    request: ModelRequest
    """What was asked."""
    reply: Reply | None = None
    """The answer; None after a failure."""
    error: ProviderError | None = None
    """The failure; None after an answer."""

    @property
    def status(self) -> Status:
        """Whether there is an answer."""
        return "failed" if self.reply is None else "answered"


Stream = Callable[[ModelRequest], AsyncIterator[ModelDelta]]
"""``client.stream`` of any model client; the gateway is one."""


async def submit_batch(
    stream: Stream, requests: Iterable[ModelRequest], *, at_once: int = AT_ONCE
) -> AsyncGenerator[BatchResult, None]:
    """Ask many requests; the results come in the order in which they are ready.

    Requests are taken from the iterable as there is room, so that it may be a generator. Closing
    this generator early ends the calls that run and begins no other. Priorities, rates and
    budgets are the gateway's.

    Args:
        stream: Asks one.
        requests: What to ask.
        at_once: How many run at the same time, 1 or more.

    Raises:
        ValueError: ``at_once`` is below 1.
    """
    if at_once < 1:
        raise ValueError(f"at_once={at_once}: use 1 or more")
    waiting = enumerate(requests)
    running: set[asyncio.Task[BatchResult]] = set()

    def fill() -> None:
        while len(running) < at_once and (item := next(waiting, None)) is not None:
            running.add(asyncio.create_task(_ask(stream, *item)))

    try:
        fill()
        while running:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            running -= done
            fill()
            for task in done:
                yield task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _ask(stream: Stream, index: int, request: ModelRequest) -> BatchResult:
    try:
        deltas = stream(request)
        if isinstance(deltas, AsyncGenerator):
            async with aclosing(deltas) as closing:
                reply = await collect(closing)
        else:
            reply = await collect(deltas)
    except ProviderError as error:
        return BatchResult(index=index, request=request, error=error)
    except (OVAgentError, OSError, ValueError) as error:  # a fault of ours must not end the others
        wrapped = ProviderError("The call failed.", why=repr(error))
        return BatchResult(index=index, request=request, error=wrapped)
    return BatchResult(index=index, request=request, reply=reply)
