"""A terminal IPython: no displays to update, so the same turn is told as text."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.notebook.conftest import LOAD_COUNTS

PROMPT = r"In \[\d+\]: "
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """IPython in a pseudo-terminal."""

    def __init__(self, home: Path) -> None:
        env = {**os.environ, "OVAGENT_HOME": str(home), "TERM": "dumb", "COLUMNS": "200"}
        arguments = ["-m", "IPython", "--simple-prompt", "--colors=nocolor", "--no-banner"]
        self._process = pexpect.spawn(
            sys.executable, arguments, env=env, encoding="utf-8", timeout=240, dimensions=(60, 200)
        )
        self._process.expect(PROMPT)

    def type(self, line: str) -> str:
        """Type one line and return what is shown before the next prompt."""
        self.send(line)
        return self.until_prompt()

    def send(self, line: str) -> None:
        """Type one line."""
        self._process.sendline(line)

    def wait_for(self, text: str) -> None:
        """Read until a text is shown."""
        self._process.expect(re.escape(text))

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.sendintr()

    def until_prompt(self) -> str:
        """What is shown before the next prompt."""
        self._process.expect(PROMPT)
        return ANSI.sub("", str(self._process.before))

    def close(self) -> None:
        """End IPython."""
        self._process.close(force=True)


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    made = Terminal(tmp_path_factory.mktemp("home"))
    made.type("%load_ext ovagent_jupyter")
    made.type(f"exec({LOAD_COUNTS!r})")
    yield made
    made.close()


def test_a_request_is_told_as_text(terminal: Terminal) -> None:
    shown = terminal.type("%ovagent normalise and log transform")
    assert "Normalise" in shown
    assert "sc.pp.normalize_total" in shown
    assert "adata:" in shown
    assert terminal.type("'log1p' in adata.uns").strip().endswith("True")


def test_ctrl_c_stops_and_the_prompt_comes_back(terminal: Terminal) -> None:
    terminal.send("%ovagent cluster the cells and find marker genes")
    terminal.wait_for("sc.pp.")
    terminal.interrupt()
    assert "as it was" in terminal.until_prompt()
    assert terminal.type("'leiden' in adata.obs").strip().endswith("False")


def test_commands_are_tables_of_text(terminal: Terminal) -> None:
    terminal.type("%ovagent plan run pca")
    assert "child kernel" in terminal.type("%ovagent status")
    assert "run pca" in terminal.type("%ovagent history")


def test_an_error_is_short(terminal: Terminal) -> None:
    shown = terminal.type("%ovagent write me a poem please")
    assert "WorkflowNeedsFallback" in shown
    assert len([line for line in shown.splitlines() if line.strip()]) <= 8


def test_what_loosens_is_asked_for_on_the_terminal(terminal: Terminal) -> None:
    for answer, said in (("n", "Nothing was changed"), ("y", "processes: 300 (policy)")):
        terminal.send("%ovagent policy processes 300")
        terminal.wait_for("[y/N]")
        assert said in terminal.type(answer)
    terminal.send("%ovagent policy disk 40G")
    terminal.wait_for("[y/N]")
    time.sleep(0.5)  # Python loses a signal that comes between the prompt and the reading
    terminal.interrupt()
    assert "Nothing was allowed" in terminal.until_prompt()
    assert "(default)" in terminal.type("%ovagent policy disk")
    terminal.type("%ovagent policy reset")
