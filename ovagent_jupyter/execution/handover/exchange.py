"""The channel by which open files go to a child and come back; it has no path and no name."""

from __future__ import annotations

import array
import os
import socket
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover.fields import malformed

TOKEN = 16
"""Bytes that tell to which call a message belongs; chosen anew for each."""
_AT_ONCE = 64
"""Descriptors in one message; systems take 253 at most."""
_MOST_MESSAGES = 1024
"""What is read at most in one go: who goes on beyond that writes while we read."""
_ONE_READ = 1 << 16
"""Far more than a message has; one that brings descriptors is never read with the next."""
_CLOSED_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Exchange:
    """The parent's end. Whoever holds the other end may write anything, or nothing.

    Nothing here waits: what belongs to a call was sent before the call returned.
    """

    def __init__(self) -> None:
        self._near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._near.setblocking(False)
        # Also where nobody does: an executor that is dropped ends its child the same way.
        self._finalizer = weakref.finalize(self, _close_ends, self._near, self.far)
        self.end = self.far.fileno()
        """The number of the other side's end, which it keeps over there."""

    def give(self, token: bytes, descriptors: Sequence[int]) -> None:
        """Send open files; ours stay open.

        Raises:
            HandoverError: The other side does not read, or is gone.
        """
        try:
            _send(self._near, token, descriptors)
        except OSError as error:
            raise HandoverError(
                "Your objects could not be handed to the child.",
                why=f"It does not take what is sent to it: {error.strerror or error}",
                next_step="`%ovagent restart` begins with a fresh child.",
            ) from error

    def fetch(self, token: bytes) -> int:
        """The one open file that was sent back for a call; whatever else came is closed.

        Raises:
            HandoverError: There is none, or there is more, or it belongs to no call of ours.
        """
        came = self._drain()
        descriptors = [each for _, held in came for each in held]
        if [(token, descriptors)] == came and len(descriptors) == 1:
            return descriptors[0]
        _close(descriptors)
        raise malformed(
            "something else came with the results" if came else "the child sent no results"
        )

    def clear(self) -> None:
        """Throw away what an earlier call left behind."""
        for _, descriptors in self._drain():
            _close(descriptors)

    def release(self) -> None:
        """Close the other side's end in this process, once that side has it."""
        self.far.close()

    def close(self) -> None:
        """Close both ends; safe to call twice."""
        self._finalizer()

    def _drain(self) -> list[tuple[bytes, list[int]]]:
        came: list[tuple[bytes, list[int]]] = []
        for message in _messages(self._near):
            came.append(message)
            if len(came) == _MOST_MESSAGES:
                break
        return came


def _close_ends(*ends: socket.socket) -> None:
    for each in ends:
        each.close()


def take(end: int, token: bytes, count: int) -> list[int]:
    """On the child's side: the open files that were sent for a call; they are the caller's.

    Args:
        end: The descriptor of that side's end.
        token: The call's.
        count: How many files belong to it.

    Raises:
        HandoverError: They are not all there.
    """
    taken: list[int] = []
    with _end(end) as channel:
        for mark, descriptors in _messages(channel):
            if mark == token:
                taken += descriptors
            else:
                _close(descriptors)  # of a call that never got this far
            if len(taken) >= count and mark == token:
                break
    if len(taken) == count:
        return taken
    _close(taken)
    raise malformed(f"{len(taken)} of {count} parts arrived")


def bring(end: int, token: bytes, descriptor: int) -> None:
    """On the child's side: send one open file back; it stays open here.

    Raises:
        OSError: Nobody takes it.
    """
    with _end(end) as channel:
        _send(channel, token, [descriptor])


def _end(descriptor: int) -> socket.socket:
    return socket.socket(fileno=os.dup(descriptor))


def _send(end: socket.socket, token: bytes, descriptors: Sequence[int]) -> None:
    for start in range(0, len(descriptors), _AT_ONCE):
        numbers = array.array("i", descriptors[start : start + _AT_ONCE])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)]
        end.sendmsg([token], rights, socket.MSG_DONTWAIT)


def _messages(end: socket.socket) -> Iterator[tuple[bytes, list[int]]]:
    """What has arrived: the bytes of each message and the descriptors that came with it."""
    space = socket.CMSG_LEN(_AT_ONCE * array.array("i").itemsize)
    flags = socket.MSG_DONTWAIT | _CLOSED_ON_EXEC
    while True:
        try:
            data, notes, told, _ = end.recvmsg(_ONE_READ, space, flags)
        except OSError:
            return  # nothing more, or nobody there
        descriptors = [each for note in notes for each in _descriptors(*note)]
        if not data and not descriptors:
            return
        if told & socket.MSG_CTRUNC:
            data = b""  # more came than fits: no message of ours
        yield data[: TOKEN + 1], descriptors


def _descriptors(level: int, kind: int, data: bytes) -> list[int]:
    if (level, kind) != (socket.SOL_SOCKET, socket.SCM_RIGHTS):
        return []
    numbers = array.array("i")
    numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    for each in numbers:
        os.set_inheritable(each, False)
    return numbers.tolist()


def _close(descriptors: Iterable[int]) -> None:
    for each in descriptors:
        with suppress(OSError):  # a file may have its own last word; it is closed all the same
            os.close(each)
