"""Events are split the same however their bytes are cut, and within limits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.providers.sse import Event, EventSplitter
from tests.providers.served import in_chunks


def split(*pieces: bytes, **caps: int) -> list[Event]:
    splitter = EventSplitter(**caps)
    events = [event for piece in pieces for event in splitter.feed(piece)]
    return [(name, data.strip()) for name, data in [*events, *splitter.end()]]


def flood(splitter: EventSplitter, piece: bytes) -> None:
    for _ in range(10_000):
        splitter.feed(piece)


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [("", b"a"), ("", b"b")]),
        (b"data:a\n\n", [("", b"a")]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [("", b"a"), ("", b"b")]),
        (b"data: a\r\rdata: b\r\r", [("", b"a"), ("", b"b")]),
        (b"\xef\xbb\xbfdata: a\n\n", [("", b"a")]),
        (b": wait\n\n: wait\n\ndata: a\n\n", [("", b"a")]),
        (b"event: error\ndata: a\n\ndata: b\n\n", [("error", b"a"), ("", b"b")]),
        (b"data: [1,\ndata: 2]\n\n", [("", b"[1,\n2]")]),
        (b"id: 7\nretry: 10\ndata: a\n\n", [("", b"a")]),
        (b"data: a\n\ndata: b", [("", b"a"), ("", b"b")]),
        (b"data: a\n\ndata: b\n", [("", b"a"), ("", b"b")]),
        (b"event: ping\n\n", []),
        (b"", []),
    ],
)
def test_dialects(body: bytes, events: list[Event]) -> None:
    for size in (1, 2, 5, len(body) + 1):
        assert split(*in_chunks(body, size)) == events, size


def test_an_event_is_out_with_its_last_byte() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: a\n") == []
    assert splitter.feed(b"\n") == [("", b"a")]
    # A carriage return ends a line also when a line feed may follow.
    assert splitter.feed(b"data: b\r\r") == [("", b"b")]
    assert splitter.feed(b"\ndata: c\r\n\r") == [("", b"c")]
    assert splitter.feed(b"\ndata: d\n\n") == [("", b"d")]


def test_a_carriage_return_ends_a_line_also_where_line_feeds_do() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b": ready\n\n") == []
    assert splitter.feed(b"data: a\rdata: b\n\n") == [("", b"a\nb")]


def test_what_is_no_event_is_kept_to_be_told() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"<html>\n<title>Gateway</title>\n" + b"x\n" * 9000) == []
    assert splitter.stray.startswith(b"<html>\n<title>Gateway")
    assert len(splitter.stray) <= 4096


LINES = st.lists(
    st.tuples(st.sampled_from(["", "error", "message_stop"]), st.text(min_size=1, max_size=20))
)


@settings(max_examples=200, deadline=None)
@given(LINES, st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(1, 12)), st.booleans())
def test_cuts_change_nothing(
    told: list[tuple[str, str]], end: str, cuts: list[int], comments: bool
) -> None:
    body = b""
    for name, text in told:
        lines = [f"event: {name}"] if name else []
        lines += [": still here"] if comments else []
        lines += [f"data: {line}" for line in text.replace("\r", "\n").split("\n")]
        body += end.join([*lines, "", ""]).encode()
    pieces = []
    rest = body
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    whole = split(body)
    assert split(*pieces, rest) == whole
    assert split(*in_chunks(body, 5)) == whole
    expected = [(n, t.replace("\r", "\n").encode().strip()) for n, t in told]
    assert whole == expected


def test_an_endless_line_is_given_up() -> None:
    splitter = EventSplitter(event_cap=1000, answer_cap=10**6)
    with pytest.raises(ProviderError) as caught:
        flood(splitter, b"data: " + b"x" * 50)
    assert caught.value.fault == "too_large"
    assert not caught.value.retryable
    assert splitter.received < 1200


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 50 + b"\n", b"data: x\n\n"])
def test_an_endless_event_or_answer_is_given_up(piece: bytes) -> None:
    splitter = EventSplitter(event_cap=1000, answer_cap=5000)
    with pytest.raises(ProviderError) as caught:
        flood(splitter, piece)
    assert caught.value.fault == "too_large"
    assert splitter.received <= 5100


def test_one_big_piece_is_held_to_the_cap_of_an_event() -> None:
    splitter = EventSplitter(event_cap=100)
    splitter.feed(b"data: a\n\n")
    with pytest.raises(ProviderError):
        splitter.feed(b"data: " + b"x" * 200 + b"\n\n")
