"""Stands between Jupyter clients and a confined kernel, and passes on only what is clean.

A client such as JupyterLab trusts its kernel: it runs the scripts that a kernel displays, and a
script in the page of a Jupyter server can open a terminal. So the child has an address and a key of
its own, and what it says is made anew here, under the key that the clients know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio

from ovagent_jupyter.execution.connection import Address
from ovagent_jupyter.execution.kernelspec.conversation import Channel, Conversation, Frames
from ovagent_jupyter.execution.zmtp import LARGEST_MESSAGE, Wire, connect

PORTS: Mapping[str, int] = {"shell": 1, "iopub": 2, "stdin": 3, "control": 4, "hb": 5}
ASKING: tuple[Channel, ...] = ("shell", "control", "stdin")
NAME = b"relay"
"""The same on all channels of the child: it asks for input where it was asked to run."""
LARGEST_BEAT = 1_000
BATCH = 100
"""Messages passed on before others on the event loop get their turn."""


class Relay:
    """The sockets that Jupyter clients connect to, and the wires to the kernel behind them.

    Must be made, used and closed on one event loop.

    Args:
        conversation: What may pass.
        address: Where the kernel listens.
        stem: Begins the names of the sockets for the clients.
    """

    def __init__(self, conversation: Conversation, address: Address, stem: Path) -> None:
        self.broken = asyncio.Event()
        """Set when the kernel can no longer be spoken to."""
        self._conversation = conversation
        self._address = address
        self._stem = stem
        self._context = zmq.asyncio.Context()
        self._front: dict[str, zmq.asyncio.Socket] = {}
        self._wires: dict[str, Wire] = {}
        self._arrived: dict[str, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []
        # One at a time publishes what is ready, so that its order is kept when a send must wait.
        self._in_order = asyncio.Lock()

    async def open(self) -> None:
        """Open all channels and begin to pass on.

        Raises:
            OSError: A socket cannot be made, or no kernel listens.
        """
        for channel in PORTS:
            await self._connect(channel)
            self._bind(channel)
        for asking in ASKING:
            self._begin(self._to_kernel(asking, partial(self._conversation.request, asking)))
            self._begin(self._to_client(asking, partial(self._conversation.reply, asking)))
        self._begin(self._to_kernel("hb", _beat))
        self._begin(self._to_client("hb", _beat))
        self._begin(self._pass_outputs())

    async def say(self, text: str) -> None:
        """Tell the user something in every cell that runs, and end it: its kernel is gone."""
        self._conversation.say(text)
        await self._publish()

    async def close(self) -> None:
        """End all of it; safe to call twice."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for wire in self._wires.values():
            wire.close()
        for socket in self._front.values():
            socket.close(linger=0)
        self._context.term()

    def _bind(self, channel: str) -> None:
        output = channel == "iopub"
        socket = self._front[channel] = self._context.socket(zmq.XPUB if output else zmq.ROUTER)
        if output:
            # What a slow reader has not fetched waits; it is not dropped without a word.
            socket.setsockopt(zmq.XPUB_NODROP, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, LARGEST_MESSAGE)
        socket.bind(f"ipc://{self._stem}-{PORTS[channel]}")

    async def _connect(self, channel: str) -> None:
        arrived = self._arrived[channel] = asyncio.Event()
        path = self._address.path(PORTS[channel])
        if channel == "iopub":
            self._wires[channel] = await connect(path, "SUB", arrived)
        else:
            self._wires[channel] = await connect(path, "DEALER", arrived, NAME)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _to_kernel(self, channel: str, change: Callable[[Frames], Frames | None]) -> None:
        while True:
            frames = change(await self._front[channel].recv_multipart())
            wire = self._wires[channel]
            if frames is not None and not wire.broken:
                wire.send(frames)

    async def _to_client(self, channel: str, change: Callable[[Frames], Frames | None]) -> None:
        async def take(came: Frames) -> None:
            frames = change(came)
            if frames is not None:
                await self._front[channel].send_multipart(frames)

        await self._take_all(channel, take)
        self.broken.set()

    async def _pass_outputs(self) -> None:
        async def take(came: Frames) -> None:
            self._conversation.output(came)

        while True:
            await self._take_all("iopub", take)
            # It has sent what was too large: that cell has lost its output, not the kernel.
            try:
                await self._connect("iopub")
            except OSError:
                return
            self._conversation.lose()
            await self._publish()

    async def _take_all(
        self, channel: str, take: Callable[[Frames], Coroutine[Any, Any, None]]
    ) -> None:
        """Take what the kernel sends, until the wire breaks."""
        wire, arrived = self._wires[channel], self._arrived[channel]
        while True:
            arrived.clear()
            left = BATCH
            while left and (frames := wire.receive()) is not None:
                await take(frames)
                left -= 1
            wait = await self._publish()
            if not left:
                await asyncio.sleep(0)
            elif wire.broken:
                return
            else:
                await _wait(arrived, wait)

    async def _publish(self) -> float | None:
        """Send what is ready; the seconds until there is more, if that is known."""
        async with self._in_order:
            ready, wait = self._conversation.take_ready()
            for frames in ready:
                await self._front["iopub"].send_multipart(frames)
        return wait


async def _wait(arrived: asyncio.Event, seconds: float | None) -> None:
    if seconds is None:
        await arrived.wait()
        return
    try:
        async with asyncio.timeout(seconds):
            await arrived.wait()
    except TimeoutError:
        return


def _beat(frames: Frames) -> Frames | None:
    return frames if sum(map(len, frames)) <= LARGEST_BEAT else None
