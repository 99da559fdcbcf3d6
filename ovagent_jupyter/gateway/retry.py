"""Asking the same backend again, as long as nothing of its answer has been passed on."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace

from ovagent_jupyter.config.gateway import RetryConfig
from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.events import Category, Level
from ovagent_jupyter.gateway.layer import Call, Next
from ovagent_jupyter.gateway.partial import Spending, with_budget
from ovagent_jupyter.providers.client import ModelDelta

NEVER = frozenset(
    {"key", "permission", "payment", "unknown_model", "bad_request", "context_full", "too_large"}
    | {"policy", "unhealthy", "busy", "budget", "runner"}
)
"""Faults that the same call to the same backend meets again."""


class Retry:
    """Waits and asks again, up to a number of attempts and never beyond the deadline.

    It waits as long as the service asks for, else twice as long each time, and spread, so that
    many clients do not come back at once.

    Args:
        config: How often and how long.
        clock: Seconds, as the deadline of a call counts them.
        sleep: Waits.
        random: A number from 0 to 1, for the spread.
    """

    def __init__(
        self,
        config: RetryConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._config = config
        self._clock = clock
        self._sleep = sleep
        self._random = random

    async def __call__(self, call: Call, call_next: Next) -> AsyncGenerator[ModelDelta, None]:
        """The stream of the first attempt that gives one.

        Raises:
            ProviderError: No attempt did, or none is left or allowed; its usage is that of all.
                Where a budget allowed no other attempt, it is the failure of the first.
        """
        spending = Spending()
        first: ProviderError | None = None
        begun = False
        while True:
            try:
                async with aclosing(call_next(call)) as deltas:
                    async for delta in deltas:
                        if not begun:
                            begun = delta.has_content or delta.reply is not None
                        if delta.reply is not None and call.attempt > 1:
                            delta = spending.signed(delta, attempts=call.attempt)
                        yield delta
                return
            except ProviderError as error:
                spending.add(error)
                if first is not None and error.fault == "budget":
                    spending.charge(first)
                    raise with_budget(first, error) from error
                first = first or error
                spending.charge(error)
                wait = None if begun else self._wait(call, error)
                if wait is None:
                    raise
                call = replace(call, attempt=call.attempt + 1)
                _tell(call, error, wait)
            await self._sleep(wait)

    def _wait(self, call: Call, error: ProviderError) -> float | None:
        """Seconds to wait after a failure; None where waiting is no use."""
        if call.attempt >= self._config.attempts or error.fault in NEVER or not error.retryable:
            return None
        own = min(self._config.cap, self._config.base * 2.0 ** (call.attempt - 1))
        spread = own * self._random() / 2
        asked = error.retry_after
        wait = own / 2 + spread if asked is None else asked + min(spread, asked / 10)
        if asked is not None and asked > self._config.longest_wait:
            return None
        if call.deadline is not None and self._clock() + wait >= call.deadline:
            return None
        return wait


def _tell(call: Call, error: ProviderError, wait: float) -> None:
    name = call.backend.name if call.backend else "The model"
    call.tell(
        Category.MODEL_RETRIED,
        f"{name} failed ({error.fault}); asking again in {wait:.1f} s.",
        level=Level.WARNING,
        call_id=call.call_id,
        backend=name,
        fault=error.fault,
        attempt=call.attempt,
        wait=wait,
    )
