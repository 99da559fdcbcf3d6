"""The line of a magic, parsed."""

from __future__ import annotations

import pytest

from ovagent_jupyter.errors import ConfigError
from ovagent_jupyter.notebook.arguments import (
    COMMANDS,
    Command,
    RunOptions,
    completions,
    parse_cell,
    parse_line,
)


@pytest.mark.parametrize(
    ("line", "body", "expected"),
    [
        ("", "cluster them\n", RunOptions(text="cluster them")),
        ("plan", "cluster", RunOptions(text="cluster", mode="plan")),
        ("code --timeout 5", "x", RunOptions(text="x", mode="code", timeout=5.0)),
        ("--next", "x", RunOptions(text="x", mode="code", into_next=True)),
        ("-s main/qc", "x", RunOptions(text="x", session="main/qc")),
        ("-i adata,@ref", "x", RunOptions(text="x", inputs=("adata", "ref"))),
        ("-o adata,m=df", "x", RunOptions(text="x", outputs={"adata": "adata", "m": "df"})),
        ("-m offline", "x", RunOptions(text="x", settings={"model": "offline"})),
        (
            "--fallback raise",
            "x",
            RunOptions(text="x", settings={"sandbox_fallback_policy": ("raise",)}),
        ),
        (
            "--read /a --memory 2G --read /b",
            "x",
            RunOptions(
                text="x", settings={"sandbox_read": ("/a", "/b"), "sandbox_memory": ("2G",)}
            ),
        ),
        ("show 'CD3D'", "on the umap", RunOptions(text="show 'CD3D'\non the umap")),
        ("", "keep {braces} and $HOME", RunOptions(text="keep {braces} and $HOME")),
        ("fold change > -1", "", RunOptions(text="fold change > -1")),
        ("", "", RunOptions(text="")),
    ],
)
def test_cell_lines_become_options(line: str, body: str, expected: RunOptions) -> None:
    assert parse_cell(line, body) == expected


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("--timeuot 3", "--timeout"),
        ("--timeout soon", "timeout"),
        ("--timeout -4", "timeout"),
        ("--timeout 0", "--timeout"),
        ("-i a-b", "a-b"),
        ("-o x=1y", "1y"),
        ("--fallback never", "fallback"),
        ("--level weak", "level"),
    ],
)
def test_bad_options_name_what_is_wrong(line: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_cell(line, "cluster")


def test_every_command_is_parsed_and_takes_an_argument() -> None:
    for name in COMMANDS:
        assert parse_line(name) == Command(name)
        assert parse_line(f"{name} 3") == Command(name, "3")


def test_a_misspelt_command_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="%ovagent history"):
        parse_line("histroy")


def test_other_words_are_a_request() -> None:
    assert parse_line("cluster and plot") == RunOptions(text="cluster and plot")
    assert parse_line("plan cluster") == RunOptions(text="cluster", mode="plan")


def test_completion_offers_commands_first_and_options_later() -> None:
    assert completions("his", []) == ["history"]
    assert "plan" in completions("", [])
    assert "--timeout" in completions("--t", ["run"])
    assert "history" not in completions("h", ["run"])


def test_completion_knows_the_checkpoints() -> None:
    assert completions("", ["restore"], ["raw", "clustered"]) == ["raw", "clustered"]
    assert completions("c", ["restore"], ["raw", "clustered"]) == ["clustered"]
    assert completions("", ["checkpoint"], ["raw"]) == ["raw", "drop"]
    assert completions("r", ["checkpoint", "drop"], ["raw"]) == ["raw"]
    assert completions("", ["restore"]) == []
    assert completions("un", []) == ["undo"]


def test_completion_knows_what_the_policy_takes() -> None:
    assert completions("me", ["policy"]) == ["memory"]
    assert "reset" in completions("", ["policy"])
    assert completions("con", ["policy", "floor"]) == ["confined"]
    assert completions("", ["policy", "memory"]) == []
