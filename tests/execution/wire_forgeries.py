"""Messages of a child that lies: real ones, changed in every place, signed with the right key.

Run as a program, it reads many and prints how they ended, as JSON.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
import resource
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jupyter_client.session import Session

from ovagent_jupyter.execution.cell import CellRun
from ovagent_jupyter.execution.connection import Address, KernelConnection
from ovagent_jupyter.execution.executor import ExecutionResult
from ovagent_jupyter.execution.outputs import OutputCollector, OutputLimits

REQUEST = "the-request"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
REAL: list[tuple[str, str, dict[str, Any]]] = [
    ("iopub", "status", {"execution_state": "busy"}),
    ("iopub", "stream", {"name": "stdout", "text": "\x1b[31mred\x1b[0m\n"}),
    ("iopub", "display_data", {
        "data": {"text/plain": "x", "text/html": "<table><tr><td style='color:red'>1</td></tr>"
                 "</table><style>td{color:red}</style>", "application/json": {"a": [1, {"b": 2}]}},
        "metadata": {"image/png": {"width": 5}}, "transient": {"display_id": "d"}}),
    ("iopub", "display_data", {
        "data": {"image/png": PNG, "image/svg+xml": "<svg></svg>", "text/latex": "$x$",
                 "text/markdown": ["# a\n", "![x](http://e) `b` $y$"]},
        "metadata": {}, "transient": {}}),
    ("iopub", "update_display_data", {
        "data": {"text/plain": "y"}, "metadata": {}, "transient": {"display_id": "d"}}),
    ("iopub", "execute_result", {
        "data": {"text/plain": "1"}, "metadata": {}, "execution_count": 3}),
    ("iopub", "error", {"ename": "E", "evalue": "v", "traceback": ["\x1b[0;31mline\x1b[0m", "x"]}),
    ("iopub", "clear_output", {"wait": True}),
    ("iopub", "comm_open", {"comm_id": "1", "target_name": "jupyter.widget", "data": {}}),
    ("shell", "execute_reply", {
        "status": "ok", "execution_count": 1, "user_expressions": {},
        "payload": [{"source": "set_next_input", "text": "x", "replace": False}]}),
    ("iopub", "status", {"execution_state": "idle"}),
]  # fmt: skip
ODD: list[Any] = [
    None, True, False, 0, -1, 2**63, 10**400, 1e308, 0.5, "", "x", "\ud800", "\0", "\x1b]8;;x\x07",
    "ok", "error", "idle", REQUEST, "stdout", "d", "x" * 100_000, "<b>" * 1000, "![" * 500,
    "<div style='" * 300, "\x1b" * 500, [], {}, [[]], [None], {"": {}}, ["a", 1], {"a": "b"},
    {"text/plain": "x"}, {"text/html": ["<", "b>"]}, {"image/png": "x"}, {"display_id": "d"},
    {"display_id": {}}, "2026-01-01T00:00:00", "2026-01-01T00:00:00Z", "9999-99-99T99:99:99",
    "text/html", "image/svg+xml", "application/json",
]  # fmt: skip


def nodes(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The address of every node below another."""
    if isinstance(node, dict | list):
        pairs = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in list(pairs):
            yield (*above, key)
            yield from nodes(value, (*above, key))


def changed(parts: list[Any], chance: random.Random) -> list[Any]:
    """Header, parent, metadata and content with some of their nodes changed."""
    parts = copy.deepcopy(parts)
    for _ in range(chance.randint(1, 4)):
        # Mostly the content: a header that is broken hides all that is behind it.
        part = chance.choice([0, 1, 2, 3, 3, 3, 3, 3, 3, 3])
        address = chance.choice([(part,), *nodes(parts[part], (part,))])
        holder = parts
        for step in address[:-1]:
            holder = holder[step]
        kind = chance.randrange(5)
        if kind == 0 and len(address) > 1:
            del holder[address[-1]]
        elif kind == 1 and isinstance(holder, dict):
            holder[str(chance.choice(ODD))[:50]] = holder[address[-1]]
        elif kind == 2:
            holder[address[-1]] = [holder[address[-1]]] * chance.choice([1, 2, 50])
        else:
            holder[address[-1]] = copy.deepcopy(chance.choice(ODD))
    return parts


def texts(parts: list[Any], chance: random.Random) -> list[bytes]:
    """The parts as JSON, sometimes as what is none."""
    frames = [json.dumps(part).encode() for part in parts]
    place = chance.randrange(len(frames))
    frame = bytearray(frames[place])
    kind = chance.randrange(30)
    if kind == 0:
        frame[chance.randrange(len(frame))] = chance.randrange(256)
    elif kind == 1:
        del frame[chance.randrange(len(frame)) :]
    elif kind == 2:
        depth = chance.choice([10, 500, 5000, 100_000])
        opening, closing = chance.choice([(b"[", b"]"), (b'{"a":', b"}")])
        frame = bytearray(opening * depth + bytes(frame) + closing * depth)
    elif kind == 3:
        odd = [b"NaN", b"1e999", b"9" * 5000, b'"\\ud800"', b'{"a":1,"a":2}', b"", b"null"]
        frame = bytearray(chance.choice(odd))
    frames[place] = bytes(frame)
    return frames


def framed(session: Session, frames: list[bytes], chance: random.Random) -> list[bytes]:
    """A whole message, mostly signed as it should be; sometimes its frames are in disorder."""
    whole = [b"topic", b"<IDS|MSG>", session.sign(frames), *frames]
    kind = chance.randrange(40)
    place = chance.randrange(len(whole))
    if kind == 0:
        del whole[place]
    elif kind == 1:
        whole.insert(place, chance.randbytes(chance.choice([0, 1, 20])))
    elif kind == 2:
        whole = whole[:place] + [b""] * chance.choice([1, 1000]) + whole[place:]
    elif kind == 3:
        chance.shuffle(whole)
    elif kind == 4:
        whole[place] = bytes(reversed(whole[place]))
    elif kind == 5:
        whole = whole[:place]
    return whole


def checked(result: ExecutionResult) -> None:
    """What the rest of the program takes for granted about a result."""
    total = 0
    for output in result.outputs:
        assert output.stream in ("stdout", "stderr", "")
        assert all(type(key) is type(value) is str for key, value in output.data.items())
        assert "image/svg+xml" not in output.data
        assert "text/markdown" not in output.data
        total += len(output.text) + sum(map(len, output.data.values()))
        json.dumps([output.text, dict(output.data), dict(output.metadata)]).encode()
    assert total < 3_000_000
    if result.error is not None:
        assert result.error.name
        "".join([result.error.name, result.error.message, *result.error.traceback]).encode()


async def attack(count: int, seed: int) -> Counter[str]:
    """Read many false messages in cells of a few; how they ended, by what was made of them."""
    ended: Counter[str] = Counter()
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        address = Address.create(Path(name))
        connection = KernelConnection(address)
        session = Session(key=address.key)
        try:
            while ended.total() - ended["(cells that were done)"] < count:
                ended += _cell(connection, session, chance)
        finally:
            connection.close()
    return ended


def _cell(connection: KernelConnection, session: Session, chance: random.Random) -> Counter[str]:
    ended: Counter[str] = Counter()
    heard: list[object] = []
    limits = OutputLimits(bundle_chars=300_000, cell_chars=1_000_000)
    run = CellRun(REQUEST, OutputCollector(limits, heard.append), silent=False)
    what = "no message"
    try:
        for _ in range(chance.randint(1, 30)):
            channel, kind, content = chance.choice(REAL)
            header = session.msg_header(kind)
            parts = [header, {"msg_id": REQUEST}, {}, content]
            parts[0] = {**header, "date": "2026-01-01T00:00:00.000000Z"}
            if chance.random() < 0.8:
                parts = changed(parts, chance)
            frames = framed(session, texts(parts, chance), chance)
            message = connection._read(channel, frames)  # type: ignore[arg-type]
            what = "dropped" if message is None else "not ours"
            if message is not None:
                what = message.kind if message.parent_id == REQUEST else what
                run.take(message)
                run.collector.flush(force=chance.random() < 0.1)
            ended[what if what in KINDS else "another kind"] += 1
        ended["(cells that were done)"] += run.done
        checked(run.result())
    except Exception as error:  # noqa: BLE001 - it is what this looks for
        ended[f"RAISED on {what}: {type(error).__name__}: {error}"[:200]] += 1
    return ended


KINDS = {kind for _, kind, _ in REAL} | {"dropped", "not ours"}


if __name__ == "__main__":
    number, start, room = map(int, sys.argv[1:])
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + room
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    warnings.simplefilter("ignore")
    print(json.dumps(asyncio.run(attack(number, start))))
