"""Events: numbered, stamped, and recorded as plain values."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from ovagent_jupyter.events import AgentEvent, Category, Emitter, Level, plain
from ovagent_jupyter.messages import Message, TextPart, ToolCall, Usage


def test_emitter_numbers_and_stamps() -> None:
    seen: list[AgentEvent] = []
    emit = Emitter(seen.append, "session", "turn")
    first = emit(Category.TURN_STARTED, "go", request="r")
    emit(Category.NOTICE, "look out", level=Level.WARNING)
    assert seen[0] is first
    assert [event.seq for event in seen] == [0, 1]
    assert {(event.session_id, event.correlation_id) for event in seen} == {("session", "turn")}
    assert seen[1].level is Level.WARNING
    assert first.timestamp.tzinfo is UTC


def test_record_is_json_with_every_field() -> None:
    event = AgentEvent(category=Category.NOTICE, message="m", data={"n": 1}, seq=4)
    record = json.loads(json.dumps(event.as_record()))
    assert set(record) == set(AgentEvent.__dataclass_fields__)
    assert record["category"] == "notice"
    assert datetime.fromisoformat(record["timestamp"]) == event.timestamp


def test_event_is_frozen() -> None:
    event = AgentEvent(category=Category.NOTICE, message="m")
    with pytest.raises(FrozenInstanceError):
        event.message = "n"  # type: ignore[misc]


@dataclass(frozen=True)
class Recorded:
    """Says itself how it is recorded."""

    def as_record(self) -> dict[str, object]:
        """A record that is not plain itself."""
        return {"inner": Usage(1, 2), "place": Path("a/b")}


@pytest.mark.parametrize(
    ("value", "recorded"),
    [
        (None, None),
        (True, True),
        ("text", "text"),
        (1.5, 1.5),
        (float("nan"), None),
        (float("-inf"), None),
        (np.float64(0.5), 0.5),
        (np.float32("nan"), None),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array(2), 2),
        (np.arange(3), "<ndarray>"),
        ({1: {"a"}}, {"1": ["a"]}),
        ((1, [2]), [1, [2]]),
        (Path("/a/b"), "/a/b"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (Level.ERROR, "error"),
        (b"bytes", "<bytes>"),
        (object(), "<object>"),
        (Recorded(), {"inner": {"input_tokens": 1, "output_tokens": 2}, "place": "a/b"}),
    ],
)
def test_plain_values(value: object, recorded: object) -> None:
    assert plain(value) == recorded
    json.dumps(plain(value), allow_nan=False)


def test_what_holds_itself_is_cut() -> None:
    loop: dict[str, object] = {}
    loop["again"] = [loop]
    assert json.dumps(plain(loop)).count("again") <= 20


def test_message_text_is_its_text_parts() -> None:
    message = Message("assistant", (TextPart("a"), ToolCall("1", "run"), TextPart("b")))
    assert message.text == "ab"


def test_usage_adds_up() -> None:
    assert Usage(1, 2) + Usage(3, 4) == Usage(4, 6)


def test_an_event_of_somebody_else_becomes_one_of_the_turn() -> None:
    sent: list[AgentEvent] = []
    emit = Emitter(sent.append, "s", "t")
    emit(Category.TURN_STARTED, "begin")
    emit.pass_on(AgentEvent(category=Category.SANDBOX_FALLBACK, message="weaker", data={"a": 1}))
    emit(Category.TURN_FINISHED, "end")
    assert [event.seq for event in sent] == [0, 1, 2]
    assert {(event.session_id, event.correlation_id) for event in sent} == {("s", "t")}
    assert sent[1].data == {"a": 1}
