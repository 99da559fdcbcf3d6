"""Open files to a child and back over a channel that the child may write anything to."""

from __future__ import annotations

import array
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover.exchange import TOKEN, Exchange, bring, take


def token() -> bytes:
    return secrets.token_bytes(TOKEN)


def opened() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    before = opened()
    yield
    assert opened() == before


@pytest.fixture
def exchange(nothing_stays_open: None) -> Iterator[Exchange]:
    made = Exchange()
    yield made
    made.close()
    made.close()


@pytest.fixture
def files(nothing_stays_open: None, tmp_path: Path) -> Iterator[Callable[[str], int]]:
    made: list[int] = []

    def open_file(text: str) -> int:
        path = tmp_path / secrets.token_hex(4)
        path.write_text(text)
        made.append(os.open(path, os.O_RDONLY))
        return made[-1]

    yield open_file
    for each in made:
        os.close(each)


def text_of(descriptor: int) -> str:
    try:
        assert not os.get_inheritable(descriptor)
        return os.pread(descriptor, 100, 0).decode()
    finally:
        os.close(descriptor)


def test_files_go_there_in_order(exchange: Exchange, files: Callable[[str], int]) -> None:
    mark = token()
    sent = [files(str(number)) for number in range(150)]
    exchange.give(mark, sent)
    assert [text_of(each) for each in take(exchange.far.fileno(), mark, 150)] == [
        *map(str, range(150))
    ]


def test_one_comes_back(exchange: Exchange, files: Callable[[str], int]) -> None:
    mark = token()
    bring(exchange.far.fileno(), mark, files("result"))
    assert text_of(exchange.fetch(mark)) == "result"


def test_what_an_unread_call_left_is_skipped(
    exchange: Exchange, files: Callable[[str], int]
) -> None:
    exchange.give(token(), [files("old"), files("older")])
    mark = token()
    exchange.give(mark, [files("new")])
    assert [text_of(each) for each in take(exchange.far.fileno(), mark, 1)] == ["new"]


def test_parts_that_are_missing(exchange: Exchange, files: Callable[[str], int]) -> None:
    mark = token()
    exchange.give(mark, [files("one")])
    with pytest.raises(HandoverError, match="1 of 2"):
        take(exchange.far.fileno(), mark, 2)
    with pytest.raises(HandoverError, match="0 of 1"):
        take(exchange.far.fileno(), mark, 1)


def rights(end: socket.socket, data: bytes, descriptors: list[int]) -> None:
    numbers = array.array("i", descriptors)
    end.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])


Write = Callable[[socket.socket, bytes, int], object]


@pytest.mark.parametrize(
    "write",
    [
        lambda end, mark, _: None,
        lambda end, mark, _: end.close(),
        lambda end, mark, _: end.shutdown(socket.SHUT_RDWR),
        lambda end, mark, _: end.send(mark),
        lambda end, mark, _: end.send(b"x" * 5),
        lambda end, mark, _: end.send(b"x" * 100_000),
        lambda end, mark, file: rights(end, b"x", [file]),
        lambda end, mark, file: rights(end, token(), [file]),
        lambda end, mark, file: rights(end, mark, [file] * 2),
        lambda end, mark, file: rights(end, mark, [file] * 65),
        lambda end, mark, file: rights(end, mark, [file] * 250),
        lambda end, mark, file: [rights(end, mark, [file]) for _ in range(2)],
        lambda end, mark, file: [end.send(b"x"), rights(end, mark, [file])],
        lambda end, mark, file: [rights(end, mark, [file]), end.send(b"x")],
        lambda end, mark, file: [rights(end, mark, [file] * 60) for _ in range(8)],
    ],
)
def test_a_child_that_writes_garbage(
    exchange: Exchange, files: Callable[[str], int], write: Write
) -> None:
    mark, descriptor = token(), files("x")
    exchange.far.setblocking(False)
    held = opened()
    write(exchange.far, mark, descriptor)
    with pytest.raises(HandoverError) as refused:
        exchange.fetch(mark)
    assert refused.value.why
    assert opened() <= held


@pytest.mark.parametrize("garbage", [b"x", b"x" * TOKEN, b"x" * 50_000])
def test_after_garbage_the_next_call_is_heard(
    exchange: Exchange, files: Callable[[str], int], garbage: bytes
) -> None:
    exchange.far.send(garbage)
    with pytest.raises(HandoverError):
        exchange.fetch(token())
    mark = token()
    bring(exchange.far.fileno(), mark, files("result"))
    assert text_of(exchange.fetch(mark)) == "result"


def test_what_was_left_behind_is_cleared(exchange: Exchange, files: Callable[[str], int]) -> None:
    bring(exchange.far.fileno(), token(), files("old"))
    exchange.far.send(b"garbage")
    exchange.clear()
    mark = token()
    bring(exchange.far.fileno(), mark, files("new"))
    assert text_of(exchange.fetch(mark)) == "new"


def test_an_end_that_was_released(files: Callable[[str], int]) -> None:
    exchange = Exchange()
    exchange.release()
    with pytest.raises(HandoverError):
        exchange.give(token(), [files("x")])
    with pytest.raises(HandoverError):
        exchange.fetch(token())
    exchange.close()
