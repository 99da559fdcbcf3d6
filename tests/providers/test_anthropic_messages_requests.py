"""The Messages wire against a real server: what it sends."""

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
from ovagent_jupyter.providers.client import AnswerSchema, ModelRequest, ToolSchema, collect
from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.providers.credentials import Secret
from ovagent_jupyter.providers.provider import ProviderInfo, Quirks, WireAPI
from tests.providers.asking import KEY, ask
from tests.providers.messages_events import (
    HELLO,
    STOP,
    TEXT,
    THINKING,
    Make,
    begun,
    calling,
    delta,
    ending,
    messages_at,
    start,
    stopped,
    text,
)
from tests.providers.replies import named, reply_to
from tests.providers.served import Served

RUN_CODE = ToolSchema("run", "Runs code.", {"type": "object", "properties": {"code": {}}})
QUESTION = ask().messages
ADAPTIVE = {"type": "adaptive", "display": "summarized"}


@pytest.fixture
def make(served: Served, connections: Connections) -> Make:
    """A client of a server that says hello."""
    served.always(named(*HELLO))
    return messages_at(served, connections)


def user(*content: object) -> dict[str, object]:
    return {"role": "user", "content": list(content)}


def words(said: str) -> dict[str, object]:
    return {"type": "text", "text": said}


async def test_what_is_sent(served: Served, make: Make) -> None:
    said = (
        Message("system", (TextPart("Be brief."),)),
        Message("user", (TextPart("What is it?"), ImagePart(b"\x89PNG", "image/png"))),
        Message("user", (TextPart("Well?"),)),
        Message("assistant", (TextPart("  "), TextPart("A cell."))),
        Message("system", (TextPart("In English."),)),
        Message("user", (TextPart("Sure?"),)),
    )
    request = ModelRequest(
        model="claude-3-opus-20240229", messages=said, tools=(RUN_CODE,), tool_choice="run",
        max_output_tokens=5, temperature=0.5, stop=("END", " "), seed=1,
    )  # fmt: skip
    await collect(make().stream(request))
    [received] = served.requests
    assert (received.method, received.path) == ("POST", "/v1/messages")
    assert KEY in {received.headers.get("x-api-key", ""), received.headers["authorization"][7:]}
    assert received.headers["anthropic-version"] >= "2023-06-01"
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw=="}
    assert received.body == {
        "model": "claude-3-opus-20240229",
        "stream": True,
        "max_tokens": 5,
        "system": "Be brief.\n\nIn English.",
        "messages": [
            user(words("What is it?"), {"type": "image", "source": source}, words("Well?")),
            {"role": "assistant", "content": [words("A cell.")]},
            user(words("Sure?")),
        ],
        "tools": [{"name": "run", "description": "Runs code.",
                   "input_schema": dict(RUN_CODE.parameters)}],
        "tool_choice": {"type": "tool", "name": "run"},
        "temperature": 0.5,
        "stop_sequences": ["END"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("quirks", "asked", "sent"),
    [
        (Quirks(), {"tool_choice": "auto"}, {"tool_choice": {"type": "auto"}}),
        (Quirks(), {"tool_choice": "none"}, {"tool_choice": {"type": "none"}}),
        (Quirks(), {"tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
        (Quirks(supports_forced_tool_choice=False), {"tool_choice": "run"},
         {"tool_choice": {"type": "auto"}}),
        (Quirks(supports_temperature=False), {"temperature": 1.0}, {"temperature": None}),
        (Quirks(), {}, {"cache_control": None, "thinking": None, "output_config": None}),
        (Quirks(supports_cache_control=True), {}, {"cache_control": {"type": "ephemeral"}}),
        (Quirks(), {"reasoning_effort": "high"},
         {"thinking": ADAPTIVE, "output_config": {"effort": "high"}}),
        (Quirks(), {"reasoning_effort": "minimal"}, {"output_config": {"effort": "low"}}),
        (Quirks(), {"reasoning_effort": "none"},
         {"thinking": {"type": "disabled"}, "output_config": None}),
        (Quirks(thinking_off={"think": False}), {"reasoning_effort": "none"},
         {"think": False, "thinking": None}),
        (Quirks(), {"reasoning_effort": "high", "tool_choice": "required"},
         {"thinking": None, "output_config": {"effort": "high"}}),
        (Quirks(supports_effort=False), {"reasoning_effort": "low", "max_output_tokens": 9000},
         {"thinking": {"type": "enabled", "budget_tokens": 2048}, "output_config": None}),
        (Quirks(supports_effort=False), {"reasoning_effort": "max", "max_output_tokens": 9000},
         {"thinking": {"type": "enabled", "budget_tokens": 7976}}),
        (Quirks(supports_effort=False), {"reasoning_effort": "max", "max_output_tokens": 2000},
         {"thinking": None}),
    ],
)  # fmt: skip
async def test_what_a_service_differs_in(
    served: Served, make: Make, quirks: Quirks, asked: dict[str, object], sent: dict[str, object]
) -> None:
    await reply_to(make(quirks=quirks), tools=(RUN_CODE,), **asked)
    assert {name: served.requests[0].body.get(name) for name in sent} == sent


async def test_a_model_that_does_not_think_is_not_asked_to(served: Served, make: Make) -> None:
    await reply_to(make(abilities=("tools",)), reasoning_effort="high")
    assert not {"thinking", "output_config"} & set(served.requests[0].body)


@pytest.mark.parametrize(
    ("model", "asked", "longest"),
    [
        ({"window": 200_000, "max_output": 64_000}, None, 64_000),
        ({"window": 200_000, "max_output": None}, None, 8192),
        ({"window": 4096, "max_output": None}, None, 2048),
        ({"window": 4096, "max_output": 64_000}, 3000, 3000),
        ({"window": 0, "max_output": 4000}, None, 4000),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
async def test_how_long_an_answer_may_be(
    served: Served, make: Make, *, model: dict[str, object], asked: int | None, longest: int,
    streamed: bool,
) -> None:  # fmt: skip
    # What was asked for in one piece and may be long is streamed all the same: the answer is one.
    reply = await reply_to(make(model=model), max_output_tokens=asked, streamed=streamed)
    body = served.requests[0].body
    assert (body["max_tokens"], body["stream"]) == (longest, streamed or longest > 8192)
    assert reply.message.text == "Hello."


async def test_json_is_asked_for_as_the_service_can(served: Served, make: Make) -> None:
    schema = {"type": "object", "properties": {"count": {"type": "integer", "minimum": 1}},
              "required": ["count"]}  # fmt: skip
    answer = AnswerSchema("genes", schema)
    await reply_to(make(), answer_schema=answer)
    await reply_to(make(quirks=Quirks(supports_json_schema=False)), answer_schema=answer)
    await reply_to(make(), answer_schema=AnswerSchema("odd", {"properties": {}}))
    first, second, third = (each.body for each in served.requests)
    told = first["output_config"]["format"]
    assert told["type"] == "json_schema"
    assert told["schema"]["additionalProperties"] is False
    assert "minimum" not in told["schema"]["properties"]["count"]
    assert "output_config" not in second
    assert '"count"' in second["system"]
    assert third["output_config"]["format"]["schema"] == {"properties": {}}


async def test_thinking_and_calls_go_back_to_who_made_them(
    served: Served, connections: Connections
) -> None:
    make = messages_at(served, connections)
    redacted = {"type": "redacted_thinking", "data": "c2VhbGVk"}
    served.answer(named(
        start(), begun(THINKING), delta("thinking", thinking="Hm."),
        delta("signature", signature="c2ln"), stopped(), begun(redacted, 1), stopped(1),
        begun(TEXT, 2), text("I look.", 2), stopped(2),
        *calling("run", "toolu_1", 3, '{"code": "1"}'), *calling("run", "toolu_2", 4),
        ending("tool_use"), STOP,
    ))  # fmt: skip
    served.always(named(*HELLO))
    reply = await reply_to(make())
    results = (
        Message("tool", (ToolResult("toolu_1", "2"),)),
        Message("tool", (ToolResult("toolu_2", "failed", is_error=True),)),
        Message("user", (TextPart("Go on."),)),
    )
    await reply_to(make(), messages=(*QUESTION, reply.message, *results))
    other = replace(reply.message, provider="another")
    await reply_to(make(), messages=(*QUESTION, other, *results))
    _, own, others = (each.body["messages"] for each in served.requests)
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
    said = [
        words("I look."),
        {"type": "tool_use", "id": "toolu_1", "name": "run", "input": {"code": "1"}},
        {"type": "tool_use", "id": "toolu_2", "name": "run", "input": {}},
    ]
    assert own[1] == {"role": "assistant", "content": [thought, redacted, *said]}
    assert others[1] == {"role": "assistant", "content": said}
    answers = [
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": "2"},
        {"type": "tool_result", "tool_use_id": "toolu_2", "content": "failed", "is_error": True},
    ]
    assert own[2:] == others[2:] == [user(*answers, words("Go on."))]


async def test_results_come_first_in_a_turn(served: Served, make: Make) -> None:
    call = Message("assistant", (ToolCall("c1", "run"),), "acme")
    answer = Message("tool", (ToolResult("c1", "2"),))
    await reply_to(make(), messages=(*QUESTION, call, Message("user", (TextPart("So?"),)), answer))
    result = {"type": "tool_result", "tool_use_id": "c1", "content": "2"}
    assert served.requests[0].body["messages"][2] == user(result, words("So?"))


async def test_a_thought_that_was_cut_is_not_sent_back(served: Served, make: Make) -> None:
    cut = Message("assistant", (ReasoningPart("Half a thou"), TextPart("So")), "acme")
    unsigned = Message("assistant", (ReasoningPart("Hm.", {"signature": ""}),), "acme")
    said = (*QUESTION, cut, *QUESTION, unsigned, *QUESTION)
    await reply_to(make(), messages=said)
    await reply_to(make(quirks=Quirks(echo_reasoning="always")), messages=said)
    first, second = (each.body["messages"] for each in served.requests)
    assert [each["role"] for each in first] == ["user", "assistant", "user"]
    assert first[1]["content"] == second[1]["content"] == [words("So")]
    assert second[3]["content"] == [{"type": "thinking", "thinking": "Hm.", "signature": ""}]


async def test_no_budget_for_thinking_when_another_model_called_the_tools(
    served: Served, make: Make
) -> None:
    call = Message("assistant", (ToolCall("c1", "run"),), "another")
    answer = Message("tool", (ToolResult("c1", "2"),))
    client = make(quirks=Quirks(supports_effort=False))
    asked = {"reasoning_effort": "low", "max_output_tokens": 9000, "tools": (RUN_CODE,)}
    await reply_to(client, messages=(*QUESTION, call, answer), **asked)
    own = replace(call, parts=(ReasoningPart("", {"signature": "c2ln"}), *call.parts))
    await reply_to(client, messages=(*QUESTION, replace(own, provider="acme"), answer), **asked)
    await reply_to(client, messages=(*QUESTION, own, answer), **asked)
    assert ["thinking" in each.body for each in served.requests] == [False, True, False]


async def test_names_of_calls_are_in_the_signs_that_the_service_takes(
    served: Served, make: Make
) -> None:
    call = Message("assistant", (ToolCall("functions.run:0", "run", unreadable="{"),), "another")
    answer = Message("tool", (ToolResult("functions.run:0", ""), ImagePart(b"p")))
    await reply_to(make(), messages=(*QUESTION, call, answer))
    body = served.requests[0].body
    used, result = body["messages"][1]["content"][0], body["messages"][2]["content"][0]
    assert used == {"type": "tool_use", "id": "functions_run_0", "name": "run", "input": {}}
    assert (result["tool_use_id"], result["content"]) == ("functions_run_0", "")
    # The service wants the tools of the conversation named, also where none is offered.
    assert [tool["name"] for tool in body["tools"]] == ["run"]
    assert body["tool_choice"] == {"type": "none"}


async def test_the_key_goes_where_the_provider_wants_it(
    served: Served, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-of-somebody-else")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Lab: 7\nno header\nX-Acme: mine")
    info = ProviderInfo(
        id="acme", display_name="Acme", wire_api=WireAPI.ANTHROPIC_MESSAGES, key_header="X-Acme",
        headers={"anthropic-version": "2023-06-01"},
    )  # fmt: skip
    await reply_to(make(provider=info))
    await reply_to(make(key=Secret("")))
    first, second = (each.headers for each in served.requests)
    assert (first["x-acme"], first["anthropic-version"]) == (KEY, "2023-06-01")
    assert not {"authorization", "x-api-key"} & set(first)
    assert not {"authorization", "x-api-key"} & set(second)
    assert not any("x-lab" in each.headers for each in served.requests)


@pytest.mark.parametrize("told", [{}, {"required": []}, {"type": "object", "properties": {}}])
async def test_a_tool_without_arguments(
    served: Served, make: Make, told: dict[str, object]
) -> None:
    served.always(named(*HELLO))
    await reply_to(make(), tools=(ToolSchema("stop", "Stops.", told),))
    schema = {"type": "object", "properties": {}} | told
    assert served.requests[0].body["tools"][0]["input_schema"] == schema
