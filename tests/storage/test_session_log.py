"""The log of a session: what a line keeps, and what cannot break it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ovagent_jupyter.errors import StorageError
from ovagent_jupyter.events import AgentEvent, Category, Level
from ovagent_jupyter.execution.executor import Output
from ovagent_jupyter.storage.redaction import Redactor
from ovagent_jupyter.storage.session_log import TEXT_LIMIT, SessionLog, session_ids

KEY = "sk-" + "planted0" * 4


@pytest.fixture
def log(tmp_path: Path) -> SessionLog:
    return SessionLog(tmp_path / "sessions", "s-1", Redactor({"X_TOKEN": "planted-value"}))


def event(message: str = "m", **data: object) -> AgentEvent:
    """One event."""
    return AgentEvent(category=Category.NOTICE, message=message, data=data, session_id="s-1")


def output_event(output: Output) -> AgentEvent:
    """What an executor's output arrives as."""
    return AgentEvent(category=Category.CODE_OUTPUT, message=output.kind, data={"output": output})


def test_event_comes_back_as_its_record(log: SessionLog) -> None:
    first = event("first", steps=["qc", "pca"], n=3, level=Level.WARNING)
    log.append(first)
    log.append(event("second"))
    reading = log.read()
    assert reading.records[0] == first.as_record()
    assert [record["message"] for record in reading.records] == ["first", "second"]
    assert reading.skipped == 0


def test_log_of_another_object_of_the_same_session_goes_on(log: SessionLog) -> None:
    log.append(event("first"))
    again = SessionLog(log.path.parent, "s-1", Redactor({}))
    again.append(event("second"))
    assert len(log.read().records) == 2


def test_no_log_reads_as_empty_and_writes_nothing(log: SessionLog) -> None:
    assert log.read().records == ()
    assert not log.path.parent.exists()


def test_text_of_output_is_kept(log: SessionLog) -> None:
    log.append(output_event(Output("stream", stream="stdout", text="hello\n")))
    kept = log.read().records[0]["data"]
    assert isinstance(kept, dict)
    assert kept["output"]["text"] == "hello\n"
    assert kept["output"]["stream"] == "stdout"


def test_image_is_named_and_not_kept(log: SessionLog) -> None:
    image = "iVBORw0KGgo" * 10_000
    data = {"image/png": image, "text/plain": "<Figure>"}
    log.append(output_event(Output("display", data=data)))
    line = log.path.read_text()
    assert "iVBORw0KGgo" not in line
    assert "<Figure>" in line
    assert '"image/png":"110000 characters"' in line


def test_flood_is_cut_and_the_line_says_so(log: SessionLog) -> None:
    log.append(event("x" * (TEXT_LIMIT + 7), deep=[{"text": "y" * TEXT_LIMIT * 5}]))
    line = log.path.read_text()
    assert "[cut: 7 more characters]" in line
    assert f"[cut: {4 * TEXT_LIMIT} more characters]" in line
    assert len(line) < 3 * TEXT_LIMIT


def test_keys_are_not_stored(log: SessionLog) -> None:
    log.append(event("planted-value", deep=[{KEY: [KEY]}], api_key="planted"))
    log.append(output_event(Output("stream", stream="stderr", text=f"no: {KEY}")))
    log.append(output_event(Output("result", data={"text/plain": f"'{KEY}'"})))
    assert "planted" not in log.path.read_text()


def test_key_at_the_cut_is_not_stored_in_half(log: SessionLog) -> None:
    log.append(event("x" * (TEXT_LIMIT - 10) + " " + KEY))
    assert "planted" not in log.path.read_text()


def test_torn_last_line_is_skipped_and_the_next_event_kept(log: SessionLog) -> None:
    log.append(event("first"))
    with log.path.open("a") as file:
        file.write('{"message": "to')
    assert (len(log.read().records), log.read().skipped) == (1, 1)
    log.append(event("third"))
    assert [record["message"] for record in log.read().records] == ["first", "third"]


def test_what_cannot_be_json_is_named_by_its_type(log: SessionLog) -> None:
    loop: list[object] = []
    loop.append(loop)
    log.append(event(thing=object(), nan=float("nan"), loop=loop))
    data = json.loads(log.path.read_text())["data"]
    assert data["thing"] == "<object>"
    assert data["nan"] is None


def test_unwritable_place_is_a_storage_error(under_a_file: Path) -> None:
    log = SessionLog(under_a_file, "s-1", Redactor({}))
    with pytest.raises(StorageError) as caught:
        log.append(event())
    assert len(caught.value.lines()) <= 6


def test_full_disk_is_a_storage_error_and_the_log_stays_whole(small_disk: Path) -> None:
    log = SessionLog(small_disk, "s-1", Redactor({}))
    with pytest.raises(StorageError, match="No space left"):
        append_many(log)
    assert log.read().records
    assert log.read().skipped == 0


def append_many(log: SessionLog) -> None:
    """More than a small disk holds."""
    for _ in range(200):
        log.append(event("x" * TEXT_LIMIT))


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "a\\b", ".hidden", "a b", "x" * 101])
def test_id_that_could_leave_the_directory_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StorageError, match="not the id of a session"):
        SessionLog(tmp_path, name, Redactor({}))


def test_sessions_are_listed_latest_first(tmp_path: Path) -> None:
    import os

    for number, name in enumerate(["a", "b", "c"]):
        SessionLog(tmp_path, name, Redactor({})).append(event())
        os.utime(tmp_path / f"{name}.jsonl", (number, number))
    (tmp_path / "other.txt").touch()
    assert session_ids(tmp_path) == ("c", "b", "a")
    assert session_ids(tmp_path / "none") == ()
