"""Keys that are planted everywhere, and every place where one could come out again."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import zlib
from collections.abc import AsyncGenerator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ovagent_jupyter.config.llm import Budget
from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.events import Emitter
from ovagent_jupyter.gateway.cache import ResponseCache
from ovagent_jupyter.gateway.cost import Prices, Pricing
from ovagent_jupyter.gateway.layer import Call, Next, around
from ovagent_jupyter.gateway.metrics import Metrics
from ovagent_jupyter.gateway.quota import Quota
from ovagent_jupyter.gateway.replay import Recorder, Replay
from ovagent_jupyter.gateway.tracing import Tracing
from ovagent_jupyter.gateway.transforms import Transforms
from ovagent_jupyter.gateway.validation import Validation
from ovagent_jupyter.gateway.variants import Trial, Variant
from ovagent_jupyter.providers.credentials import Secret
from ovagent_jupyter.storage.day_ledger import DayLedger
from ovagent_jupyter.storage.redaction import Redactor
from ovagent_jupyter.storage.response_cache import DiskStore
from ovagent_jupyter.storage.session_log import SessionLog
from tests.gateway.layered import ask, service
from tests.gateway.played import Played, answer, read

KEY = "planted-9f8e7d6c5b4a39281706"
"""Of no known shape: only who knows the key can take it out."""
REDACTOR = Redactor({"SOME_API_KEY": KEY})
HOME = replace(
    service(prices=(1.0, 2.0)), key=Secret(KEY, "SOME_API_KEY"), headers={"X-Api-Key": KEY}
)


class Stack:
    """All our layers, and all the files that they write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spans = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.store = DiskStore(folder / "answers.sqlite")
        prices = Prices()
        ledger = DayLedger(folder / "spent")
        self.layers = [
            Tracing(content=True, redactor=REDACTOR, provider=provider),
            Metrics(),
            Recorder(folder / "cassette.jsonl", REDACTOR),
            Trial("e", [Variant(name="only", backend=HOME)]),
            ResponseCache(self.store, sampled=True, redactor=REDACTOR),
            Transforms(["strip"]),
            Validation(),
            Quota({"day": Budget(requests=50, money=5.0)}, prices, ledger=ledger),
            Pricing(prices),
        ]
        self.log = SessionLog(folder / "sessions", "s", REDACTOR)

    def begin(self, client: Played) -> Next:
        """The first of the layers around a client."""

        def innermost(call: Call) -> AsyncGenerator:
            return client.stream(call.request)

        begin: Next = innermost
        for layer in reversed(self.layers):
            begin = around(layer, begin)
        return begin

    def call(self, text: str) -> Call:
        """A call whose events go to the session log."""
        return replace(ask(text), tell=Emitter(self.log.append, "s", "t"))


@pytest.fixture
def stack(tmp_path: Path):
    """The layers."""
    stack = Stack(tmp_path)
    yield stack
    stack.store.close()


async def test_a_planted_key_comes_out_nowhere(
    stack: Stack, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = ProviderError("401", why=f"Incorrect API key: {REDACTOR.text(KEY)}", fault="key")
    client = Played([answer(f"You said {KEY}."), [wrong], answer("harmless")])
    begin = stack.begin(client)
    errors = []
    for text in (f"my key is {KEY}", "hello", "again"):
        try:
            await read(begin(stack.call(text)))
        except ProviderError as error:
            errors.append(f"{error!r} {error} {vars(error)}")
    assert len(client.asked) == 3
    assert len(errors) == 1
    stream = begin(stack.call(f"stop after {KEY}"))
    await anext(stream)
    await stream.aclose()

    shown = [repr(layer) for layer in stack.layers] + [repr(HOME.key), *errors, caplog.text]
    shown += [span.to_json() for span in stack.spans.get_finished_spans()]
    out = capsys.readouterr()
    shown += [out.out, out.err]
    with closing(sqlite3.connect(stack.folder / "answers.sqlite")) as db:
        rows = db.execute("SELECT key, value FROM answers").fetchall()
    shown += [key + zlib.decompress(value).decode() for key, value in rows]
    files = [path for path in stack.folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".jsonl", ".sqlite"}
    assert len(files) >= 4
    shown += [path.read_bytes().decode("latin-1") for path in files]
    assert len(rows) == 1
    assert any("[redacted]" in text for text in shown)
    assert [text for text in shown if KEY in text] == []


async def test_the_layers_together_replay_what_they_recorded(stack: Stack) -> None:
    client = Played([answer("one"), answer("two")])
    begin = stack.begin(client)
    texts = [(await read(begin(stack.call(text))))[0] for text in ("a", "b")]
    layer = Replay(stack.folder / "cassette.jsonl", REDACTOR, order="strict")
    again = around(layer, stack.begin(Played([[ProviderError("asked")]])))
    assert texts == ["one", "two"]
    assert [(await read(again(stack.call(text))))[0] for text in ("a", "b")] == texts


async def test_many_at_once_lose_and_mix_nothing(stack: Stack) -> None:
    """Fifty streams through every layer on one loop, a failure and a stop among them."""

    class Echo(Played):
        """Says what it was asked, piece by piece."""

        async def stream(self, asked):
            text = asked.messages[-1].text
            if text.endswith("7"):
                raise ProviderError(f"failed {text}", fault="server")
            for step in answer(*text):
                await asyncio.sleep(0)
                yield step

    begin = stack.begin(Echo([]))

    async def one(number: int) -> str:
        try:
            return (await read(begin(stack.call(f"question {number}"))))[0]
        except ProviderError as error:
            return error.what

    numbers = range(40)
    told = await asyncio.gather(*map(one, numbers))
    assert told == [
        f"failed question {number}" if str(number).endswith("7") else f"question {number}"
        for number in numbers
    ]
    quota = stack.layers[7]
    assert isinstance(quota, Quota)
    spent = quota.spent(stack.call("x"))["day"]
    assert spent.requests == 40
    lines = (stack.folder / "cassette.jsonl").read_text().splitlines()
    assert len({json.loads(line)["key"] for line in lines}) == 40
