"""The way to the child: the user's objects into one file in shared memory."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover.fields import Node
from ovagent_jupyter.execution.handover.objects import open_object
from ovagent_jupyter.execution.handover.packing import NEW, Freight, encode_slots
from ovagent_jupyter.execution.handover.report import HandoverReport, LeftBehind
from ovagent_jupyter.execution.handover.segment import write
from ovagent_jupyter.execution.handover.slots import path_node

_SPARE = 64 << 20
"""Bytes of shared memory to leave to others."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A file with objects, on its way to the child; ``close`` removes it.

    The child may map it after it was removed, as long as it opened it before.
    """

    path: Path
    size: int
    """Bytes."""
    names: tuple[str, ...]
    """What is in it."""
    left_behind: tuple[LeftBehind, ...] = ()

    @property
    def report(self) -> HandoverReport:
        """What was handed over, for the caller of ``put``."""
        return HandoverReport(self.names, self.left_behind, self.size)

    def close(self) -> None:
        """Remove the file; safe to call twice."""
        with suppress(FileNotFoundError):
            self.path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def export_objects(
    objects: Mapping[str, object],
    directory: Path,
    *,
    shared_memory: Path | None = None,
) -> Parcel:
    """Write objects to a file that a child can map.

    The file is a snapshot: later changes of the objects do not reach the child. What cannot
    travel is named in the parcel and left out; the rest goes.

    Args:
        objects: Name → object.
        directory: Where the file goes.
        shared_memory: Where it goes when there is room; the caller must then close the
            parcel, as removing the directory does not remove the file.

    Raises:
        HandoverError: The file cannot be written.
    """
    freight = Freight()
    packed = [_pack(name, value, freight) for name, value in objects.items()]
    header: dict[str, Node] = {"objects": [node for node in packed if node is not None]}
    header["left"] = [[notice.path, notice.reason] for notice in freight.left]
    names = tuple(node["name"] for node in header["objects"])
    path, size = _write(header, freight, directory, shared_memory)
    return Parcel(path, size, names, tuple(freight.left))


def _pack(name: str, value: object, freight: Freight) -> Node:
    aboard = len(freight.buffers)
    try:
        tree = open_object(value)
        encoded = encode_slots(name, tree, freight)
        entries = [
            [path_node(path), NEW, *freight.load(form)]
            for path, form in encoded.items()
            if form is not None
        ]
    except HandoverError as error:
        del freight.buffers[aboard:]
        freight.leave(name, (), error.why or error.what)
        return None
    except Exception as error:  # noqa: BLE001 - a broken object of the user may raise anything
        del freight.buffers[aboard:]
        freight.leave(name, (), f"{type(error).__name__}: {error}")
        return None
    return {"name": name, "kind": tree.kind, "slots": entries} if entries else None


def _write(
    header: dict[str, Node], freight: Freight, directory: Path, shared_memory: Path | None
) -> tuple[Path, int]:
    needed = sum(buffer.nbytes for buffer in freight.buffers) + freight.header_size
    candidates = [directory]
    if shared_memory is not None and _free(shared_memory) > needed + _SPARE:
        candidates.insert(0, shared_memory)
    failure = OSError("no directory was given")
    for place in candidates:
        path = place / f"ovagent-{secrets.token_hex(12)}"
        try:
            return path, _write_file(path, header, freight)
        except OSError as error:
            failure = error
    raise HandoverError(
        "The data cannot be handed to the child.",
        why=f"{failure.strerror or failure} ({needed / 1e9:.2f} GB are needed)",
        next_step="Free memory or disk space, or hand over fewer objects (-i name,name).",
    ) from failure


def _free(place: Path) -> int:
    try:
        room = os.statvfs(place)
    except OSError:
        return 0
    return room.f_bavail * room.f_frsize if os.access(place, os.W_OK) else 0


def _write_file(path: Path, header: dict[str, Node], freight: Freight) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        return write(descriptor, header, freight.buffers)
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(descriptor)
