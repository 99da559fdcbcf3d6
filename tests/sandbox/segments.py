"""Shared memory, queues, keys and a terminal of the user: what has no place in the file tree."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import tty
from pathlib import Path
from typing import Any

from tests.sandbox.guest import LIBC, call, checked

USER_KEYRING = -4
"""KEY_SPEC_USER_KEYRING of keyctl(2)."""
IPC_PRIVATE, IPC_RMID = 0, 0
SIZE = 128
SHM = Path("/dev/shm")

LIBC.shmat.restype = ctypes.c_void_p
LIBC.shmat.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
LIBC.shmdt.argtypes = (ctypes.c_void_p,)


class Segments:
    """Objects with a token each, made by the user's other programs.

    Args:
        word: A random word for their names.
    """

    def __init__(self, word: str) -> None:
        self._word = word
        self.tokens = {
            name: secrets.token_hex(12)
            for name in ("sysv_memory", "sysv_message", "posix_memory", "posix_message", "user_key")
        }
        self._semaphore = checked(LIBC.semget(IPC_PRIVATE, 1, 0o600))
        self._memory = checked(LIBC.shmget(IPC_PRIVATE, SIZE, 0o600))
        self._address = LIBC.shmat(self._memory, None, 0)
        self._queue = checked(LIBC.msgget(IPC_PRIVATE, 0o600))
        self._shared = SHM / f"{word}-shared"
        self._message_queue: int | None = None
        self._key: int | None = None
        self.terminal, self._side = os.openpty()
        tty.setraw(self._side)
        os.set_blocking(self.terminal, False)
        self.restore()
        self.facts: dict[str, Any] = {
            "sysv_semaphore": self._semaphore,
            "sysv_memory": self._memory,
            "sysv_queue": self._queue,
            "posix_memory": str(self._shared),
            "posix_queue": word,
            "key_name": word,
            "user_keyring": USER_KEYRING,
            "terminal": os.ttyname(self._side),
        }

    @property
    def has_queue(self) -> bool:
        """Whether the machine has POSIX message queues."""
        return self._message_queue is not None

    @property
    def has_key(self) -> bool:
        """Whether the machine lets this user keep keys."""
        return self._key is not None

    def restore(self) -> None:
        """Put the content back."""
        token = self.tokens
        ctypes.memmove(self._address, token["sysv_memory"].encode() + b"\0", 25)
        LIBC.semctl(self._semaphore, 0, 16, 1)  # SETVAL
        while LIBC.msgrcv(self._queue, ctypes.create_string_buffer(SIZE), 100, 0, 0o4000) >= 0:
            pass
        message = (1).to_bytes(8, "little") + token["sysv_message"].encode()
        LIBC.msgsnd(self._queue, message, len(message) - 8, 0)
        self._shared.write_text(token["posix_memory"])
        self._fill_message_queue()
        with contextlib.suppress(OSError):
            secret = token["user_key"].encode()
            name = self._word.encode()
            self._key = call("add_key", b"user", name, secret, len(secret), USER_KEYRING)

    def harm(self, tag: str) -> str:
        """What was changed in them, or nothing."""
        text = ctypes.string_at(self._address, 24).decode("latin-1")
        if text != self.tokens["sysv_memory"]:
            return "System V shared memory was changed"
        if LIBC.semctl(self._semaphore, 0, 12) != 1:  # GETVAL
            return "a System V semaphore was changed"
        if not self._shared.exists() or self._shared.read_text() != self.tokens["posix_memory"]:
            return "POSIX shared memory was changed"
        with contextlib.suppress(BlockingIOError):
            if tag.encode() in os.read(self.terminal, 4096):
                return "the user's terminal was written to"
        made = [path for path in SHM.glob(f"*{tag}*")]
        for path in made:
            path.unlink()
        if made:
            return "a file was made in /dev/shm that every process of the user sees"
        with contextlib.suppress(OSError):
            found = call("keyctl", 10, USER_KEYRING, b"user", tag.encode(), 0)  # SEARCH
            call("keyctl", 9, found, USER_KEYRING)  # UNLINK
            return "a key was put into the user's keyring"
        return ""

    def close(self) -> None:
        """Remove them."""
        LIBC.shmdt(self._address)
        LIBC.shmctl(self._memory, IPC_RMID, None)
        LIBC.msgctl(self._queue, IPC_RMID, None)
        LIBC.semctl(self._semaphore, 0, IPC_RMID)
        self._shared.unlink(missing_ok=True)
        if self._message_queue is not None:
            os.close(self._message_queue)
            LIBC.mq_unlink(f"/{self._word}".encode())
        if self._key is not None:
            with contextlib.suppress(OSError):
                call("keyctl", 9, self._key, USER_KEYRING)
        os.close(self.terminal)
        os.close(self._side)

    def _fill_message_queue(self) -> None:
        if self._message_queue is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
            attributes = (ctypes.c_long * 8)(0, 4, SIZE)
            with contextlib.suppress(OSError):
                self._message_queue = call("mq_open", self._word.encode(), flags, 0o600, attributes)
        if self._message_queue is not None:
            token = self.tokens["posix_message"].encode()
            with contextlib.suppress(OSError):
                while True:
                    call("mq_timedsend", self._message_queue, token, len(token), 0, None)
