"""Where settings come from: the order of the sources, and what each may say."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from ovagent_jupyter.config.schema import FIELDS, Field
from ovagent_jupyter.config.sources import PRECEDENCE, Resolved, Source, resolve
from ovagent_jupyter.errors import ConfigError

VALUES: Mapping[str, tuple[object, object]] = {
    "use_notebook": (False, True),
    "max_prompts": (4, 5),
    "storage_dir": ("/weaker", "/stronger"),
    "timeout": (20.0, 30.5),
    "sandbox_fallback_policy": ("raise", "silent"),
    "fallback_floor": ("in_process", "process"),
    "verbose": (True, False),
    "history_enabled": (False, True),
}
"""Two valid values of each setting that has two; ``model`` has one in this version."""

SET = PRECEDENCE[1:]
"""The sources in which something can be set."""


def resolved(tmp_path: Path, given: Mapping[Source, Mapping[str, object]]) -> Resolved:
    """Settings from what each source says, each written as that source writes it."""
    file = tmp_path / "config.toml"
    if Source.FILE in given:
        lines = [f"{name} = {toml(value)}\n" for name, value in given[Source.FILE].items()]
        file.write_text("".join(lines))
    variables = {row.name: row.variable for row in FIELDS}
    env = {variables[name]: str(v) for name, v in given.get(Source.ENVIRONMENT, {}).items()}
    return resolve(
        flags=given.get(Source.FLAGS, {}),
        traits=given.get(Source.TRAITLETS, {}),
        env=env,
        file=file,
    )


def toml(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def test_order_is_what_the_documentation_says() -> None:
    assert [source.value for source in PRECEDENCE] == [
        "default", "file", "environment", "traitlets", "flags",
    ]  # fmt: skip


def test_every_setting_is_in_the_table() -> None:
    assert {*VALUES, "model"} == {row.name for row in FIELDS}


@pytest.mark.parametrize("row", FIELDS, ids=lambda row: row.name)
@pytest.mark.parametrize("source", SET)
def test_source_wins_over_the_default(row: Field, source: Source, tmp_path: Path) -> None:
    value, _ = VALUES.get(row.name, ("offline", ""))
    found = resolved(tmp_path, {source: {row.name: value}})
    assert str(row.value_in(found.config)) == str(value)
    assert found.provenance[row.name].source is source
    others = {name: origin.source for name, origin in found.provenance.items() if name != row.name}
    assert set(others.values()) == {Source.DEFAULT}


@pytest.mark.parametrize("name", sorted(VALUES))
@pytest.mark.parametrize(("weaker", "stronger"), list(pairwise(SET)))
def test_stronger_source_wins_whatever_the_values(
    name: str, weaker: Source, stronger: Source, tmp_path: Path
) -> None:
    row = next(row for row in FIELDS if row.name == name)
    for low, high in (VALUES[name], VALUES[name][::-1]):
        found = resolved(tmp_path, {weaker: {name: low}, stronger: {name: high}})
        assert str(row.value_in(found.config)) == str(high)
        assert found.provenance[name].source is stronger


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
        ("OVAGENT_MODEL", "gpt-5"),
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
        (b"api_key = 'sk-planted'", "not available yet"),
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
