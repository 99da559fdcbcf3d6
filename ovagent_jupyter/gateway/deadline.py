"""The end of every call: in time, and with exactly one outcome."""

from __future__ import annotations

import time
from asyncio import CancelledError, Task, current_task, get_running_loop
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.gateway.layer import Call, Next
from ovagent_jupyter.gateway.partial import Heard
from ovagent_jupyter.providers.client import ModelDelta


class Deadline:
    """Ends a call that takes too long, waiting, retries and all backends included.

    A failure after a part of the answer has been passed on leaves here as ``StreamInterrupted``
    with that part, whatever it was inside.

    Args:
        seconds: How long a call may take; one with an earlier deadline of its own ends then.
        clock: Seconds, as the deadline of a call counts them.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock

    async def __call__(self, call: Call, call_next: Next) -> AsyncGenerator[ModelDelta, None]:
        """The stream, as long as there is time.

        Raises:
            StreamInterrupted: It broke off, or the time was up, after a part had been passed on.
            ProviderError: It failed, or the time was up, before.
        """
        now = self._clock()
        left = self._seconds if call.deadline is None else min(self._seconds, call.deadline - now)
        call = replace(call, deadline=now + left)
        heard = Heard()
        said = heard.texts.append  # most pieces are text, and each costs every reader
        alarm = _Alarm(left)
        try:
            async with aclosing(call_next(call)) as deltas:
                async for delta in deltas:
                    alarm.task = None
                    text = delta.text
                    if text and not delta.reasoning:
                        said(text)
                    else:
                        heard.add(delta)
                    if delta.reply is not None:
                        alarm.stop()  # the answer is whole: nothing that follows takes too long
                    yield delta
                    if alarm.rang:
                        raise _too_late(call, left, heard)
                    alarm.task = current_task(alarm.loop)
        except ProviderError as error:
            if alarm.took_back():
                raise _too_late(call, left, heard) from error
            if not heard.begun:
                raise
            raise heard.interrupted(error, call.request) from error
        except CancelledError:
            if not alarm.took_back():
                raise
            raise _too_late(call, left, heard) from None
        finally:
            alarm.stop()


class _Alarm:
    """Interrupts the task that waits for the next piece once the time is up.

    ``asyncio.timeout`` would do for one wait. Around a stream it would also interrupt who reads
    the stream, between two pieces; and one for each piece costs a timer for each piece.
    """

    __slots__ = ("_before", "_cancelled", "_timer", "loop", "rang", "task")

    def __init__(self, seconds: float) -> None:
        self.loop = get_running_loop()
        self.task = current_task(self.loop)
        """Who waits; None between two pieces."""
        self.rang = False
        """Whether the time is up."""
        self._cancelled: Task[object] | None = None
        self._before = self.task.cancelling() if self.task else 0
        self._timer = self.loop.call_later(max(seconds, 0.0), self._ring)

    def stop(self) -> None:
        """Ring no more; an interruption that somebody inside kept to himself is taken back."""
        self._timer.cancel()
        self.rang = False
        self.took_back()

    def _ring(self) -> None:
        self.rang = True
        # Who is being cancelled by somebody else ends without us.
        if self.task is not None and self.task.cancelling() <= self._before:
            self._cancelled = self.task
            self.task.cancel()

    def took_back(self) -> bool:
        """Take our cancellation back; False where there is none, or somebody else's too."""
        task, self._cancelled = self._cancelled, None
        return task is not None and task.uncancel() <= self._before


def _too_late(call: Call, seconds: float, heard: Heard) -> ProviderError:
    error = ProviderError(
        "The model took too long.",
        fault="timeout",
        retryable=True,
        why=f"The call was given {seconds:g} s.",
        next_step="Try again, or raise gateway.timeouts.total.",
    )
    return heard.interrupted(error, call.request) if heard.begun else error
