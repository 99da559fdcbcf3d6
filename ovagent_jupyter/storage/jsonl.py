"""Files of one JSON value a line: appended by many processes at once, read from either end."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ovagent_jupyter.errors import StorageError
from ovagent_jupyter.storage.paths import ensure_dir, storage_error

BLOCK = 1 << 16
"""Bytes that a reader from the end takes at a time."""

LOCK_PATIENCE = 5.0
"""Seconds to wait for another writer; an append takes microseconds, so one that is late hangs."""

_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})
"""What file systems without locks answer; one write with O_APPEND is the best they have."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line that could be read."""

    record: dict[str, object]


@dataclass(frozen=True, slots=True)
class Corrupt:
    """One line that is torn or no JSON object."""

    raw: bytes


Seal = Callable[[object, Iterator[bytes]], object]
"""Makes what is written of a record and of the lines before it, last to first."""


def append_record(
    path: Path, record: object, *, patience: float = LOCK_PATIENCE, seal: Seal | None = None
) -> None:
    """Append one JSON object as one line; it is in the file wholly or not at all.

    A torn last line, left by a process that was killed, is closed first, so that it costs
    only itself.

    Args:
        path: The file; it and its directory are made when they are missing.
        record: What ``json`` can write.
        patience: Seconds to wait for other writers.
        seal: Asked for what to write, while nobody else can write.

    Raises:
        StorageError: It cannot be written; the file is as it was.
    """
    line = b"" if seal else _encoded(record)
    try:
        descriptor = _open_to_append(path)
        try:
            with _locked(descriptor, path, patience):
                if seal is not None:
                    with os.fdopen(os.dup(descriptor), "rb") as file:
                        line = _encoded(seal(record, read_lines_back(file)))
                _append(descriptor, line)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise storage_error("The file", path, "cannot be written", error) from error


def _encoded(record: object) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def _open_to_append(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        ensure_dir(path.parent)
        return os.open(path, flags, 0o600)


def _append(descriptor: int, line: bytes) -> None:
    size = os.fstat(descriptor).st_size
    torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    rest = memoryview(b"\n" + line if torn else line)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except BaseException:  # an interrupt too must leave no half line behind
        os.ftruncate(descriptor, size)
        raise


@contextmanager
def _locked(descriptor: int, path: Path, patience: float) -> Iterator[None]:
    """Hold the file's lock: it keeps writers of several processes from mixing their lines."""
    import fcntl  # Linux and macOS; ours are the only writers

    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise StorageError(
                    f"The file {path} cannot be written.",
                    why=f"Another process has held its lock for {patience:g} seconds.",
                    next_step="End the other notebook or kernel that hangs, then try again.",
                ) from error
            time.sleep(0.001)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            break
    try:
        yield
    finally:
        # Closing would not release it while a process forked meanwhile holds a copy.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def read_records(path: Path, containing: bytes = b"") -> Iterator[Line | Corrupt]:
    """Every line, first to last; a file that does not exist has none.

    Lines without the bytes ``containing`` are passed over, which is much faster than parsing.

    Raises:
        StorageError: The file cannot be read.
    """
    with _opened(path) as file:
        if file is not None:
            for raw in file:
                if containing in raw and raw.strip():
                    yield parse(raw)


def read_lines_back(file: BinaryIO) -> Iterator[bytes]:
    """Every line that is not blank, last to first, reading only as far as it is asked."""
    position = file.seek(0, os.SEEK_END)
    tail: list[bytes] = []
    while position > 0:
        start = max(0, position - BLOCK)
        file.seek(start)
        block = file.read(position - start)
        position = start
        pieces = block.split(b"\n")
        # The line that a block ends in may have begun in the block before it.
        tail.append(pieces.pop())
        while pieces:
            line = b"".join(reversed(tail))
            tail = [pieces.pop()]
            if line.strip():
                yield line
    first = b"".join(reversed(tail))
    if first.strip():
        yield first


def read_records_back(path: Path, containing: bytes = b"") -> Iterator[Line | Corrupt]:
    """Every line, last to first, else like ``read_records``.

    Raises:
        StorageError: The file cannot be read.
    """
    with _opened(path) as file:
        if file is not None:
            for raw in read_lines_back(file):
                if containing in raw:
                    yield parse(raw)


def parse(raw: bytes) -> Line | Corrupt:
    """One line as the object it holds."""
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):  # no JSON, no UTF-8, or brackets without end
        record = None
    return Line(record) if isinstance(record, dict) else Corrupt(raw.rstrip(b"\n"))


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO | None]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise storage_error("The file", path, "cannot be read", error) from error
    with file:
        try:
            yield file
        except OSError as error:
            raise storage_error("The file", path, "cannot be read", error) from error
