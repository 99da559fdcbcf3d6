"""A session as a notebook: valid, complete, continued, and never half written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nbformat
import pytest

from ovagent_jupyter.errors import StorageError
from ovagent_jupyter.execution.executor import CodeError, Output
from ovagent_jupyter.storage.notebook_outputs import notebook_outputs
from ovagent_jupyter.storage.redaction import Redactor
from ovagent_jupyter.storage.session_notebook import (
    RecordedCell,
    RecordedTurn,
    SessionNotebook,
)

KEY = "sk-" + "planted0" * 4
OUTPUTS = (
    Output("stream", stream="stdout", text="a"),
    Output("stream", stream="stdout", text="b\n"),
    Output("stream", stream="stderr", text="warned\n"),
    Output("display", data={"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"}),
    Output("result", data={"text/plain": "3", "application/json": '{"a": [1]}'}),
    Output("error", text="ValueError: no"),
)
FAILURE = CodeError("ValueError", "no", ("Traceback", "ValueError: no"))
TURN = RecordedTurn(
    request="cluster\n# and show markers",
    turn_id="t1",
    plan=("Neighbours", "Leiden"),
    cells=(
        RecordedCell(code="x = 1\nx", outputs=notebook_outputs(OUTPUTS[:5]), step="pp.neighbors"),
        RecordedCell(code="boom()", outputs=notebook_outputs(OUTPUTS[5:], FAILURE), seconds=0.25),
    ),
    result="Failed at Leiden.",
)


@pytest.fixture
def notebook(tmp_path: Path) -> SessionNotebook:
    return SessionNotebook(tmp_path / "sessions", "s-1", Redactor({"A_KEY": "planted-value"}))


def written(notebook: SessionNotebook) -> nbformat.NotebookNode:
    """The file as nbformat reads it; it must be valid."""
    found: nbformat.NotebookNode = nbformat.read(notebook.path, as_version=4)
    nbformat.validate(found)
    return found


def test_turn_is_a_heading_a_cell_a_step_and_the_result(notebook: SessionNotebook) -> None:
    notebook.append_turn(TURN)
    title, heading, first, second, result = written(notebook).cells
    assert "s-1" in title.source
    assert heading.source == "> cluster\n> # and show markers\n\n1. Neighbours\n2. Leiden"
    assert (first.source, first.execution_count) == ("x = 1\nx", 1)
    assert first.metadata.ovagent == {"turn_id": "t1", "step": "pp.neighbors"}
    assert (second.source, second.execution_count) == ("boom()", 2)
    assert second.metadata.ovagent.seconds == 0.25
    assert result.source == "Failed at Leiden."


def test_outputs_are_those_of_a_notebook(notebook: SessionNotebook) -> None:
    notebook.append_turn(TURN)
    out, err, figure, value = written(notebook).cells[2].outputs
    assert (out.name, out.text) == ("stdout", "ab\n")
    assert (err.name, err.text) == ("stderr", "warned\n")
    assert figure.data["image/png"] == "iVBORw0KGgo="
    assert value.data["application/json"] == {"a": [1]}
    assert value.execution_count == 1


def test_failing_cell_has_its_traceback_once(notebook: SessionNotebook) -> None:
    notebook.append_turn(TURN)
    (error,) = written(notebook).cells[3].outputs
    assert (error.ename, error.evalue) == ("ValueError", "no")
    assert error.traceback == ["Traceback", "ValueError: no"]


def test_ids_differ_and_are_kept_by_later_turns(notebook: SessionNotebook) -> None:
    notebook.append_turn(TURN)
    before = [cell.id for cell in written(notebook).cells]
    notebook.append_turn(TURN)
    after = [cell.id for cell in written(notebook).cells]
    assert after[: len(before)] == before
    assert len(set(after)) == len(after) == 9


def test_resumed_session_is_continued(notebook: SessionNotebook) -> None:
    notebook.append_turn(TURN)
    SessionNotebook(notebook.path.parent, "s-1", Redactor({})).append_turn(TURN)
    cells = written(notebook).cells
    assert [c.execution_count for c in cells if c.cell_type == "code"] == [1, 2, 3, 4]
    assert [c.source for c in cells].count(cells[0].source) == 1


def test_turns_are_appended_as_nbformat_writes_a_whole_notebook(notebook: SessionNotebook) -> None:
    for number in range(3):
        notebook.append_turn(replace(TURN, result=f'"],\n "metadata": {number}'))
        text = notebook.path.read_text("utf-8")
        assert text == nbformat.writes(written(notebook), version=4)


def test_what_is_edited_between_two_turns_stays(notebook: SessionNotebook) -> None:
    notebook.append_turn(TURN)
    theirs = written(notebook)
    theirs.cells[1].source = "edited"
    nbformat.write(theirs, notebook.path)
    notebook.append_turn(TURN)
    notebook.append_turn(TURN)
    assert written(notebook).cells[1].source == "edited"
    assert len(written(notebook).cells) == 13


def test_notebook_that_is_deleted_begins_anew(notebook: SessionNotebook) -> None:
    notebook.append_turn(TURN)
    notebook.path.unlink()
    notebook.append_turn(TURN)
    assert len(written(notebook).cells) == 5


def test_notebook_saved_by_another_program_is_continued(notebook: SessionNotebook) -> None:
    notebook.append_turn(TURN)
    theirs = written(notebook)
    theirs.cells[1].source = "edited"
    theirs.metadata["theirs"] = 1
    nbformat.write(theirs, notebook.path)
    SessionNotebook(notebook.path.parent, "s-1", Redactor({})).append_turn(TURN)
    assert written(notebook).cells[1].source == "edited"
    assert written(notebook).metadata.theirs == 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b'{"nbformat": 3}', b'{"nbformat": 4, "cells": []}']
)
def test_broken_file_is_moved_aside_and_kept(notebook: SessionNotebook, content: bytes) -> None:
    notebook.path.parent.mkdir()
    notebook.path.write_bytes(content)
    notebook.append_turn(TURN)
    assert len(written(notebook).cells) == 5
    aside = notebook.path.with_name("s-1.broken-1.ipynb")
    assert aside.read_bytes() == content


def test_keys_are_not_stored_and_images_not_touched(notebook: SessionNotebook) -> None:
    image = "AIza" + "B" * 40
    outputs = notebook_outputs(
        (
            Output("stream", stream="stdout", text=KEY),
            Output("result", data={"text/plain": KEY, "application/json": f'["{KEY}"]'}),
            Output("display", data={"image/png": image}),
        ),
        CodeError("E", "planted-value", (f"at {KEY}",)),
    )
    cell = RecordedCell(code=f"k = '{KEY}'", outputs=outputs)
    notebook.append_turn(replace(TURN, request=KEY, plan=(KEY,), cells=(cell,), result=KEY))
    text = notebook.path.read_text()
    assert "planted" not in text
    assert image in text


def test_turn_without_code_or_with_odd_text_is_valid(notebook: SessionNotebook) -> None:
    notebook.append_turn(RecordedTurn(request=""))
    odd = "é 中 \u2028 \x00 \ud800 \r\n"
    cell = RecordedCell(
        code=odd, outputs=({"output_type": "stream", "name": "stdout", "text": odd},)
    )
    notebook.append_turn(RecordedTurn(request=odd, cells=(cell,)))
    assert written(notebook).cells[-1].source == odd


def test_given_execution_count_is_kept(notebook: SessionNotebook) -> None:
    notebook.append_turn(replace(TURN, cells=(RecordedCell(code="1", execution_count=7),)))
    notebook.append_turn(replace(TURN, cells=(RecordedCell(code="2"),)))
    counts = [cell.get("execution_count") for cell in written(notebook).cells]
    assert [count for count in counts if count] == [7, 8]


def test_unwritable_place_is_a_storage_error(under_a_file: Path) -> None:
    with pytest.raises(StorageError) as caught:
        SessionNotebook(under_a_file, "s", Redactor({})).append_turn(TURN)
    assert len(caught.value.lines()) <= 6


def test_full_disk_keeps_the_old_file_and_loses_no_turn(small_disk: Path) -> None:
    notebook = SessionNotebook(small_disk, "s", Redactor({}))
    notebook.append_turn(TURN)
    before = notebook.path.read_bytes()
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (900 * 1024))
    large = replace(TURN, result="y" * 200_000)
    with pytest.raises(StorageError, match="No space left"):
        notebook.append_turn(large)
    assert notebook.path.read_bytes() == before
    assert {path.name for path in small_disk.iterdir()} == {"s.ipynb", "ballast"}
    ballast.unlink()
    notebook.append_turn(TURN)
    assert "y" * 200_000 in [cell.source for cell in written(notebook).cells]


def test_displays_stand_as_last_updated_and_cleared_ones_are_gone() -> None:
    outputs = notebook_outputs(
        (
            Output("display", data={"text/plain": "gone"}, display_id="a"),
            Output("clear"),
            Output("update", data={"text/plain": "nowhere"}, display_id="a"),
            Output("display", data={"text/plain": "0 %"}, display_id="b"),
            Output("update", data={"text/plain": "100 %"}, display_id="b"),
            Output("result", data={"application/json": "not json"}),
            Output("error", text="KeyError: 'x'"),
        )
    )
    assert [output.get("data") for output in outputs[:2]] == [
        {"text/plain": "100 %"},
        {"application/json": "not json"},
    ]
    assert (outputs[2]["ename"], outputs[2]["evalue"]) == ("KeyError", "'x'")
    assert len(outputs) == 3
