"""One cell that was sent to a child: what has been heard of it so far, and its result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from ovagent_jupyter.execution.connection import Message
from ovagent_jupyter.execution.executor import CodeError, ExecutionResult, ExecutionStatus
from ovagent_jupyter.execution.outputs import OutputCollector, read_error

LOST_AFTER = 1.0
"""Seconds of silence after the reply until the end mark of the output counts as lost."""
OVERLOOKED_AFTER = 1.0
"""Seconds without a word of the child until it is made to look for the request."""


class CellRun:
    """A cell between its sending and its result.

    Args:
        request_id: Id of the request; everything with another parent is not ours.
        collector: Takes its outputs.
        silent: Whether outputs are left out.
    """

    def __init__(self, request_id: str, collector: OutputCollector, *, silent: bool) -> None:
        self._request_id = request_id
        self._silent = silent
        self._idle = False
        self._reply: Mapping[str, object] | None = None
        self._begun_at = time.monotonic()
        self._heard_at = self._begun_at
        self._knock_at = self._begun_at + OVERLOOKED_AFTER
        self.collector = collector
        self.started = False
        """Whether the child is at it, and not at something before it."""
        self.lost = False
        """Whether the end of its output never came: the channel is cut."""
        self.stop_asked = False
        """Whether somebody else wants it stopped."""
        self.over = asyncio.Event()
        """Set when nobody follows it any more."""

    @property
    def done(self) -> bool:
        """Whether the child has answered and all output is there, or will not come any more."""
        if self._reply is None:
            return False
        if not self._idle and time.monotonic() - self._heard_at > LOST_AFTER:
            self._idle = self.lost = True
            self.collector.notice_lost()
        return self._idle

    @property
    def overlooked(self) -> bool:
        """Whether to make the child look: true now and then as long as it does not begin."""
        now = time.monotonic()
        if self.started or now < self._knock_at:
            return False
        # It may just be busy: each time twice as long, so that a busy child is left alone.
        self._knock_at = now + 2 * (now - self._begun_at)
        return True

    def take(self, message: Message) -> None:
        """Take one message if it belongs to this cell."""
        if message.parent_id != self._request_id:
            return
        self._heard_at = time.monotonic()
        if message.channel == "shell":
            # The first answer counts: a second one is the code's own making.
            if message.kind == "execute_reply" and self._reply is None:
                self._reply = message.content
        elif message.kind == "status":
            self.started = True
            self._idle |= message.content.get("execution_state") == "idle"
        elif not self._silent:
            self.collector.take(message.kind, message.content)

    def result(self) -> ExecutionResult:
        """How it ended by itself."""
        reply = self._reply or {}
        error = self.collector.error or read_error(reply)
        if error is None and reply.get("status") == "ok":
            return self.ended(ExecutionStatus.OK, None)
        unknown = CodeError("UnknownError", "The child reported a failure without naming it.")
        return self.ended(ExecutionStatus.ERROR, error or unknown)

    def ended(self, status: ExecutionStatus, error: CodeError | None) -> ExecutionResult:
        """The result with the outputs so far."""
        self.collector.flush(force=True)
        return ExecutionResult(
            status=status,
            outputs=self.collector.outputs,
            error=error,
            duration=time.monotonic() - self._begun_at,
            truncated=self.collector.truncated,
        )
