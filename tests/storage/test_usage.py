"""The usage report: a reading of real session logs, by model, day and session."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from ovagent_jupyter.errors import StorageError
from ovagent_jupyter.events import AgentEvent, Category
from ovagent_jupyter.messages import Usage, dollars
from ovagent_jupyter.storage.redaction import Redactor
from ovagent_jupyter.storage.session_log import SessionLog
from ovagent_jupyter.storage.usage import (
    ModelUse,
    UsageRow,
    read_uses,
    usage_report,
)

DAY = datetime(2026, 11, 21, 23, 30, tzinfo=UTC)


def write(folder: Path, session: str, *uses: ModelUse, at: datetime = DAY) -> None:
    """Events of uses, in the log of a session."""
    log = SessionLog(folder, session, Redactor({}))
    for number, use in enumerate(uses):
        category = Category.MODEL_FAILED if use.fault else Category.MODEL_ANSWERED
        log.append(
            AgentEvent(
                category=category,
                message="m",
                data=use.as_data(),
                session_id=session,
                correlation_id=f"turn-{number}",
                timestamp=at + timedelta(seconds=number),
            )
        )


def used(model: str, read: int, cost: float | None, **more: object) -> ModelUse:
    """A use."""
    return ModelUse(model=model, usage=Usage(read, 10), cost=cost, latency=1.5, **more)  # type: ignore[arg-type]


def test_a_use_comes_back_as_it_was_told(tmp_path: Path) -> None:
    use = ModelUse(
        model="m",
        provider="p",
        backend="b",
        call_id="c",
        attempt=2,
        usage=Usage(10, 5, 3, 2, 1, estimated=True),
        cost=0.5,
        latency=1.25,
        first_token=0.5,
        finish_reason="stop",
        cached=True,
    )
    write(tmp_path, "s1", use)
    (found,) = read_uses(tmp_path)
    assert found.as_data() == use.as_data()
    assert (found.session_id, found.turn_id, found.timestamp) == ("s1", "turn-0", DAY)


def test_report_by_model_counts_what_failed_and_what_has_no_price(tmp_path: Path) -> None:
    write(tmp_path, "s1", used("cheap", 100, 0.25), used("dear", 50, 2.0, provider="p"))
    write(
        tmp_path,
        "s2",
        used("cheap", 1_000, None),
        used("cheap", 7, 0.125, fault="interrupted"),
        used("cheap", 0, 0.0, cached=True),
    )
    report = usage_report(read_uses(tmp_path))
    assert [row.name for row in report.rows] == ["p/dear", "cheap"]
    cheap = report.rows[1]
    assert (cheap.calls, cheap.failures, cheap.cached, cheap.unpriced) == (3, 1, 1, 1)
    assert cheap.usage == Usage(1_107, 40)
    assert cheap.cost == pytest.approx(0.375)
    assert "at least $0.38" in cheap.line()
    assert "1 without a known price" in cheap.line()
    assert (report.total.calls, report.total.cost) == (4, pytest.approx(2.375))
    assert report.total.seconds == pytest.approx(7.5)


def test_report_by_session_and_day_has_the_latest_first(tmp_path: Path) -> None:
    write(tmp_path, "old", used("m", 1, 1.0), at=DAY - timedelta(days=3))
    write(tmp_path, "new", used("m", 1, 2.0), used("m", 1, 4.0))
    by_session = usage_report(read_uses(tmp_path), "session")
    assert [(row.name, row.cost) for row in by_session.rows] == [("new", 6.0), ("old", 1.0)]
    by_day = usage_report(read_uses(tmp_path), "day", zone=UTC)
    assert [row.name for row in by_day.rows] == ["2026-11-21", "2026-11-18"]
    east = usage_report(read_uses(tmp_path), "day", zone=timezone(timedelta(hours=9)))
    assert [row.name for row in east.rows] == ["2026-11-22", "2026-11-19"]
    recent = usage_report(read_uses(tmp_path), since=DAY - timedelta(hours=1))
    assert recent.total.cost == 6.0
    assert usage_report(read_uses(tmp_path, "old")).total.cost == 1.0


def test_other_events_and_lines_that_are_not_ours_are_passed_over(tmp_path: Path) -> None:
    log = SessionLog(tmp_path, "s", Redactor({}))
    log.append(AgentEvent(category=Category.NOTICE, message='say "model.answered" twice'))
    log.append(AgentEvent(category=Category.MODEL_ANSWERED, message="m", data={"model": 3}))
    log.append(AgentEvent(category=Category.MODEL_ANSWERED, message="m", data={"cost": 3}))
    log.append(
        AgentEvent(category=Category.MODEL_ANSWERED, message="m", data={"model": "m", "usage": 1})
    )
    write(tmp_path, "s", used("m", 1, 1.0))
    with log.path.open("ab") as file:
        file.write(b'{"category": "model.answered", "data": {"model": "m", "co')
    assert [use.model for use in read_uses(tmp_path)] == ["m"]
    assert list(read_uses(tmp_path / "nowhere")) == list(read_uses(tmp_path, "nobody")) == []
    with pytest.raises(StorageError):
        list(read_uses(tmp_path, "../s"))


def test_nothing_used_is_an_empty_report(tmp_path: Path) -> None:
    report = usage_report(read_uses(tmp_path))
    assert (report.rows, report.total) == ((), UsageRow(name="all"))


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "$0"),
        (0.00001, "less than $0.0001"),
        (0.0033, "$0.0033"),
        (0.5, "$0.5"),
        (1234.5, "$1,234.50"),
    ],
)
def test_amounts_are_read_at_a_glance(amount: float, text: str) -> None:
    assert dollars(amount) == text


def test_usage_of_a_record_is_checked() -> None:
    usage = Usage(1, 2, 3, 4, 5, estimated=True)
    assert Usage.from_record(usage.as_record()) == usage
    assert Usage.from_record({"input_tokens": 1, "of_a_newer_version": "x"}) == Usage(1)
    for wrong in (None, [], {"input_tokens": "1"}, {"output_tokens": 1.5}):
        with pytest.raises(ValueError, match="usage is"):
            Usage.from_record(wrong)
