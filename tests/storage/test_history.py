"""The history: what is kept, in which order, and what cannot break it."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from ovagent_jupyter.errors import StorageError
from ovagent_jupyter.messages import Usage
from ovagent_jupyter.storage.history import HistoryEntry, SessionHistory
from ovagent_jupyter.storage.redaction import Redactor

FULL = HistoryEntry(
    session_id="s1",
    request="cluster\nand show “markers” \u2028 \ud800",
    timestamp=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=2))),
    generated_code="sc.tl.leiden(adata)",
    result_summary="8 clusters",
    usage=Usage(3, 4),
    priority_used=2,
    success=False,
    cell_id="c7",
    model="offline",
    cost=None,
    duration=1.25,
    data_diff="adata: +obs/leiden",
    sandbox={"level": "confined", "requested": "namespaces", "probe": {"userns": "missing"}},
)


@pytest.fixture
def history(tmp_path: Path) -> SessionHistory:
    return SessionHistory(tmp_path / "kept" / "history.jsonl", redactor=Redactor({}))


def entry(number: int, session_id: str = "s") -> HistoryEntry:
    """A small entry that can be told apart."""
    return HistoryEntry(session_id=session_id, request=f"request {number}")


def requests(entries: list[HistoryEntry]) -> list[str]:
    """Which entries these are."""
    return [found.request for found in entries]


def test_entry_comes_back_as_it_was(history: SessionHistory) -> None:
    history.append(FULL)
    assert history.get_recent(1) == [FULL]
    assert history.get_session("s1") == [FULL]


def test_file_and_directory_are_private(history: SessionHistory) -> None:
    history.append(FULL)
    assert stat.S_IMODE(history.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(history.path.parent.stat().st_mode) == 0o700


def test_every_line_is_one_strict_json_object(history: SessionHistory) -> None:
    history.append(FULL)
    history.append(HistoryEntry(session_id="s", request="", cost=float("nan")))
    lines = history.path.read_text("ascii").splitlines()
    assert len(lines) == 2

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    for line in lines:
        assert isinstance(json.loads(line, parse_constant=refuse), dict)


def test_no_file_is_an_empty_history(history: SessionHistory) -> None:
    assert history.get_recent(5) == history.get_session("s") == []
    assert history.build_context_for_llm("s") == ""
    assert not history.path.parent.exists()


def test_default_file_is_below_the_override(home: Path) -> None:
    assert SessionHistory().path == home / "history.jsonl"


@pytest.mark.parametrize("n", [0, 1, 3, 7, 100])
def test_recent_are_the_last_in_order(history: SessionHistory, n: int) -> None:
    for number in range(7):
        history.append(entry(number))
    wanted = [f"request {number}" for number in range(7)][7 - min(n, 7) :]
    assert requests(history.get_recent(n)) == wanted


def test_sessions_are_told_apart(history: SessionHistory) -> None:
    for number in range(6):
        history.append(entry(number, session_id=("a", "b", "ab")[number % 3]))
    assert requests(history.get_session("a")) == ["request 0", "request 3"]
    assert history.get_session("nobody") == []


def test_context_for_a_model_has_the_last_entries_of_the_session(history: SessionHistory) -> None:
    for number in range(5):
        history.append(entry(number, session_id="a" if number != 3 else "b"))
    history.append(FULL)
    text = history.build_context_for_llm("a", max_entries=2)
    assert "request 2" in text
    assert text.index("request 2") < text.index("request 4")
    assert "request 1" not in text
    assert "request 3" not in text
    assert history.build_context_for_llm("a", max_entries=0) == ""
    assert "Failed: 8 clusters" in history.build_context_for_llm("s1")
    assert "sc.tl.leiden(adata)" in history.build_context_for_llm("s1")


def test_context_is_bounded(history: SessionHistory) -> None:
    flood = "x" * 100_000
    history.append(HistoryEntry(session_id="s", request=flood, generated_code=flood))
    assert len(history.build_context_for_llm("s")) < 3_000


def test_keys_are_not_stored(tmp_path: Path) -> None:
    history = SessionHistory(
        tmp_path / "h.jsonl", redactor=Redactor({"X_API_KEY": "planted-value"})
    )
    key = "sk-" + "plantedToo0" * 3
    history.append(
        HistoryEntry(
            session_id="s",
            request="use planted-value please",
            generated_code=f"client('{key}')",
            result_summary="planted-value",
            data_diff=f"adata: +uns/{key}",
        )
    )
    stored = history.path.read_text()
    assert "planted" not in stored
    assert stored.count("[redacted]") == 4


def test_environment_is_known_without_being_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "planted-value")
    history = SessionHistory(tmp_path / "h.jsonl")
    history.append(HistoryEntry(session_id="s", request="planted-value"))
    assert "planted" not in history.path.read_text()


def test_unknown_fields_of_a_newer_version_are_left_out(history: SessionHistory) -> None:
    history.append(FULL)
    record = json.loads(history.path.read_text()) | {"mood": "good"}
    history.path.write_text(json.dumps(record, separators=(",", ":")) + "\n")
    assert history.get_recent(1) == [FULL]


def test_older_entry_has_defaults() -> None:
    record = {"session_id": "s", "request": "r", "timestamp": "2026-01-01T00:00:00"}
    found = HistoryEntry.from_record(record)
    assert found.timestamp == datetime(2026, 1, 1, tzinfo=UTC)
    assert found.usage == Usage()


@pytest.mark.parametrize(
    "change",
    [
        {"session_id": 3},
        {"timestamp": "yesterday"},
        {"usage": {"input_tokens": "many"}},
        {"usage": []},
        {"success": "yes"},
        {"request": None},
    ],
)
def test_record_of_the_wrong_kind_is_skipped_and_counted(
    history: SessionHistory, change: dict[str, object]
) -> None:
    history.append(FULL)
    bad = json.loads(history.path.read_text()) | change
    with history.path.open("a") as file:
        file.write(json.dumps(bad) + "\n")
    assert history.get_recent(5) == [FULL]
    assert history.skipped == 1


def test_unwritable_directory_is_a_storage_error(under_a_file: Path) -> None:
    history = SessionHistory(under_a_file / "history.jsonl")
    with pytest.raises(StorageError, match=r"a file is in its way|Not a directory") as caught:
        history.append(FULL)
    assert len(caught.value.lines()) <= 6


def test_history_that_is_a_directory_is_a_storage_error(tmp_path: Path) -> None:
    history = SessionHistory(tmp_path)
    with pytest.raises(StorageError, match="cannot be written"):
        history.append(FULL)
    with pytest.raises(StorageError, match="cannot be read"):
        history.get_recent(1)
