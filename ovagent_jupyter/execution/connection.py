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
from socket import socket as Listener  # noqa: N812 - what it is here
from typing import Literal

from jupyter_client.connect import write_connection_file
from jupyter_client.session import Session

from ovagent_jupyter.execution.release import on_loop
from ovagent_jupyter.execution.zmtp import Kind, Wire, connect

Channel = Literal["shell", "iopub", "control"]

BATCH = 100
"""Messages read before others on the event loop get their turn."""
PORTS: Mapping[Channel, int] = {"shell": 1, "iopub": 2, "control": 4}
EVERY_PORT = (1, 2, 3, 4, 5)
"""Shell, output, standard input, control, heartbeat."""
BACKLOG = 16


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
    """The wires to one kernel. Must be made, used and closed on one event loop.

    Args:
        address: Where the kernel listens.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._session = Session(key=address.key, username="ovagent")
        self._arrived = asyncio.Event()
        self._wires: dict[Channel, Wire] = {}
        # The loop holds a wire as long as it is open, also when nobody else holds us.
        close = partial(_close, self._wires)
        self._finalizer = weakref.finalize(self, on_loop, asyncio.get_running_loop(), close)

    @property
    def broken(self) -> bool:
        """Whether no answer can come any more."""
        return bool(self._wires["shell"].broken)

    async def open(self) -> None:
        """Connect all channels.

        Raises:
            OSError: Nobody listens there.
        """
        for channel in PORTS:
            await self._connect(channel)

    def send(self, channel: Channel, kind: str, content: Mapping[str, object]) -> str:
        """Send one request.

        Returns:
            The id that answers to it carry as their parent.
        """
        message = self._session.msg(kind, dict(content))
        self._wires[channel].send(self._session.serialize(message))
        return str(message["header"]["msg_id"])

    async def receive(self, seconds: float) -> list[Message]:
        """The messages that are there, output first; waits for one at most so long."""
        messages = self._read_batches()
        if messages:
            # Others on the loop get their turn, and the wires with them.
            await asyncio.sleep(0)
            return messages
        self._arrived.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._arrived.wait()
        return self._read_batches()

    async def listen_again(self) -> None:
        """Connect the output channel anew."""
        self._wires["iopub"].close()
        with contextlib.suppress(OSError):
            await self._connect("iopub")

    async def knock(self, seconds: float) -> None:
        """Ask something over another wire: the kernel then looks whether a request has come.

        ipykernel 7.0 to 7.3 can leave one unread (ipykernel #1554), and is told of nothing more
        that comes over the same wire.

        Args:
            seconds: The most that this may take.
        """
        answered = asyncio.Event()
        with contextlib.suppress(OSError, TimeoutError):
            wire = await connect(self._address.path(PORTS["shell"]), "DEALER", answered)
            try:
                message = self._session.msg("kernel_info_request", {})
                wire.send(self._session.serialize(message))
                async with asyncio.timeout(seconds):
                    await answered.wait()
            finally:
                wire.close()

    def close(self) -> None:
        """Close all wires; safe to call twice."""
        self._finalizer()

    async def _connect(self, channel: Channel) -> None:
        kind: Kind = "SUB" if channel == "iopub" else "DEALER"
        path = self._address.path(PORTS[channel])
        self._wires[channel] = await connect(path, kind, self._arrived)

    def _read_batches(self) -> list[Message]:
        messages = []
        for channel in ("iopub", "shell"):
            for _ in range(BATCH):
                frames = self._wires[channel].receive()
                if frames is None:
                    break
                message = self._read(channel, frames)
                if message is not None:
                    messages.append(message)
        # Answers of the control channel are of no interest, and must not pile up.
        while self._wires["control"].receive() is not None:
            pass
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


def _close(wires: Mapping[Channel, Wire]) -> None:
    for wire in wires.values():
        wire.close()
