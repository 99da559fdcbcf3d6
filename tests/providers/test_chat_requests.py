"""What a request looks like on the chat-completions wire, with all that services differ in."""

from __future__ import annotations

from typing import Any

import pytest

from ovagent_jupyter.messages import (
    ImagePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolResult,
)
from ovagent_jupyter.providers.answer_schemas import is_strict
from ovagent_jupyter.providers.chat_rendering import render_chat
from ovagent_jupyter.providers.client import AnswerSchema, ToolSchema, collect
from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.providers.provider import Quirks, WireAPI
from ovagent_jupyter.providers.wires import client_for
from tests.providers.asking import ask, backend_at
from tests.providers.served import Served, events


def rendered(
    *messages: Message,
    quirks: Quirks | None = None,
    wire: WireAPI = WireAPI.CHAT_COMPLETIONS,
    **fields: object,
) -> dict[str, Any]:
    given = {"messages": messages} if messages else {}
    return render_chat(ask(**given, **fields), backend_at("http://x/v1", wire, quirks=quirks))


def said(*parts: Any, provider: str = "acme") -> Message:
    return Message("assistant", parts, provider)


SYSTEM = Message("system", (TextPart("Be brief."),))
USER = Message("user", (TextPart("Hi"),))
SIGNED = {"extra_content": {"google": {"thought_signature": "s"}}}
CLOSED = {
    "type": "object",
    "properties": {"x": {"type": "integer"}},
    "required": ["x"],
    "additionalProperties": False,
}


async def test_what_arrives_is_what_was_rendered(served: Served, connections: Connections) -> None:
    served.answer(events({"choices": [{"delta": {"content": "A"}, "finish_reason": "stop"}]}))
    backend = backend_at(served.url + "/v1/", quirks=Quirks(thinking_off={"thinking": {"x": 1}}))
    request = ask(
        messages=(SYSTEM, USER), tools=(ToolSchema("f", "does"),), max_output_tokens=5, seed=1,
        stop=("END",), temperature=0.5, reasoning_effort="none",
    )  # fmt: skip
    await collect(client_for(backend, connections).stream(request))
    assert served.requests[0].path == "/v1/chat/completions"
    assert served.requests[0].body == render_chat(request, backend)
    assert served.requests[0].body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [{"type": "function", "function": {
            "name": "f", "description": "does",
            "parameters": {"type": "object", "properties": {}}}}],
        "max_tokens": 5, "seed": 1, "stop": ["END"], "temperature": 0.5, "thinking": {"x": 1},
    }  # fmt: skip


def test_nothing_is_sent_that_was_not_asked_for() -> None:
    body = rendered(streamed=False)
    assert set(body) == {"model", "messages"}


@pytest.mark.parametrize(("quirks", "fields", "sent", "absent"), [
    (Quirks(max_tokens_field="max_completion_tokens"), {"max_output_tokens": 5},
     {"max_completion_tokens": 5}, "max_tokens"),
    (Quirks(supports_temperature=False), {"temperature": 0.0}, {}, "temperature"),
    (Quirks(), {"temperature": 0.0}, {"temperature": 0.0}, ""),
    (Quirks(supports_stream_usage=False), {}, {"stream": True}, "stream_options"),
    (Quirks(), {"reasoning_effort": "high"}, {"reasoning_effort": "high"}, ""),
    (Quirks(supports_effort=False), {"reasoning_effort": "high"}, {}, "reasoning_effort"),
    (Quirks(), {"reasoning_effort": "none"}, {"reasoning_effort": "none"}, ""),
    (Quirks(thinking_off={"enable_thinking": False}), {"reasoning_effort": "none"},
     {"enable_thinking": False}, "reasoning_effort"),
])  # fmt: skip
def test_quirks(
    quirks: Quirks, fields: dict[str, object], sent: dict[str, object], absent: str
) -> None:
    body = rendered(quirks=quirks, **fields)
    assert body.items() >= sent.items()
    assert absent not in body


@pytest.mark.parametrize(("choice", "sent"), [
    ("auto", None), ("none", "none"), ("required", "required"),
    ("f", {"type": "function", "function": {"name": "f"}}),
])  # fmt: skip
def test_tool_choice(choice: str, sent: object) -> None:
    tools = (ToolSchema("f", "does", CLOSED),)
    assert rendered(tools=tools, tool_choice=choice).get("tool_choice") == sent
    unforced = rendered(
        tools=tools, tool_choice=choice, quirks=Quirks(supports_forced_tool_choice=False)
    )
    assert unforced.get("tool_choice") == ("none" if choice == "none" else None)
    assert "tool_choice" not in rendered(tool_choice=choice)


def test_strict_only_where_it_can_be_kept() -> None:
    tools = (ToolSchema("f", "", CLOSED), ToolSchema("g", "", {"type": "object"}))
    body = rendered(tools=tools, quirks=Quirks(supports_strict_tools=True))
    assert [tool["function"].get("strict") for tool in body["tools"]] == [True, None]
    assert "strict" not in rendered(tools=tools)["tools"][0]["function"]
    inner = CLOSED | {"properties": {"x": {"type": "array", "items": {"type": "object"}}}}
    assert not is_strict(inner)
    assert is_strict(CLOSED | {"properties": {"x": {"anyOf": [CLOSED, {"type": "null"}]}}})


def test_an_answer_that_has_to_be_json() -> None:
    answer = AnswerSchema("city", CLOSED)
    body = rendered(answer_schema=answer)
    described = {"name": "city", "schema": CLOSED, "strict": True}
    assert body["response_format"] == {"type": "json_schema", "json_schema": described}
    body = rendered(SYSTEM, USER, answer_schema=answer, quirks=Quirks(supports_json_schema=False))
    assert body["response_format"] == {"type": "json_object"}
    assert body["messages"][0]["role"] == "system"
    assert '"additionalProperties": false' in body["messages"][0]["content"]
    assert body["messages"][1]["content"] == "Be brief."


def test_system_messages() -> None:
    late = Message("system", (TextPart("In French."),))
    body = rendered(SYSTEM, USER, late, quirks=Quirks(system_role="developer"))
    assert [each["role"] for each in body["messages"]] == ["developer", "user", "developer"]
    body = rendered(SYSTEM, USER, late, quirks=Quirks(single_system_message=True))
    assert body["messages"] == [
        {"role": "system", "content": "Be brief.\n\nIn French."},
        {"role": "user", "content": "Hi"},
    ]


def test_pictures() -> None:
    body = rendered(Message("user", (TextPart("See"), ImagePart(b"png", "image/jpeg"))))
    assert body["messages"][0]["content"] == [
        {"type": "text", "text": "See"},
        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,cG5n"}},
    ]


def test_a_turn_with_tools() -> None:
    body = rendered(
        USER,
        said(TextPart("I look."), ToolCall("a", "f", {"ö": 1}), ToolCall("b", "g")),
        Message("tool", (ToolResult("a", "7"), ImagePart(b"png"))),
        Message("tool", (ToolResult("b", ""),)),
        said(ToolCall("c", "f", unreadable="{oops")),
        Message("tool", (ToolResult("c", "no JSON", is_error=True),)),
    )
    sent = body["messages"][1:]
    assert sent[0]["content"] == "I look."
    assert [call["function"]["arguments"] for call in sent[0]["tool_calls"]] == ['{"ö": 1}', "{}"]
    assert [(each["role"], each.get("tool_call_id")) for each in sent[1:]] == [
        ("tool", "a"), ("tool", "b"), ("user", None), ("assistant", None), ("tool", "c"),
    ]  # fmt: skip
    # A picture cannot be a result here, and must not stand between two results.
    assert sent[3]["content"][0]["type"] == "image_url"
    assert sent[4]["content"] is None
    assert sent[4]["tool_calls"][0]["function"]["arguments"] == "{}"


def test_what_is_for_one_provider_goes_to_no_other() -> None:
    parts = (
        ReasoningPart("Hm.", {"reasoning_details": [{"text": "Hm."}]}),
        ToolCall("a", "f", provider_data=SIGNED),
    )
    own, other = (rendered(USER, said(*parts, provider=p))["messages"][1] for p in ("acme", "zeta"))
    assert own["reasoning_details"] == [{"text": "Hm."}]
    assert own["tool_calls"][0]["extra_content"] == SIGNED["extra_content"]
    assert set(other) == {"role", "content", "tool_calls"}
    assert set(other["tool_calls"][0]) == {"id", "type", "function"}


def test_gemini_is_told_which_calls_are_not_its_own() -> None:
    turn = (ToolCall("a", "f"), ToolCall("b", "g"))
    foreign = rendered(USER, said(*turn, provider="zeta"), wire=WireAPI.GEMINI)["messages"][1]
    signature = foreign["tool_calls"][0]["extra_content"]["google"]["thought_signature"]
    assert signature == "skip_thought_signature_validator"
    assert "extra_content" not in foreign["tool_calls"][1]
    own = rendered(USER, said(*turn), wire=WireAPI.GEMINI)["messages"][1]
    assert "extra_content" not in own["tool_calls"][0]


@pytest.mark.parametrize(("echo", "with_calls", "without"), [
    ("never", None, None), ("tool_turns", "Hm.", None), ("always", "Hm.", "Hm."),
])  # fmt: skip
def test_thinking_goes_back_where_it_is_wanted(
    echo: Any, with_calls: str | None, without: str | None
) -> None:
    quirks = Quirks(echo_reasoning=echo, reasoning_field="reasoning")
    thought = ReasoningPart("Hm.")
    body = rendered(said(thought, ToolCall("a", "f")), said(thought, TextPart("A")), quirks=quirks)
    assert [each.get("reasoning") for each in body["messages"]] == [with_calls, without]


def test_thinking_that_is_wanted_is_sent_also_when_there_is_none() -> None:
    body = rendered(said(ToolCall("a", "f")), quirks=Quirks(echo_reasoning="tool_turns"))
    assert body["messages"][0]["reasoning_content"] == ""


def test_ids_of_calls_where_they_have_to_be_short() -> None:
    turn = (
        said(ToolCall("call_0123456789ab", "f"), ToolCall("abcDEF123", "g")),
        Message("tool", (ToolResult("call_0123456789ab", "1"), ToolResult("abcDEF123", "2"))),
    )
    call, *results = rendered(*turn, quirks=Quirks(short_call_ids=True))["messages"]
    ids = [each["id"] for each in call["tool_calls"]]
    assert ids == [each["tool_call_id"] for each in results]
    assert ids[1] == "abcDEF123"
    assert len(ids[0]) == 9
    assert ids[0].isalnum()
    assert rendered(*turn)["messages"][0]["tool_calls"][0]["id"] == "call_0123456789ab"


def test_messages_that_say_nothing_are_left_out() -> None:
    body = rendered(USER, said(), said(ReasoningPart("Hm.")), Message("user", ()), USER)
    assert [each["role"] for each in body["messages"]] == ["user", "user"]
