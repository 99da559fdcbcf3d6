"""Cassettes: what is recorded comes again, keys are on none, and a miss asks nobody."""

from __future__ import annotations

import json
import stat
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest

from ovagent_jupyter.errors import ProviderError, StreamInterrupted
from ovagent_jupyter.events import Category
from ovagent_jupyter.gateway.layer import Call
from ovagent_jupyter.gateway.recorded import (
    delta_from,
    delta_record,
    error_from,
    error_record,
    message_from,
    message_record,
    reply_from,
)
from ovagent_jupyter.gateway.replay import Order, Recorder, Replay, read_cassette
from ovagent_jupyter.messages import (
    ImagePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolResult,
    Usage,
)
from ovagent_jupyter.providers.client import ModelDelta, Reply, ToolProgress
from ovagent_jupyter.storage.redaction import Redactor
from tests.gateway.layered import KEY, ask, through
from tests.gateway.played import (
    Clock,
    Ears,
    Played,
    answer,
    call,
    end,
    fails,
    read,
    read_until_failure,
    said,
)

SECRET = "hunter2-hunter2"
KEYS = Redactor({"SOME_API_KEY": SECRET})


def nobody(asked: Call) -> AsyncGenerator[ModelDelta, None]:
    """A service that must not be asked."""
    raise AssertionError(f"asked: {asked}")


def player(path: Path, order: Order = "loose", **more: object) -> Replay:
    """A replay of a cassette."""
    return Replay(path, KEYS, order=order, **more)  # type: ignore[arg-type]


async def record(path: Path, client: Played, *asked: Call) -> None:
    """Make calls and write them down; failures too."""
    recorder = Recorder(path, KEYS)
    for each in asked:
        try:
            async for _ in through(recorder, client, each):
                pass
        except ProviderError:
            continue


async def test_an_answer_comes_again_without_its_price(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    client = Played(
        [[*said("Hel"), ModelDelta(reasoning="hm"), end("Hello", Usage(7, 8), cost=1.5)]]
    )
    await record(path, client, ask("a"))
    text, reply = await read(player(path)(ask("a"), nobody))
    assert (text, reply.message.text) == ("Hel", "Hello")
    assert reply.usage == Usage(7, 8)
    assert (reply.cost, reply.details["replayed"]) == (0.0, True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_failures_come_again(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    await record(path, Played([fails("rate_limited", usage=Usage(5, 0), after=2.5)]), ask("a"))
    with pytest.raises(ProviderError) as caught:
        await read(player(path)(ask("a"), nobody))
    error = caught.value
    assert (error.fault, error.retryable, error.retry_after) == ("rate_limited", True, 2.5)
    assert error.usage == Usage(5, 0)


async def test_an_answer_that_broke_off_does_so_again(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    broken = StreamInterrupted(
        "It broke.", partial=Message("assistant", (TextPart("Hel"),)), usage=Usage(3, 1)
    )

    async def breaks() -> AsyncGenerator[ModelDelta, None]:
        yield said("Hel")[0]
        raise broken

    with pytest.raises(StreamInterrupted):
        await read(Recorder(path, KEYS)(ask("a"), lambda _: breaks()))
    pieces, error = await read_until_failure(player(path)(ask("a"), nobody))
    assert [piece.text for piece in pieces] == ["Hel"]
    assert isinstance(error, StreamInterrupted)
    assert error.partial == broken.partial
    assert error.usage == Usage(3, 1)


async def test_an_answer_that_was_stopped_ends_where_it_did(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    stream = through(Recorder(path, KEYS), client := Played([answer("Hel ", "lo")]), ask("a"))
    await anext(stream)
    await stream.aclose()
    assert client.closed == 1
    _, error = await read_until_failure(player(path)(ask("a"), nobody))
    assert isinstance(error, StreamInterrupted)
    assert error.partial == Message("assistant", (TextPart("Hel "),))


async def test_loose_finds_calls_in_any_order_and_the_same_one_again(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    client = Played([answer("1"), answer("2"), answer("3")])
    await record(path, client, ask("a"), ask("b"), ask("a"))
    layer = player(path)
    texts = [(await read(layer(ask(text), nobody)))[0] for text in ("b", "a", "a", "a")]
    assert texts == ["2", "1", "3", "3"]


async def test_strict_wants_the_order(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    await record(path, Played([answer("1"), answer("2")]), ask("a"), ask("b"))
    layer = player(path, "strict")
    with pytest.raises(ProviderError, match="no answer to this call"):
        await read(layer(ask("b"), nobody))
    assert [(await read(layer(ask(text), nobody)))[0] for text in ("a", "b")] == ["1", "2"]
    with pytest.raises(ProviderError) as caught:
        await read(layer(ask("a"), nobody))
    assert "all are used" in caught.value.why


async def test_a_miss_says_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    await record(path, Played([answer("1")]), ask("a"), ask("b", seed=4))
    for asked, where in (
        (ask("c"), "message 0"),
        (ask("b", seed=5), "call 2 comes next, or nearest; it differs in seed"),
        (replace(call("a"), request=replace(ask("a").request, model="other")), "model"),
    ):
        with pytest.raises(ProviderError) as caught:
            await read(player(path)(asked, nobody))
        assert where in caught.value.why
        assert caught.value.next_step


async def test_pace_is_as_recorded_or_faster(tmp_path: Path) -> None:
    path, clock = tmp_path / "c.jsonl", Clock()
    recorder = Recorder(path, KEYS, clock=clock)

    async def slow() -> AsyncGenerator[ModelDelta, None]:
        for delta in (*said("a ", "b "), end("a b ")):
            clock.now += 2
            yield delta

    await read(recorder(ask("a"), lambda _: slow()))
    for pace, waits in ((None, []), (1.0, [2.0, 2.0, 2.0]), (2.0, [1.0, 1.0, 1.0])):
        slept = Clock()
        layer = player(path, pace=pace, sleep=slept.sleep)
        await read(layer(ask("a"), nobody))
        assert slept.slept == waits


async def test_no_key_is_on_a_cassette(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    half = len(KEY) // 2
    progress = [
        ModelDelta(tool_progress=ToolProgress(0, "run", f'{{"code": "{KEY[:half]}')),
        ModelDelta(tool_progress=ToolProgress(0, "run", f'{KEY[half:]}"}}')),
    ]
    tool = ModelDelta(
        tool_call=ToolCall("c", "run", {"code": f"x = '{KEY}'"}, provider_data={"a": KEY})
    )
    reply = Reply(
        message=Message("assistant", (TextPart(f"It is {KEY}"), ReasoningPart(SECRET))),
        details={"headers": {"authorization": f"Bearer {KEY}"}, "echo": SECRET},
    )
    pieces = [
        *said("It is ", KEY[:half], KEY[half:], " and ", SECRET[:3], SECRET[3:]),
        ModelDelta(reasoning=SECRET[:5]),
        ModelDelta(reasoning=SECRET[5:]),
        *progress,
        tool,
        ModelDelta(finish_reason="stop", reply=reply),
    ]
    wrong = ProviderError(f"401 for {KEY}", why=f"The key {SECRET} is not valid.", fault="key")
    wrong.partial = Message("assistant", (TextPart(KEY),))
    client = Played([pieces, [wrong]])
    asked = ask(f"My keys are {KEY} and {SECRET}.")
    await record(path, client, asked, asked)
    text = path.read_text("utf-8")
    assert KEY not in text
    assert SECRET not in text
    assert KEY[half:] not in text
    assert SECRET[5:] not in text
    assert text.count("[redacted]") > 8
    layer = player(path)
    told, _ = await read(layer(asked, nobody))
    assert told == "It is [redacted] and [redacted]"
    with pytest.raises(ProviderError, match=r"401 for \[redacted\]"):
        await read(layer(asked, nobody))
    with pytest.raises(ProviderError) as caught:
        await read(layer(ask("other"), nobody))
    assert KEY not in str(caught.value)


async def test_torn_and_strange_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    await record(path, Played([answer("1"), answer("2")]), ask("a"), ask("b"))
    whole = path.read_bytes()
    strange = [
        b"[]",
        b'{"v": 1}',
        b'{"v": 2, "key": "x"}',
        b'{"v":1,"key":"k","request":{},"deltas":[[0,{"call":3}]]}',
    ]
    path.write_bytes(b"\n".join(strange) + b"\n" + whole[:-40])
    assert [
        recording.request["messages"][0]["parts"][0]["text"] for recording in read_cassette(path)
    ] == ["a"]
    assert (await read(player(path)(ask("a"), nobody)))[0] == "1"
    await record(path, Played([answer("3")]), ask("c"))
    assert len(list(read_cassette(path))) == 2


@pytest.mark.parametrize("content", [None, "", "junk\n"])
def test_an_empty_cassette_is_an_error(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "c.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ProviderError, match="nothing to replay"):
        player(path)


async def test_a_cassette_that_cannot_be_written_ends_no_call(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    recorder, ears = Recorder(tmp_path / "file" / "c.jsonl", KEYS), Ears()
    for _ in range(2):
        text, _ = await read(through(recorder, Played([answer("x")]), replace(ask("a"), tell=ears)))
        assert text == "x"
    assert len(ears.of(Category.NOTICE)) == 1


# -- records ------------------------------------------------------------------------------------

MESSAGE = Message(
    "assistant",
    (
        TextPart("µ"),
        ReasoningPart("hm", {"signature": "s"}),
        ImagePart(b"\x00\xff", "image/jpeg"),
        ToolCall("c", "run", {"a": [1]}, "", {"b": {"c": None}}),
        ToolResult("c", "done", is_error=True),
    ),
    "played",
)


def test_messages_and_pieces_come_back_the_same() -> None:
    through_json = json.loads(json.dumps(message_record(MESSAGE)))
    assert message_from(through_json) == MESSAGE
    for delta in (
        ModelDelta(text="a"),
        ModelDelta(text="a", reasoning="b"),
        ModelDelta(tool_progress=ToolProgress(1, "t", "{")),
        ModelDelta(tool_call=ToolCall("c", "run", {"a": 1})),
    ):
        assert delta_from(json.loads(json.dumps(delta_record(delta)))) == delta


def test_failures_come_back_the_same() -> None:
    error = ProviderError("w", fault="server", status_code=500, usage=Usage(1, 2), why="y")
    error.cost, error.partial = 0.5, MESSAGE
    assert vars(error_from(json.loads(json.dumps(error_record(error))))) == vars(error)


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"message": 1, "usage": {}},
        {"message": {"role": "x", "parts": [{"kind": "?"}], "provider": ""}, "usage": {}},
    ],
)
def test_what_is_no_answer_is_a_value_error(record: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"no (answer|message)"):
        reply_from(record)
