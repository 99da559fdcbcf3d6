"""The settings of who answers: keys that do not show, budgets, and what a notebook may not say."""

from __future__ import annotations

import pickle
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import pytest

from ovagent_jupyter.config import AgentConfig, LLMConfig
from ovagent_jupyter.config.llm import Budget
from ovagent_jupyter.config.secret import Secret
from ovagent_jupyter.config.sources import Source, resolve
from ovagent_jupyter.errors import ConfigError


def test_an_address_with_a_password_is_refused_unseen() -> None:
    url = "https://me:planted@models.example.org/v1"
    for given in ({"endpoint": url}, {"model": f"{url}#m"}, {"backups": (f"{url}#m",)}):
        with pytest.raises(ConfigError, match="It has a password") as caught:
            LLMConfig(**given)  # type: ignore[arg-type]
        assert "planted" not in str(caught.value)


def test_a_key_is_held_and_never_shown() -> None:
    config = AgentConfig.from_flat_kwargs(api_key="sk-planted", headers={"X-Key": "planted"})
    assert config.llm.api_key is not None
    assert config.llm.api_key.reveal() == "sk-planted"
    assert config.llm.headers["X-Key"] == "planted"
    for shown in (repr(config), str(config.llm), f"{config}", repr(asdict(config))):
        assert "planted" not in shown
    assert "X-Key" in repr(config)
    with pytest.raises(TypeError):
        pickle.dumps(config)
    assert AgentConfig.from_flat_kwargs(api_key=" ").llm.api_key is None


def test_settings_are_equal_when_their_keys_are() -> None:
    one, same, other = (AgentConfig.from_flat_kwargs(api_key=key) for key in ("a", "a", "b"))
    assert one == same
    assert one != other
    assert deepcopy(one) == one
    assert hash(Secret("a")) == hash(Secret("b"))
    assert Secret("a") != "a"


@pytest.mark.parametrize(
    ("text", "budget", "written"),
    [
        ("", Budget(), ""),
        ("1 request", Budget(requests=1), "1 request"),
        ("5 requests, 2k tokens, $.5", Budget(5, 2000, 0.5), "5 requests, 2_000 tokens, $0.50"),
        (" $ 2 ", Budget(money=2.0), "$2.00"),
        ("1.5M TOKENS,0.25 usd", Budget(tokens=1_500_000, money=0.25), "1_500_000 tokens, $0.25"),
        ("10_000 tokens", Budget(tokens=10_000), "10_000 tokens"),
        ("$0", Budget(money=0.0), "$0.00"),
        ("$0.001", Budget(money=0.001), "$0.001000"),
    ],
)  # fmt: skip
def test_a_budget_reads_as_it_is_written(text: str, budget: Budget, written: str) -> None:
    assert Budget.parse("budget_turn", text) == budget
    assert str(budget) == written
    assert Budget.parse("budget_turn", written) == budget
    assert bool(budget) is bool(text)


def test_a_budget_of_what_is_no_number_is_refused() -> None:
    for limits in ({"requests": 0}, {"tokens": 1.5}, {"money": -1}, {"money": float("inf")}):
        with pytest.raises(ConfigError):
            Budget(**limits)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["https://host/v1/", " https://host/v1 "])
def test_an_endpoint_ends_without_a_slash(url: str) -> None:
    assert LLMConfig(endpoint=url).endpoint == "https://host/v1"


ELSEWHERE = [
    ("endpoint", "https://models.example.org/v1"),
    ("model", "https://models.example.org/v1#large"),
    ("backups", ["gpt-5", "https://models.example.org/v1#large"]),
]


@pytest.mark.parametrize(("name", "value"), ELSEWHERE)
def test_a_notebook_does_not_say_where_requests_and_keys_go(name: str, value: object) -> None:
    for given in ({"traits": {name: value}}, {"flags": {name: value}, "notebook": True}):
        with pytest.raises(ConfigError, match="not accepted from a notebook") as caught:
            resolve(**given)  # type: ignore[arg-type]
        assert "to another place" in caught.value.why
        assert f"OVAGENT_{name.upper()}" in caught.value.next_step
        assert "policy" not in caught.value.next_step
    assert resolve(flags={name: value}).config.llm != AgentConfig().llm
    assert resolve(env={"OVAGENT_ENDPOINT": "https://models.example.org/v1"}).config.llm.endpoint


def test_a_notebook_may_name_any_model_and_any_port_of_this_machine() -> None:
    flags = {
        "model": "gpt-5",
        "endpoint": "http://localhost:8000/v1",
        "backups": ["http://127.0.0.1:9/v1#a"],
    }
    assert resolve(flags=flags, notebook=True).config.llm.model == "gpt-5"
    mine = {"OVAGENT_ENDPOINT": "https://models.example.org/v1"}
    again = {"endpoint": "https://models.example.org/v1"}
    assert resolve(env=mine, flags=again, notebook=True).config.llm.endpoint


@pytest.mark.parametrize("name", ["budget_turn", "budget_session", "budget_day"])
def test_a_notebook_may_spend_less_and_not_more(name: str) -> None:
    env = {f"OVAGENT_{name.upper()}": "5 requests, $1"}
    less = resolve(env=env, flags={name: "4 requests, $1, 3 tokens"}, notebook=True)
    assert getattr(less.config.llm, name).requests == 4
    for more in ("6 requests, $1", "5 requests, $1.01", "$1", "5 requests", ""):
        with pytest.raises(ConfigError, match="may spend more"):
            resolve(env=env, flags={name: more}, notebook=True)
        resolve(env=env, flags={name: more})


def test_keys_are_in_no_listing(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("api_key = 'sk-planted-1'\n[headers]\nX-Key = 'planted-2'\n")
    for found in (
        resolve(file=file),
        resolve(env={"OVAGENT_API_KEY": "sk-planted-1", "OVAGENT_HEADERS": "X-Key: planted-2"}),
    ):
        assert found.config.llm.api_key is not None
        assert found.config.llm.api_key.reveal() == "sk-planted-1"
        rows = {name: str(value) for name, value, _ in found.table()}
        assert rows["headers"] == "Headers(X-Key)"
        assert rows["api_key"].startswith("Secret(from ")
        assert "planted" not in f"{found!r} {found.table()}"
    assert str(resolve(env={"OVAGENT_API_KEY": "sk"}).config.llm.api_key) == (
        "Secret(from OVAGENT_API_KEY)"
    )


def test_the_gateway_is_set_by_a_table_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("timeout = 5\n[gateway.retry]\nattempts = 7\n[gateway.cache]\nenabled = true\n")
    found = resolve(file=file, flags={"timeout": 6})
    assert found.config.gateway.retry.attempts == 7
    assert found.config.gateway.cache.enabled
    assert (found.config.execution.timeout, str(found.provenance["timeout"])) == (6.0, "flags")
    assert str(found.provenance["gateway"]) == f"file ({file})"
    assert resolve().provenance["gateway"].source is Source.DEFAULT


def test_a_folder_of_a_model_may_have_spaces_in_its_path() -> None:
    for name in ("mlx//data/my models/small", "local/my model.gguf"):
        assert LLMConfig(model=name, backups=(name,)).model == name
    for name in ("claude opus", " mlx//x", "mlx//x ", "mlx//a\nb", "http://localhost/v1#a b", ""):
        with pytest.raises(ConfigError, match="cannot be used"):
            LLMConfig(model=name)
