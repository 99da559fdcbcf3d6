"""The Responses wire against a real server: what it sends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ovagent_jupyter.messages import (
    ImagePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolResult,
)
from ovagent_jupyter.providers.client import (
    AnswerSchema,
    ModelRequest,
    ToolSchema,
    collect,
)
from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.providers.credentials import Secret
from ovagent_jupyter.providers.provider import ProviderInfo, Quirks, WireAPI
from tests.providers.asking import KEY, ask
from tests.providers.replies import named, reply_to
from tests.providers.responses_events import (
    HELLO,
    RUN,
    SEALED,
    Make,
    added,
    arguments,
    created,
    done,
    ending,
    message,
    responses_at,
    text,
)
from tests.providers.served import Served

RUN_CODE = ToolSchema("run", "Runs code.", {"type": "object", "properties": {"code": {}}})


@pytest.fixture
def make(served: Served, connections: Connections) -> Make:
    """A client of the server."""
    return responses_at(served, connections)


async def test_what_is_sent(served: Served, make: Make) -> None:
    served.answer(named(*HELLO))
    picture = ImagePart(b"\x89PNG", "image/png")
    said = (
        Message("system", (TextPart("Be brief."),)),
        Message("user", (TextPart("What is it?"), picture)),
        Message("assistant", (TextPart("A cell."),)),
        Message("system", (TextPart("In English."),)),
        Message("user", (TextPart("Sure?"),)),
    )
    request = ModelRequest(
        model="m", messages=said, tools=(RUN_CODE,), tool_choice="run", max_output_tokens=5,
        temperature=0.5, reasoning_effort="high",
    )  # fmt: skip
    await collect(make().stream(request))
    [received] = served.requests
    assert (received.method, received.path) == ("POST", "/v1/responses")
    assert received.headers["authorization"] == f"Bearer {KEY}"
    shown = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw==", "detail": "auto"}
    assert received.body == {
        "model": "m",
        "stream": True,
        "store": False,
        "instructions": "Be brief.\n\nIn English.",
        "input": [
            {"type": "message", "role": "user",
             "content": [{"type": "input_text", "text": "What is it?"}, shown]},
            {"type": "message", "role": "assistant", "content": "A cell."},
            {"type": "message", "role": "user",
             "content": [{"type": "input_text", "text": "Sure?"}]},
        ],
        "tools": [{"type": "function", "name": "run", "description": "Runs code.",
                   "parameters": dict(RUN_CODE.parameters), "strict": False}],
        "tool_choice": {"type": "function", "name": "run"},
        "max_output_tokens": 16,
        "temperature": 0.5,
        "reasoning": {"effort": "high"},
        "include": ["reasoning.encrypted_content"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("quirks", "asked", "sent"),
    [
        (Quirks(), {"tool_choice": "none"}, {"tool_choice": "none"}),
        (Quirks(), {"tool_choice": "required"}, {"tool_choice": "required"}),
        (Quirks(supports_forced_tool_choice=False), {"tool_choice": "run"},
         {"tool_choice": "auto"}),
        (Quirks(supports_temperature=False), {"temperature": 1.0}, {"temperature": None}),
        (Quirks(supports_effort=False), {"reasoning_effort": "low"}, {"reasoning": None}),
        (Quirks(thinking_off={"think": False}), {"reasoning_effort": "none"},
         {"think": False, "reasoning": None, "include": None}),
        (Quirks(), {"reasoning_effort": "none"}, {"reasoning": {"effort": "none"}}),
        (Quirks(), {}, {"include": None, "reasoning": None, "instructions": None, "text": None}),
    ],
)  # fmt: skip
async def test_what_a_service_differs_in(
    served: Served, make: Make, quirks: Quirks, asked: dict[str, object], sent: dict[str, object]
) -> None:
    served.answer(named(*HELLO))
    await reply_to(make(quirks=quirks), tools=(RUN_CODE,), **asked)
    assert {name: served.requests[0].body.get(name) for name in sent} == sent


async def test_a_model_that_thinks_is_asked_for_its_sealed_thoughts(
    served: Served, make: Make
) -> None:
    served.answer(named(*HELLO))
    await reply_to(make(abilities=("reasoning",)))
    assert served.requests[0].body["include"] == ["reasoning.encrypted_content"]


async def test_a_model_that_does_not_think_is_not_asked_to(served: Served, make: Make) -> None:
    served.answer(named(*HELLO))
    await reply_to(make(abilities=("tools",)), reasoning_effort="high")
    assert not {"reasoning", "include"} & set(served.requests[0].body)


async def test_json_is_asked_for_as_the_service_can(served: Served, make: Make) -> None:
    served.always(named(*HELLO))
    loose = AnswerSchema("genes", {"type": "object", "properties": {"names": {"type": "array"}}})
    closed = {"additionalProperties": False, "required": ["names"]}
    strict = AnswerSchema("genes", {**loose.schema, **closed})
    await reply_to(make(), answer_schema=loose)
    await reply_to(make(), answer_schema=strict)
    await reply_to(make(quirks=Quirks(supports_json_schema=False)), answer_schema=loose)
    first, second, third = (each.body for each in served.requests)
    assert first["text"]["format"] == {
        "type": "json_schema", "name": "genes", "schema": loose.schema, "strict": False
    }  # fmt: skip
    assert second["text"]["format"]["strict"] is True
    assert "text" not in third
    assert '"names"' in third["instructions"]


async def test_sealed_thoughts_and_calls_go_back_to_who_made_them(
    served: Served, make: Make
) -> None:
    call = RUN | {"arguments": '{"code": "1"}'}
    phased = message() | {"phase": "commentary"}
    served.answer(named(
        created(),
        added(SEALED), done(SEALED),
        added(phased, 1), text("I look.", 1), done(phased, 1),
        added(RUN, 2), arguments('{"code": "1"}', 2), done(call, 2),
        ending(),
    ))  # fmt: skip
    served.always(named(*HELLO))
    reply = await reply_to(make(abilities=("reasoning",)))
    assert reply.finish_reason == "tool_calls"
    assert reply.message.tool_calls == (ToolCall("call_1", "run", {"code": "1"}),)
    said = (*ask().messages, reply.message, Message("tool", (ToolResult("call_1", "2"),)))
    await reply_to(make(), messages=said)
    other = replace(reply.message, provider="another")
    await reply_to(make(), messages=(said[0], other, said[2]))
    sealed = {"type": "reasoning", "summary": [], "encrypted_content": "c2VhbGVk"}
    spoken = {"type": "message", "role": "assistant", "content": "I look."}
    called = {"type": "function_call", "call_id": "call_1", "name": "run",
              "arguments": '{"code": "1"}'}  # fmt: skip
    answered = {"type": "function_call_output", "call_id": "call_1", "output": "2"}
    _, own, others = (each.body["input"][1:] for each in served.requests)
    assert own == [sealed, spoken | {"phase": "commentary"}, called, answered]
    assert others == [spoken, called, answered]


async def test_a_thought_is_not_sent_back_without_what_it_led_to(
    served: Served, make: Make
) -> None:
    served.always(named(*HELLO))
    sealed = ReasoningPart("", {"item": SEALED})
    cut = ReasoningPart("half a thou")
    thought = Message("assistant", (cut, sealed), "acme")
    await reply_to(make(), messages=(*ask().messages, thought, *ask("Go on.").messages))
    assert [item["type"] for item in served.requests[0].body["input"]] == ["message", "message"]


async def test_thoughts_in_words_go_back_where_that_is_asked(served: Served, make: Make) -> None:
    item = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}]}
    served.always(named(created(), done(item), done(message({"text": "Hi."}), 1), ending()))
    reply = await reply_to(make())
    assert reply.message.reasoning == "Hm."
    said = (*ask().messages, reply.message, *ask("And?").messages)
    await reply_to(make(), messages=said)
    await reply_to(make(quirks=Quirks(echo_reasoning="always")), messages=said)
    sent = [[item["type"] for item in each.body["input"]] for each in served.requests[1:]]
    assert sent == [["message"] * 3, ["message", "reasoning", "message", "message"]]


async def test_of_what_came_with_a_call_only_its_own_goes_back(served: Served, make: Make) -> None:
    served.always(named(*HELLO))
    told = {"namespace": "genes", "extra_content": {"of": "another wire"}}
    call = Message("assistant", (ToolCall("c1", "run", provider_data=told),), "acme")
    answer = Message("tool", (ToolResult("c1", "2"),))
    await reply_to(make(), messages=(*ask().messages, call, answer))
    await reply_to(make(), messages=(*ask().messages, replace(call, provider="other"), answer))
    own, others = (each.body["input"][1] for each in served.requests)
    assert others == {"type": "function_call", "call_id": "c1", "name": "run", "arguments": "{}"}
    assert own == others | {"namespace": "genes"}


async def test_names_of_calls_are_as_long_as_the_service_takes(served: Served, make: Make) -> None:
    served.always(named(*HELLO))
    call = Message("assistant", (ToolCall("x" * 90, "run", unreadable="{"),), "another")
    answer = Message("tool", (ToolResult("x" * 90, "no JSON"), ImagePart(b"p")))
    await reply_to(make(), messages=(*ask().messages, call, answer))
    called, answered, shown = served.requests[0].body["input"][1:]
    assert called["call_id"] == answered["call_id"]
    assert len(called["call_id"]) <= 64
    assert called["arguments"] == "{}"
    assert shown["content"][0]["type"] == "input_image"


@pytest.mark.parametrize("told", [{}, {"required": []}, {"type": "object", "properties": {}}])
async def test_a_tool_without_arguments(
    served: Served, make: Make, told: dict[str, object]
) -> None:
    served.always(named(*HELLO))
    await reply_to(make(), tools=(ToolSchema("stop", "Stops.", told),))
    schema = {"type": "object", "properties": {}} | told
    assert served.requests[0].body["tools"][0]["parameters"] == schema


async def test_the_key_goes_where_the_provider_wants_it(
    served: Served, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.always(named(*HELLO))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    info = ProviderInfo(
        id="acme", display_name="Acme", wire_api=WireAPI.RESPONSES, key_header="api-key"
    )
    await reply_to(make(provider=info))
    await reply_to(make(key=Secret("")))
    first, second = (each.headers for each in served.requests)
    assert first["api-key"] == KEY
    assert not {"authorization", "api-key"} & set(second)
    assert "authorization" not in first
