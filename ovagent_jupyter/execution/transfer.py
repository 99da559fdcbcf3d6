"""Hands objects to where code runs and fetches what changed, through files and two calls there."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.executor import ExecutionResult
from ovagent_jupyter.execution.rundir import remove_tree

if TYPE_CHECKING:
    from ovagent_jupyter.execution.handover import Changes, HandoverReport, Parcel

CHILD_SIDE = "ovagent_jupyter.execution.handover.child"

RunSilently = Callable[[str], Awaitable[ExecutionResult]]


class Transfer:
    """What was handed over, and the way there and back.

    Args:
        run: Runs code silently where the objects go.
    """

    def __init__(self, run: RunSilently) -> None:
        self._run = run
        self._sent: dict[str, object] = {}

    def forget(self) -> None:
        """The other side is gone, and what was handed over with it."""
        self._sent.clear()

    async def put(
        self, objects: Mapping[str, object], directory: Path, shared_memory: Path | None = None
    ) -> HandoverReport:
        """Copy objects there by way of files in ``directory``, or in shared memory with room.

        Raises:
            HandoverError: Nothing could be handed over.
        """
        with await _export(objects, directory, shared_memory) as parcel:
            await self._call("receive", f"globals(), {str(parcel.path)!r}")
        self._sent = {name: objects[name] for name in parcel.report.names}
        return parcel.report

    async def changes(self, outputs: Sequence[str], directory: Path) -> Changes:
        """Fetch what changed there in the objects handed over, and the new ``outputs``.

        Raises:
            HandoverError: What was sent is malformed.
        """
        from ovagent_jupyter.execution.handover import read_changes

        outbox = Path(tempfile.mkdtemp(dir=directory, prefix="out-"))
        try:
            names = tuple(self._sent)
            await self._call("send", f"globals(), {names!r}, {tuple(outputs)!r}, {str(outbox)!r}")
            return await asyncio.to_thread(
                read_changes, outbox, dict(self._sent), outputs=tuple(outputs)
            )
        finally:
            remove_tree(outbox)

    async def _call(self, function: str, arguments: str) -> None:
        result = await self._run(
            f"__import__('importlib').import_module({CHILD_SIDE!r}).{function}({arguments})"
        )
        if result.ok:
            return
        raise _refused(function, result)


def _refused(function: str, result: ExecutionResult) -> HandoverError:
    """Why the other side could not do it; an error of ours is told in its own words."""
    error = result.error
    lines = error.message.splitlines() if error else []
    own = error is not None and error.name == HandoverError.__name__
    why = " ".join(line.removeprefix("Why: ") for line in lines if not line.startswith("Next: "))
    remedies = [line.removeprefix("Next: ") for line in lines if line.startswith("Next: ")]
    return HandoverError(
        "Your objects could not be handed to the child."
        if function == "receive"
        else "The results could not be fetched from the child.",
        why=why if own else f"{error.name}: {why}" if error else result.status.value,
        next_step=" ".join(remedies)
        or "Run the cell again; `%ovagent restart` begins with a fresh child.",
    )


async def _export(
    objects: Mapping[str, object], directory: Path, shared_memory: Path | None
) -> Parcel:
    """Write a parcel in a thread; one that is cancelled meanwhile leaves no file."""
    from ovagent_jupyter.execution.handover import export_objects

    writing = asyncio.ensure_future(
        asyncio.to_thread(export_objects, objects, directory, shared_memory=shared_memory)
    )
    try:
        return await asyncio.shield(writing)
    except asyncio.CancelledError:
        writing.add_done_callback(_throw_away)
        raise


def _throw_away(writing: asyncio.Future[Parcel]) -> None:
    if not writing.cancelled() and writing.exception() is None:
        writing.result().close()
