"""The sandbox in a real ipykernel: what the policy shows, asks and allows; what the card says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovagent_jupyter.agent.turn import TURN_MIME
from tests.notebook.conftest import SMALL, Notebook, said

STEPS = """
from ovagent_jupyter.omics.step import STEPS, Step
def step(word, code):
    STEPS.register(
        f"{word}_now",
        Step(id=f"{word}_now", group="plot", title=f"{word} now", aliases=(f"{word} now",),
             render=lambda name, params, code=code: code),
    )
"""
DEVOUR = "blocks = []\nwhile True:\n    blocks.append(bytearray(64 << 20))"


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the user that no request names."""
    path = tmp_path_factory.mktemp("user files") / "ref.txt"
    path.write_text("reference data")
    return path


@pytest.fixture(scope="module")
def ready(notebook: Notebook, secret: Path) -> Notebook:
    """A kernel with data, and with steps that want more than they are given."""
    peek = f"print(open({str(secret)!r}).read())"
    steps = {"peek": peek, "devour": DEVOUR, "greet": "print(6 * 7)"}
    for code in (SMALL, STEPS, *(f"step({word!r}, {code!r})" for word, code in steps.items())):
        run = notebook.run(code)
        assert run.status == "ok", run.error
    return notebook


@pytest.fixture
def cells(ready: Notebook) -> Iterator[Notebook]:
    """The same, with nothing typed before."""
    yield ready
    assert ready.run("%ovagent policy reset").status == "ok"


def record_of(outputs: list[dict[str, dict[str, dict[str, object]]]]) -> dict[str, object]:
    """What the card keeps of where the code ran."""
    (record,) = [o["data"][TURN_MIME] for o in outputs if TURN_MIME in o.get("data", {})]
    sandbox = record["sandbox"]
    assert isinstance(sandbox, dict)
    return sandbox


def test_the_card_the_status_and_the_history_name_the_level(cells: Notebook) -> None:
    run = cells.run("%%ovagent\nnormalise")
    assert run.status == "ok", run.error
    record = record_of(run.outputs)
    level = str(record["level"])
    assert f"sandbox: {level}" in run.text
    assert "enforced" in str(record["protections"])
    assert "Effects: changes adata.X" in run.text
    assert f"sandbox: {level}" in cells.run("%ovagent status").text
    (*_, last) = (cells.home / "history.jsonl").read_text().splitlines()
    assert json.loads(last)["sandbox"]["level"] == level
    cells.run("%ovagent undo")


def test_the_policy_is_a_table_with_where_each_value_comes_from(cells: Notebook) -> None:
    text = cells.run("%ovagent policy").text
    for words in ("level", "floor", "read", "nothing", "80 % of the machine's", "default"):
        assert words in text
    assert "(default)" in cells.run("%ovagent policy disk").text


def test_tightening_is_at_once_and_can_be_taken_back(cells: Notebook) -> None:
    assert "memory: 2G (policy)" in cells.run("%ovagent policy memory 2G").text
    assert "processes: 64 (policy)" in cells.run("%ovagent policy processes 64").text
    assert cells.run("%ovagent policy reset").status == "ok"
    assert "(default)" in cells.run("%ovagent policy memory").text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("policy memori 2G", "memory"),
        ("policy memory lots", "memory"),
        ("policy memory 1M", "512M"),
        ("policy processes many", "processes"),
        ("policy level weak", "namespaces"),
        ("policy read /no/such/file", "does not exist"),
        ("policy read /", "whole file system"),
        ("policy read ~", "home"),
        ("policy network http://a.org/x", "network"),
    ],
)
def test_what_cannot_be_set_is_said_and_nobody_is_asked(
    cells: Notebook, line: str, words: str
) -> None:
    said(cells.run(f"%ovagent {line}"), words)


@pytest.mark.parametrize(
    "line",
    ["policy read /usr", "policy level process", "policy floor in_process", "policy disk 40G"],
)
def test_loosening_needs_a_yes_and_headless_there_is_none(cells: Notebook, line: str) -> None:
    said(cells.run(f"%ovagent {line}"), "nobody can be asked")
    run, questions = cells.answer(f"%ovagent {line}", "n")
    assert run.status == "ok"
    assert "Nothing was changed" in run.text
    assert len(questions) == 1


def test_a_cell_cannot_loosen_by_config_or_flag(cells: Notebook) -> None:
    said(cells.run("%%ovagent --disk 40G\nnormalise"), "nobody can be asked")
    cells.run("%config OVAgent.sandbox_level = 'process'")
    said(cells.run("%%ovagent\nnormalise"), "not accepted from a notebook")
    cells.run("%config OVAgent.sandbox_level = 'namespaces'")


def test_a_file_named_in_a_request_is_read_and_shown_as_granted(cells: Notebook) -> None:
    cells.run("adata.write_h5ad('mine.h5ad'); _kept = adata")
    run = cells.run("%%ovagent\nload mine.h5ad")
    assert run.status == "ok", run.error
    assert "it may read mine.h5ad" in run.text
    assert "mine.h5ad" in cells.run("%ovagent policy").text
    run = cells.run("%%ovagent\nsave to copy.h5ad")
    assert run.status == "ok", run.error
    assert "Written: " in run.text
    same = "open('copy.h5ad', 'rb').read(4) == open('mine.h5ad', 'rb').read(4)"
    assert "True" in cells.run(same).text
    cells.run("adata = _kept")


def test_what_the_sandbox_stops_is_said_with_its_grant_which_then_works(
    cells: Notebook, secret: Path
) -> None:
    run = cells.run("%%ovagent\npeek now")
    assert run.status == "error"
    assert f"%ovagent policy read '{secret}'" in run.text
    run, (question,) = cells.answer(f"%ovagent policy read {secret}", "y")
    assert str(secret) in question
    assert str(secret) in run.text
    run = cells.run("%%ovagent\npeek now")
    assert run.status == "ok", run.error
    assert "reference data" in run.text


def test_a_flag_that_gives_more_is_asked_for_once(cells: Notebook, secret: Path) -> None:
    folder = "'" + str(secret.parent) + "'"
    assert " " in folder
    link = cells.home / "link"
    link.symlink_to(secret)
    cell = f"%%ovagent --read {link}\npeek now"
    run, (question,) = cells.answer(cell, "n")
    assert str(secret) in question
    said(run, "not allowed")
    run, _ = cells.answer(cell, "y")
    assert run.status == "ok", run.error
    assert cells.run(cell).status == "ok"
    link.unlink()


def test_a_cap_ends_the_turn_by_name_and_the_next_one_works(cells: Notebook) -> None:
    cells.run("%ovagent policy memory 600M")
    before = cells.run("id(adata)").text
    run = cells.run("%%ovagent -i adata\ndevour now")
    assert "ResourceLimitExceeded" in run.error
    said(run, "memory")
    assert "policy memory 1200M" in run.error
    assert cells.run("id(adata)").text == before
    run = cells.run("%%ovagent\nnormalise")
    assert run.status == "ok", run.error
    cells.run("%ovagent undo")


def test_without_a_sandbox_each_turn_asks_and_the_card_says_so(cells: Notebook) -> None:
    run, _ = cells.answer("%ovagent policy level process", "y")
    assert run.status == "ok", run.error
    for answer, status in (("n", "error"), ("y", "ok")):
        run, (question,) = cells.answer("%%ovagent\ngreet now", answer)
        assert "process" in question
        assert run.status == status, run.error
        assert "Not confined" in run.text
        assert ("42" in run.text) is (status == "ok")
    said(cells.run("%%ovagent\ngreet now"), "nobody can be asked")
    message_id = cells.client.execute("%%ovagent\ngreet now", allow_stdin=True)
    cells.client.get_stdin_msg(timeout=60)
    cells.manager.interrupt_kernel()
    said(cells.finish(message_id), "as it was")
    run, _ = cells.answer("%%ovagent\ngreet now", "y")
    assert run.status == "ok", run.error
