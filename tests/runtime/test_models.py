"""The models of the settings: whom they ask, through which layers, and what is remembered."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from ovagent_jupyter.config.gateway import GatewayConfig, PricesConfig
from ovagent_jupyter.config.llm import LLMConfig
from ovagent_jupyter.config.schema import AgentConfig
from ovagent_jupyter.errors import BudgetExceeded, ConfigError, ProviderError
from ovagent_jupyter.gateway.layer import Call
from ovagent_jupyter.messages import Message, TextPart
from ovagent_jupyter.providers.client import AnswerSchema, ModelRequest, Reply, collect
from ovagent_jupyter.runtime.models import KEPT, ConfiguredModel, Models
from ovagent_jupyter.storage.day_ledger import DayLedger
from tests.providers.served import Served

KEY = "planted-key-0123456789"
REQUEST = ModelRequest(model="any", messages=(Message("user", (TextPart("hello?"),)),))


def said(text: str) -> bytes:
    """A streamed answer."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    return f"data: {json.dumps({'model': 'm-1', 'choices': [choice], 'usage': usage})}\n\n".encode()


@pytest.fixture
async def server() -> AsyncIterator[Served]:
    """A service."""
    async with Served() as made:
        yield made


@pytest.fixture
async def models(tmp_path: Path) -> AsyncIterator[Models]:
    """Models whose files go to a folder of their own."""
    made = Models({"OVAGENT_HOME": str(tmp_path), "GROQ_API_KEY": KEY})
    yield made
    await made.aclose()


def settings(server: Served, llm: dict[str, object], **gateway: object) -> AgentConfig:
    """Settings that lead to the server."""
    own = {"model": "omics", "endpoint": f"{server.url}/v1", "api_key": KEY} | llm
    return AgentConfig(llm=LLMConfig(**own), gateway=GatewayConfig(**gateway))  # type: ignore[arg-type]


async def asked(model: ConfiguredModel, **fields: object) -> Reply:
    """The reply to a call."""
    request = replace(REQUEST, **fields)  # type: ignore[arg-type]
    return await collect(model.call(Call(request=request, session_id="s", turn_id="t")))


async def test_what_is_set_reaches_the_service(server: Served, models: Models) -> None:
    server.answer(said("yes"))
    llm = {"temperature": 0.5, "max_output_tokens": 77, "reasoning_effort": "low"}
    reply = await asked(models(settings(server, llm)))
    assert reply.message.text == "yes"
    body = server.requests[0].body
    assert (body["model"], body["temperature"], body["reasoning_effort"]) == ("omics", 0.5, "low")
    assert 77 in body.values()


async def test_the_same_settings_give_the_same_model(server: Served, models: Models) -> None:
    config = settings(server, {})
    assert models(config) is models(settings(server, {}))
    assert models(settings(server, {"temperature": 0.1})) is not models(config)
    assert KEY in models(config).secrets
    assert all(KEY not in " ".join(row) for row in models.state())


async def test_a_key_that_was_mended_is_asked_again(server: Served, models: Models) -> None:
    model = models(settings(server, {}))
    server.answer(b'{"error": "no"}', status=401).answer(said("yes"))
    for _ in range(2):
        with pytest.raises(ProviderError):
            await asked(model)
    assert len(server.requests) == 1  # the second was not sent
    assert models(settings(server, {})) is model
    assert (await asked(model)).message.text == "yes"


async def test_a_budget_of_the_day_holds_for_the_next_kernel(
    server: Served, models: Models, tmp_path: Path
) -> None:
    config = settings(server, {"budget_day": "1500 tokens"})
    server.answer(said("yes"))
    await asked(models(config))
    assert DayLedger(tmp_path / "spent").spent().tokens == 1100
    other = Models({"OVAGENT_HOME": str(tmp_path)})
    with pytest.raises(BudgetExceeded):
        await asked(other(config))
    await other.aclose()


async def test_an_own_price_is_what_it_costs(models: Models) -> None:
    llm = LLMConfig(model="groq/of-nobody", max_output_tokens=1000)
    free = AgentConfig(llm=llm)
    priced = AgentConfig(llm=llm, gateway=GatewayConfig(prices={"own": {"of-nobody": [1e6, 2e6]}}))  # type: ignore[arg-type]
    assert "not known" in models(free).estimate(REQUEST)
    assert "$2,00" in models(priced).estimate(REQUEST)


@pytest.mark.parametrize("own", [{"a": [1]}, {"a": "1"}, {"a": [1, -1]}, {"a": [1, True]}, [1]])
def test_a_price_that_is_none_is_refused(own: object) -> None:
    with pytest.raises(ConfigError, match="own"):
        PricesConfig(own=own)  # type: ignore[arg-type]


async def test_an_answer_that_has_to_be_json_is(server: Served, models: Models) -> None:
    server.answer(said("not json")).answer(said('{"n": 3}'))
    schema = AnswerSchema("count", {"type": "object", "properties": {"n": {"type": "integer"}}})
    reply = await asked(models(settings(server, {})), answer_schema=schema)
    assert json.loads(reply.message.text) == {"n": 3}
    assert len(server.requests) == 2


async def test_answers_are_kept_where_that_is_set(server: Served, models: Models) -> None:
    server.answer(said("yes"))
    config = settings(server, {"temperature": 0.0}, cache={"enabled": True, "on_disk": True})
    first = await asked(models(config))
    assert (await asked(models(config))).message == first.message
    assert len(server.requests) == 1


async def test_a_trial_of_an_unknown_backend_is_refused(server: Served, models: Models) -> None:
    trial = {"experiment": "e", "shares": {"nobody": 1}}
    with pytest.raises(ConfigError, match="nobody"):
        models(settings(server, {}, variants=trial))


async def test_a_backup_answers_when_the_first_fails(server: Served, models: Models) -> None:
    server.answer(b"{}", status=400)
    config = settings(server, {"backups": ["groq/llama"]}, timeouts={"connect": 2.0})
    model = models(config)
    assert [backend.name.partition("/")[0] for backend in model.gateway.backends][1] == "groq"
    assert "routing" in model.gateway.order


async def test_a_backup_without_a_key_is_left_out_and_named(server: Served, models: Models) -> None:
    server.answer(said("yes"))
    model = models(settings(server, {"backups": ["gpt-5", "groq/llama"]}))
    assert len(model.gateway.backends) == 2
    assert [note for note in model.notes if "gpt-5" in note and "key" in note]
    assert (await asked(model)).message.text == "yes"


def test_an_estimate_needs_no_key(models: Models) -> None:
    config = AgentConfig(llm=LLMConfig(model="gpt-5.1", max_output_tokens=1000))
    with pytest.raises(ProviderError, match="key"):
        models(config)
    assert "$" in models(config, dry=True).estimate(REQUEST)


def test_only_so_many_gateways_are_kept(server: Served, models: Models) -> None:
    for number in range(1, 20):
        models(settings(server, {"max_output_tokens": number}))
    assert len(models._made) <= KEPT


async def test_other_options_do_not_begin_a_budget_anew(server: Served, models: Models) -> None:
    server.always(said("yes"))
    answered = 0
    for number in range(1, 9):
        llm = {"budget_session": "3 requests", "max_output_tokens": number % 3 + 10}
        try:
            await asked(models(settings(server, llm)))
        except BudgetExceeded:
            continue
        answered += 1
    assert answered == 3
