"""The sockets between Jupyter clients and a confined kernel, with a kernel that misbehaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.asyncio
from jupyter_client.session import Session

from ovagent_jupyter.execution.connection import Address
from ovagent_jupyter.execution.kernelspec.conversation import Conversation
from ovagent_jupyter.execution.kernelspec.relay import PORTS, Relay
from ovagent_jupyter.execution.zmtp import LARGEST_MESSAGE

OUTER = b"o" * 32
PATIENCE = 20_000


class Ends:
    """A kernel's sockets and a client's, with a relay between them."""

    def __init__(self, folder: Path) -> None:
        self.address = Address.create(folder)
        self.listeners = self.address.listen()
        self.context = zmq.asyncio.Context()
        self.inner, self.outer = Session(key=self.address.key), Session(key=OUTER)
        self.kernel: dict[str, zmq.asyncio.Socket] = {}
        for channel, port in PORTS.items():
            made = self.context.socket(zmq.XPUB if channel == "iopub" else zmq.ROUTER)
            made.setsockopt(zmq.USE_FD, self.listeners[port - 1].fileno())
            made.bind(f"ipc://{self.address.path(port)}")
            self.kernel[channel] = made
        conversation = Conversation(Session(key=self.address.key), Session(key=OUTER))
        self.relay = Relay(conversation, self.address, folder / "p")
        self.client: dict[str, zmq.asyncio.Socket] = {}
        for channel, port in PORTS.items():
            kind = {"iopub": zmq.SUB, "hb": zmq.REQ}.get(channel, zmq.DEALER)
            made = self.context.socket(kind)
            made.setsockopt(zmq.IDENTITY, b"me")
            if kind == zmq.SUB:
                made.setsockopt(zmq.SUBSCRIBE, b"")
            made.connect(f"ipc://{folder / 'p'}-{port}")
            self.client[channel] = made

    async def close(self) -> None:
        await self.relay.close()
        for socket in (*self.kernel.values(), *self.client.values()):
            socket.close(linger=0)
        self.context.term()
        for listener in self.listeners:
            listener.detach()

    async def ask(self) -> dict[str, Any]:
        """A request of the client's that has reached the kernel."""
        message = self.outer.msg("execute_request", {"code": "1"})
        await self.client["shell"].send_multipart(self.outer.serialize(message))
        async with asyncio.timeout(20):
            await self.kernel["shell"].recv_multipart()
        return dict(message)

    async def publish(self, asked: dict[str, Any], kind: str, content: dict[str, Any]) -> None:
        message = self.inner.msg(kind, content, parent=asked["header"])
        await self.kernel["iopub"].send_multipart(self.inner.serialize(message, ident=b"t"))

    async def heard(self) -> tuple[str, dict[str, Any]]:
        """The next message that the client gets to see."""
        async with asyncio.timeout(20):
            frames = await self.client["iopub"].recv_multipart()
        _, parts = self.outer.feed_identities(frames)
        message = self.outer.deserialize(parts)
        return message["msg_type"], message["content"]

    async def open(self) -> None:
        """Open the relay and wait until what the kernel publishes arrives."""
        await self.relay.open()
        asked = await self.ask()
        for _ in range(1000):
            await self.publish(asked, "clear_output", {"wait": False})
            if await self.client["iopub"].poll(20):
                break
        while await self.client["iopub"].poll(100):
            await self.client["iopub"].recv_multipart()


@pytest.fixture
async def ends(tmp_path: Path) -> AsyncIterator[Ends]:
    made = Ends(tmp_path)
    await made.open()
    yield made
    await made.close()


async def test_heart_beats_pass(ends: Ends) -> None:
    await ends.client["hb"].send(b"ping")
    frames = await ends.kernel["hb"].recv_multipart()
    await ends.kernel["hb"].send_multipart(frames)
    assert await ends.client["hb"].recv() == b"ping"


async def test_a_reply_finds_its_way_back(ends: Ends) -> None:
    asked = await ends.ask()
    reply = ends.inner.msg("execute_reply", {"status": "ok"}, parent=asked["header"])
    await ends.kernel["shell"].send_multipart(
        [b"relay", b"me", *ends.inner.serialize(reply)],
    )
    async with asyncio.timeout(20):
        frames = await ends.client["shell"].recv_multipart()
    assert json.loads(frames[2])["msg_type"] == "execute_reply"


async def test_the_order_of_output_is_kept(ends: Ends) -> None:
    asked = await ends.ask()
    for number in range(500):
        name = "stdout" if number % 2 else "stderr"
        await ends.publish(asked, "stream", {"name": name, "text": f"{number} "})
    await ends.publish(asked, "status", {"execution_state": "idle"})
    text = ""
    while True:
        kind, content = await ends.heard()
        if kind == "status":
            break
        text += content["text"]
    assert text == "".join(f"{number} " for number in range(500))


async def test_a_message_above_the_bound_costs_that_cell_only(ends: Ends) -> None:
    asked = await ends.ask()
    await ends.publish(asked, "stream", {"name": "stdout", "text": "x" * (LARGEST_MESSAGE + 1)})
    kind, content = await ends.heard()
    assert kind == "stream"
    assert "output cut" in content["text"]
    other = await ends.ask()
    texts: list[str] = []
    for _ in range(200):
        # The new subscription takes a moment.
        await ends.publish(other, "stream", {"name": "stdout", "text": "y"})
        if await ends.client["iopub"].poll(50):
            texts.append((await ends.heard())[1].get("text", ""))
        if texts and texts[-1].startswith("y"):
            break
    assert texts[-1].startswith("y")


async def test_connections_that_break_off_do_not_end_this_process(ends: Ends) -> None:
    """libzmq aborts the process when a message of which one part was seen does not go on."""
    asked = await ends.ask()
    for size in (10, LARGEST_MESSAGE + 1):
        for _ in range(20):
            for _ in range(5):
                message = ends.inner.msg(
                    "stream", {"name": "stdout", "text": "z"}, parent=asked["header"]
                )
                frames = ends.inner.serialize(message, ident=b"t")
                await ends.kernel["iopub"].send_multipart([*frames, b"b" * 100, b"c"])
        await ends.kernel["iopub"].send_multipart([b"t", b"<IDS|MSG>", b"x" * size])
        await asyncio.sleep(0.2)
    assert (await ends.heard())[0] == "stream"


async def test_a_kernel_that_is_gone_is_told_of(ends: Ends) -> None:
    await ends.ask()
    for socket in ends.kernel.values():
        socket.close(linger=0)
    await ends.relay.say("[The kernel was killed.]")
    texts = []
    while True:
        kind, content = await ends.heard()
        texts.append(content.get("text", ""))
        if kind == "status":
            break
    assert "[The kernel was killed.]" in "".join(texts)


async def test_closing_twice_is_closing_once(tmp_path: Path) -> None:
    ends = Ends(tmp_path)
    await ends.relay.open()
    await ends.relay.close()
    await ends.close()


async def test_a_shell_that_says_what_cannot_be_read_is_noticed(ends: Ends) -> None:
    await ends.ask()
    assert not ends.relay.broken.is_set()
    await ends.kernel["shell"].send_multipart([b"relay", *[b"x"] * 1000])
    async with asyncio.timeout(20):
        await ends.relay.broken.wait()
