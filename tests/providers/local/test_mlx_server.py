"""Our chat-completions client asks mlx-lm's own server, which runs the tiny model."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from ovagent_jupyter.errors import ProviderError, RunnerNotAvailable
from ovagent_jupyter.messages import Message, ReasoningPart, TextPart, ToolCall, ToolResult
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import ModelClient, ModelDelta, ModelRequest, ToolSchema
from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.providers.credentials import Secret
from ovagent_jupyter.providers.local.runner import ServerRunner
from ovagent_jupyter.providers.local.servers import require_server
from ovagent_jupyter.providers.local.vllm import RUNNER as VLLM
from ovagent_jupyter.providers.provider import ModelInfo, ProviderInfo, Quirks, WireAPI
from ovagent_jupyter.providers.wires import client_for
from ovagent_jupyter.testing.scripted_client import check_model_client
from tests.providers.local.conftest import ask, reply_of
from tests.providers.local.tiny_model import FIRST_TURN, PYTHON, WINDOW

PROVIDER = ProviderInfo(
    id="mlx-server",
    display_name="MLX server",
    wire_api=WireAPI.CHAT_COMPLETIONS,
    default_key="none",
    local=True,
    quirks=Quirks(reasoning_field="reasoning", supports_json_schema=False),
)
SERVES = ServerRunner(
    name="mlx-server",
    provider="mlx-server",
    base_url="http://127.0.0.1:8080/v1",
    start="mlx_lm.server --model {model}",
)
STARTS_WITHIN = 90.0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="module")
def server(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of the server."""
    port = free_port()
    place = tmp_path_factory.mktemp("server")
    (place / "hub").mkdir()  # it lists no models where the hub's cache is not there
    log = place / "log.txt"
    with log.open("w") as out:
        command = [sys.executable, "-m", "mlx_lm.server", "--model", str(model_folder)]
        command += ["--host", "127.0.0.1", "--port", str(port), "--max-tokens", "128"]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(place)}
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        try:
            end = time.monotonic() + STARTS_WITHIN
            while not answers(f"http://127.0.0.1:{port}/health"):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture
def backend(server: str, model_folder: Path) -> Backend:
    model = ModelInfo(id=str(model_folder), window=WINDOW, max_output=128)
    return Backend(
        name="mlx-server", provider=PROVIDER, model=model, base_url=server, key=Secret("none")
    )


@pytest.fixture
async def client(backend: Backend) -> AsyncIterator[ModelClient]:
    connections = Connections()
    yield client_for(backend, connections)
    await connections.aclose()


def asked(backend: Backend, text: str, *before: Message, **options: object) -> ModelRequest:
    return replace(ask(text, *before, **options), model=backend.model.id)


async def deltas_of(client: ModelClient, request: ModelRequest) -> list[ModelDelta]:
    return [delta async for delta in client.stream(request)]


async def test_our_client_keeps_its_promises(backend: Backend, model_folder: Path) -> None:
    connections = Connections()
    await check_model_client(lambda: client_for(backend, connections), str(model_folder))
    await connections.aclose()


@pytest.mark.parametrize("streamed", [True, False])
async def test_text(client: ModelClient, backend: Backend, streamed: bool) -> None:
    request = asked(backend, "normalize the data", streamed=streamed)
    deltas = await deltas_of(client, request)
    reply = deltas[-1].reply
    assert reply is not None
    assert "".join(delta.text for delta in deltas) == reply.message.text == PYTHON
    assert reply.finish_reason == "stop"
    assert reply.provider == "mlx-server"
    assert (len([delta for delta in deltas if delta.text]) > 3) == streamed
    assert reply.usage.output_tokens > 20
    assert reply.usage.input_tokens > 10
    assert not reply.usage.estimated


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_thought(client: ModelClient, backend: Backend, streamed: bool) -> None:
    reply = await reply_of(client, asked(backend, "think", streamed=streamed))
    assert reply.message.reasoning.strip() == "I should greet."
    assert reply.message.text.strip() == "Hi there."
    assert isinstance(reply.message.parts[0], ReasoningPart)


@pytest.mark.parametrize("streamed", [True, False])
async def test_calls(client: ModelClient, backend: Backend, streamed: bool) -> None:
    tools = (ToolSchema("run_code", "Runs Python.", {"type": "object", "properties": {}}),)
    request = asked(backend, "say and call", tools=tools, streamed=streamed)
    reply = await reply_of(client, request)
    assert reply.finish_reason == "tool_calls"
    assert [(call.name, call.arguments) for call in reply.message.tool_calls] == [
        ("run_code", {"code": "print(1)"}),
        ("run_code", {"code": "print(2)"}),
    ]
    assert len({call.id for call in reply.message.tool_calls}) == 2
    assert reply.message.text.strip() == "I look at the data."


async def test_the_result_of_a_call_goes_back(client: ModelClient, backend: Backend) -> None:
    said = (
        Message("user", (TextPart("call a tool"),)),
        Message("assistant", (ToolCall("c1", "run_code", {"code": "print(1)"}),)),
        Message("tool", (ToolResult("c1", "1"),)),
    )
    reply = await reply_of(client, ModelRequest(model=backend.model.id, messages=said))
    assert reply.message.text == "The result is 1."


async def test_characters_of_several_bytes(client: ModelClient, backend: Backend) -> None:
    reply = await reply_of(client, asked(backend, "units"))
    assert reply.message.text == "5 µm, café 🧬 and DNA."


async def test_what_was_read_before_is_told(client: ModelClient, backend: Backend) -> None:
    first = await reply_of(client, asked(backend, FIRST_TURN))
    before = (Message("user", (TextPart(FIRST_TURN),)), first.message)
    second = await reply_of(client, asked(backend, "the second one?", *before))
    assert second.message.text == "The second one is B."
    assert 0 < second.usage.cached_tokens < second.usage.input_tokens


@pytest.mark.parametrize("streamed", [True, False])
async def test_an_answer_that_is_cut(client: ModelClient, backend: Backend, streamed: bool) -> None:
    reply = await reply_of(client, asked(backend, "sing", max_output_tokens=10, streamed=streamed))
    assert reply.finish_reason == "length"
    assert reply.message.text.startswith("la la")
    assert reply.usage.output_tokens == 10
    stopped = await reply_of(client, asked(backend, "count", stop=("four",), streamed=streamed))
    # It leaves a stop text out; that it goes on afterwards is its own way.
    assert stopped.message.text.startswith("one two three")
    assert "four" not in stopped.message.text


async def test_closing_frees_the_server(client: ModelClient, backend: Backend) -> None:
    request = asked(backend, "sing", max_output_tokens=1500)
    stream = cast(AsyncGenerator[ModelDelta], client.stream(request))
    async for delta in stream:
        if delta.text:
            break
    await stream.aclose()
    replies = await asyncio.gather(
        *(reply_of(client, asked(backend, text)) for text in ("hello", "count", "units"))
    )
    assert [reply.message.text for reply in replies] == [
        "Hello! I write scanpy code.",
        "one two three four five six seven",
        "5 µm, café 🧬 and DNA.",
    ]


async def test_what_it_does_not_take_is_one_error(client: ModelClient, backend: Backend) -> None:
    with pytest.raises(ProviderError) as caught:
        await reply_of(client, replace(ask("hello"), model="nobody/no-such-model"))
    assert caught.value.provider == "mlx-server"
    assert caught.value.fault != "other"


async def test_a_server_is_found_or_its_command_is_told(backend: Backend) -> None:
    found = await require_server(SERVES, backend)
    assert found.base_url == backend.base_url
    strange = replace(backend, model=ModelInfo(id="qwen", window=1))
    with pytest.raises(RunnerNotAvailable, match="has no model 'qwen'") as none:
        await require_server(VLLM, strange)
    assert "vllm serve qwen" in none.value.next_step
    nowhere = replace(strange, base_url=f"http://127.0.0.1:{free_port()}/v1")
    with pytest.raises(RunnerNotAvailable, match="No vllm server answers") as silent:
        await require_server(VLLM, nowhere)
    assert "vllm serve qwen" in silent.value.next_step
    elsewhere = replace(strange, base_url=backend.base_url.removesuffix("/v1") + "/health")
    with pytest.raises(RunnerNotAvailable, match="is no vllm server"):
        await require_server(VLLM, elsewhere)
    with pytest.raises(RunnerNotAvailable, match="the base URL is none"):
        await require_server(VLLM, replace(strange, base_url="localhost:8000"))
