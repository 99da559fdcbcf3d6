"""A private directory for one child: locked while in use, removed at the end, swept if left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import tempfile
import time
import weakref
from pathlib import Path

LOCK = "lock"
_MOST_ENTRIES = 10_000_000
"""Names removed from one tree: a process that goes on making them must not keep us for ever."""
_PASSES = 8
"""Looks at one directory: a listing may miss what lies beside a name that was just removed."""
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
SETTLED = 60.0
"""Seconds of age below which a directory may still be in the making and is not swept."""


class RunDirectory:
    """A directory that only its user can enter and that does not outlive this process.

    The lock tells directories in use from those of a process that was killed. A process id would
    not: with a shared directory and separate process namespaces the same number is somebody else.

    Args:
        base: Where it is made; left-over ones there are removed first.
        prefix: How its name begins.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, base: Path, prefix: str) -> None:
        sweep(base, prefix)
        self.path = Path(tempfile.mkdtemp(dir=base, prefix=prefix))
        descriptor = os.open(self.path / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._descriptor = descriptor
        self._finalizer = weakref.finalize(self, _remove, self.path, descriptor, os.getpid())

    def outlive_exec(self) -> None:
        """Keep the lock when this process replaces itself by another program."""
        os.set_inheritable(self._descriptor, True)

    def remove(self) -> None:
        """Remove it with all it holds; safe to call twice."""
        self._finalizer()


def sweep(base: Path, prefix: str) -> None:
    """Remove directories of that prefix whose process ended without doing so."""
    with contextlib.suppress(OSError):
        for path in base.glob(f"{prefix}*"):
            if time.time() - path.lstat().st_mtime > SETTLED:
                _sweep_one(path)


def _sweep_one(path: Path) -> None:
    # A lock that is missing, held or another user's: the directory is not ours to remove.
    with contextlib.suppress(OSError):
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(path)
        finally:
            os.close(descriptor)


def _remove(path: Path, descriptor: int, owner: int) -> None:
    if os.getpid() != owner:
        # A fork of this process ends; the directory is still in use.
        return
    remove_tree(path)
    os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Remove a directory with all it holds, whatever a hostile process has made of it.

    Links are removed, not followed; mount points stay; what cannot be removed stays. Never
    raises ``OSError``. Depth costs neither stack nor descriptors: a directory is moved to the top
    before it is looked into, which also fails for a mount point.
    """
    with contextlib.suppress(OSError):
        with contextlib.suppress(OSError):
            _let_in(path, None)
        top = os.open(path, _OPEN_DIRECTORY)
        try:
            _Removal(top).run()
        finally:
            os.close(top)
        path.rmdir()


class _Removal:
    """Empties one directory.

    Args:
        top: A descriptor of it.
    """

    def __init__(self, top: int) -> None:
        self._top = top
        self._left = _MOST_ENTRIES
        self._moved: list[str] = []
        self._count = 0
        self._prefix = f".gone-{secrets.token_hex(8)}-"

    def run(self) -> None:
        """Remove all that can be removed."""
        self._empty(self._top)
        while self._moved:
            name = self._moved.pop()
            with contextlib.suppress(OSError):
                directory = os.open(name, _OPEN_DIRECTORY, dir_fd=self._top)
                try:
                    self._empty(directory)
                finally:
                    os.close(directory)
                os.rmdir(name, dir_fd=self._top)

    def _empty(self, directory: int) -> None:
        for _ in range(_PASSES):
            removed = 0
            with os.scandir(directory) as entries:
                for entry in entries:
                    removed += self._remove(directory, entry)
                    self._left -= 1
                    if self._left < 0:
                        return
            if not removed:
                return

    def _remove(self, directory: int, entry: os.DirEntry[str]) -> bool:
        """Remove a file, or put a directory in line; whether it is gone from here."""
        if entry.name.startswith(self._prefix):
            return False
        try:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=directory)
                return True
            # Moving a directory changes its "..", so it must be writable.
            _let_in(entry.name, directory)
            name = f"{self._prefix}{self._count}"
            os.rename(entry.name, name, src_dir_fd=directory, dst_dir_fd=self._top)
        except OSError:
            return False
        self._count += 1
        self._moved.append(name)
        return True


def _let_in(name: str | Path, directory: int | None) -> None:
    """Give the owner all rights to a directory; a link in its place is not followed."""
    if os.chmod in os.supports_follow_symlinks:
        os.chmod(name, 0o700, dir_fd=directory, follow_symlinks=False)
        return
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=directory)
    try:
        Path(f"/proc/self/fd/{descriptor}").chmod(0o700)
    finally:
        os.close(descriptor)
