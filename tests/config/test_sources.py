"""Where settings come from: the order of the sources, and what each may say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from ovagent_jupyter.config.loosening import STRICTEST_FIRST
from ovagent_jupyter.config.schema import FIELDS, AgentConfig, Field
from ovagent_jupyter.config.sources import PRECEDENCE, Resolved, Source, resolve
from ovagent_jupyter.errors import ConfigError

VALUES: Mapping[str, tuple[object, object]] = {
    "model": ("claude-opus-5-5", "groq/openai/gpt-oss-120b"),
    "api_key": ("sk-planted-1", "sk-planted-2"),
    "endpoint": ("http://127.0.0.1:8000/v1", "http://localhost:9000/v1"),
    "backups": (["gpt-5", "ollama/qwen3"], ["gemini-2.5-pro"]),
    "reasoning_effort": ("low", "high"),
    "max_output_tokens": (100, 2000),
    "temperature": (0.5, 1.0),
    "headers": ({"X-One": "1", "X-Two": "a: b"}, {"X-One": "2"}),
    "budget_turn": ("5 requests, $1", "3 requests, $0.50"),
    "budget_session": ("200k tokens", "100k tokens"),
    "budget_day": ("$3", "$2"),
    "use_notebook": (False, True),
    "max_prompts": (4, 5),
    "storage_dir": ("/weaker", "/stronger"),
    "timeout": (20.0, 30.5),
    "sandbox_fallback_policy": ("raise", "silent"),
    "sandbox_level": ("confined", "process"),
    "fallback_floor": ("in_process", "process"),
    "approve": ("always", "never"),
    "keep_ready": (False, True),
    "undo_memory": ("2G", "1.5 GiB"),
    "sandbox_read": (["/usr/lib", "/usr/share"], ["/usr"]),
    "sandbox_write": (["/usr/lib"], ["/usr/share"]),
    "sandbox_network": (["example.org", "example.net:81"], ["*.example.org"]),
    "sandbox_memory": ("2G", "1.5 GiB"),
    "sandbox_cpu_time": (100.0, 200.0),
    "sandbox_processes": (20, 30),
    "sandbox_file_size": ("1G", "2G"),
    "sandbox_disk": ("1G", "64M"),
    "sandbox_force": (True, False),
    "verbose": (True, False),
    "history_enabled": (False, True),
}
"""Two valid values of each setting."""

BUDGETS = frozenset({"budget_turn", "budget_session", "budget_day"})
"""Settings of which a notebook may have less only."""

SET = PRECEDENCE[1:]
"""The sources in which something can be set."""

OF_A_NOTEBOOK = frozenset({Source.TRAITLETS})
"""Of these, the one that may only tighten; flags too where a notebook gives them."""

TIGHTER: Mapping[str, object] = {
    "use_notebook": True,
    "sandbox_fallback_policy": "raise",
    "sandbox_level": "namespaces",
    "fallback_floor": "namespaces",
    "approve": "always",
    "sandbox_read": ["/usr/lib/python3"],
    "sandbox_write": [],
    "sandbox_network": ["www.example.org"],
    "sandbox_memory": "1G",
    "sandbox_cpu_time": 50.0,
    "sandbox_processes": 10,
    "sandbox_file_size": "100M",
    "sandbox_disk": "64M",
    "sandbox_force": False,
}
USER: Mapping[str, object] = {
    "use_notebook": True,
    "sandbox_fallback_policy": "warn",
    "sandbox_level": "confined",
    "fallback_floor": "confined",
    "approve": "risky",
    "sandbox_read": ["/usr/lib"],
    "sandbox_write": ["/usr/share"],
    "sandbox_network": ["*.example.org"],
    "sandbox_memory": "2G",
    "sandbox_cpu_time": 100.0,
    "sandbox_processes": 20,
    "sandbox_file_size": "1G",
    "sandbox_disk": "1G",
    "sandbox_force": False,
}
LOOSER: Mapping[str, object] = {
    "use_notebook": False,
    "sandbox_fallback_policy": "silent",
    "sandbox_level": "process",
    "fallback_floor": "process",
    "approve": "never",
    "sandbox_read": ["/usr/lib", "/usr/bin"],
    "sandbox_write": ["/usr"],
    "sandbox_network": ["www.example.org:8443"],
    "sandbox_memory": "2.5G",
    "sandbox_cpu_time": 100.5,
    "sandbox_processes": 21,
    "sandbox_file_size": "1.1G",
    "sandbox_disk": "2G",
    "sandbox_force": True,
}
"""What a user may have set, and what is less and more than that."""


def resolved(
    tmp_path: Path, given: Mapping[Source, Mapping[str, object]], *, notebook: bool = False
) -> Resolved:
    """Settings from what each source says, each written as that source writes it."""
    file = tmp_path / "config.toml"
    if Source.FILE in given:
        lines = [f"{name} = {toml(value)}\n" for name, value in given[Source.FILE].items()]
        file.write_text("".join(lines))
    rows = {row.name: row for row in FIELDS}
    env = {
        rows[name].variable: as_variable(rows[name], value)
        for name, value in given.get(Source.ENVIRONMENT, {}).items()
    }
    return resolve(
        flags=given.get(Source.FLAGS),
        traits=given.get(Source.TRAITLETS),
        granted=given.get(Source.POLICY),
        profile=given.get(Source.PROFILE),
        env=env,
        file=file,
        notebook=notebook,
    )


def as_variable(row: Field, value: object) -> str:
    """A value as a variable of the environment writes it."""
    if isinstance(value, list):
        return (os.pathsep if row.kind == "paths" else ", ").join(value)
    if isinstance(value, dict):
        return "; ".join(f"{header}: {text}" for header, text in value.items())
    return str(value)


def expected(name: str, value: object) -> object:
    """The value as the configuration holds it."""
    row = next(row for row in FIELDS if row.name == name)
    return row.value_in(AgentConfig.from_flat_kwargs(**{name: value}))


def toml(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{toml(key)} = {toml(item)}' for key, item in value.items())}}}"
    return f'"{value}"' if isinstance(value, str) else str(value)


def test_order_is_what_the_documentation_says() -> None:
    assert [source.value for source in PRECEDENCE] == [
        "default", "file", "environment", "profile", "policy", "traitlets", "flags",
    ]  # fmt: skip


def test_every_setting_is_in_the_table() -> None:
    assert set(VALUES) == {row.name for row in FIELDS}


def base_for(source: Source, name: str) -> dict[Source, Mapping[str, object]]:
    """What the user must have set, for a notebook to tighten it."""
    granted = name in {"sandbox_read", "sandbox_network"} and source in OF_A_NOTEBOOK
    return {Source.FILE: {name: USER[name]}} if granted else {}


@pytest.mark.parametrize("row", FIELDS, ids=lambda row: row.name)
@pytest.mark.parametrize("source", SET)
def test_source_wins_over_the_default(row: Field, source: Source, tmp_path: Path) -> None:
    value, _ = VALUES[row.name]
    if source in OF_A_NOTEBOOK:
        value = TIGHTER.get(row.name, value)
    found = resolved(tmp_path, {source: {row.name: value}} | base_for(source, row.name))
    assert row.value_in(found.config) == expected(row.name, value)
    assert found.provenance[row.name].source is source
    others = {name: origin.source for name, origin in found.provenance.items() if name != row.name}
    assert set(others.values()) == {Source.DEFAULT}


@pytest.mark.parametrize("name", sorted(VALUES))
@pytest.mark.parametrize(("weaker", "stronger"), list(pairwise(SET)))
def test_stronger_source_wins_whatever_the_values(
    name: str, weaker: Source, stronger: Source, tmp_path: Path
) -> None:
    row = next(row for row in FIELDS if row.name == name)
    pairs = [VALUES[name], VALUES[name][::-1]]
    if name in USER and OF_A_NOTEBOOK & {weaker, stronger}:
        pairs = [(USER[name], TIGHTER[name])] if stronger in OF_A_NOTEBOOK else []
    if name in BUDGETS and OF_A_NOTEBOOK & {weaker, stronger}:
        pairs = pairs[:1] if stronger in OF_A_NOTEBOOK else pairs[1:]
    for low, high in pairs:
        found = resolved(tmp_path, {weaker: {name: low}, stronger: {name: high}})
        assert row.value_in(found.config) == expected(name, high)
        assert found.provenance[name].source is stronger


def test_what_a_notebook_may_tighten_is_all_of_the_sandbox() -> None:
    about_it = {row.name for row in FIELDS if row.group == "sandbox"} | set(STRICTEST_FIRST)
    assert set(USER) == set(TIGHTER) == set(LOOSER) == about_it


@pytest.mark.parametrize("name", sorted(USER))
@pytest.mark.parametrize("by_the_user", [s for s in SET[:-1] if s not in OF_A_NOTEBOOK])
def test_a_notebook_may_tighten_what_the_user_set_and_not_loosen_it(
    name: str, by_the_user: Source, tmp_path: Path
) -> None:
    row = next(row for row in FIELDS if row.name == name)
    base = {by_the_user: {name: USER[name]}}
    for place in (Source.TRAITLETS, Source.FLAGS):
        for value in (TIGHTER[name], USER[name]):
            found = resolved(tmp_path, base | {place: {name: value}}, notebook=True)
            assert row.value_in(found.config) == expected(name, value)
        with pytest.raises(ConfigError) as caught:
            resolved(tmp_path, base | {place: {name: LOOSER[name]}}, notebook=True)
        text = str(caught.value)
        assert name in caught.value.what
        assert place.value in text
        assert row.variable in text
        assert "%ovagent policy" in text
        assert len(caught.value.lines()) == 3


@pytest.mark.parametrize("name", sorted({*LOOSER} - {"sandbox_cpu_time"}))
def test_a_notebook_may_not_loosen_the_defaults(name: str, tmp_path: Path) -> None:
    for place in (Source.TRAITLETS, Source.FLAGS):
        given = {place: {name: ABOVE_DEFAULT.get(name, LOOSER[name])}}
        with pytest.raises(ConfigError, match="is not accepted from a notebook"):
            resolved(tmp_path, given, notebook=True)


ABOVE_DEFAULT: Mapping[str, object] = {
    "sandbox_memory": "900T",
    "sandbox_processes": 257,
    "sandbox_file_size": "21G",
    "sandbox_disk": "21G",
}
"""More than where nothing is set; there is no default for CPU time to go above."""


def test_one_setting_of_a_notebook_does_not_open_the_way_for_another(tmp_path: Path) -> None:
    tighter = {Source.TRAITLETS: {"sandbox_memory": "1G"}}
    back = tighter | {Source.FLAGS: {"sandbox_memory": "2G"}, Source.FILE: {"sandbox_memory": "2G"}}
    assert resolved(tmp_path, back, notebook=True).config.sandbox.memory == 2 << 30
    forced: dict[Source, Mapping[str, object]] = {
        Source.FLAGS: {"sandbox_read": ["/usr"]},
        Source.TRAITLETS: {"sandbox_force": True},
    }
    with pytest.raises(ConfigError, match="sandbox_force"):
        resolved(tmp_path, forced)


def test_a_refusal_says_what_is_in_force(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="your own settings: confined"):
        resolve(traits={"fallback_floor": "in_process"})
    with pytest.raises(ConfigError, match="your own settings: nothing"):
        resolve(traits={"sandbox_read": ["/usr"]})
    with pytest.raises(ConfigError, match="your own settings: 80 % of the machine's"):
        resolve(env={"OVAGENT_SANDBOX_MEMORY": ""}, traits={"sandbox_memory": "900T"})
    with pytest.raises(ConfigError, match=r"your own settings: 1\.5G"):
        resolve(env={"OVAGENT_SANDBOX_MEMORY": "1536M"}, traits={"sandbox_memory": "2G"})
    with pytest.raises(ConfigError, match="your own settings: as much as disk"):
        resolve(traits={"sandbox_file_size": "21G"})


def test_names_of_omicverse_do_not_get_around_it() -> None:
    with pytest.raises(ConfigError, match="use_notebook=False"):
        resolve(flags={"use_notebook_execution": False}, notebook=True)
    run = resolve(flags={"use_notebook_execution": False}).config.execution
    assert not run.use_notebook


def test_what_the_user_said_yes_to_counts_as_theirs() -> None:
    granted = {"fallback_floor": "process", "sandbox_network": ["example.org"]}
    found = resolve(granted=granted, traits={"fallback_floor": "process"}, notebook=True)
    assert found.config.sandbox.network == ("example.org",)
    assert str(found.provenance["sandbox_network"]) == "policy"


def test_each_setting_is_decided_by_itself(tmp_path: Path) -> None:
    found = resolved(
        tmp_path,
        {
            Source.FILE: {"timeout": 10, "max_prompts": 1, "verbose": True},
            Source.ENVIRONMENT: {"timeout": 20, "max_prompts": 2},
            Source.FLAGS: {"timeout": 40},
        },
    )
    origins = {name: str(origin) for name, origin in found.provenance.items()}
    assert origins["timeout"] == "flags"
    assert origins["max_prompts"] == "environment (OVAGENT_MAX_PROMPTS)"
    assert origins["verbose"] == f"file ({tmp_path / 'config.toml'})"
    assert origins["model"] == "default"
    assert ("timeout", 40.0, "flags") in found.table()
    assert [name for name, _, _ in found.table()] == [row.name for row in FIELDS]


def test_variables_that_are_documented() -> None:
    variables = {row.variable for row in FIELDS}
    assert {
        "OVAGENT_MODEL", "OVAGENT_TIMEOUT", "OVAGENT_STORAGE_DIR", "OVAGENT_HISTORY",
    } < variables  # fmt: skip
    assert len(variables) == len(FIELDS)


@pytest.mark.parametrize("text", ["1", "true", "YES", " on "])
def test_true_in_the_environment(text: str) -> None:
    assert resolve(env={"OVAGENT_VERBOSE": text}).config.verbose is True


@pytest.mark.parametrize("text", ["0", "False", "no", "OFF"])
def test_false_in_the_environment(text: str) -> None:
    assert resolve(env={"OVAGENT_HISTORY": text}).config.history_enabled is False


def test_empty_variable_sets_nothing() -> None:
    found = resolve(env={"OVAGENT_TIMEOUT": " ", "OVAGENT_VERBOSE": ""})
    assert {origin.source for origin in found.provenance.values()} == {Source.DEFAULT}


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("OVAGENT_VERBOSE", "maybe"),
        ("OVAGENT_MAX_PROMPTS", "1.5"),
        ("OVAGENT_TIMEOUT", "ten"),
        ("OVAGENT_TIMEOUT", "-1"),
        ("OVAGENT_FALLBACK_FLOOR", "cellar"),
        ("OVAGENT_MODEL", "gpt 5"),
        ("OVAGENT_ENDPOINT", "host/v1"),
        ("OVAGENT_BACKUPS", "gpt-5, offline"),
        ("OVAGENT_TEMPERATURE", "hot"),
        ("OVAGENT_HEADERS", "X-Title"),
        ("OVAGENT_BUDGET_DAY", "little"),
        ("OVAGENT_SANDBOX_MEMORY", "lots"),
        ("OVAGENT_SANDBOX_PROCESSES", "1"),
        ("OVAGENT_SANDBOX_NETWORK", "example.org,http://example.net"),
        ("OVAGENT_SANDBOX_FORCE", "perhaps"),
    ],
)
def test_bad_variable_is_named(variable: str, text: str) -> None:
    with pytest.raises(ConfigError, match=variable) as caught:
        resolve(env={variable: text})
    assert len(caught.value.lines()) <= 6


def test_bad_value_is_told_even_where_a_stronger_source_would_win() -> None:
    with pytest.raises(ConfigError, match="It comes from: traitlets"):
        resolve(traits={"timeout": -1}, flags={"timeout": 5})


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"timeout = ", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"timeout = -1", "timeout=-1"),
        (b"timout = 1", "Did you mean 'timeout'"),
        (b"api_key = 'sk planted'", "api_key cannot be used"),
        (b"agent_mode = 'sk-planted'", "not available yet"),
        (b"headers = {'X Key' = 'planted'}", "cannot be used"),
        (b"gateway = 3", "as a table"),
        (b"[gateway]\nretires = 3", "gateway.retires=3"),
        (b"[gateway.retry]\nattempts = 0", "retry.attempts=0"),
        (b"[execution]\ntimeout = 1", "no setting named 'execution'"),
    ],
)
def test_bad_file_is_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=complaint) as caught:
        resolve(file=file)
    assert str(file) in str(caught.value)
    assert "planted" not in str(caught.value)


def test_file_that_is_a_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        resolve(file=tmp_path)


def test_no_file_and_no_sources_are_the_defaults(tmp_path: Path) -> None:
    assert resolve(file=tmp_path / "none.toml") == resolve()


def test_flags_may_use_omicverses_names() -> None:
    assert resolve(flags={"notebook_timeout": 3}).config.execution.timeout == 3.0
