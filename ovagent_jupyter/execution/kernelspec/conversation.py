"""What a Jupyter client and a confined kernel say to each other, made anew for the other side.

Pure: frames in, frames out, nothing of sockets or time. The kernel's side is hostile: what it says
passes only as the answer to something that was asked, in the shape that is expected and clean.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from jupyter_client.session import Session

from ovagent_jupyter.execution.executor import Output
from ovagent_jupyter.execution.kernelspec.replies import (
    REPLIES,
    Content,
    clean_prompt,
    clean_reply,
    count_of,
)
from ovagent_jupyter.execution.outputs import OutputAllowance, OutputCollector, OutputLimits

Frames = list[bytes]
Channel = Literal["shell", "control", "stdin"]

REMEMBERED = 2_000
"""Requests whose late output is still told apart."""
COLLECTED = 8
"""Requests of which so much is held that an update finds what it replaces."""
HINTED = frozenset(
    "ConnectionError ConnectionRefusedError FileNotFoundError OSError PermissionError "
    "ReadOnlyError TimeoutError URLError gaierror".split()
)
"""Errors that confinement commonly causes; the note is put under them."""


@dataclass(slots=True, eq=False)
class _Asked:
    """A request of the client's, and what has come back."""

    kind: str
    channel: Channel
    header: Mapping[str, object]
    route: Frames
    code: str
    count: int = 0
    answered: bool = False
    busy: bool = False
    idle: bool = False
    lost: bool = False
    """Some of its output is known not to have arrived."""
    collector: OutputCollector | None = None


class Conversation:
    """One kernel's side and its clients' side, each with a key of its own.

    Args:
        inner: Signs for the kernel, and checks what it signs.
        outer: The same for the clients.
        note: Told to the user: in the banner, and under errors that confinement may have caused.
        limits: How much of what a cell shows is passed on.
    """

    def __init__(
        self,
        inner: Session,
        outer: Session,
        *,
        note: str = "",
        limits: OutputLimits | None = None,
    ) -> None:
        self._inner = inner
        self._outer = outer
        self._note = note
        self._limits = limits or OutputLimits()
        self._allowance = OutputAllowance(self._limits)
        self._asked: OrderedDict[str, _Asked] = OrderedDict()
        self._collecting: OrderedDict[int, _Asked] = OrderedDict()
        self._last: _Asked | None = None
        self._ready: list[Frames] = []

    def request(self, channel: Channel, frames: Frames) -> Frames | None:
        """A client's message as the kernel gets it; None for one that is not passed on."""
        said = _read(self._outer, frames)
        if said is None:
            return None
        if channel == "stdin":
            if said.kind != "input_reply":
                return None
        elif said.kind in REPLIES:
            code = said.content.get("code")
            header = said.message["header"]
            self._asked[str(header["msg_id"])] = _Asked(
                said.kind, channel, header, said.route, code if isinstance(code, str) else ""
            )
            if len(self._asked) > REMEMBERED:
                self._asked.popitem(last=False)
        else:
            return None
        return list(self._inner.serialize(said.message, ident=said.route))

    def reply(self, channel: Channel, frames: Frames) -> Frames | None:
        """A kernel's reply or question as the client gets it; None for one nobody waits for."""
        said = _read(self._inner, frames)
        asked = self._asked.get(said.parent_id) if said is not None else None
        if said is None or asked is None:
            return None
        kind, content = said.kind, said.content
        if channel == "stdin":
            if kind != "input_request" or asked.kind != "execute_request" or asked.idle:
                return None
            made = clean_prompt(content)
        elif kind == REPLIES[asked.kind] and asked.channel == channel and not asked.answered:
            asked.answered = True
            made = clean_reply(kind, content)
            if kind == "kernel_info_reply" and self._note:
                made["banner"] = f"{made['banner']}\n{self._note}\n"
            if asked.lost:
                self._end(asked)
        else:
            return None
        return list(self._outer.serialize(self._message(kind, made, asked), ident=asked.route))

    def output(self, frames: Frames) -> None:
        """Take a message of the kernel's output channel; ``take_ready`` has what came of it."""
        said = _read(self._inner, frames)
        if said is None:
            return
        kind, content = said.kind, said.content
        asked = self._asked.get(said.parent_id)
        if self._last is not None and asked is not self._last:
            # What another cell is about to show comes after it.
            self._flush(self._last)
        self._last = asked
        if asked is None:
            if kind == "status" and content.get("execution_state") == "starting":
                self._publish("status", {"execution_state": "starting"}, None)
            return
        match kind:
            case "status":
                self._take_state(asked, content.get("execution_state"))
            case "execute_input" if asked.kind == "execute_request" and not asked.count:
                asked.count = count_of(content)
                shown: Content = {"code": asked.code, "execution_count": asked.count}
                self._publish(kind, shown, asked)
            case _:
                self._collector(asked).take(kind, content)

    def take_ready(self) -> tuple[list[Frames], float | None]:
        """What is to be published now, and the seconds until there is more, if that is known."""
        collectors = [asked.collector for asked in self._collecting.values()]
        wait = min((each.flush() for each in collectors if each is not None), default=math.inf)
        ready, self._ready = self._ready, []
        return ready, None if math.isinf(wait) else wait

    def lose(self) -> None:
        """Some output did not arrive: say so in the cells that run, and let them end."""
        for asked in self._running():
            asked.lost = True
            self._collector(asked).notice_lost()
            if asked.answered:
                self._end(asked)

    def say(self, text: str) -> None:
        """Tell the user something in every cell that runs, and end it: its kernel is gone."""
        for asked in self._running():
            self._flush(asked)
            self._publish("stream", {"name": "stderr", "text": f"\n{text}\n"}, asked)
            self._end(asked)

    def _running(self) -> list[_Asked]:
        every = self._asked.values()
        return [each for each in every if each.kind == "execute_request" and not each.idle]

    def _take_state(self, asked: _Asked, state: object) -> None:
        """Each request becomes busy once and idle once, whatever its kernel says."""
        if state == "idle" and not asked.idle:
            self._end(asked)
        elif state == "busy" and not asked.busy:
            asked.busy = True
            self._publish("status", {"execution_state": "busy"}, asked)

    def _end(self, asked: _Asked) -> None:
        self._flush(asked)
        asked.idle = True
        self._publish("status", {"execution_state": "idle"}, asked)

    def _collector(self, asked: _Asked) -> OutputCollector:
        if asked.collector is None:
            asked.collector = OutputCollector(
                self._limits, partial(self._show, asked), allowance=self._allowance
            )
            self._collecting[id(asked)] = asked
            if len(self._collecting) > COLLECTED:
                _, oldest = self._collecting.popitem(last=False)
                self._flush(oldest)
                oldest.collector = None
        return asked.collector

    def _flush(self, asked: _Asked) -> None:
        if asked.collector is not None:
            asked.collector.flush(force=True)

    def _show(self, asked: _Asked, output: Output) -> None:
        """Publish one output, clean and within its bounds."""
        shown: Content = {"data": dict(output.data), "metadata": dict(output.metadata)}
        if output.display_id:
            shown["transient"] = {"display_id": output.display_id}
        match output.kind:
            case "stream":
                self._publish("stream", {"name": output.stream, "text": output.text}, asked)
            case "display":
                self._publish("display_data", {"transient": {}} | shown, asked)
            case "update":
                self._publish("update_display_data", shown, asked)
            case "result":
                self._publish("execute_result", shown | {"execution_count": asked.count}, asked)
            case "clear":
                self._publish("clear_output", {"wait": bool(output.metadata.get("wait"))}, asked)
            case "error":
                self._publish("error", self._error(asked, output), asked)

    def _error(self, asked: _Asked, output: Output) -> Content:
        error = asked.collector.error if asked.collector is not None else None
        if error is None:
            return {"ename": "UnknownError", "evalue": output.text, "traceback": []}
        traceback = [*error.traceback]
        if self._note and error.name in HINTED:
            traceback.append(f"Note: {self._note}")
        return {"ename": error.name, "evalue": error.message, "traceback": traceback}

    def _publish(self, kind: str, content: Content, asked: _Asked | None) -> None:
        message = self._message(kind, content, asked)
        self._ready.append(list(self._outer.serialize(message, ident=kind.encode())))

    def _message(self, kind: str, content: Content, asked: _Asked | None) -> dict[str, object]:
        parent = dict(asked.header) if asked is not None else None
        message: dict[str, object] = self._outer.msg(kind, content, parent=parent)
        return message


@dataclass(frozen=True, slots=True)
class _Said:
    """A message whose signature is right and whose shape is as it should be."""

    route: Frames
    kind: str
    parent_id: str
    content: dict[str, object]
    message: dict[str, dict[str, object]]


def _read(session: Session, frames: Frames) -> _Said | None:
    """A message, or None when it is not one."""
    try:
        route, parts = session.feed_identities(frames)
        message = session.deserialize(parts)
    except Exception:  # noqa: BLE001 - whatever the child sent must not end the relay
        return None
    header, parent, content = (message.get(k) for k in ("header", "parent_header", "content"))
    if not isinstance(header, dict) or not isinstance(content, dict):
        return None
    kind = header.get("msg_type")
    if not isinstance(kind, str) or not isinstance(header.get("msg_id"), str):
        return None
    parent_id = parent.get("msg_id") if isinstance(parent, dict) else None
    known = parent_id if isinstance(parent_id, str) else ""
    return _Said(list(route), kind, known, content, message)
