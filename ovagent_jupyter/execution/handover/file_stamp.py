"""Naming a file that is open: where it is, and what tells it from another in its place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover.fields import unsendable

Stamp = tuple[int, ...]
"""Inode, size and time of change."""


def open_stamp(element: Any) -> tuple[Path, Stamp]:
    """The path and stamp of an open HDF5 file.

    Args:
        element: The file, or a group or dataset in it, of h5py's.

    Raises:
        HandoverError: Another process could not read the same there.
    """
    file = element.file
    if file.mode != "r":
        raise unsendable(
            "its file is open for writing here, and cannot be read elsewhere meanwhile: "
            "open it with backed='r', or load it with to_memory()"
        )
    path = Path(file.filename).resolve()
    stamp = stamp_of(path)
    if _stamp(os.fstat(file.id.get_vfd_handle())) != stamp:
        raise unsendable("another file took the place of the one it is read from")
    return path, stamp


def stamp_of(path: Path) -> Stamp:
    """The stamp of the file at a path.

    Raises:
        HandoverError: It is not there, or may not be read.
    """
    try:
        with path.open("rb") as file:
            return _stamp(os.fstat(file.fileno()))
    except OSError as error:
        raise HandoverError(
            f"{path} cannot be read.",
            why=error.strerror or str(error),
            next_step="Allow the child to read it, or load the data with to_memory() first.",
        ) from error


def _stamp(about: os.stat_result) -> Stamp:
    return about.st_ino, about.st_size, about.st_mtime_ns
