"""Settings: what is accepted, and what an error says."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from ovagent_jupyter.config import (
    AgentConfig,
    ExecutionConfig,
    LLMConfig,
    SandboxFallbackPolicy,
)
from ovagent_jupyter.config.gateway import GatewayConfig, RetryConfig
from ovagent_jupyter.config.llm import Budget
from ovagent_jupyter.config.schema import FIELDS, NOT_YET
from ovagent_jupyter.config.secret import Secret
from ovagent_jupyter.errors import ConfigError

GOOD = {
    "model": "groq/openai/gpt-oss-120b",
    "api_key": Secret("sk-planted-value"),
    "endpoint": "https://models.example.org/v1",
    "backups": ("claude-opus-5-5", "ollama/qwen3"),
    "reasoning_effort": "high",
    "max_output_tokens": 4096,
    "temperature": 0.5,
    "headers": {"X-Title": "ovagent"},
    "budget_turn": Budget(requests=5, tokens=200_000, money=0.5),
    "budget_session": Budget(tokens=2_000_000),
    "budget_day": Budget(money=3.0),
    "use_notebook": False,
    "max_prompts": 3,
    "storage_dir": Path("/somewhere/else"),
    "timeout": 12.5,
    "sandbox_fallback_policy": SandboxFallbackPolicy.RAISE,
    "sandbox_level": "confined",
    "fallback_floor": "in_process",
    "approve": "always",
    "keep_ready": False,
    "undo_memory": 2 << 30,
    "sandbox_read": (Path("/usr/lib"),),
    "sandbox_write": (Path("/usr/share"),),
    "sandbox_network": ("example.org", "*.example.net:8443"),
    "sandbox_memory": 8 << 30,
    "sandbox_cpu_time": 3600.0,
    "sandbox_processes": 64,
    "sandbox_file_size": 1 << 30,
    "sandbox_disk": 5 << 30,
    "sandbox_force": True,
    "verbose": True,
    "history_enabled": False,
}
BAD = [
    ("model", ""),
    ("model", "gpt 5"),
    ("model", "gpt-5\n"),
    ("model", None),
    ("endpoint", "models.example.org/v1"),
    ("endpoint", "ftp://models.example.org"),
    ("endpoint", "https://"),
    ("endpoint", "http://host:eighty/v1"),
    ("endpoint", "http://[::1/v1"),
    ("endpoint", "https://models.example.org/v1/chat/completions"),
    ("endpoint", 7),
    ("backups", 7),
    ("backups", "gpt 5"),
    ("backups", ("gpt-5", "offline")),
    ("reasoning_effort", "hard"),
    ("reasoning_effort", None),
    ("max_output_tokens", 0),
    ("max_output_tokens", "many"),
    ("temperature", -0.1),
    ("temperature", 2.5),
    ("temperature", float("nan")),
    ("temperature", True),
    ("budget_turn", "5 apples"),
    ("budget_turn", "0 tokens"),
    ("budget_turn", "$1, $2"),
    ("budget_session", 5),
    ("budget_session", "-1 requests"),
    ("budget_day", "free"),
    ("budget_day", None),
    ("use_notebook", "yes"),
    ("max_prompts", -1),
    ("max_prompts", 1.5),
    ("max_prompts", True),
    ("storage_dir", ""),
    ("storage_dir", 7),
    ("timeout", 0),
    ("timeout", -2.0),
    ("timeout", float("nan")),
    ("timeout", float("inf")),
    ("timeout", "600"),
    ("timeout", True),
    ("sandbox_fallback_policy", "sometimes"),
    ("sandbox_fallback_policy", None),
    ("fallback_floor", "nowhere"),
    ("fallback_floor", ["process"]),
    ("sandbox_level", "cellar"),
    ("sandbox_level", 3),
    ("approve", True),
    ("approve", "sometimes"),
    ("keep_ready", "no"),
    ("undo_memory", "much"),
    ("undo_memory", 4096),
    ("sandbox_read", 7),
    ("sandbox_read", ""),
    ("sandbox_write", b"/usr"),
    ("sandbox_network", "http://example.org"),
    ("sandbox_memory", "100M"),
    ("sandbox_memory", "much"),
    ("sandbox_memory", 1.5),
    ("sandbox_cpu_time", 1),
    ("sandbox_cpu_time", "1 h"),
    ("sandbox_processes", 1),
    ("sandbox_processes", 10.5),
    ("sandbox_file_size", 4096),
    ("sandbox_disk", "1M"),
    ("sandbox_disk", None),
    ("sandbox_force", 1),
    ("verbose", 1),
    ("history_enabled", "off"),
]
HIDDEN_BAD: list[tuple[str, object]] = [
    ("api_key", "sk-planted value"),
    ("api_key", b"sk-planted"),
    ("headers", "X-Key: sk-planted"),
    ("headers", {"X-Key": "sk-planted\r\nX-Other: 1"}),
    ("headers", {"X Key": "sk-planted"}),
    ("headers", {"X-Key": 7}),
]
"""What may be a key is not shown, not even when it cannot be used."""


def test_every_field_is_tried() -> None:
    tried = {name for name, _ in BAD} | {name for name, _ in HIDDEN_BAD}
    assert set(GOOD) == {row.name for row in FIELDS} == tried


@pytest.mark.parametrize("row", FIELDS, ids=lambda row: row.name)
def test_flat_keyword_and_its_aliases_reach_the_field(row: object) -> None:
    field = next(known for known in FIELDS if known is row)
    for keyword in (field.name, *field.aliases):
        config = AgentConfig.from_flat_kwargs(**{keyword: GOOD[field.name]})
        assert field.value_in(config) == GOOD[field.name]
        for other in FIELDS:
            if other is not field:
                assert other.value_in(config) == other.value_in(AgentConfig())


@pytest.mark.parametrize(("name", "value"), BAD)
def test_bad_value_is_refused_by_name_with_a_remedy(name: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        AgentConfig.from_flat_kwargs(**{name: value})
    assert caught.value.what.startswith(f"{name}={value!r}")
    assert caught.value.next_step
    assert len(caught.value.lines()) <= 3


@pytest.mark.parametrize(("name", "value"), HIDDEN_BAD)
def test_bad_value_that_may_be_a_key_is_refused_unseen(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        AgentConfig.from_flat_kwargs(**{name: value})
    assert caught.value.next_step
    assert "planted" not in str(caught.value)


def test_the_gateway_is_a_group_without_flat_names() -> None:
    assert AgentConfig().gateway == GatewayConfig()
    config = AgentConfig(gateway=GatewayConfig(retry=RetryConfig(attempts=5)))
    assert config.gateway.retry.attempts == 5
    with pytest.raises(ConfigError, match="no setting named 'gateway'"):
        AgentConfig.from_flat_kwargs(gateway=GatewayConfig())


def test_storage_dir_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError, match="It is a file"):
        ExecutionConfig(storage_dir=file)


def test_storage_dir_is_made_absolute_and_expanded() -> None:
    assert AgentConfig.from_flat_kwargs(storage_dir="~/x").execution.storage_dir == (
        Path.home() / "x"
    )
    directory = AgentConfig.from_flat_kwargs(storage_dir="y").execution.storage_dir
    assert directory == Path.cwd() / "y"


@pytest.mark.parametrize("policy", list(SandboxFallbackPolicy))
def test_policy_may_be_given_as_text(policy: SandboxFallbackPolicy) -> None:
    config = AgentConfig.from_flat_kwargs(sandbox_fallback_policy=policy.value)
    assert config.execution.sandbox_fallback_policy is policy


@pytest.mark.parametrize("keyword", sorted(NOT_YET))
def test_keyword_without_effect_is_refused_and_its_value_not_shown(keyword: str) -> None:
    with pytest.raises(ConfigError, match="not available yet") as caught:
        AgentConfig.from_flat_kwargs(**{keyword: "sk-planted-value"})
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("timout", "timeout"),
        ("use_notebok_execution", "use_notebook_execution"),
        ("Model", "model"),
        ("apikey", "api_key"),
        ("max_prompt", "max_prompts"),
        ("history", "history_enabled"),
        ("fallback_flor", "fallback_floor"),
    ],
)
def test_unknown_keyword_names_the_nearest(typo: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"Did you mean '{meant}'"):
        AgentConfig.from_flat_kwargs(**{typo: 1})


def test_unknown_keyword_that_is_near_nothing_lists_all() -> None:
    with pytest.raises(ConfigError, match=r"Settings: model, .*history_enabled"):
        AgentConfig.from_flat_kwargs(zzzzzz=1)


def test_setting_under_two_names_is_refused() -> None:
    with pytest.raises(ConfigError, match="given twice"):
        AgentConfig.from_flat_kwargs(timeout=1, notebook_timeout=2)


def test_groups_must_be_groups() -> None:
    with pytest.raises(ConfigError, match="Pass an LLMConfig"):
        AgentConfig(llm="offline")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Pass an ExecutionConfig"):
        AgentConfig(execution={})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Pass a GatewayConfig"):
        AgentConfig(gateway={})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Pass a SandboxSpec"):
        AgentConfig(sandbox={})  # type: ignore[arg-type]


def test_what_runs_by_default_is_confined() -> None:
    run = AgentConfig().execution
    assert run.sandbox_level in {"namespaces", "confined"}
    assert run.fallback_floor == "confined"
    assert run.approve == "risky"
    assert run.use_notebook


def test_configuration_is_frozen() -> None:
    config = AgentConfig(llm=LLMConfig())
    with pytest.raises(FrozenInstanceError):
        config.verbose = True  # type: ignore[misc]
