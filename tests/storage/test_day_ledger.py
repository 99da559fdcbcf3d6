"""The ledger of a day: what is added and corrected, read by several kernels, and never garbled."""

from __future__ import annotations

import stat
from datetime import UTC, timedelta
from pathlib import Path

import pytest

from ovagent_jupyter.storage.day_ledger import KEPT_DAYS, DayLedger, Spent
from tests.gateway.played import Calendar


def test_ledger_reads_only_what_is_new_and_survives_torn_lines(tmp_path: Path) -> None:
    one, other = (DayLedger(tmp_path, now=Calendar(), zone=UTC) for _ in range(2))
    one.add(Spent(1, 10, 0.25))
    assert other.spent() == Spent(1, 10, 0.25)
    with one.path.open("ab") as file:
        file.write(b'{"requests": 5, "tok')
    assert other.spent() == Spent(1, 10, 0.25)
    one.add(Spent(1, 5, 0.5))
    assert other.spent() == one.spent() == Spent(2, 15, 0.75)
    assert stat.S_IMODE(one.path.stat().st_mode) == 0o600
    one.path.unlink()
    assert other.spent() == Spent()


def test_a_line_that_is_being_written_is_read_once_it_is_whole(tmp_path: Path) -> None:
    ledger = DayLedger(tmp_path, now=Calendar(), zone=UTC)
    line = b'{"requests": 1, "tokens": 10, "money": 0.5}\n'
    for piece, so_far in ((line[:20], Spent()), (line[20:], Spent(1, 10, 0.5))):
        with ledger.path.open("ab") as file:
            file.write(piece)
        assert ledger.spent() == so_far


@pytest.mark.parametrize(
    "line", [b"[]", b'{"requests": "many", "tokens": 1, "money": 1}', b'{"requests": -5}', b"\xff"]
)
def test_lines_that_are_not_ours_say_nothing(tmp_path: Path, line: bytes) -> None:
    ledger = DayLedger(tmp_path, now=Calendar(), zone=UTC)
    ledger.path.write_bytes(line + b"\n")
    assert ledger.spent() == Spent()


@pytest.mark.parametrize(
    ("line", "spent"),
    [
        ('{"requests": 1, "tokens": -900, "money": -1}', Spent(2, 10, 0.5)),
        ('{"requests": 1, "tokens": 5, "money": Infinity}', Spent(2, 15, 0.5)),
        ('{"requests": 1, "tokens": NaN, "money": 0.25}', Spent(2, 10, 0.75)),
        ('{"requests": 1, "tokens": 1e30, "money": 0.25}', Spent(2, 1_000_000_010, 0.75)),
        ('{"requests": 0, "tokens": -4, "money": -0.25}', Spent(1, 6, 0.25)),
        ('{"requests": 0, "tokens": -90, "money": -9}', Spent(1, 0, 0.0)),
        ('{"requests": -1, "tokens": -10, "money": -0.5}', Spent()),
        ('{"requests": -9, "tokens": -1, "money": -Infinity}', Spent(0, 9, 0.5)),
    ],
)
def test_amounts_are_clamped_and_corrections_lead_to_nothing_at_least(
    tmp_path: Path, line: str, spent: Spent
) -> None:
    ledger = DayLedger(tmp_path, now=Calendar(), zone=UTC)
    ledger.add(Spent(1, 10, 0.5))
    with ledger.path.open("a") as file:
        file.write(line + "\n")
    assert ledger.spent() == spent


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    ledger = DayLedger(tmp_path, now=Calendar(), zone=UTC)
    ledger.add(Spent(1, -5, float("inf")))
    assert ledger.spent() == Spent(1)
    assert "Infinity" not in ledger.path.read_text()


def test_old_days_are_removed(tmp_path: Path) -> None:
    calendar = Calendar()
    ledger = DayLedger(tmp_path, now=calendar, zone=UTC)
    for _ in range(KEPT_DAYS + 5):
        ledger.add(Spent(1))
        calendar.now += timedelta(days=1)
    assert len(list(tmp_path.iterdir())) == KEPT_DAYS
