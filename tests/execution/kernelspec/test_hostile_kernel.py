"""Whatever a hostile kernel says, what passes has the shape that clients expect."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jupyter_client.session import Session
from jupyter_kernel_test.msgspec_v5 import validate_message

from ovagent_jupyter.execution.kernelspec.replies import REPLIES, clean_reply
from tests.execution.kernelspec.talk import OUTER, Message, Talk


@pytest.fixture
def talk() -> Talk:
    return Talk()


PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                "status ename evalue traceback payload source data metadata text/plain text/html "
                "user_expressions matches history language_info name text transient display_id "
                "execution_count execution_state wait prompt found code".split()
            )
            | st.text(max_size=8),
            inner,
            max_size=6,
        )
    ),
    max_leaves=8,
)
contents = st.dictionaries(
    st.sampled_from(
        "status ename evalue traceback payload user_expressions execution_count matches "
        "cursor_start cursor_end metadata found data history indent protocol_version "
        "implementation implementation_version language_info banner help_links restart".split()
    ),
    json_values,
)


@PATIENT
@given(st.sampled_from(sorted(set(REPLIES.values()))), contents)
def test_every_reply_has_the_shape_that_clients_expect(kind: str, content: Message) -> None:
    made = clean_reply(kind, content)
    json.dumps(made, allow_nan=False)
    session = Session(key=OUTER)
    parent = session.msg(kind.replace("reply", "request"))
    message = session.msg(kind, made, parent=parent)
    frames = session.serialize(message)
    _, parts = session.feed_identities(frames)
    read = Session(key=OUTER).deserialize(parts)
    validate_message(read, kind, parent["header"]["msg_id"])


KINDS = st.sampled_from(
    "stream display_data update_display_data execute_result error clear_output status "
    "execute_input comm_open execute_reply input_request x".split()
)


@PATIENT
@given(st.lists(st.tuples(KINDS, contents, st.booleans()), max_size=6))
def test_nothing_a_kernel_says_breaks_the_relay(said: list[tuple[str, Any, bool]]) -> None:
    talk = Talk()
    asked = talk.ask()
    for kind, content, known in said:
        parent = asked if known else None
        talk.answer(parent, kind, content)
        talk.answer(parent, kind, content, channel="stdin")
        talk.show(parent, kind, content)
    talk.between.say("end")
    for message in talk.heard_messages():
        validate_message(message, message["msg_type"], message["parent_header"].get("msg_id"))


@given(st.lists(st.binary(max_size=60), max_size=8), st.booleans())
def test_frames_that_are_no_message_are_dropped(frames: list[bytes], delimited: bool) -> None:
    talk = Talk()
    talk.ask()
    if delimited:
        frames = [b"x", b"<IDS|MSG>", *frames]
    assert talk.between.reply("shell", list(frames)) is None
    assert talk.between.request("shell", list(frames)) is None
    talk.between.output(list(frames))
    assert talk.heard() == []


def test_a_signed_message_with_broken_parts_is_dropped(talk: Talk) -> None:
    asked = talk.ask()
    whole = talk.kernel.msg("execute_reply", {"status": "ok"}, parent=asked["header"])
    for part in ("header", "parent_header", "metadata", "content"):
        for value in (
            b"",
            b"[]",
            b'{"metadata": {"a": NaN}}',
            b"17",
            b'"x"',
            b"\xff",
            b'{"msg_id": 3}',
            b"{" * 2000,
        ):
            frames = list(talk.kernel.serialize(whole))
            place = ("header", "parent_header", "metadata", "content").index(part)
            frames[2 + place] = value
            frames[1] = talk.kernel.sign(frames[2:6])
            reply = talk.between.reply("shell", frames)
            talk.between.output(frames)
            assert part == "metadata" or reply is None or b"execute_reply" in reply[3]
    assert all(kind == "status" for kind, _ in talk.heard())
