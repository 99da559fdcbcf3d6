"""A private directory for one child: locked while in use, removed at the end, swept if left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
import weakref
from pathlib import Path

LOCK = "lock"
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
            shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(descriptor)


def _remove(path: Path, descriptor: int, owner: int) -> None:
    if os.getpid() != owner:
        # A fork of this process ends; the directory is still in use.
        return
    shutil.rmtree(path, ignore_errors=True)
    os.close(descriptor)
