"""A client and a kernel on either side of a conversation, for the tests of what passes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jupyter_client.session import Session

from ovagent_jupyter.execution.kernelspec.conversation import Conversation

Message = dict[str, Any]
INNER, OUTER = b"i" * 32, b"o" * 32
ROUTE = [b"client-1"]


class Talk:
    """A client and a kernel on either side of a conversation."""

    def __init__(self, **options: Any) -> None:
        self.client, self.kernel = Session(key=OUTER), Session(key=INNER)
        self.between = Conversation(Session(key=INNER), Session(key=OUTER), **options)

    def ask(self, kind: str = "execute_request", channel: Any = "shell", **content: Any) -> Message:
        """Send a request; it must arrive."""
        message = self.client.msg(kind, content or {"code": "1", "allow_stdin": True})
        frames = self.between.request(channel, list(self.client.serialize(message, ident=ROUTE)))
        assert frames is not None
        route, arrived = self._read(self.kernel, frames)
        assert route == ROUTE
        assert arrived["header"]["msg_id"] == message["header"]["msg_id"]
        assert arrived["content"] == message["content"]
        return message

    def answer(
        self,
        asked: Message | None,
        kind: str,
        content: Any,
        channel: Any = "shell",
        route: Any = None,
    ) -> Message | None:
        """The kernel's reply as the client reads it."""
        parent = None if asked is None else asked["header"]
        message = self.kernel.msg(kind, content, parent=parent)
        frames = self.between.reply(
            channel, list(self.kernel.serialize(message, ident=route or ROUTE))
        )
        if frames is None:
            return None
        got, reply = self._read(self.client, frames)
        assert got == ROUTE
        assert asked is not None
        assert reply["parent_header"]["msg_id"] == asked["header"]["msg_id"]
        return reply

    def show(self, asked: Message | None, kind: str, content: Any) -> None:
        """The kernel publishes something."""
        parent = None if asked is None else asked["header"]
        message = self.kernel.msg(kind, content, parent=parent)
        self.between.output(list(self.kernel.serialize(message, ident=b"topic")))

    def heard(self) -> list[tuple[str, Message]]:
        """What has been published since, as the client reads it."""
        return [(m["msg_type"], m["content"]) for m in self.heard_messages()]

    def heard_messages(self) -> Iterator[Message]:
        ready, _ = self.between.take_ready()
        for frames in ready:
            yield self._read(self.client, frames)[1]

    def shown(self, asked: Message, kind: str, content: Any) -> list[tuple[str, Message]]:
        self.show(asked, kind, content)
        self.show(asked, "status", {"execution_state": "idle"})
        return [each for each in self.heard() if each[0] != "status"]

    @staticmethod
    def _read(session: Session, frames: list[bytes]) -> tuple[list[bytes], Message]:
        route, parts = session.feed_identities(frames)
        return list(route), session.deserialize(parts)
