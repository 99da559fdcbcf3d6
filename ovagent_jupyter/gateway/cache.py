"""Answers that were given before: the same question is not paid for twice."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from ovagent_jupyter.errors import StorageError
from ovagent_jupyter.events import Category, Level
from ovagent_jupyter.gateway.cost import tell_answered
from ovagent_jupyter.gateway.layer import Call, Next
from ovagent_jupyter.gateway.recorded import (
    SCHEMA,
    Record,
    digest,
    reply_deltas,
    reply_from,
    reply_record,
    request_record,
)
from ovagent_jupyter.messages import Usage
from ovagent_jupyter.providers.client import ModelDelta, Reply
from ovagent_jupyter.storage.redaction import Redactor
from ovagent_jupyter.storage.signing import canonical

if TYPE_CHECKING:
    import cachetools

TTL = 3600.0
"""Seconds that an answer is kept."""
ANSWERS = 256
"""How many are kept in memory."""


class Store(Protocol):
    """Keeps bytes for a time: ``MemoryStore``, ``storage.response_cache.DiskStore``."""

    def get(self, key: str) -> bytes | None:
        """The bytes of a key that has not expired."""
        ...

    def put(self, key: str, value: bytes, ttl: float) -> None:
        """Keep bytes for some seconds."""
        ...


class MemoryStore:
    """Keeps answers as long as this process lives.

    Args:
        size: How many; beyond that, those that were not used for longest go.
        ttl: Seconds that any is kept at most.
        clock: Seconds.
    """

    def __init__(
        self, size: int = ANSWERS, ttl: float = TTL, clock: Callable[[], float] = time.monotonic
    ) -> None:
        import cachetools

        self._kept: cachetools.TTLCache[str, tuple[float, bytes]]
        self._kept = cachetools.TTLCache(size, ttl, clock)
        self._clock = clock

    def get(self, key: str) -> bytes | None:
        """The bytes of a key that has not expired."""
        found = self._kept.get(key)
        return found[1] if found is not None and found[0] > self._clock() else None

    def put(self, key: str, value: bytes, ttl: float) -> None:
        """Keep bytes for some seconds."""
        self._kept[key] = (self._clock() + ttl, value)


class ResponseCache:
    """Answers from what is kept, and keeps what is asked.

    Kept are whole answers only: no failure, no refusal, none that was cut or broke off, and none
    that has a key in it. As a rule also none that was drawn by chance: the request has to say
    ``temperature=0``, unless ``sampled`` is set.

    What is given out of it streams as any other, costs nothing, has ``details["cached"]`` and no
    usage; ``details["cached_usage"]`` is what it took when it was asked.

    Args:
        store: Where answers are kept.
        ttl: Seconds that an answer is kept.
        sampled: Keep also what was asked with a temperature above 0, or the service's own.
        whom: Who answers, where the call does not say it yet: names of the backends, say.
            Answers of others are not found.
        redactor: Knows keys.
        clock: Seconds, for the latency.
    """

    def __init__(
        self,
        store: Store,
        *,
        ttl: float = TTL,
        sampled: bool = False,
        whom: str = "",
        redactor: Redactor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store: Store | None = store
        self._ttl = ttl
        self._sampled = sampled
        self._whom = whom
        self._redactor = redactor or Redactor({})
        self._clock = clock

    def __call__(self, call: Call, call_next: Next) -> AsyncGenerator[ModelDelta, None]:
        """The answer that is kept, else the one that comes, which is then kept."""
        if self._store is None or not (self._sampled or call.request.temperature == 0):
            return call_next(call)
        return self._answer(call, call_next)

    async def _answer(self, call: Call, call_next: Next) -> AsyncGenerator[ModelDelta, None]:
        began = self._clock()
        key = self._key(call)
        kept = self._find(call, key)
        if kept is not None:
            seconds = self._clock() - began
            reply = replace(kept, latency=seconds, first_token=seconds)
            tell_answered(call, reply)
            for delta in reply_deltas(reply):
                yield delta
            return
        async with aclosing(call_next(call)) as deltas:
            async for delta in deltas:
                if delta.reply is not None:
                    self._keep(call, key, delta.reply)
                yield delta

    def _key(self, call: Call) -> str:
        backend = call.backend
        whom: object = self._whom
        if backend is not None:
            headers = dict(backend.headers)  # an account, an organisation: others' answers differ
            whom = [backend.provider.id, backend.wire_api.value, backend.url, headers]
        return digest([request_record(call.request), whom])

    def _find(self, call: Call, key: str) -> Reply | None:
        if self._store is None:
            return None
        try:
            packed = self._store.get(key)
        except StorageError as error:
            self._give_up(call, error)
            return None
        if packed is None:
            return None
        try:
            reply = reply_from(_unpacked(packed))
        except (ValueError, zlib.error):  # of another version: asked anew, then written over
            return None
        details = {**reply.details, "cached": True, "cached_usage": reply.usage.as_record()}
        return replace(reply, usage=Usage(), cost=0.0, details=details)

    def _keep(self, call: Call, key: str, reply: Reply) -> None:
        if self._store is None or not _whole(reply):
            return
        record = reply_record(reply)
        if self._redactor.value(record) != record:
            return
        try:
            self._store.put(key, zlib.compress(canonical([SCHEMA, record]), 1), self._ttl)
        except StorageError as error:
            self._give_up(call, error)

    def _give_up(self, call: Call, error: StorageError) -> None:
        """Go on without a cache that does not work: it is no reason to fail a call."""
        self._store = None
        told = f"Answers are not cached any more: {error.what} {error.why}"
        call.tell(Category.NOTICE, told, level=Level.WARNING)


def _whole(reply: Reply) -> bool:
    """Whether an answer is one to give again."""
    message = reply.message
    says_something = bool(message.text.strip() or message.tool_calls)
    return (
        reply.finish_reason in ("stop", "tool_calls")
        and says_something
        and not any(call.unreadable for call in message.tool_calls)
        and reply.details.get("cached") is not True
    )


def _unpacked(packed: bytes) -> Record:
    """The record of an answer.

    Raises:
        ValueError: It is none of this version.
    """
    found = json.loads(zlib.decompress(packed))
    if not isinstance(found, list) or found[:1] != [SCHEMA] or not isinstance(found[-1], dict):
        raise ValueError("not a kept answer")
    return found[-1]
