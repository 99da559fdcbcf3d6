"""How many calls run at once, how fast they begin, and who waits for whom."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from itertools import count
from typing import TYPE_CHECKING

from ovagent_jupyter.config.gateway import ConcurrencyConfig, RateConfig
from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.gateway.layer import Call, Next
from ovagent_jupyter.gateway.partial import estimated_input
from ovagent_jupyter.providers.client import ModelDelta

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter

EXPECTED_OUTPUT = 1000
"""Tokens that an answer is taken to have, where the request sets no bound."""

Waiter = tuple[float, int, asyncio.Future[None]]
"""Its rank, smallest first; its number, for equal ranks; what wakes it."""


class Admission:
    """Lets calls through, the most urgent first; each second of waiting makes one more urgent.

    Args:
        concurrency: How many at once, and how many may wait.
        rate: How fast they may begin.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        concurrency: ConcurrencyConfig,
        rate: RateConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = concurrency
        self._rate = rate
        self._clock = clock
        self._buckets: tuple[AsyncLimiter | None, AsyncLimiter | None] | None = None
        self._number = count()
        self._waiting: list[Waiter] = []
        self.running = 0
        """Calls that were let through."""
        self._pacing = False

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        return len(self._waiting)

    async def __call__(self, call: Call, call_next: Next) -> AsyncGenerator[ModelDelta, None]:
        """The stream, once it is the turn of the call.

        Raises:
            ProviderError: Too many wait already.
        """
        await self._enter(call)
        try:
            async with aclosing(call_next(call)) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            self.running -= 1
            self._wake()

    async def _enter(self, call: Call) -> None:
        if self._waiting or not self._has_room():
            await self._wait(call)
        else:
            self._take()
        if self._pacing:
            await self._pace(call)

    def _has_room(self) -> bool:
        return self.running < self._config.max_calls and not self._pacing

    def _take(self) -> None:
        self.running += 1
        # One call at a time stands before the buckets: those behind it stay in the queue, where
        # a more urgent one can still go first.
        self._pacing = bool(self._rate.requests_per_minute or self._rate.tokens_per_minute)

    async def _wait(self, call: Call) -> None:
        if len(self._waiting) >= self._config.queue:
            raise _busy(len(self._waiting))
        turn = asyncio.get_running_loop().create_future()
        # All that wait grow more urgent at the same pace, so their order never changes: a call
        # ranks by when it came, less the seconds that its priority is worth.
        rank = self._clock() - int(call.priority) * self._config.aging
        waiter = (rank, next(self._number), turn)
        heapq.heappush(self._waiting, waiter)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # it was let through and is not going
                self.running -= 1
                self._pacing = False
                self._wake()
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
                heapq.heapify(self._waiting)
            raise

    def _wake(self) -> None:
        """Let through those whose turn it is."""
        while self._waiting and self._has_room():
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():  # else its caller is cancelled, and has not run since
                self._take()
                turn.set_result(None)

    async def _pace(self, call: Call) -> None:
        """Wait for the buckets; the place is given back where the call ends meanwhile."""
        requests, tokens = self._limiters()
        try:
            if requests is not None:
                await requests.acquire()
            if tokens is not None:
                await tokens.acquire(min(_tokens(call), tokens.max_rate))
        except BaseException:
            self.running -= 1
            raise
        finally:
            self._pacing = False
            self._wake()

    def _limiters(self) -> tuple[AsyncLimiter | None, AsyncLimiter | None]:
        if self._buckets is None:
            from aiolimiter import AsyncLimiter

            rates = (self._rate.requests_per_minute, self._rate.tokens_per_minute)
            requests, tokens = (AsyncLimiter(rate, 60) if rate else None for rate in rates)
            self._buckets = (requests, tokens)
        return self._buckets


def _tokens(call: Call) -> int:
    return estimated_input(call.request) + (call.request.max_output_tokens or EXPECTED_OUTPUT)


def _busy(waiting: int) -> ProviderError:
    return ProviderError(
        "The call was not made.",
        fault="busy",
        retryable=True,
        why=f"{waiting} calls wait already.",
        next_step="Try again later, or raise gateway.concurrency.queue.",
    )
