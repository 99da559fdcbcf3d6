"""Files that the child made for the user: copied without being followed, parsed or overwritten."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from ovagent_jupyter.errors import HandoverError

FILE_CAP = 32 << 30
"""Largest file that is fetched, in bytes."""
_PART = 1 << 20
_ROOM = 64 << 20
"""Bytes that stay free on the user's disk."""
_LONGEST_NAME = 1024
_LONGEST_SHOWN = 200
_DEEPEST = 32
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# NONBLOCK: a pipe in the file's place must not make us wait.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES}
"""What file systems without hard links say."""


def fetch_file(directory: Path | int, name: str, target: Path, *, size_cap: int = FILE_CAP) -> Path:
    """Copy a file out of the child's directory to where the user wants it.

    The file is opened below the directory without following any link, must be a plain file with
    one name, and is never parsed. It is written beside the target and takes its name only when
    it is complete. The child's file stays where it is.

    Args:
        directory: The child's directory, or an open descriptor of it.
        name: The file's name, or its path below the directory.
        target: Where the user wants it; nothing may be there yet, but its folder.
        size_cap: Largest file to fetch, in bytes.

    Returns:
        The target.

    Raises:
        HandoverError: It was not fetched; nothing is at the target that was not there before.
    """
    steps = _steps(name, target)
    try:
        with _below(directory, steps[:-1]) as folder, _opened(folder, steps[-1]) as source:
            _check(source, name, target, size_cap)
            with _folder_of(target) as place:
                _copy(source, place, name, target)
    except OSError as error:
        raise _not_fetched(name, target, _reason(error)) from error
    return target


def _not_fetched(name: str, target: Path, why: str) -> HandoverError:
    return HandoverError(
        f"The file {_printable(name)} was not fetched from the child.",
        why=why,
        next_step=f"{target} is as it was; run the cell again, or choose another name.",
    )


def _printable(name: str) -> str:
    text = "".join(c if c.isprintable() else "?" for c in name)
    return repr(text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…")


def _reason(error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
        return "It, or a folder on the way, is a link or no folder."
    if error.errno == errno.ENOENT:
        return "There is no such file, or no folder for it."
    return f"{error.strerror or type(error).__name__}."


def _steps(name: str, target: Path) -> tuple[str, ...]:
    path = PurePosixPath(name)
    steps = path.parts
    if (
        not steps
        or path.is_absolute()
        or ".." in steps
        or "\0" in name
        or len(name) > _LONGEST_NAME
        or len(steps) > _DEEPEST
    ):
        raise _not_fetched(name, target, "Its name does not lie below the child's directory.")
    return steps


@contextmanager
def _below(directory: Path | int, steps: tuple[str, ...]) -> Iterator[int]:
    """A descriptor of a folder below the directory; every step is a folder and no link."""
    current = os.dup(directory) if isinstance(directory, int) else os.open(directory, _DIRECTORY)
    try:
        for step in steps:
            above, current = current, os.open(step, _DIRECTORY, dir_fd=current)
            os.close(above)
        yield current
    finally:
        os.close(current)


@contextmanager
def _opened(folder: int, name: str) -> Iterator[int]:
    descriptor = os.open(name, _FILE, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _folder_of(target: Path) -> Iterator[int]:
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


def _check(source: int, name: str, target: Path, cap: int) -> None:
    about = os.fstat(source)
    if not stat.S_ISREG(about.st_mode):
        raise _not_fetched(name, target, "It is not a plain file.")
    if about.st_nlink != 1:
        raise _not_fetched(name, target, "It has more than one name, so it may be another's file.")
    if about.st_size > cap:
        raise _not_fetched(
            name, target, f"It has {about.st_size / 1e9:.1f} GB; the cap is {cap / 1e9:.1f} GB."
        )


def _copy(source: int, place: int, name: str, target: Path) -> None:
    before = os.fstat(source)
    room = os.fstatvfs(place)
    if before.st_size + _ROOM > room.f_bavail * room.f_frsize:
        raise _not_fetched(name, target, "There is not enough space for it.")
    partial = f".{secrets.token_hex(8)}.ovagent-part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(partial, flags, 0o666, dir_fd=place)
    try:
        try:
            copied = _pour(source, descriptor, before.st_size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if not _as_before(before, os.fstat(source)) or copied != before.st_size:
            raise _not_fetched(name, target, "It was changed while it was copied.")
        _rename(place, partial, name, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(partial, dir_fd=place)


def _pour(source: int, descriptor: int, size: int) -> int:
    """Copy at most ``size`` bytes: a file that grows meanwhile is not followed."""
    done = 0
    while done < size:
        part = os.pread(source, min(_PART, size - done), done)
        if not part:
            break
        view = memoryview(part)
        while view:
            view = view[os.write(descriptor, view) :]
        done += len(part)
    return done


def _as_before(before: os.stat_result, after: os.stat_result) -> bool:
    return all(
        getattr(before, name) == getattr(after, name)
        for name in ("st_size", "st_mtime_ns", "st_ctime_ns", "st_nlink")
    )


def _rename(place: int, partial: str, name: str, target: Path) -> None:
    """Give the complete file its name; unlike ``rename``, a link replaces nothing."""
    try:
        try:
            os.link(partial, target.name, src_dir_fd=place, dst_dir_fd=place)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            os.close(os.open(target.name, flags, 0o666, dir_fd=place))
            try:
                os.rename(partial, target.name, src_dir_fd=place, dst_dir_fd=place)
            except OSError:
                os.unlink(target.name, dir_fd=place)
                raise
    except FileExistsError as error:
        raise HandoverError(
            f"The file {_printable(name)} was not fetched from the child.",
            why=f"{target} exists; it is kept as it is.",
            next_step="Move it away or choose another name, then run the cell again.",
        ) from error
