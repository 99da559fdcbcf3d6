"""``ovagent ask`` as a real process, with a service of this machine."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovagent_jupyter.loop_thread import LoopThread
from tests.cli.conftest import MODULE, PATIENCE, Run, refused
from tests.providers.served import CUT, Served, Step


def piece(text: str, finish: str | None = None) -> bytes:
    """One event of a streamed answer."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    usage = {"prompt_tokens": 100, "completion_tokens": 7} if finish else None
    event = {"id": "r1", "model": "lab-model-1", "choices": [choice], "usage": usage}
    return f"data: {json.dumps(event)}\n\n".encode()


ANSWER: tuple[Step, ...] = (piece("A doublet is "), piece("two cells."), piece("", "stop"))


@pytest.fixture
def service() -> Iterator[Served]:
    """A server on a thread of its own."""
    loop, server = LoopThread("served"), Served()

    async def begin() -> None:
        await server.__aenter__()

    async def end() -> None:
        await server.__aexit__(None, None, None)

    loop.run(begin())
    yield server
    loop.run(end())
    loop.close()


def lab(service: Served) -> tuple[str, ...]:
    """The options that lead to it."""
    return "-m", "lab-model", "--endpoint", f"{service.url}/v1"


def test_the_answer_alone_is_on_the_standard_output(ovagent: Run, service: Served) -> None:
    service.answer(*ANSWER)
    done = ovagent("ask", *lab(service), "what", "is", "a", "doublet?")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "A doublet is two cells.\n"
    assert "asking" in done.stderr
    assert "100 + 7 tokens" in done.stderr
    assert service.requests[-1].body["messages"][-1]["content"] == "what is a doublet?"


def test_a_question_can_be_piped_in(service: Served, home: Path, folder: Path) -> None:
    service.answer(*ANSWER)
    done = subprocess.run(
        [*MODULE, "ask", "-", *lab(service)],
        cwd=folder,
        env={**os.environ, "OVAGENT_HOME": str(home)},
        input="what is\na doublet?\n",
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert service.requests[-1].body["messages"][-1]["content"].strip() == "what is\na doublet?"


def test_an_answer_that_breaks_off_ends_its_line(ovagent: Run, service: Served) -> None:
    service.answer(piece("A few"), CUT)
    done = ovagent("ask", *lab(service), "what is a doublet?")
    assert done.returncode == 2
    assert done.stdout == "A few\n"
    assert any(line.startswith("StreamInterrupted") for line in done.stderr.splitlines())


def test_an_empty_question_asks_nobody(ovagent: Run, service: Served) -> None:
    refused(ovagent("ask", *lab(service), ""), "There is no question")
    refused(ovagent("ask", *lab(service), "  "), "There is no question")
    refused(ovagent("run", " "), "There is no request")
    assert service.requests == []


def test_a_setting_that_cannot_be_used_stops_no_doctor(ovagent: Run, tmp_path: Path) -> None:
    bad = {"OVAGENT_ENDPOINT": "nowhere"}
    examined = ovagent("doctor", **bad)
    assert examined.returncode == 1
    assert "OVAGENT_ENDPOINT" in examined.stdout.splitlines()[0]
    assert "starts and runs code" in examined.stdout
    used = ovagent("usage", **bad)
    assert used.returncode == 0
    assert "OVAGENT_ENDPOINT" in used.stderr
    assert "tokens read" in used.stdout or "No model" in used.stdout
    refused(ovagent("run", "normalise", **bad), "OVAGENT_ENDPOINT")
