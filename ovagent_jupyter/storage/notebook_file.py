"""A notebook on disk that grows at its end: what is there is neither held nor made anew."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from ovagent_jupyter.storage.paths import ensure_dir, storage_error

if TYPE_CHECKING:
    from nbformat import NotebookNode

_CHUNK = 1 << 20
_FIRST = b'{\n "cells": ['
_AFTER = b'\n ],\n "metadata": '
"""What follows the last cell: no string of JSON has a line break, and what nests is indented."""


@dataclass(frozen=True, slots=True)
class _Written:
    """The file as we left it."""

    known_by: tuple[int, int, int]
    """Inode, size and time of change: another program's work has others."""
    end: int
    """Bytes up to the end of the last cell."""
    frame: NotebookNode
    """The notebook without its cells."""


class NotebookFile:
    """One notebook; it is replaced as a whole, so that a reader sees the old one or the new one.

    Args:
        path: Where it is.
        new: Makes the notebook that a new file begins with; it has a cell.
    """

    def __init__(self, path: Path, new: Callable[[], NotebookNode]) -> None:
        self.path = path
        self._new = new
        self._written: _Written | None = None

    def read(self) -> NotebookNode:
        """The notebook as it is, or a new one; a file that is none is kept under another name.

        Raises:
            StorageError: It cannot be read.
        """
        import nbformat

        try:
            found = nbformat.read(self.path, as_version=4)
            nbformat.validate(found)
        except FileNotFoundError:
            return self._new()
        except OSError as error:
            raise storage_error("The notebook", self.path, "cannot be read", error) from error
        except Exception:  # noqa: BLE001 - nbformat raises many kinds for a broken file
            _move_aside(self.path)
            return self._new()
        return cast("NotebookNode", found)

    def append(self, cells: Sequence[NotebookNode]) -> None:
        """Add cells; what another program has written meanwhile stays.

        Raises:
            StorageError: It cannot be written; the file is as it was.
        """
        written = self._written
        if written is not None and written.known_by == _known_by(self.path):
            end, frame = written.end, written.frame
        else:
            notebook = self.read()
            cells = [*notebook.cells, *cells]
            end, frame = 0, notebook
            frame.cells = []
        body, tail = _rendered(frame, cells)
        try:
            self._written = _Written(*self._replace(end, body, tail), frame)
        except OSError as error:
            raise storage_error("The notebook", self.path, "cannot be written", error) from error

    def _replace(self, end: int, body: bytes, tail: bytes) -> tuple[tuple[int, int, int], int]:
        """Put the first bytes of the old file, and what is new, in its place."""
        ensure_dir(self.path.parent)
        scratch = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            with os.fdopen(os.open(scratch, flags, 0o600), "wb") as file:
                if end:
                    with self.path.open("rb") as old:
                        _copy(old, file, end)
                file.write((b"," if end else _FIRST) + body)
                reached = file.tell()
                file.write(tail)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(self.path)
            return _known_by(self.path), reached
        finally:
            with suppress(FileNotFoundError):
                scratch.unlink()


def _rendered(frame: NotebookNode, cells: Sequence[NotebookNode]) -> tuple[bytes, bytes]:
    """The cells as nbformat writes them between the brackets, and what follows them."""
    import nbformat

    text = nbformat.writes(nbformat.from_dict({**frame, "cells": list(cells)}), version=4)
    # A lone surrogate is no UTF-8, but its backslash form is what JSON writes for it.
    content = text.encode(errors="backslashreplace")
    cut = content.rindex(_AFTER)
    assert content.startswith(_FIRST)
    return content[len(_FIRST) : cut], content[cut:]


def _copy(source: BinaryIO, target: BinaryIO, count: int) -> None:
    while count:
        chunk = source.read(min(count, _CHUNK))
        if not chunk:
            raise OSError("it became shorter while it was read")
        target.write(chunk)
        count -= len(chunk)


def _known_by(path: Path) -> tuple[int, int, int]:
    """What tells whether a file was replaced or written to; all zero for none."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def _move_aside(path: Path) -> None:
    """Keep a file that is not a notebook under a name that no session has."""
    number = 1
    while (aside := path.with_name(f"{path.stem}.broken-{number}.ipynb")).exists():
        number += 1
    try:
        path.rename(aside)
    except OSError as error:
        raise storage_error("The notebook", path, "cannot be moved aside", error) from error
