"""The wire to one child kernel: sends requests, reads messages without trusting them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM
from socket import socket as Listener  # noqa: N812 - `socket` is zmq's here
from typing import Literal

import zmq
import zmq.asyncio
from jupyter_client.connect import write_connection_file
from jupyter_client.session import Session

from ovagent_jupyter.execution.release import on_loop

Channel = Literal["shell", "iopub", "control"]

LARGEST_MESSAGE = 48_000_000
"""Bytes; what is larger is refused by the socket before it is in memory."""
BATCH = 100
"""Messages read before others on the event loop get their turn."""
PORTS: Mapping[Channel, int] = {"shell": 1, "iopub": 2, "control": 4}
EVERY_PORT = (1, 2, 3, 4, 5)
"""Shell, output, standard input, control, heartbeat."""
BACKLOG = 16
RECONNECT = 10
"""Milliseconds."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the child whose shape is as it should be; its content is unchecked."""

    channel: Channel
    kind: str
    parent_id: str
    content: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a kernel listens and the key that messages are signed with."""

    file: Path
    stem: Path
    key: bytes

    @classmethod
    def create(cls, directory: Path) -> Address:
        """A new address in a private directory, with the connection file written."""
        address = cls(directory / "kernel.json", directory / "k", secrets.token_hex(32).encode())
        write_connection_file(
            str(address.file),
            transport="ipc",
            ip=str(address.stem),
            key=address.key,
            kernel_name="ovagent",
            shell_port=PORTS["shell"],
            iopub_port=PORTS["iopub"],
            control_port=PORTS["control"],
            stdin_port=3,
            hb_port=5,
        )
        address.file.chmod(0o400)
        return address

    def path(self, port: int) -> Path:
        """The socket file of a port."""
        return self.stem.with_name(f"{self.stem.name}-{port}")

    @property
    def sockets(self) -> tuple[Path, ...]:
        """The files of all its sockets."""
        return tuple(self.path(port) for port in EVERY_PORT)

    def listen(self) -> list[Listener]:
        """The kernel's sockets, bound for it: it inherits them and needs to make no file.

        A client may connect from now on; it is answered when the kernel is up.
        """
        bound: list[Listener] = []
        try:
            for port in EVERY_PORT:
                path = self.path(port)
                path.unlink(missing_ok=True)
                made = Listener(AF_UNIX, SOCK_STREAM)
                bound.append(made)
                made.bind(str(path))
                made.listen(BACKLOG)
                made.setblocking(False)
        except BaseException:
            for made in bound:
                made.close()
            raise
        return bound


class KernelConnection:
    """The sockets to one kernel. Must be made, used and closed on one event loop.

    Args:
        address: Where the kernel listens.
    """

    def __init__(self, address: Address) -> None:
        self._session = Session(key=address.key, username="ovagent")
        self._sockets: dict[Channel, zmq.asyncio.Socket] = {}
        context = zmq.asyncio.Context()
        # A context that is collected with its sockets open waits for them for ever. So the
        # finalizer holds both, and closes them where they were polled.
        close = partial(_close, context, self._sockets)
        self._finalizer = weakref.finalize(self, on_loop, asyncio.get_running_loop(), close)
        self._poller = zmq.asyncio.Poller()
        for channel, port in PORTS.items():
            kind = zmq.SUB if channel == "iopub" else zmq.DEALER
            socket = context.socket(kind)
            socket.linger = 0
            socket.setsockopt(zmq.MAXMSGSIZE, LARGEST_MESSAGE)
            socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT)
            if channel == "iopub":
                socket.setsockopt(zmq.SUBSCRIBE, b"")
            socket.connect(f"ipc://{address.path(port)}")
            self._sockets[channel] = socket
            if channel != "control":
                self._poller.register(socket, zmq.POLLIN)
        # The plain side of the same sockets: reading a batch needs no future for each message.
        self._plain: dict[Channel, zmq.Socket[bytes]] = {
            name: zmq.Socket.shadow(socket.underlying) for name, socket in self._sockets.items()
        }
        self._output = f"ipc://{address.path(PORTS['iopub'])}"

    def send(self, channel: Channel, kind: str, content: Mapping[str, object]) -> str:
        """Send one request.

        Returns:
            The id that answers to it carry as their parent.
        """
        message = self._session.msg(kind, dict(content))
        self._session.send(self._plain[channel], message)
        return str(message["header"]["msg_id"])

    async def receive(self, seconds: float) -> list[Message]:
        """The messages that are there, output first; waits for one at most so long."""
        ready = dict(await self._poller.poll(max(0, round(seconds * 1000))))
        messages: list[Message] = []
        for channel in ("iopub", "shell"):
            if self._sockets[channel] in ready:
                messages += self._read_batch(channel)
        return messages

    def listen_again(self) -> None:
        """Connect the output channel anew."""
        with contextlib.suppress(zmq.ZMQError):
            self._plain["iopub"].disconnect(self._output)
        self._plain["iopub"].connect(self._output)

    def close(self) -> None:
        """Close all sockets; safe to call twice."""
        self._finalizer()

    def _read_batch(self, channel: Channel) -> list[Message]:
        messages = []
        for _ in range(BATCH):
            try:
                frames = self._plain[channel].recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            message = self._read(channel, frames)
            if message is not None:
                messages.append(message)
        return messages

    def _read(self, channel: Channel, frames: list[bytes]) -> Message | None:
        try:
            _, parts = self._session.feed_identities(frames)
            message = self._session.deserialize(parts)
        except Exception:  # noqa: BLE001 - whatever the child sent must not end the turn
            return None
        header, parent, content = (message.get(k) for k in ("header", "parent_header", "content"))
        if not isinstance(header, dict) or not isinstance(content, dict):
            return None
        kind = header.get("msg_type")
        parent_id = parent.get("msg_id") if isinstance(parent, dict) else None
        if not isinstance(kind, str) or not isinstance(parent_id, str):
            return None
        return Message(channel, kind, parent_id, content)


def _close(context: zmq.asyncio.Context, sockets: dict[Channel, zmq.asyncio.Socket]) -> None:
    for socket in sockets.values():
        socket.close(linger=0)
    context.term()
