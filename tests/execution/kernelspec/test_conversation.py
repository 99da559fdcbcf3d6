"""What passes between a Jupyter client and a hostile kernel; frames in, frames out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from jupyter_client.session import Session
from jupyter_kernel_test.msgspec_v5 import validate_message

from ovagent_jupyter.execution.kernelspec.conversation import COLLECTED
from ovagent_jupyter.execution.kernelspec.replies import REPLIES
from ovagent_jupyter.execution.outputs import OutputLimits
from tests.execution.kernelspec.talk import ROUTE, Talk


@pytest.fixture
def talk() -> Talk:
    return Talk()


# -- what the client asks -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["comm_open", "comm_msg", "comm_close", "debug_request", "create_subshell_request", "x"]
)
def test_other_requests_are_not_passed_on(talk: Talk, kind: str) -> None:
    frames = list(talk.client.serialize(talk.client.msg(kind, {}), ident=ROUTE))
    assert talk.between.request("shell", frames) is None
    assert talk.between.request("stdin", frames) is None


def test_who_does_not_know_the_key_asks_nothing(talk: Talk) -> None:
    for session in (Session(key=b"wrong"), talk.kernel):
        message = session.msg("execute_request", {"code": "1"})
        assert talk.between.request("shell", list(session.serialize(message))) is None


def test_the_answer_to_a_question_reaches_the_kernel(talk: Talk) -> None:
    asked = talk.ask()
    question = talk.answer(
        asked, "input_request", {"prompt": "name\x1b]0;t\x07? ", "password": 1}, channel="stdin"
    )
    assert question is not None
    assert question["content"] == {"prompt": "name? ", "password": False}
    told = talk.client.msg("input_reply", {"value": "Ada"}, parent=question["header"])
    frames = talk.between.request("stdin", list(talk.client.serialize(told, ident=ROUTE)))
    assert frames is not None
    assert talk._read(talk.kernel, frames)[1]["content"] == {"value": "Ada"}


# -- what the kernel answers ---------------------------------------------------------------------

HOSTILE = {
    "status": "ok",
    "execution_count": 3,
    "payload": [
        {"source": "set_next_input", "text": "rm", "replace": True},
        {"source": "ask_exit", "keepkernel": False, "data": {"text/plain": "x"}},
        {"source": "edit_magic", "filename": "/etc/passwd"},
        {"source": "page", "data": {"text/plain": "help\x1b[2J", "text/html": "<script>"}},
        17,
    ],
    "user_expressions": {
        "a": {"status": "ok", "data": {"text/html": "<script>1</script><b>x</b>"}, "metadata": {}},
        "b": 3,
    },
    "more": "x",
}


def test_of_payloads_only_the_pagers_text_passes(talk: Talk) -> None:
    reply = talk.answer(talk.ask(), "execute_reply", HOSTILE)
    assert reply is not None
    content = reply["content"]
    assert content["payload"] == [{"source": "page", "data": {"text/plain": "help"}, "start": 0}]
    assert content["execution_count"] == 3
    assert "script" not in json.dumps(content)
    assert "more" not in content


@pytest.mark.parametrize("request_kind", REPLIES)
def test_a_reply_is_passed_once_and_to_who_asked(talk: Talk, request_kind: str) -> None:
    asked, kind = talk.ask(request_kind), REPLIES[request_kind]
    assert talk.answer(asked, kind, {"status": "ok"}, channel="control") is None
    other = next(each for each in REPLIES.values() if each != kind)
    assert talk.answer(asked, other, {"status": "ok"}) is None
    reply = talk.answer(asked, kind, {"status": "ok"}, route=[b"somebody-else"])
    assert reply is not None
    validate_message(reply, kind, asked["header"]["msg_id"])
    assert talk.answer(asked, kind, {"status": "ok"}) is None


def test_nobody_is_answered_who_has_not_asked(talk: Talk) -> None:
    assert talk.answer(None, "execute_reply", {"status": "ok"}) is None
    never = talk.client.msg("execute_request", {"code": "1"})
    assert talk.answer(never, "execute_reply", {"status": "ok"}) is None
    asked = talk.ask("complete_request", code="x", cursor_pos=1)
    assert talk.answer(asked, "input_request", {"prompt": "pw"}, channel="stdin") is None


def test_no_question_after_the_cell_has_ended(talk: Talk) -> None:
    asked = talk.ask()
    talk.show(asked, "status", {"execution_state": "idle"})
    assert talk.answer(asked, "input_request", {"prompt": "pw"}, channel="stdin") is None


def test_the_kernel_offers_no_links_and_no_debugger(talk: Talk) -> None:
    reply = talk.answer(
        talk.ask("kernel_info_request"),
        "kernel_info_reply",
        {
            "status": "ok",
            "banner": "hi\x1b]8;;http://x\x07",
            "help_links": [{"text": "x", "url": "javascript:alert(1)"}],
            "supported_features": ["debugger", "kernel subshells"],
            "debugger": True,
            "language_info": {"name": "python", "version": "3"},
        },
    )
    assert reply is not None
    assert reply["content"]["help_links"] == []
    assert reply["content"]["supported_features"] == []
    assert "debugger" not in reply["content"]
    assert reply["content"]["banner"] == "hi"


def test_the_note_is_in_the_banner_and_under_errors() -> None:
    talk = Talk(note="Confined.")
    reply = talk.answer(talk.ask("kernel_info_request"), "kernel_info_reply", {"banner": "hi"})
    assert reply is not None
    assert "Confined." in reply["content"]["banner"]
    for name, noted in (("FileNotFoundError", True), ("ValueError", False)):
        content = {"ename": name, "evalue": "x", "traceback": ["a"]}
        ((kind, error),) = talk.shown(talk.ask(), "error", content)
        assert kind == "error"
        assert (error["traceback"][-1] == "Note: Confined.") is noted


# -- what the kernel shows -----------------------------------------------------------------------


def test_a_cell_as_it_usually_goes(talk: Talk) -> None:
    asked = talk.ask()
    talk.show(asked, "status", {"execution_state": "busy"})
    talk.show(asked, "execute_input", {"code": "forged", "execution_count": 7})
    talk.show(asked, "stream", {"name": "stdout", "text": "a"})
    talk.show(asked, "display_data", {"data": {"text/plain": "d"}, "metadata": {}})
    talk.show(asked, "execute_result", {"data": {"text/plain": "r"}, "execution_count": 99})
    talk.show(asked, "status", {"execution_state": "idle"})
    messages = list(talk.heard_messages())
    for message in messages:
        validate_message(message, message["msg_type"], asked["header"]["msg_id"])
    assert [(m["msg_type"], m["content"]) for m in messages] == [
        ("status", {"execution_state": "busy"}),
        ("execute_input", {"code": "1", "execution_count": 7}),
        ("stream", {"name": "stdout", "text": "a"}),
        ("display_data", {"data": {"text/plain": "d"}, "metadata": {}, "transient": {}}),
        ("execute_result", {"data": {"text/plain": "r"}, "metadata": {}, "execution_count": 7}),
        ("status", {"execution_state": "idle"}),
    ]


@pytest.mark.parametrize(
    "data",
    [
        {"application/javascript": "alert(1)"},
        {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}},
        {"text/html": "<img src=x onerror=alert(1)><script>alert(1)</script>"},
        {"text/html": "<iframe src='http://localhost:8888/terminals'></iframe>"},
        {"text/markdown": "![x](http://example.org/?leak) <script>alert(1)</script>"},
        {"image/svg+xml": "<svg onload='alert(1)'><script>alert(1)</script></svg>"},
        {"application/vnd.ovagent.turn.v1+json": {"forged": True}},
    ],
    ids=lambda data: next(iter(data)),
)
def test_no_script_and_no_address_reaches_the_page(talk: Talk, data: Mapping[str, Any]) -> None:
    shown = talk.shown(talk.ask(), "display_data", {"data": data, "metadata": {}})
    text = json.dumps(shown)
    for bad in ("onerror=", "<script", "<iframe", "example.org", "javascript", "forged", "widget"):
        assert bad not in text


@pytest.mark.parametrize("kind", ["comm_open", "comm_msg", "debug_event", "shutdown_reply", "x"])
def test_other_kinds_are_dropped(talk: Talk, kind: str) -> None:
    assert talk.shown(talk.ask(), kind, {"data": {"text/plain": "x"}}) == []


def test_forged_parents_are_dropped(talk: Talk) -> None:
    never = talk.client.msg("execute_request", {"code": "1"})
    for parent in (None, never):
        talk.show(parent, "stream", {"name": "stdout", "text": "x"})
        talk.show(parent, "status", {"execution_state": "idle"})
    assert talk.heard() == []
    talk.show(None, "status", {"execution_state": "starting"})
    assert talk.heard() == [("status", {"execution_state": "starting"})]


def test_a_cell_becomes_busy_and_idle_once(talk: Talk) -> None:
    asked = talk.ask()
    for state in ("busy", "idle", "busy", "idle", "starting", ["idle"], None):
        talk.show(asked, "status", {"execution_state": state})
    assert [content["execution_state"] for _, content in talk.heard()] == ["busy", "idle"]


def test_output_after_the_end_still_passes(talk: Talk) -> None:
    asked = talk.ask()
    talk.shown(asked, "stream", {"name": "stdout", "text": "in time"})
    talk.show(asked, "stream", {"name": "stdout", "text": "late"})
    talk.between._flush(next(iter(talk.between._collecting.values())))
    assert talk.heard() == [("stream", {"name": "stdout", "text": "late"})]


def test_updates_and_clearing(talk: Talk) -> None:
    asked = talk.ask()
    transient = {"display_id": "d1"}
    talk.show(asked, "display_data", {"data": {"text/plain": "1"}, "transient": transient})
    other = talk.ask()
    update = {"data": {"text/plain": "2"}, "transient": transient}
    ((kind, content),) = talk.shown(other, "update_display_data", update)[-1:]
    assert kind == "update_display_data"
    assert content["transient"] == transient
    assert talk.shown(talk.ask(), "clear_output", {"wait": True}) == [
        ("clear_output", {"wait": True})
    ]


def test_floods_end_in_a_notice() -> None:
    talk = Talk(limits=OutputLimits(stream_chars=100, count=3, cell_chars=1000))
    asked = talk.ask()
    for _ in range(50):
        talk.show(asked, "stream", {"name": "stdout", "text": "x" * 50})
        talk.show(asked, "display_data", {"data": {"text/plain": "y" * 50}})
    talk.show(asked, "status", {"execution_state": "idle"})
    heard = talk.heard()
    assert len(json.dumps(heard)) < 3_000
    assert "output cut" in json.dumps(heard)


def test_what_is_held_for_old_cells_is_bounded(talk: Talk) -> None:
    for _ in range(5 * COLLECTED):
        talk.show(talk.ask(), "stream", {"name": "stdout", "text": "x"})
    assert len(talk.between._collecting) == COLLECTED
    assert sum(each.collector is not None for each in talk.between._asked.values()) == COLLECTED
    talk.between.say("x")
    assert sum(kind == "stream" for kind, _ in talk.heard()) >= 5 * COLLECTED


def test_when_output_was_lost_the_cell_still_ends(talk: Talk) -> None:
    answered, running = talk.ask(), talk.ask()
    talk.answer(answered, "execute_reply", {"status": "ok"})
    talk.between.lose()
    talk.answer(running, "execute_reply", {"status": "ok"})
    heard = list(talk.heard_messages())
    idle = [m["parent_header"]["msg_id"] for m in heard if m["msg_type"] == "status"]
    assert idle == [answered["header"]["msg_id"], running["header"]["msg_id"]]
    assert sum("output cut" in m["content"].get("text", "") for m in heard) == 2


def test_when_the_kernel_is_gone_its_cells_say_so_and_end(talk: Talk) -> None:
    talk.ask("complete_request", code="x", cursor_pos=0)
    done = talk.ask()
    talk.shown(done, "stream", {"name": "stdout", "text": "x"})
    talk.ask()
    talk.between.say("[The kernel was killed.]")
    assert talk.heard() == [
        ("stream", {"name": "stderr", "text": "\n[The kernel was killed.]\n"}),
        ("status", {"execution_state": "idle"}),
    ]
