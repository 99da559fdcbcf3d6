"""Hands objects to where code runs and fetches what changed, through files and two calls there."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.executor import ExecutionResult
from ovagent_jupyter.execution.rundir import RunDirectory

if TYPE_CHECKING:
    from ovagent_jupyter.execution.handover import Changes, HandoverReport, Parcel

CHILD_SIDE = "ovagent_jupyter.execution.handover.child"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - only directories made by mkdtemp are used in it
ROOM = 4 << 30
"""Bytes that shared memory must have free to be used; a container may have 64 MB."""

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

    async def put(self, objects: Mapping[str, object], directory: Path) -> HandoverReport:
        """Copy objects there by way of files in ``directory``, or in shared memory.

        Raises:
            HandoverError: Nothing could be handed over.
        """
        from ovagent_jupyter.execution.handover import export_objects

        with _parcel_directory(directory) as place:
            parcel = await asyncio.to_thread(_export, export_objects, objects, place)
            await self._call("receive", f"globals(), {str(parcel.path)!r}")
        self._sent.update((name, objects[name]) for name in parcel.report.names)
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
            return await asyncio.to_thread(read_changes, outbox, dict(self._sent))
        finally:
            shutil.rmtree(outbox, ignore_errors=True)

    async def _call(self, function: str, arguments: str) -> None:
        result = await self._run(
            f"__import__('importlib').import_module({CHILD_SIDE!r}).{function}({arguments})"
        )
        if result.ok:
            return
        error = result.error
        raise HandoverError(
            "Your objects could not be handed to the child."
            if function == "receive"
            else "The results could not be fetched from the child.",
            why=f"{error.name}: {error.message}" if error else result.status.value,
            next_step="Run the cell again; `%ovagent restart` begins with a fresh child.",
        )


def _export(
    export: Callable[[Mapping[str, object], Path], Parcel],
    objects: Mapping[str, object],
    place: Path,
) -> Parcel:
    try:
        return export(objects, place)
    except OSError as error:
        raise HandoverError(
            "Your objects could not be written for the child.",
            why=f"{place}: {error.strerror or error}",
            next_step="Free space there, or hand over fewer or smaller objects.",
        ) from error


@contextlib.contextmanager
def _parcel_directory(fallback: Path) -> Iterator[Path]:
    """A directory for one parcel: in memory where there is room, else beside the sockets."""
    base = fallback
    with contextlib.suppress(OSError):
        if shutil.disk_usage(SHARED_MEMORY).free >= ROOM:
            base = SHARED_MEMORY
    try:
        place = RunDirectory(base, "ovagent-put-")
    except OSError:
        place = RunDirectory(fallback, "ovagent-put-")
    try:
        yield place.path
    finally:
        place.remove()
