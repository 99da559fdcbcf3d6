"""What a provider is really sent, held against what is known of it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ovagent_jupyter.messages import Message
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import ModelClient, ModelRequest, Reply, collect
from ovagent_jupyter.providers.provider import ProviderInfo, WireAPI
from tests.conformance.provider_answers import SIGNATURE, USAGE
from tests.conformance.provider_servers import ProviderServer, Received

PLANTED = "sk-planted-4f1d0c9a77"
PATHS = {
    WireAPI.CHAT_COMPLETIONS: "/chat/completions",
    WireAPI.GEMINI: "/chat/completions",
    WireAPI.RESPONSES: "/responses",
    WireAPI.ANTHROPIC_MESSAGES: "/v1/messages",
}
THOUGHT = "The table has to be seen first."
CHAT = frozenset({WireAPI.CHAT_COMPLETIONS, WireAPI.GEMINI})


@dataclass(frozen=True, slots=True)
class Row:
    """A provider, and a model of it."""

    provider: ProviderInfo
    model: str
    wire: WireAPI

    def __str__(self) -> str:
        return f"{self.provider.id}-{self.wire}"


@dataclass(slots=True)
class Asked:
    """A provider's client, and the server that it really asks."""

    row: Row
    backend: Backend
    client: ModelClient
    server: ProviderServer
    streamed: bool

    async def reply(self, *messages: Message, **more: Any) -> Reply:
        """The answer to a conversation."""
        request = ModelRequest(
            model=self.backend.model.id,
            messages=messages,
            streamed=self.streamed,
            max_output_tokens=500,
            temperature=0.2,
            **more,
        )
        reply = await collect(self.client.stream(request))
        assert reply.provider == reply.message.provider == self.row.provider.id
        assert (reply.usage.input_tokens > 0) is (reply.usage.output_tokens > 0) is True
        if self.told_usage:
            assert (reply.usage.input_tokens, reply.usage.output_tokens) == USAGE
        return reply

    @property
    def told_usage(self) -> bool:
        """Whether the service tells what was spent."""
        return (
            not (self.row.wire in CHAT and self.streamed)
            or self.backend.quirks.supports_stream_usage
        )

    @property
    def last(self) -> Received:
        """What was sent last."""
        return self.server.received[-1]


def check_where_it_went(row: Row, received: Received) -> None:
    """The path is the provider's, and the key is in its header and nowhere else."""
    provider = row.provider
    base = urlsplit(provider.base_url).path.rstrip("/") if provider.base_url else "/openai/v1"
    assert received.path == base + PATHS[row.wire]
    # Anthropic's SDK sends keys as OpenAI's does, since its version 2.
    header = provider.key_header or "authorization"
    key = PLANTED if provider.env_key else provider.default_key
    bearer = "Bearer " if header == "authorization" else ""
    assert received.headers.get(header) == f"{bearer}{key}"
    others = {name: value for name, value in received.headers.items() if name != header}
    everything_else = f"{received.target} {others} {received.raw.decode()}"
    assert PLANTED not in everything_else
    allowed = ("decoy-openai_org_id", "decoy-openai_project_id") if provider.id == "openai" else ()
    for decoy in allowed:
        everything_else = everything_else.replace(decoy, "")
    assert "decoy" not in everything_else + str(received.headers[header])
    assert received.headers["x-stainless-retry-count"] == "0"


# -- what is looked at ------------------------------------------------------------------------


def check_nothing_is_null(body: Any, *, allowed: tuple[str, ...] = ()) -> None:
    """mlx_lm.server and others refuse a field that is null."""
    if isinstance(body, dict):
        for name, value in body.items():
            assert value is not None or name in allowed, name
            check_nothing_is_null(value, allowed=allowed)
    elif isinstance(body, list):
        for value in body:
            check_nothing_is_null(value, allowed=allowed)


def check_bounds(asked: Asked) -> None:
    """The bound of the answer, the temperature and the usage are asked for in its own words."""
    body, quirks = asked.last.body, asked.backend.quirks
    fields = {
        WireAPI.RESPONSES: "max_output_tokens",
        WireAPI.ANTHROPIC_MESSAGES: "max_tokens",
    }
    field = fields.get(asked.row.wire, quirks.max_tokens_field)
    assert body[field] == 500
    every = {"max_tokens", "max_completion_tokens", "max_output_tokens"}
    assert every & body.keys() == {field}
    assert body.get("temperature") == (0.2 if quirks.supports_temperature else None)
    wanted = asked.row.wire in CHAT and asked.streamed and quirks.supports_stream_usage
    assert body.get("stream_options") == ({"include_usage": True} if wanted else None)


def check_system_messages(asked: Asked) -> None:
    """Both are told, in the place and in the number that the service takes."""
    body, quirks = asked.last.body, asked.backend.quirks
    assert "You write scanpy code." in asked.last.raw.decode()
    assert "Answer in one sentence." in asked.last.raw.decode()
    said = body.get("messages", body.get("input"))
    roles = [message["role"] for message in said]
    if asked.row.wire in CHAT:
        count = 1 if quirks.single_system_message else 2
        assert roles == [quirks.system_role] * count + ["user"]
    else:  # a field of its own
        assert roles[-1] == "user"
        assert set(roles) <= {"user", "system", "developer"}


def check_call_and_result(asked: Asked) -> None:
    """The call comes back with its result, by the name that the service gave."""
    body = asked.last.body
    if asked.row.wire is WireAPI.RESPONSES:
        kinds = {item.get("type", "message"): item for item in body["input"]}
        assert kinds["function_call"]["call_id"] == "abc123XYZ"
        assert kinds["function_call_output"]["call_id"] == "abc123XYZ"
        assert kinds["function_call_output"]["output"] == "columns: n_genes"
    elif asked.row.wire is WireAPI.ANTHROPIC_MESSAGES:
        said, answered = body["messages"][-2:]
        assert [block["id"] for block in said["content"] if block["type"] == "tool_use"] == [
            "abc123XYZ"
        ]
        assert answered["content"][0]["tool_use_id"] == "abc123XYZ"
    else:
        said, answered = body["messages"][-2:]
        (sent,) = said["tool_calls"]
        assert (sent["id"], sent["type"], sent["function"]["name"]) == (
            "abc123XYZ", "function", "look")  # fmt: skip
        assert json.loads(sent["function"]["arguments"]) == {"what": "obs"}
        assert (answered["role"], answered["tool_call_id"]) == ("tool", "abc123XYZ")


def check_foreign_call(asked: Asked, name: str) -> None:
    """A call that another service named is told with its result, by a name that is taken here."""
    found = re.findall(r'"(?:tool_)?(?:call_|use_)?id": ?"([^"]*)"', asked.last.raw.decode())
    assert len(found) >= 2
    assert len(set(found)) == 1
    if asked.backend.quirks.short_call_ids:
        assert re.fullmatch(r"[A-Za-z0-9]{9}", found[0])
    else:
        assert found[0] == name


def check_thinking_comes_back(asked: Asked) -> None:
    """What the service wants back of its thinking is there, unchanged; elsewhere it is not."""
    raw, quirks = asked.last.raw.decode(), asked.backend.quirks
    if asked.row.wire in {WireAPI.RESPONSES, WireAPI.ANTHROPIC_MESSAGES}:
        assert SIGNATURE in raw
        assert THOUGHT in raw
        return
    said = asked.last.body["messages"][-2]
    if asked.row.provider.id == "google":
        extra = said["tool_calls"][0]["extra_content"]
        assert extra == {"google": {"thought_signature": SIGNATURE}}
    if quirks.echo_reasoning == "never":
        assert THOUGHT not in raw
    else:
        assert said[quirks.reasoning_field].strip() == THOUGHT


def check_strictness(asked: Asked) -> None:
    """Tools are strict only where the service takes the word."""
    (tool,) = asked.last.body["tools"]
    told = tool.get("function", tool).get("strict")
    if not asked.backend.quirks.supports_strict_tools:
        assert not told


def check_the_schema_is_told(asked: Asked) -> None:
    """As a schema where the service takes one; else in words, so that the model knows it."""
    body, quirks = asked.last.body, asked.backend.quirks
    formats = {
        WireAPI.RESPONSES: lambda: body.get("text", {}).get("format"),
        WireAPI.ANTHROPIC_MESSAGES: lambda: body.get("output_config", {}).get("format"),
    }
    told = formats.get(asked.row.wire, lambda: body.get("response_format"))()
    if quirks.supports_json_schema:
        assert told["type"] == "json_schema"
        assert "cell_type" in json.dumps(told)
    else:
        assert told in (None, {"type": "json_object"})
        assert "cell_type" in json.dumps(body["messages"])
