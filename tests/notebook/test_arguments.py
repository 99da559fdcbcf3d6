"""The line of a magic, parsed."""

from __future__ import annotations

from typing import get_args

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from ovagent_jupyter.errors import ConfigError
from ovagent_jupyter.notebook.arguments import (
    COMMANDS,
    Command,
    RunOptions,
    completions,
    parse_cell,
    parse_line,
)
from ovagent_jupyter.storage.usage import By


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
        ("show CD3E's expression", "", RunOptions(text="show CD3E's expression")),
        (
            "-m 'a b' what's \"new\"",
            "",
            RunOptions(text='what\'s "new"', settings={"model": "a b"}),
        ),
        (r"--read=/my\ data x", "", RunOptions(text="x", settings={"sandbox_read": ("/my data",)})),
        ('--read="/a b"', "x", RunOptions(text="x", settings={"sandbox_read": ("/a b",)})),
        (
            'ask --budget "100 tokens"',
            "x",
            RunOptions(text="x", mode="ask", settings={"budget_turn": "100 tokens"}),
        ),
        ("-s it's", "x", RunOptions(text="x", session="it's")),
        ("--session= more", "x", RunOptions(text="more\nx")),
        ("--dry-run", "x", RunOptions(text="x", mode="plan", dry_run=True)),
        ("code --dry-run", "x", RunOptions(text="x", mode="code", dry_run=True)),
        ("ask --dry-run", "x", RunOptions(text="x", mode="ask", dry_run=True)),
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
        ("-m 'a b", "not closed"),
        ("-m", "expected one argument"),
        ("ask --next", "no code for the next cell"),
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


def test_completion_knows_models_and_the_values_of_options() -> None:
    for words in (["ask", "-m"], ["ask", "x", "--backup"], ["models"]):
        assert "claude-opus-5-5" in completions("claude-o", words)
        assert all(name.startswith("groq/") for name in completions("groq/", words))
        assert not any("…" in name for name in completions("", words))
    assert completions("h", ["ask", "--effort"]) == ["high"]
    assert completions("", ["usage"]) == ["model", "day", "session"]
    assert completions("", ["doctor"]) == ["live"]
    assert completions("", ["ask", "--timeout"]) == []


def test_tab_offers_our_words_and_no_names_of_python() -> None:
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    shell.run_line_magic("load_ext", "ovagent_jupyter")
    assert offered(shell, "%%ovagent ask --bu") == {("--budget", len("%%ovagent ask "))}
    assert all(name.startswith("--") for name, _ in offered(shell, "%%ovagent ask --"))
    assert {name for name, _ in offered(shell, "%ovagent usage ")} == set(get_args(By))
    models = offered(shell, "%ovagent ask -m groq/openai/")
    assert models
    assert all(at == len("%ovagent ask -m ") for _, at in models)
    assert ("import", 0) in offered(shell, "impor")
    shell.run_line_magic("unload_ext", "ovagent_jupyter")
    assert shell.Completer.custom_matchers == []


def offered(shell: InteractiveShell, line: str) -> set[tuple[str, int]]:
    """What Tab offers at the end of a line, and where it begins."""
    with provisionalcompleter():
        return {(found.text, found.start) for found in shell.Completer.completions(line, len(line))}
