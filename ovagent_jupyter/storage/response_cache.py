"""Answers kept on disk: one SQLite file of bytes that expire, private, with a bound on its size."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ovagent_jupyter.errors import StorageError
from ovagent_jupyter.storage.paths import ensure_dir, storage_error

SIZE_CAP = 256 << 20
"""Bytes of answers; beyond them, those that were not used for longest go."""
KEEP = 0.9
"""Share of the cap that is left after that, so that it is not done for each answer."""
USE_STEP = 60.0
"""Seconds between two notes that an answer was used: most hits then only read."""
BUSY = 1.0
"""Seconds to wait for another kernel that writes."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, expires REAL NOT NULL, used REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS answers_used ON answers (used);
"""


class DiskStore:
    """Bytes by key, shared by all kernels of a user.

    A file that is no database any more is put aside and begun anew: it holds only what can be
    asked again.

    Args:
        path: The file; it and its directory are made when they are missing.
        size_cap: Bytes of values that it may hold.
        clock: Seconds since 1970.

    Raises:
        StorageError: It cannot be opened.
    """

    def __init__(
        self, path: Path, *, size_cap: int = SIZE_CAP, clock: Callable[[], float] = time.time
    ) -> None:
        self.path = path
        self._size_cap = size_cap
        self._clock = clock
        # Protects the connection: the loop's thread uses it, and a face may look in or clear it.
        self._lock = threading.Lock()
        self._db = self._opened()

    def get(self, key: str) -> bytes | None:
        """The value of a key; None when there is none, or none any more.

        Raises:
            StorageError: The file cannot be read.
        """
        now = self._clock()
        with self._lock, _errors_of(self.path):
            row = self._db.execute(
                "SELECT value, used FROM answers WHERE key = ? AND expires > ?", (key, now)
            ).fetchone()
            if row is None:
                return None
            if now - row[1] > USE_STEP:
                self._db.execute("UPDATE answers SET used = ? WHERE key = ?", (now, key))
            return bytes(row[0])

    def put(self, key: str, value: bytes, ttl: float) -> None:
        """Keep a value for some seconds; one that is larger than the cap is not kept.

        Raises:
            StorageError: It cannot be written.
        """
        if len(value) > self._size_cap:
            return
        now = self._clock()
        with self._lock, _errors_of(self.path):
            self._db.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", (key, value, now + ttl, now)
            )
            if self._size() > self._size_cap:
                self._shrink(now)

    def clear(self) -> None:
        """Forget all.

        Raises:
            StorageError: It cannot be written.
        """
        with self._lock, _errors_of(self.path):
            self._db.execute("DELETE FROM answers")
            self._db.execute("VACUUM")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _opened(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise _unusable(self.path, error) from error
            with suppress(FileNotFoundError):
                self.path.replace(self.path.with_name(f"{self.path.name}.broken"))
        try:
            return self._connect()
        except sqlite3.Error as error:
            raise _unusable(self.path, error) from error

    def _connect(self) -> sqlite3.Connection:
        ensure_dir(self.path.parent)
        try:  # before SQLite makes it, so that nobody else can read it; its -wal gets the same mode
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            self.path.chmod(0o600)
        except OSError as error:
            raise storage_error("The file", self.path, "cannot be written", error) from error
        db = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.executescript(_SCHEMA)
        except BaseException:
            db.close()
            raise
        return db

    def _size(self) -> int:
        """Bytes of the pages that hold something; known without reading them."""
        used = "SELECT (page_count - freelist_count) * page_size FROM "
        used += "pragma_page_count, pragma_freelist_count, pragma_page_size"
        return int(self._db.execute(used).fetchone()[0])

    def _shrink(self, now: float) -> None:
        """Drop what has expired, then what was not used for longest."""
        self._db.execute("DELETE FROM answers WHERE expires <= ?", (now,))
        excess = self._size() - int(self._size_cap * KEEP)
        if excess <= 0:
            return
        old = self._db.execute("SELECT key, LENGTH(value) FROM answers ORDER BY used").fetchall()
        for key, size in old:
            self._db.execute("DELETE FROM answers WHERE key = ?", (key,))
            excess -= size
            if excess <= 0:
                return


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: sqlite3.Error) -> StorageError:
    return StorageError(
        f"The cache {path} cannot be used.",
        why=str(error),
        next_step="Remove it: it holds only answers that can be asked again.",
    )
