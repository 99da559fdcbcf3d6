"""One connection to a socket of a hostile child: ZMTP over a UNIX socket, bounded in every respect.

libzmq cannot read from such a peer: its caps are per frame and per complete message, so a message
of endless frames fills the memory of the reader. Source: RFC 23 of the ZeroMQ project, ZMTP 3.0,
mechanism NULL.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
GREETING = SIGNATURE + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
MAJOR = 10
"""Where in a greeting the version is told."""
LEAST_VERSION = 3
MORE, LONG, COMMAND = 1, 2, 4
"""Flags of a frame."""
ALL_FLAGS = MORE | LONG | COMMAND
SHORT_HEAD, LONG_HEAD = 2, 9
LONGEST_SHORT = 255
READY = b"\x05READY"
SUBSCRIBE_ALL = b"\x01"
LARGEST_MESSAGE = 48_000_000
"""Bytes of all frames of a message together."""
MOST_FRAMES = 64
"""A Jupyter message has six, and one for each buffer, which nothing here uses."""
WAITING = 8_000_000
"""Bytes of complete messages that wait to be taken; with more, the child has to wait."""
PER_MESSAGE = 1_000
"""Bytes that a message counts for beside what is in it."""

Kind = Literal["SUB", "DEALER"]


class Wire(asyncio.Protocol):
    """Multipart messages there and back; ends, without raising, on what breaks the bounds.

    Args:
        kind: Type of our end.
        arrived: Set whenever a message is there or the connection has ended.
        identity: By which a ROUTER knows us on several sockets; empty to be anybody.
    """

    def __init__(self, kind: Kind, arrived: asyncio.Event, identity: bytes = b"") -> None:
        self._kind = kind
        self._identity = identity
        self._arrived = arrived
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._greeted = self._ready = False
        self._frames: list[bytes] = []
        self._size = 0
        self._messages: deque[list[bytes]] = deque()
        self._waiting = 0
        self._outbox: list[bytes] = []
        self.broken = ""
        """Why it ended; empty while it is well."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, and say what we are."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        body = READY + _property(b"Socket-Type", self._kind.encode())
        if self._identity:
            body += _property(b"Identity", self._identity)
        transport.write(GREETING + bytes([COMMAND, len(body)]) + body)

    def data_received(self, data: bytes) -> None:
        """Take what came; whole messages wait to be taken by ``receive``."""
        self._buffer += data
        while not self.broken and self._parse_one():
            pass

    def connection_lost(self, error: Exception | None) -> None:
        """The other side is gone."""
        del error
        self._cut("the child closed it")

    def send(self, frames: Sequence[bytes]) -> None:
        """Send one message; before the greeting is answered it waits."""
        data = b"".join(
            _head(MORE if place < len(frames) else 0, len(frame)) + frame
            for place, frame in enumerate(frames, 1)
        )
        if self._ready and self._transport is not None:
            self._transport.write(data)
        else:
            self._outbox.append(data)

    def receive(self) -> list[bytes] | None:
        """The next message, or None when there is none."""
        if not self._messages:
            return None
        message = self._messages.popleft()
        self._waiting -= _weight(message)
        if self._waiting < WAITING // 2 and self._transport is not None:
            self._transport.resume_reading()
        return message

    def close(self) -> None:
        """End it; safe to call twice, and when the loop is gone."""
        if self._transport is not None:
            with suppress(RuntimeError):
                self._transport.abort()

    def _cut(self, why: str) -> None:
        self.broken = self.broken or why
        self._buffer.clear()
        self._frames.clear()
        self.close()
        self._arrived.set()

    def _parse_one(self) -> bool:
        """Take one greeting or frame off the buffer; False when there is no whole one."""
        if not self._greeted:
            return self._take_greeting()
        if len(self._buffer) < SHORT_HEAD:
            return False
        flags = self._buffer[0]
        head = LONG_HEAD if flags & LONG else SHORT_HEAD
        if len(self._buffer) < head:
            return False
        size = int.from_bytes(self._buffer[1:head], "big")
        if flags & ~ALL_FLAGS or self._size + size > LARGEST_MESSAGE:
            self._cut("a message was larger than allowed, or none")
            return False
        if len(self._buffer) < head + size:
            return False
        frame = bytes(memoryview(self._buffer)[head : head + size])
        del self._buffer[: head + size]
        if flags & COMMAND:
            self._take_command(frame)
        else:
            self._take_frame(frame, more=bool(flags & MORE))
        return True

    def _take_greeting(self) -> bool:
        if len(self._buffer) < len(GREETING):
            return False
        if self._buffer[0] != SIGNATURE[0] or self._buffer[MAJOR] < LEAST_VERSION:
            self._cut("it does not speak the protocol")
            return False
        del self._buffer[: len(GREETING)]
        self._greeted = True
        return True

    def _take_command(self, command: bytes) -> None:
        if self._ready or not command.startswith(READY) or self._transport is None:
            return
        self._ready = True
        if self._kind == "SUB":
            self._transport.write(_head(0, len(SUBSCRIBE_ALL)) + SUBSCRIBE_ALL)
        self._transport.write(b"".join(self._outbox))
        self._outbox.clear()

    def _take_frame(self, frame: bytes, *, more: bool) -> None:
        self._frames.append(frame)
        self._size += len(frame)
        if more:
            if len(self._frames) >= MOST_FRAMES:
                self._cut("a message had more parts than allowed")
            return
        message, self._frames, self._size = self._frames, [], 0
        self._messages.append(message)
        self._waiting += _weight(message)
        self._arrived.set()
        if self._waiting > WAITING and self._transport is not None:
            self._transport.pause_reading()


async def connect(path: Path, kind: Kind, arrived: asyncio.Event, identity: bytes = b"") -> Wire:
    """Connect to a socket that is bound; its owner need not be up yet.

    Raises:
        OSError: Nobody listens there.
    """
    loop = asyncio.get_running_loop()
    _, wire = await loop.create_unix_connection(lambda: Wire(kind, arrived, identity), str(path))
    return wire


def _property(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value


def _head(flags: int, size: int) -> bytes:
    if size <= LONGEST_SHORT:
        return bytes([flags, size])
    return bytes([flags | LONG]) + size.to_bytes(8, "big")


def _weight(message: Sequence[bytes]) -> int:
    return PER_MESSAGE + sum(map(len, message))
