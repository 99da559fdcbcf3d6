"""The client of local models, with a real one: the same pieces as from a service."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ovagent_jupyter.errors import ProviderError, RunnerNotAvailable
from ovagent_jupyter.messages import Message, ReasoningPart, TextPart, ToolCall, ToolResult
from ovagent_jupyter.providers.client import (
    AnswerSchema,
    ModelDelta,
    ModelRequest,
    ToolSchema,
    collect,
)
from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.providers.local.client import LocalClient
from ovagent_jupyter.providers.local.loaded import LoadedModels
from ovagent_jupyter.providers.local.model_files import describe_model
from ovagent_jupyter.providers.local.runner import DeviceConfig
from ovagent_jupyter.providers.resolve import resolve_backend
from ovagent_jupyter.providers.wires import client_for
from ovagent_jupyter.testing.scripted_client import check_model_client
from tests.providers.local.conftest import NewClient, ask, local_backend, reply_of
from tests.providers.local.tiny_model import FIRST_TURN, PYTHON, WINDOW

TOOLS = (ToolSchema("run_code", "Runs Python.", {"type": "object"}),)


async def deltas_of(client: LocalClient, request: ModelRequest) -> list[ModelDelta]:
    return [delta async for delta in client.stream(request)]


async def test_it_keeps_what_every_client_promises(new_client: NewClient) -> None:
    await check_model_client(new_client)


# -- what comes back ---------------------------------------------------------------------------


async def test_text_comes_token_by_token_and_adds_up(new_client: NewClient) -> None:
    deltas = await deltas_of(new_client(), ask("normalize the data"))
    reply = deltas[-1].reply
    assert reply is not None
    assert len([delta for delta in deltas if delta.text]) > 10
    assert "".join(delta.text for delta in deltas) == reply.message.text == PYTHON
    assert reply.finish_reason == "stop"
    assert (reply.model, reply.provider, reply.backend) == ("tiny", "local", "tiny")
    assert reply.response_id.startswith("local-")
    assert reply.first_token is not None
    assert 0 < reply.first_token <= reply.latency
    assert reply.usage.output_tokens >= len(deltas) - 1
    assert reply.usage.input_tokens > 4
    assert not reply.usage.estimated
    assert reply.details == {"runner": "mlx"}


async def test_a_thought_is_no_text(new_client: NewClient) -> None:
    deltas = await deltas_of(new_client(), ask("think"))
    reply = deltas[-1].reply
    assert reply is not None
    assert "".join(delta.reasoning for delta in deltas) == "I should greet."
    assert reply.message.parts == (ReasoningPart("I should greet."), TextPart("Hi there."))
    assert 3 < reply.usage.reasoning_tokens < reply.usage.output_tokens


async def test_a_call_is_told_as_it_is_written_and_given_whole(new_client: NewClient) -> None:
    deltas = await deltas_of(new_client(), ask("say and call", tools=TOOLS))
    reply = deltas[-1].reply
    assert reply is not None
    calls = [delta.tool_call for delta in deltas if delta.tool_call]
    assert [(call.name, call.arguments) for call in calls] == [
        ("run_code", {"code": "print(1)"}),
        ("run_code", {"code": "print(2)"}),
    ]
    assert reply.message.tool_calls == tuple(calls)
    assert reply.message.text == "I look at the data."
    assert reply.finish_reason == "tool_calls"
    assert len({call.id for call in calls}) == 2
    progress = [delta.tool_progress for delta in deltas if delta.tool_progress]
    for number in (0, 1):
        told = [each for each in progress if each.index == number]
        assert {each.name for each in told} == {"run_code"}
        assert len(told) > 2
        assert "".join(each.arguments for each in told) == f'{{"code": "print({number + 1})"}}'


async def test_calls_that_are_not_as_they_should_be(new_client: NewClient) -> None:
    client = new_client()
    badly = await reply_of(client, ask("call badly"))
    assert [(call.name, call.arguments, call.unreadable) for call in badly.message.tool_calls] == [
        ("run_code", {}, '{"code":')
    ]
    endless = await reply_of(client, ask("forget the end"))
    assert [call.arguments for call in endless.message.tool_calls] == [{"code": "print(1)"}]
    assert badly.finish_reason == endless.finish_reason == "tool_calls"


async def test_the_result_of_a_call_goes_back(new_client: NewClient) -> None:
    call = ToolCall("c1", "run_code", {"code": "print(1)"})
    said = (
        Message("user", (TextPart("call a tool"),)),
        Message("assistant", (call,)),
        Message("tool", (ToolResult("c1", "1"),)),
    )
    reply = await reply_of(new_client(), ModelRequest(model="tiny", messages=said))
    assert reply.message.text == "The result is 1."


async def test_no_character_comes_in_halves(new_client: NewClient) -> None:
    deltas = await deltas_of(new_client(), ask("units"))
    texts = [delta.text for delta in deltas]
    assert "".join(texts) == "5 µm, café 🧬 and DNA."
    assert any("🧬" in text for text in texts)
    assert not any("\ufffd" in text for text in texts)
    # Cut in each place, also within the four tokens of the picture sign.
    for bound in range(1, 20):
        reply = await reply_of(new_client(), ask("units", max_output_tokens=bound))
        assert "5 µm, café 🧬 and DNA.".startswith(reply.message.text.rstrip())


async def test_a_stop_text_ends_the_work_and_is_not_shown(new_client: NewClient) -> None:
    client = new_client()
    reply = await reply_of(client, ask("count", stop=("four", "six")))
    assert reply.message.text == "one two three "
    assert reply.finish_reason == "stop"
    assert reply.details["stopped_at"] == "four"
    whole = await reply_of(client, ask("count", stop=("eight",)))
    assert whole.message.text == "one two three four five six seven"
    assert reply.usage.output_tokens < whole.usage.output_tokens


async def test_an_answer_ends_where_it_may_not_go_on(new_client: NewClient) -> None:
    client = new_client()
    reply = await reply_of(client, ask("sing", max_output_tokens=20))
    assert reply.finish_reason == "length"
    assert reply.usage.output_tokens == 20
    assert reply.message.text.startswith("la la la")
    # Without a bound, the model's own.
    assert (await reply_of(client, ask("sing"))).usage.output_tokens == 128


@pytest.mark.parametrize("bound", [3, 12, 20, 25, 40])
async def test_a_call_that_is_cut_is_dropped(new_client: NewClient, bound: int) -> None:
    reply = await reply_of(new_client(), ask("say and call", max_output_tokens=bound))
    assert reply.finish_reason == "length"
    assert reply.message.tool_calls == ()
    assert "I look at the data.".startswith(reply.message.text)
    assert bool(reply.details.get("dropped_tool_calls")) == (bound > 10)


async def test_the_next_turn_reads_only_what_is_new(new_client: NewClient) -> None:
    client = new_client(own=True)
    first = await reply_of(client, ask(FIRST_TURN))
    assert first.usage.cached_tokens == 0
    second = await reply_of(
        client, ask("the second one?", Message("user", (TextPart(FIRST_TURN),)), first.message)
    )
    assert second.message.text == "The second one is B."
    assert second.usage.cached_tokens > first.usage.input_tokens
    assert second.usage.input_tokens > second.usage.cached_tokens


async def test_an_answer_of_one_shape_is_asked_for_in_words(new_client: NewClient) -> None:
    schema = AnswerSchema("cells", {"type": "object", "properties": {"n": {"type": "integer"}}})
    client = new_client()
    plain = await reply_of(client, ask("hello"))
    asked = await reply_of(client, ask("hello", answer_schema=schema, streamed=False))
    # The tiny model's template leaves all but the last message out: the answer is the same.
    assert asked.message == plain.message


# -- several at once ---------------------------------------------------------------------------


async def test_calls_at_once_do_not_mix(new_client: NewClient) -> None:
    one, other = new_client(), new_client()
    asked = ["hello", "count", "units", "normalize the data", "1 2", "think"]
    replies = await asyncio.gather(
        *(reply_of((one, other)[number % 2], ask(text)) for number, text in enumerate(asked))
    )
    texts = [reply.message.text for reply in replies]
    assert texts[:4] == [
        "Hello! I write scanpy code.",
        "one two three four five six seven",
        "5 µm, café 🧬 and DNA.",
        PYTHON,
    ]
    assert texts[5] == "Hi there."


async def test_by_its_name_alone(model_folder: Path) -> None:
    connections = Connections()
    for name in (f"mlx/{model_folder}", str(model_folder)):
        backend = resolve_backend(name, environ={})
        client = client_for(backend, connections)
        assert isinstance(client, LocalClient)
        reply = await collect(client.stream(ask("hello")))
        assert reply.message.text == "Hello! I write scanpy code."
        assert reply.provider == backend.provider.id
        await client.aclose()
    nowhere = client_for(resolve_backend("mlx//no/such/folder", environ={}), connections)
    with pytest.raises(RunnerNotAvailable, match="no such folder") as caught:
        await collect(nowhere.stream(ask("hello")))
    assert (caught.value.provider, caught.value.fault) == ("mlx", "runner")
    await connections.aclose()


async def test_a_model_is_described_without_loading_it(model_folder: Path) -> None:
    known = describe_model(str(model_folder))
    assert known is not None
    assert (known.window, known.window_known) == (WINDOW, True)
    assert known.abilities == {"tools"}
    assert describe_model("nobody-at-all/no-such-model") is None
    assert describe_model("/no/such/folder") is None
    smaller = LocalClient(local_backend(f"mlx/{model_folder}", window=30), models=LoadedModels())
    reply = await collect(smaller.stream(ask("sing")))
    assert reply.usage.input_tokens + reply.usage.output_tokens == 30
    assert reply.finish_reason == "length"
    await smaller.aclose()


# -- what cannot be answered -----------------------------------------------------------------


async def test_a_model_that_is_not_there_is_one_error(model_folder: Path) -> None:
    for model_id, words in (
        ("mlx//no/such/folder", "There is no model"),
        ("no-such-model", "There is no local model"),
        ("vllm/qwen", "does not run in this process"),
    ):
        client = LocalClient(local_backend(model_id), models=LoadedModels())
        with pytest.raises(RunnerNotAvailable, match=words):
            await reply_of(client, ask("hello"))
        await client.aclose()
    small = LocalClient(
        local_backend(f"mlx/{model_folder}"),
        device=DeviceConfig(memory=1),
        models=LoadedModels(),
    )
    for _ in range(2):
        with pytest.raises(RunnerNotAvailable, match="does not fit"):
            await reply_of(small, ask("hello"))
    await small.aclose()


async def test_a_conversation_beyond_the_window_is_told(new_client: NewClient) -> None:
    with pytest.raises(ProviderError, match="window") as caught:
        await reply_of(new_client(), ask("cells " * 2000))
    assert caught.value.fault == "context_full"
