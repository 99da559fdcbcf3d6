"""Both sides of the border in one process: hand over, run code there, fetch what changed."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ovagent_jupyter.execution.handover import (
    Changes,
    Handed,
    LeftBehind,
    Saved,
    Store,
    read_changes,
)
from ovagent_jupyter.execution.handover.exchange import TOKEN, Exchange
from ovagent_jupyter.execution.handover.export import compose
from ovagent_jupyter.execution.handover.receiving import receive
from ovagent_jupyter.execution.handover.sealed import Segment
from ovagent_jupyter.execution.handover.sending import send


class Border:
    """A hand-over of some objects, with the child's namespace on the other side."""

    def __init__(
        self, directory: Path, objects: Mapping[str, object], store: Store | None = None
    ) -> None:
        self.directory = directory
        self.namespace: dict[str, Any] = {"__name__": "__main__"}
        self.store = store or Store(directory)
        self._held: Mapping[Segment, int] = {}
        self.put(objects)

    def put(self, objects: Mapping[str, object]) -> None:
        """Hand objects over, also when others were before."""
        self.objects = objects
        saved = self.store.save(objects)
        self.left: tuple[LeftBehind, ...] = tuple(
            notice for each in saved.values() for notice in each.left_behind
        )
        self.saved: dict[str, Saved] = {n: each for n, each in saved.items() if each.slots}
        self.names = tuple(self.saved)
        self.message = compose(self.saved.values(), self._held, self.directory)
        self._held = self.message.held
        self.handed = Handed(self.saved, self.message.blobs, objects)
        exchange = Exchange()
        try:
            token = secrets.token_bytes(TOKEN)
            descriptors = self.message.descriptors
            exchange.give(token, descriptors)
            receive(self.namespace, exchange.end, token.hex(), len(descriptors))
        finally:
            exchange.close()

    def answer(self, outputs: Sequence[str] = (), *, discover: bool = False) -> int:
        """What the child's side sends: an open file."""
        exchange = Exchange()
        try:
            token = secrets.token_bytes(TOKEN)
            end, disk = exchange.end, str(self.directory)
            send(
                self.namespace, self.names, outputs, end, token.hex(), disk=disk, discover=discover
            )
            return exchange.fetch(token)
        finally:
            exchange.close()

    def run(self, code: str, outputs: Sequence[str] = (), *, discover: bool = False) -> Changes:
        """Run code on the child's side and fetch what it changed."""
        exec(code, self.namespace)
        return read_changes(self.answer(outputs, discover=discover), self.handed, self.store)
