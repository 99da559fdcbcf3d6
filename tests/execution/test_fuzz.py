"""A small part of what ``make soak`` tries in full: malformed answers and messages."""

from __future__ import annotations

from tests.execution import wire_forgeries
from tests.execution.handover import forgeries


def test_false_answers_end_in_a_typed_error_or_are_valid() -> None:
    ended = forgeries.attack(1200, seed=3)
    assert {how.rpartition(": ")[2] for how in ended} == {"HandoverError", "valid"}, ended


async def test_false_messages_are_never_raised_on() -> None:
    ended = await wire_forgeries.attack(8000, seed=3)
    assert [how for how in ended if how.startswith("RAISED")] == []
    assert ended.keys() >= wire_forgeries.KINDS
