"""Agents by where their model runs, as a Python program makes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import ovagent_jupyter as ov
from ovagent_jupyter.loop_thread import LoopThread
from tests.providers.local.tiny_model import tiny_model
from tests.providers.served import Served

KEY = "planted-key-0123456789"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, and nothing of the user's."""
    monkeypatch.setenv("OVAGENT_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MLX_DISABLE_COMPILE", "1")
    return tmp_path


@pytest.fixture
def service() -> Iterator[Served]:
    """A server on a thread of its own that always says the same."""
    loop, server = LoopThread("served"), Served()

    async def begin() -> None:
        await server.__aenter__()

    async def end() -> None:
        await server.__aexit__(None, None, None)

    loop.run(begin())
    choice = {"index": 0, "delta": {"content": "yes"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 1}
    server.always(f"data: {json.dumps({'choices': [choice], 'usage': usage})}\n\n".encode())
    yield server
    loop.run(end())
    loop.close()


def test_an_online_agent_asks_the_service_that_is_named(service: Served) -> None:
    headers = {"X-Lab": "seven"}
    url = f"{service.url}/v1"
    with ov.OnlineAgent("omics-1", base_url=url, api_key=KEY, headers=headers) as agent:
        turn = agent.ask("is it?")
    assert (turn.answer, turn.usage.output_tokens) == ("yes", 1)
    (received,) = service.requests
    assert received.body["model"] == "omics-1"
    assert (received.headers["authorization"], received.headers["x-lab"]) == (
        f"Bearer {KEY}",
        "seven",
    )
    assert KEY not in repr(agent) + repr(turn)


def test_a_local_agent_runs_the_model_of_a_folder() -> None:
    pytest.importorskip("mlx_lm")
    with ov.LocalAgent(str(tiny_model()), max_output_tokens=8) as agent:
        turn = agent.ask("hello")
    assert turn.ok
    assert turn.answer
    assert (turn.cost, turn.priority_used) == (0.0, 2)


def test_a_local_agent_asks_the_server_of_this_machine(service: Served) -> None:
    with ov.LocalAgent("omics-1", base_url=f"{service.url}/v1") as agent:
        assert agent.ask("is it?").cost == 0.0
    assert service.requests[0].body["model"] == "omics-1"


def test_an_agent_is_made_from_settings(service: Served, home: Path) -> None:
    (home / "config").mkdir()
    settings = f'model = "omics-1"\nendpoint = "{service.url}/v1"\napi_key = "{KEY}"\n'
    (home / "config" / "config.toml").write_text(settings)
    with ov.create_agent() as agent:
        assert agent.ask("is it?").answer == "yes"
    texts = [path.read_bytes() for path in (home / "sessions").rglob("*") if path.is_file()]
    assert texts
    assert all(KEY.encode() not in text for text in texts)


def test_a_provider_of_ones_own_is_asked_by_its_name(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_LAB_KEY", KEY)
    ov.register_provider(
        ov.ProviderInfo(
            id="mylab",
            display_name="My lab",
            wire_api=ov.WireAPI.CHAT_COMPLETIONS,
            base_url=f"{service.url}/v1",
            env_key="MY_LAB_KEY",
            models=(ov.ModelInfo(id="known", window=9000),),
        )
    )
    assert ov.PROVIDER_API_KEYS["mylab/known"] == "MY_LAB_KEY"
    assert ov.MODEL_CONTEXT_WINDOWS["mylab/known"] == 9000
    with ov.Agent(model="mylab/any/model") as agent:
        assert agent.ask("is it?").answer == "yes"
    assert service.requests[0].body["model"] == "any/model"


def test_a_model_that_is_not_known_names_the_nearest() -> None:
    with ov.Agent(model="claud-opus-5") as agent, pytest.raises(ov.ProviderError) as caught:
        agent.ask("is it?")
    assert "claude-opus-5" in str(caught.value)
