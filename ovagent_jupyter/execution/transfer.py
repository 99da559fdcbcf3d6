"""Hands objects to where code runs and fetches what changed: open files, and two calls there."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.executor import ExecutionResult
from ovagent_jupyter.execution.handover.exchange import TOKEN, Exchange

if TYPE_CHECKING:
    from ovagent_jupyter.execution.handover import Changes, HandoverReport, Saved, Store
    from ovagent_jupyter.execution.handover.export import Message
    from ovagent_jupyter.execution.handover.sealed import Segment

RECEIVE = "ovagent_jupyter.execution.handover.receiving"
SEND = "ovagent_jupyter.execution.handover.sending"

RunSilently = Callable[[str], Awaitable[ExecutionResult]]
StoreSource = Callable[[], "Store"]
"""Gives the store; called when something is first handed over, since it loads numpy."""


@dataclass(frozen=True, slots=True)
class OtherSide:
    """Where objects go: how to reach it, and what it may use."""

    exchange: Exchange
    """The channel to it."""
    disk: Path
    """A directory for what does not fit in memory; it may write there."""
    memory: int | None = None
    """Bytes that it may take up; None when nobody counts."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """What was handed over last."""

    live: Mapping[str, object] = field(default_factory=dict)
    """The user's own objects."""
    saved: Mapping[str, Saved] = field(default_factory=dict)
    message: Message | None = None

    @property
    def held(self) -> Mapping[Segment, int]:
        """The segments that the other side has."""
        return self.message.held if self.message is not None else {}


class Transfer:
    """What was handed over, and the way there and back.

    Args:
        run: Runs code silently where the objects go.
        store: Gives the store in which objects are kept as they were; None for one of its own.
    """

    def __init__(self, run: RunSilently, store: StoreSource | None = None) -> None:
        self._run = run
        self._source = store
        self._store: Store | None = None
        self._sent = _Sent()
        self._last: Mapping[str, Saved] = {}
        """What was saved last: another side gets it without its being written anew."""

    def forget(self) -> None:
        """The other side is gone, and what was handed over with it."""
        self._sent = _Sent()

    async def put(self, objects: Mapping[str, object], side: OtherSide) -> HandoverReport:
        """Hand objects over; what the other side has already is not sent again.

        It gets them as they are now: later changes of the objects do not reach it. Meanwhile
        large arrays of theirs are laid on what was saved, see ``handover.adopt``.

        Raises:
            HandoverError: Nothing could be handed over.
        """
        from ovagent_jupyter.execution.handover import HandoverReport

        saved, message, size = await asyncio.to_thread(self._compose, dict(objects))
        # What the other side has is not known until it says that it took this.
        self._sent, self._last = _Sent(), saved
        token = secrets.token_bytes(TOKEN)
        side.exchange.clear()
        side.exchange.give(token, message.descriptors)
        arguments = f"{side.exchange.end}, {token.hex()!r}, {len(message.descriptors)}"
        adopting = asyncio.ensure_future(asyncio.to_thread(_adopt, dict(objects), saved))
        try:
            await self._call(RECEIVE, f"receive(globals(), {arguments})")
        finally:
            await asyncio.wait({adopting})
        names = tuple(name for name, each in saved.items() if each.slots)
        live = {name: objects[name] for name in names}
        self._sent = _Sent(live, {name: saved[name] for name in names}, message)
        left = tuple(notice for each in saved.values() for notice in each.left_behind)
        on_disk = sum(segment.size for segment in message.held if not segment.in_memory)
        return HandoverReport(names, left, size, on_disk, saved)

    async def changes(self, outputs: Sequence[str], side: OtherSide) -> Changes:
        """Fetch what changed there in the objects handed over, and the new ``outputs``.

        Raises:
            HandoverError: What was sent is malformed.
        """
        token = secrets.token_bytes(TOKEN)
        side.exchange.clear()
        names, wanted = tuple(self._sent.saved), tuple(outputs)
        await self._call(
            SEND,
            f"send(globals(), {names!r}, {wanted!r}, {side.exchange.end}, {token.hex()!r}, "
            f"disk={str(side.disk)!r}, cap={side.memory!r})",
        )
        answer = side.exchange.fetch(token)
        return await asyncio.to_thread(self._read, answer, wanted)

    def _compose(self, objects: Mapping[str, object]) -> tuple[dict[str, Saved], Message, int]:
        """Save the objects and make the message; also how many bytes were newly written."""
        from ovagent_jupyter.execution.handover.export import compose

        store = self._the_store()
        before = store.written
        saved = store.save(objects)
        sendable = [each for each in saved.values() if each.slots]
        return saved, compose(sendable, self._sent.held, store.disk), store.written - before

    def _read(self, answer: int, outputs: tuple[str, ...]) -> Changes:
        from ovagent_jupyter.execution.handover import Handed, read_changes

        sent = self._sent
        blobs = sent.message.blobs if sent.message is not None else ()
        handed = Handed(sent.saved, blobs, sent.live)
        return read_changes(answer, handed, self._the_store(), outputs=outputs)

    def _the_store(self) -> Store:
        if self._store is None:
            from ovagent_jupyter.execution.handover import Store

            self._store = Store() if self._source is None else self._source()
        return self._store

    async def _call(self, module: str, call: str) -> None:
        result = await self._run(f"__import__('importlib').import_module({module!r}).{call}")
        if not result.ok:
            raise _refused(module, result)


def _adopt(objects: Mapping[str, object], saved: Mapping[str, Saved]) -> None:
    from ovagent_jupyter.execution.handover.adopt import adopt

    for name, value in objects.items():
        adopt(value, saved[name])


def _refused(module: str, result: ExecutionResult) -> HandoverError:
    """Why the other side could not do it; an error of ours is told in its own words."""
    error = result.error
    lines = error.message.splitlines() if error else []
    own = error is not None and error.name == HandoverError.__name__
    why = " ".join(line.removeprefix("Why: ") for line in lines if not line.startswith("Next: "))
    remedies = [line.removeprefix("Next: ") for line in lines if line.startswith("Next: ")]
    return HandoverError(
        "Your objects could not be handed to the child."
        if module == RECEIVE
        else "The results could not be fetched from the child.",
        why=why if own else f"{error.name}: {why}" if error else result.status.value,
        next_step=" ".join(remedies)
        or "Run the cell again; `%ovagent restart` begins with a fresh child.",
    )
