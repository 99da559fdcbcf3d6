"""JSON of the wrong shape in success: one typed outcome, and words that say what came."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ovagent_jupyter.errors import StreamInterrupted
from ovagent_jupyter.providers.backend import Timeouts
from ovagent_jupyter.providers.chat_reading import ChatReader
from ovagent_jupyter.providers.client import ModelClient, collect
from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.providers.exchange import WireClient
from ovagent_jupyter.providers.openai_chat import ChatCompletionsClient
from ovagent_jupyter.providers.wires import client_for
from tests.providers.asking import ask, backend_at
from tests.providers.served import CUT, HANG, JSON, STREAM, Served, Step, events
from tests.providers.test_openai_chat import delta, failure_of


@pytest.fixture
def client(served: Served, connections: Connections) -> ModelClient:
    return client_for(backend_at(served.url + "/v1"), connections)


@pytest.fixture
def quick(served: Served, connections: Connections) -> ModelClient:
    brief = Timeouts(connect=5, first_byte=0.5, between=0.5, total=10)
    return client_for(backend_at(served.url + "/v1", timeouts=brief), connections)


@pytest.mark.parametrize("field", ["text", "refusal"])
@pytest.mark.parametrize("value", [5, {"a": 1}, [7], True])
@pytest.mark.parametrize("steps", [(), (events(done=True),), (CUT,), (HANG,)])
async def test_words_that_are_none_before_the_end(
    served: Served, quick: ModelClient, field: str, value: object, steps: tuple[Step, ...]
) -> None:
    served.answer(events(delta(content="A"), delta("stop", **{field: value})), *steps)
    reply = await collect(quick.stream(ask()))
    assert (reply.message.text, reply.finish_reason) == ("A", "stop")


class _Unfit(ChatReader):
    """A reader that cannot make a whole of what came."""

    def end(self) -> None:
        raise TypeError("not of this shape")


class _UnfitClient(WireClient):
    wire = replace(ChatCompletionsClient.wire, decoder=_Unfit)


@pytest.mark.parametrize("finish", [None, "stop"])
@pytest.mark.parametrize("steps", [(), (events(done=True),), (CUT,), (HANG,)])
async def test_pieces_that_make_no_whole(
    served: Served, connections: Connections, finish: str | None, steps: tuple[Step, ...]
) -> None:
    brief = Timeouts(connect=5, first_byte=0.5, between=0.5, total=10)
    client = _UnfitClient(backend_at(served.url, timeouts=brief), connections)
    served.answer(events(delta(finish, content="A")), *steps)
    deltas, error = await failure_of(client)
    assert [each.text for each in deltas] == ["A"]
    assert isinstance(error, StreamInterrupted)
    assert error.retryable


@pytest.mark.parametrize("body", [b"{}", b"[]", b"null", b'{"usage": {}}', b'[{"a": 1}]'])
async def test_json_that_is_no_answer_is_not_called_nothing(
    served: Served, client: ModelClient, body: bytes
) -> None:
    for head in (JSON, STREAM):
        served.answer(body, headers=head)
        _, error = await failure_of(client)
        assert error.why.strip()
        assert "nothing" not in error.why
    served.answer(headers=JSON)
    _, error = await failure_of(client)
    assert error.why == "It sent nothing."


async def test_an_unknown_word_for_the_end_is_told(served: Served, client: ModelClient) -> None:
    served.answer(events(delta("brand_new", content="A")))
    reply = await collect(client.stream(ask()))
    assert (reply.finish_reason, reply.details["stop_reason"]) == ("stop", "brand_new")
    served.answer(events(delta("eos", content="A")))
    assert "stop_reason" not in (await collect(client.stream(ask()))).details
