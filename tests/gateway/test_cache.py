"""The cache: what is kept, what never is, and that it lies in no way in the way."""

from __future__ import annotations

import sqlite3
import stat
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ovagent_jupyter.errors import ProviderError, StorageError
from ovagent_jupyter.events import Category
from ovagent_jupyter.gateway.cache import MemoryStore, ResponseCache, Store
from ovagent_jupyter.gateway.layer import Call
from ovagent_jupyter.gateway.recorded import digest, request_record
from ovagent_jupyter.messages import (
    ImagePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolResult,
    Usage,
)
from ovagent_jupyter.providers.client import (
    AnswerSchema,
    FinishReason,
    ModelDelta,
    ModelRequest,
    Reply,
    ToolSchema,
)
from ovagent_jupyter.storage.redaction import Redactor
from ovagent_jupyter.storage.response_cache import DiskStore
from tests.gateway.layered import KEY, ask, service, through
from tests.gateway.played import (
    Clock,
    Ears,
    Played,
    answer,
    end,
    fails,
    read,
    read_until_failure,
    said,
)

COLD = {"temperature": 0.0}


@pytest.fixture(params=["memory", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each place to keep answers."""
    if request.param == "memory":
        yield MemoryStore()
        return
    with closing(DiskStore(tmp_path / "c" / "cache.db")) as disk:
        yield disk


async def test_the_same_question_is_asked_once(store: Store) -> None:
    layer, client = ResponseCache(store), Played([answer("Hel", "lo")])
    ears = Ears()
    first = await read(through(layer, client, ask(**COLD)))
    text, reply = await read(through(layer, client, replace(ask(**COLD), tell=ears)))
    assert len(client.asked) == 1
    assert text == first[0] == "Hello"
    assert reply.message == first[1].message
    assert (reply.cost, reply.usage, reply.details["cached"]) == (0.0, Usage(), True)
    assert reply.details["cached_usage"] == Usage(3, 2).as_record()
    (event,) = ears.of(Category.MODEL_ANSWERED)
    assert event.data["cached"] is True


async def test_all_parts_come_back_in_order(store: Store) -> None:
    message = Message(
        "assistant",
        (
            ReasoningPart("hm " * 300, {"signature": "abc"}),
            TextPart("words " * 200),
            ToolCall("c1", "run", {"deep": [{"a": [1, 2.5, None, "µ"]}]}, provider_data={"x": 1}),
            ToolCall("c2", "run", {}),
        ),
        "played",
    )
    reply = Reply(message=message, usage=Usage(9, 9), finish_reason="tool_calls", model="m")
    client = Played([[ModelDelta(finish_reason="tool_calls", reply=reply)]])
    layer = ResponseCache(store)
    await read(through(layer, client, ask(**COLD)))
    pieces = [delta async for delta in through(layer, client, ask(**COLD))]
    assert len(client.asked) == 1
    assert "".join(piece.reasoning for piece in pieces) == message.reasoning
    assert "".join(piece.text for piece in pieces) == message.text
    assert [piece.tool_call for piece in pieces if piece.tool_call] == list(message.tool_calls)
    assert len([piece for piece in pieces if piece.text]) > 1
    assert pieces[-1].reply is not None
    assert pieces[-1].reply.message == message


@pytest.mark.parametrize("temperature", [None, 0.7])
async def test_what_is_drawn_by_chance_is_kept_only_if_asked(temperature: float | None) -> None:
    client = Played([answer("x")])
    layer = ResponseCache(MemoryStore())
    lenient = ResponseCache(MemoryStore(), sampled=True)
    for _ in range(2):
        await read(through(layer, client, ask(temperature=temperature)))
    assert len(client.asked) == 2
    for _ in range(2):
        await read(through(lenient, client, ask(temperature=temperature)))
    assert len(client.asked) == 3


@pytest.mark.parametrize("reason", ["refused", "length", "context_full", "paused"])
async def test_what_is_no_whole_answer_is_not_kept(reason: FinishReason) -> None:
    client = Played([[end("x", reason=reason)]])
    layer = ResponseCache(MemoryStore())
    for _ in range(2):
        await read(through(layer, client, ask(**COLD)))
    assert len(client.asked) == 2


async def test_failures_empty_and_unreadable_answers_are_not_kept() -> None:
    unreadable = Reply(
        message=Message("assistant", (ToolCall("c", "run", {}, unreadable="{"),)),
        finish_reason="tool_calls",
    )
    scripts = [fails(), [*said("ha"), ProviderError("broke")], answer(" ")]
    scripts += [[ModelDelta(finish_reason="tool_calls", reply=unreadable)], answer("good")]
    client, layer = Played(scripts), ResponseCache(MemoryStore())
    for _ in range(2):
        await read_until_failure(through(layer, client, ask(**COLD)))
    for _ in range(3):
        await read(through(layer, client, ask(**COLD)))
    assert len(client.asked) == 5
    text, _ = await read(through(layer, client, ask(**COLD)))
    assert (text, len(client.asked)) == ("good", 5)


async def test_an_answer_that_is_stopped_is_not_kept(store: Store) -> None:
    layer, client = ResponseCache(store), Played([answer("Hel", "lo")])
    stream = through(layer, client, ask(**COLD))
    await anext(stream)
    await stream.aclose()
    await read(through(layer, client, ask(**COLD)))
    assert (len(client.asked), client.closed) == (2, 1)


async def test_answers_expire(tmp_path: Path) -> None:
    clock = Clock()
    memory, disk = MemoryStore(ttl=60, clock=clock), DiskStore(tmp_path / "c.db", clock=clock)
    for store in (memory, disk):
        layer, client = ResponseCache(store, ttl=60), Played([answer("x")])
        await read(through(layer, client, ask(**COLD)))
        clock.now += 59
        await read(through(layer, client, ask(**COLD)))
        assert len(client.asked) == 1
        clock.now += 2
        await read(through(layer, client, ask(**COLD)))
        assert len(client.asked) == 2
    disk.close()


async def test_who_answers_is_a_part_of_the_question() -> None:
    store = MemoryStore()
    client = Played([answer("x")])
    here, there = service(), service(url="http://127.0.0.1:10/v1")
    for backend in (here, there, replace(here, headers={"X-Org": "2"}), None):
        await read(through(ResponseCache(store), client, ask(to=backend, **COLD)))
    await read(through(ResponseCache(store, whom="a"), client, ask(**COLD)))
    assert len(client.asked) == 5
    await read(through(ResponseCache(store), client, ask(to=here, **COLD)))
    assert len(client.asked) == 5


# -- the key ------------------------------------------------------------------------------------


def said_with(*parts: Message, **settings: object) -> ModelRequest:
    """A request of some messages."""
    return ModelRequest(model="m", messages=parts, **settings)  # type: ignore[arg-type]


def user(text: str) -> Message:
    """What a user says."""
    return Message("user", (TextPart(text),))


def test_every_setting_that_changes_the_answer_changes_the_key() -> None:
    plain = said_with(user("a"))
    tool = ToolSchema("t", "does", {"type": "object"})
    others = [
        said_with(user("b")),
        said_with(Message("system", (TextPart("a"),))),
        said_with(user("a"), user("")),
        said_with(user("a"), temperature=0.0),
        said_with(user("a"), seed=0),
        said_with(user("a"), seed=1),
        said_with(user("a"), stop=("x",)),
        said_with(user("a"), max_output_tokens=5),
        said_with(user("a"), reasoning_effort="low"),
        said_with(user("a"), tools=(tool,)),
        said_with(user("a"), tools=(tool,), tool_choice="none"),
        said_with(user("a"), tools=(replace(tool, parameters={"type": "array"}),)),
        said_with(user("a"), answer_schema=AnswerSchema("s", {"type": "object"})),
        said_with(Message("user", (TextPart("a"), ImagePart(b"1")))),
        said_with(Message("user", (TextPart("a"), ImagePart(b"2")))),
        replace(plain, model="n"),
    ]
    keys = [digest(request_record(each)) for each in (plain, *others)]
    assert len(set(keys)) == len(keys)
    assert digest(request_record(replace(plain, streamed=False))) == keys[0]


def deep(level: int, last: object) -> dict[str, object]:
    """A mapping that nests."""
    return {"a": deep(level - 1, last)} if level else {"a": last}


def test_what_differs_only_in_the_depth_differs() -> None:
    keys = {
        digest(request_record(said_with(Message("assistant", (ToolCall("c", "t", deep(60, n)),)))))
        for n in (1, 2)
    }
    assert len(keys) == 2


def test_ids_and_data_of_a_provider_are_no_part_of_the_question() -> None:
    def talk(one: str, two: str, data: dict[str, object], crossed: bool = False) -> str:
        calls = (ToolCall(one, "t", {}, provider_data=data), ToolCall(two, "t", {"a": 1}))
        results = (
            ToolResult(two if crossed else one, "1"),
            ToolResult(one if crossed else two, "2"),
        )
        return digest(
            request_record(
                said_with(user("a"), Message("assistant", calls, "p"), Message("tool", results))
            )
        )

    same = talk("call_1", "call_2", {})
    assert talk("call_x", "call_y", {"signature": "s"}) == same
    assert talk("call_1", "call_2", {}, crossed=True) != same


# -- the file -----------------------------------------------------------------------------------


def test_file_is_private_and_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "cache.db"
    store = DiskStore(path)
    store.put("k", b"value", 60)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    other = DiskStore(path)
    assert other.get("k") == b"value"
    store.close()
    other.clear()
    assert other.get("k") is None
    other.close()


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    clock = Clock()
    store = DiskStore(tmp_path / "cache.db", size_cap=400_000, clock=clock)
    for number in range(10):
        clock.now += 100
        store.put(f"k{number}", bytes([number]) * 50_000, 1e6)
        assert store.get("k0") is not None, number
    kept = [number for number in range(10) if store.get(f"k{number}") is not None]
    assert kept[0] == 0
    assert kept[-1] == 9
    assert 3 <= len(kept) <= 8
    store.put("huge", bytes(500_000), 60)
    assert store.get("huge") is None
    store.close()


@pytest.mark.parametrize(
    "damage", [b"no database at all " * 500, b"SQLite format 3\0" + b"x" * 9000]
)
def test_a_file_that_is_no_database_is_put_aside(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "cache.db"
    path.write_bytes(damage)
    store = DiskStore(path)
    store.put("k", b"v", 60)
    assert store.get("k") == b"v"
    assert path.with_name("cache.db.broken").read_bytes() == damage
    store.close()


async def test_a_cache_that_stops_working_ends_no_call(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "cache.db")
    ears, client = Ears(), Played([answer("x")])
    layer = ResponseCache(store)
    store.close()
    asked = replace(ask(**COLD), tell=ears)
    for _ in range(3):
        text, _ = await read(through(layer, client, asked))
        assert text == "x"
    assert len(ears.of(Category.NOTICE)) == 1


def test_a_place_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        DiskStore(tmp_path / "file" / "cache.db")


@pytest.mark.parametrize(
    "junk", [b"", b"junk", zlib.compress(b"[0, {}]"), zlib.compress(b'[1,{"a":1}]')]
)
async def test_what_cannot_be_read_is_asked_anew(junk: bytes) -> None:
    class Junk(MemoryStore):
        """Has junk until something is put into it."""

        def get(self, key: str) -> bytes | None:
            """Junk, or what was put."""
            return super().get(key) or junk

    client, layer = Played([answer("x")]), ResponseCache(Junk())
    for _ in range(2):
        text, _ = await read(through(layer, client, ask(**COLD)))
        assert text == "x"
    assert len(client.asked) == 1


async def test_an_answer_with_a_key_in_it_is_not_kept(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "cache.db")
    layer = ResponseCache(store, redactor=Redactor({"SOME_API_KEY": "hunter2-hunter2"}))
    for told in (KEY, "hunter2-hunter2"):
        client = Played([answer(f"It is {told}.")])
        await read(through(layer, client, ask(told, **COLD)))
    await read(through(layer, Played([answer("harmless")]), ask(f"my key: {KEY}", **COLD)))
    store.close()
    with closing(sqlite3.connect(tmp_path / "cache.db")) as db:
        rows = db.execute("SELECT key, value FROM answers").fetchall()
    assert len(rows) == 1
    texts = [zlib.decompress(value).decode() + key for key, value in rows]
    assert "harmless" in texts[0]
    assert KEY not in texts[0]
    raw = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert KEY.encode() not in raw


def test_calls_that_are_not_kept_pass_untouched() -> None:
    client = Played([answer("x")])
    stream = client.stream(ask().request)

    def begin(_: Call) -> object:
        return stream

    assert ResponseCache(MemoryStore())(ask(), begin) is stream  # type: ignore[arg-type]
