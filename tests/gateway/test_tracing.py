"""Spans as OpenTelemetry's own SDK records them, and nothing at all without it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.gateway import semconv
from ovagent_jupyter.gateway.layer import Call
from ovagent_jupyter.gateway.tracing import Tracing
from ovagent_jupyter.messages import ImagePart, Message, TextPart, ToolCall, ToolResult, Usage
from ovagent_jupyter.providers.client import ModelDelta, ToolSchema
from ovagent_jupyter.providers.credentials import Secret
from ovagent_jupyter.storage.redaction import Redactor
from tests.gateway.layered import KEY, ask, service, through
from tests.gateway.played import Clock, Played, answer, end, fails, read, read_until_failure, said


class Recorded:
    """A tracer provider, and what it has recorded."""

    def __init__(self) -> None:
        self._kept = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._kept))

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """What has ended."""
        return self._kept.get_finished_spans()

    @property
    def attributes(self) -> dict[str, object]:
        """Those of the only span."""
        (span,) = self.spans
        return dict(span.attributes or {})


@pytest.mark.skipif(
    tuple(map(int, version("opentelemetry-api").split(".")[:2])) < (1, 45),
    reason="The package of names that comes with it lacks newer ones.",
)
def test_our_names_are_those_of_the_conventions() -> None:
    """But for those that are newer than the package that once held them."""
    known = {getattr(gen_ai_attributes, name) for name in dir(gen_ai_attributes) if name.isupper()}
    known |= {getattr(gen_ai_metrics, name) for name in dir(gen_ai_metrics) if name.isupper()}
    ours = {
        value for name, value in vars(semconv).items() if name.isupper() and name != "PROVIDERS"
    }
    assert {each for each in ours if each.startswith("gen_ai.")} - known == {
        "gen_ai.request.reasoning.level"
    }
    values = {each.value for each in gen_ai_attributes.GenAiProviderNameValues}
    assert set(semconv.PROVIDERS.values()) - values <= {"moonshot_ai"}


async def test_a_span_tells_who_was_asked_and_what_came() -> None:
    recorded, clock = Recorded(), Clock()
    backend = service("google", "gemini-4", url="https://example.org:8443/v1")
    asked = ask(to=backend, max_output_tokens=50, temperature=0.5, stop=("x",), seed=7)
    usage = Usage(100, 20, cached_tokens=30, cache_write_tokens=5, reasoning_tokens=4)
    last = end("Hello", usage, cost=0.25)
    assert last.reply is not None
    reply = replace(
        last.reply, model="gemini-4-001", response_id="r1", provider="google", backend="g"
    )

    class Slow(Played):
        """Takes a second for its first piece."""

    client = Slow([[*said("Hel", "lo"), replace(last, reply=reply)]])

    def begin(call: Call):
        clock.now += 1.0
        return client.stream(call.request)

    await read(Tracing(provider=recorded.provider, clock=clock)(asked, begin))
    (span,) = recorded.spans
    assert (span.name, span.kind) == ("chat any", SpanKind.CLIENT)
    assert span.status.status_code is StatusCode.UNSET
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "gcp.gemini",
        "gen_ai.request.model": "any",
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.stop_sequences": ("x",),
        "gen_ai.request.seed": 7,
        "gen_ai.response.model": "gemini-4-001",
        "gen_ai.response.id": "r1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 1.0,
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 30,
        "gen_ai.usage.cache_creation.input_tokens": 5,
        "gen_ai.usage.reasoning.output_tokens": 4,
        "gen_ai.conversation.id": "s",
        "ovagent.turn.id": "t",
        "ovagent.call.id": asked.call_id,
        "ovagent.backend": "g",
        "ovagent.cost.usd": 0.25,
        "server.address": "example.org",
        "server.port": 8443,
    }
    assert {name: recorded.attributes.get(name) for name in expected} == expected


async def test_what_was_said_is_in_it_only_if_asked_and_never_a_key() -> None:
    call = ToolCall("c", "run", {"code": f"key = '{KEY}'"})
    messages = (
        Message("system", (TextPart("Be kind."),)),
        Message("user", (TextPart(f"use {KEY}"), ImagePart(b"12345"))),
        Message("assistant", (call,)),
        Message("tool", (ToolResult("c", "done"),)),
    )
    asked = ask(tools=(ToolSchema("run", "Runs."),))
    asked = replace(
        asked,
        request=replace(asked.request, messages=messages),
        backend=replace(service(), key=Secret(KEY), headers={"Authorization": KEY}),
    )
    client = Played([answer(f"I saw {KEY}."), fails("server")])
    silent, told = Recorded(), Recorded()
    await read(through(Tracing(provider=silent.provider), client, asked))
    assert "kind" not in json.dumps(silent.attributes, default=str)
    client = Played([answer(f"I saw {KEY}.")])
    redactor = Redactor({})
    await read(
        through(Tracing(content=True, redactor=redactor, provider=told.provider), client, asked)
    )
    for recorded in (silent, told):
        assert KEY not in json.dumps([span.to_json() for span in recorded.spans])
    attributes = told.attributes
    system = json.loads(str(attributes["gen_ai.system_instructions"]))
    assert system == [{"type": "text", "content": "Be kind."}]
    said_before = json.loads(str(attributes["gen_ai.input.messages"]))
    assert [message["role"] for message in said_before] == ["user", "assistant", "tool"]
    assert said_before[0]["parts"][1]["content"] == "5 bytes"
    assert said_before[2]["parts"][0] == {
        "type": "tool_call_response",
        "id": "c",
        "response": "done",
    }
    (answered,) = json.loads(str(attributes["gen_ai.output.messages"]))
    assert answered["parts"] == [{"type": "text", "content": "I saw [redacted]."}]
    assert answered["finish_reason"] == "stop"
    assert json.loads(str(attributes["gen_ai.tool.definitions"]))[0]["name"] == "run"


async def test_a_failure_is_an_error_without_a_stack_or_a_key() -> None:
    recorded = Recorded()
    error = ProviderError(f"401 with {KEY}", fault="key", status_code=401, usage=Usage(9, 0))
    error.cost = 0.125
    stream = through(Tracing(provider=recorded.provider), Played([[error]]), ask())
    _, caught = await read_until_failure(stream)
    assert caught.fault == "key"
    (span,) = recorded.spans
    assert span.status.status_code is StatusCode.ERROR
    assert KEY not in str(span.status.description)
    assert "[redacted]" in str(span.status.description)
    assert span.events == ()
    assert recorded.attributes["gen_ai.usage.input_tokens"] == 9


async def test_error_type_is_the_status_or_the_fault() -> None:
    for script, kind in (
        (fails("timeout"), "timeout"),
        ([ProviderError("x", status_code=529)], "529"),
    ):
        recorded = Recorded()
        stream = through(Tracing(provider=recorded.provider), Played([script]), ask())
        if isinstance(script[0], ProviderError) and script[0].status_code:

            async def broken(error: ProviderError = script[0]):
                raise error
                yield

            stream = Tracing(provider=recorded.provider)(ask(), lambda _: broken())
        await read_until_failure(stream)
        assert recorded.attributes["error.type"] == kind


async def test_stopping_and_cancelling_end_the_span() -> None:
    recorded = Recorded()
    layer = Tracing(provider=recorded.provider)
    client = Played([answer("a", "b"), [asyncio.Event()]])
    stream = through(layer, client, ask())
    await anext(stream)
    await stream.aclose()
    task = asyncio.create_task(read(through(layer, client, ask())))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    kinds = [dict(span.attributes or {}).get("error.type") for span in recorded.spans]
    assert kinds == ["cancelled", "cancelled"]
    assert (client.closed, client.cancelled) == (1, 1)


async def test_what_is_begun_below_is_a_child_and_what_is_above_is_not() -> None:
    recorded = Recorded()
    tracer = recorded.provider.get_tracer("test")
    seen: list[object] = []

    async def begin(call: Call):
        with tracer.start_as_current_span("POST"):
            pass
        for delta in answer("a", "b"):
            seen.append(get_current_span())
            assert isinstance(delta, ModelDelta)
            yield delta

    with tracer.start_as_current_span("turn") as turn:
        async for _ in Tracing(provider=recorded.provider)(ask(), begin):
            assert get_current_span() is turn
    post, chat, outer = recorded.spans
    assert (post.name, chat.name, outer.name) == ("POST", "chat any", "turn")
    assert post.parent is not None
    assert chat.parent is not None
    assert post.parent.span_id == chat.context.span_id
    assert chat.parent.span_id == outer.context.span_id


@pytest.mark.parametrize("provider", [None, TracerProvider(sampler=ALWAYS_OFF)])
async def test_where_nothing_is_recorded_the_stream_is_the_same(
    provider: TracerProvider | None,
) -> None:
    client = Played([answer("a")])
    stream = client.stream(ask().request)
    assert Tracing(provider=provider)(ask(), lambda _: stream) is stream
    await stream.aclose()


def test_a_provider_that_is_set_later_is_heard() -> None:
    script = """
import asyncio, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from ovagent_jupyter.gateway.tracing import Tracing
from tests.gateway.layered import ask, through
from tests.gateway.played import Played, answer, read
layer, client = Tracing(), Played([answer("a")])
asyncio.run(read(through(layer, client, ask())))
kept, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(kept))
trace.set_tracer_provider(provider)
asyncio.run(read(through(layer, client, ask())))
print(len(kept.get_finished_spans()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"


def test_importing_the_layers_loads_no_opentelemetry() -> None:
    script = (
        "import sys; from ovagent_jupyter.gateway import tracing, metrics, cost, cache, replay;"
        "from ovagent_jupyter.gateway import validation, variants, batching, quota;"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'opentelemetry', "
        "'genai_prices', 'cachetools', 'sqlite3', 'pydantic', 'httpx2', 'jsonschema', "
        "'markdown_it', 'openai', 'anthropic', 'numpy'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
