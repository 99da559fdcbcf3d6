"""The scripted model, and that the checks of model clients can fail."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ovagent_jupyter.errors import ProviderError, StreamInterrupted
from ovagent_jupyter.messages import Message, TextPart, ToolCall
from ovagent_jupyter.providers.client import ModelDelta, ModelRequest, Reply, collect
from ovagent_jupyter.testing.scripted_client import ScriptedClient, check_model_client

REQUEST = ModelRequest(model="m", messages=(Message("user", (TextPart("say three words"),)),))
CALL = ToolCall("1", "run_code", {"code": "1"})


@pytest.mark.parametrize("text", ["Hello.", "  two  words \n", "a\nb\n\nc", " ", "x" * 1000])
async def test_text_arrives_word_by_word_and_whole(text: str) -> None:
    client = ScriptedClient([text, text])
    deltas = [delta async for delta in client.stream(REQUEST)]
    assert "".join(delta.text for delta in deltas) == text
    assert len(deltas) == max(1, len(text.split())) + 1
    reply = await collect(client.stream(REQUEST))
    assert reply.message == Message("assistant", (TextPart(text),))
    assert reply.finish_reason == "stop"
    assert reply.usage.input_tokens == 3


async def test_tool_call_is_a_reason_to_stop() -> None:
    client = ScriptedClient([CALL, Message("assistant", (TextPart("Let me see."), CALL))])
    first = await collect(client.stream(REQUEST))
    assert (first.message.parts, first.finish_reason) == ((CALL,), "tool_calls")
    second = await collect(client.stream(REQUEST))
    assert second.message.parts == (TextPart("Let me see."), CALL)


async def test_failure_is_raised_as_scripted_and_calls_are_remembered() -> None:
    failure = ProviderError("Busy.", retryable=True)
    client = ScriptedClient([failure])
    with pytest.raises(ProviderError) as caught:
        await collect(client.stream(REQUEST))
    assert caught.value is failure
    assert client.requests == [REQUEST]


async def test_one_call_more_than_scripted_is_an_error() -> None:
    with pytest.raises(ProviderError, match="0 replies"):
        await collect(ScriptedClient([]).stream(REQUEST))


async def test_scripted_client_passes_the_checks() -> None:
    await check_model_client(lambda: ScriptedClient(["Hello you."]))
    await check_model_client(lambda: ScriptedClient([CALL]))


class Broken:
    """A client that sends what it is given, whether it keeps the promises or not."""

    def __init__(self, *deltas: ModelDelta) -> None:
        self._deltas = deltas

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelDelta]:
        """Send."""
        for delta in self._deltas:
            yield delta


SAID = Reply(message=Message("assistant", (TextPart("a"),)))
END = ModelDelta(finish_reason="stop", reply=SAID)


@pytest.mark.parametrize(
    "deltas",
    [
        (),
        (END,),
        (ModelDelta(text="a"),),
        (END, ModelDelta(text="a")),
        (END, END),
        (ModelDelta(text="b"), END),
        (ModelDelta(text="a"), ModelDelta(finish_reason="stop")),
    ],
)
async def test_checks_can_fail(deltas: tuple[ModelDelta, ...]) -> None:
    with pytest.raises(AssertionError, match="Not kept"):
        await check_model_client(lambda: Broken(*deltas))


class Endless:
    """A stream that cannot be closed."""

    def __init__(self) -> None:
        self._left = [END, ModelDelta(text="a")]

    def stream(self, request: ModelRequest) -> AsyncIterator[ModelDelta]:
        """Itself."""
        return self

    def __aiter__(self) -> AsyncIterator[ModelDelta]:
        return self

    async def __anext__(self) -> ModelDelta:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


async def test_stream_that_cannot_be_closed_fails_the_checks() -> None:
    with pytest.raises(AssertionError, match="closed"):
        await check_model_client(Endless)


async def test_broken_off_answer_keeps_its_part() -> None:
    with pytest.raises(StreamInterrupted) as caught:
        await collect(Broken(ModelDelta(text="a")).stream(REQUEST))
    assert caught.value.partial == Message("assistant", (TextPart("a"),))
