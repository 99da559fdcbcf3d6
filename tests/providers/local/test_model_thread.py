"""The thread of a local model: it stops when nobody reads, waits, frees, and ends."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, cast

import pytest

from ovagent_jupyter.errors import ProviderError, StreamInterrupted
from ovagent_jupyter.messages import Message
from ovagent_jupyter.providers.backend import Timeouts
from ovagent_jupyter.providers.client import ModelDelta, ToolSchema
from ovagent_jupyter.providers.local.client import LocalClient
from ovagent_jupyter.providers.local.loaded import LoadedModels
from ovagent_jupyter.providers.local.mlx import RUNNER, MlxModel
from ovagent_jupyter.providers.local.runner import (
    CancelToken,
    DeviceConfig,
    GenerationConfig,
    LoadProgress,
    Marks,
    ModelHandle,
    Progress,
    RunnerCapabilities,
    TokenEvent,
    get_runner,
    register_runner,
    runners,
)
from tests.providers.local.conftest import ask, local_backend, reply_of, until

MANY = 600
"""Tokens of an answer that has no end of its own."""
ROOT = Path(__file__).parents[3]


class Counting:
    """The runner of MLX, counting what it makes."""

    name: ClassVar[str] = "counting"
    capabilities = RunnerCapabilities()

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.made = 0
        self.loads = 0
        self.threads: set[int] = set()
        self.fails_after: int | None = None
        self.marks = Marks()

    def load(
        self, model_id: str, device: DeviceConfig, progress: Progress | None = None
    ) -> ModelHandle:
        self.loads += 1
        handle = RUNNER.load(model_id, device, progress)
        assert isinstance(handle, MlxModel)
        handle.marks = self.marks
        return handle

    def render(
        self,
        handle: ModelHandle,
        messages: Sequence[Message],
        tools: Sequence[ToolSchema] = (),
        *,
        thinking: bool | None = None,
    ) -> list[int]:
        return RUNNER.render(handle, messages, tools, thinking=thinking)

    def count(self, handle: ModelHandle, what: str | Sequence[Message]) -> int:
        return RUNNER.count(handle, what)

    def generate(
        self,
        handle: ModelHandle,
        prompt: Sequence[int],
        config: GenerationConfig,
        cancel: CancelToken,
    ) -> Iterator[TokenEvent]:
        self.threads.add(threading.get_ident())
        for number, event in enumerate(RUNNER.generate(handle, prompt, config, cancel)):
            if number == self.fails_after:
                raise RuntimeError("[metal::malloc] out of memory")
            self.made += 1
            yield event

    def cleanup(self, handle: ModelHandle) -> None:
        RUNNER.cleanup(handle)

    def leave(self) -> None:
        RUNNER.leave()


@pytest.fixture
def counting(model_folder: Path) -> Counting:
    """One runner for the table, made anew for each test."""
    if "counting" not in runners():
        register_runner("counting", Counting())
    found = get_runner("counting")
    assert isinstance(found, Counting)
    found.begin()
    return found


@pytest.fixture
def counted(counting: Counting, model_folder: Path) -> LocalClient:
    backend = local_backend(f"counting/{model_folder}", max_output=MANY)
    return LocalClient(backend, models=LoadedModels())


async def test_closing_a_stream_stops_the_model(counting: Counting, counted: LocalClient) -> None:
    stream = cast(AsyncGenerator[ModelDelta], counted.stream(ask("sing")))
    async for delta in stream:
        if delta.text:
            break
    await stream.aclose()
    # The next call is answered at once, and right: the first does not run on.
    assert (await reply_of(counted, ask("hello"))).message.text == "Hello! I write scanpy code."
    assert counting.made < 200
    await counted.aclose()


async def test_cancelling_the_task_stops_the_model(
    counting: Counting, counted: LocalClient
) -> None:
    started = asyncio.Event()

    async def read() -> None:
        async for _ in counted.stream(ask("sing")):
            started.set()

    task = asyncio.create_task(read())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await reply_of(counted, ask("hello"))
    assert counting.made < MANY
    await counted.aclose()


async def test_the_model_waits_for_a_slow_reader(counting: Counting, counted: LocalClient) -> None:
    stream = cast(AsyncGenerator[ModelDelta], counted.stream(ask("sing")))
    await anext(stream)
    before = -1
    while before != counting.made:  # until it makes no more
        before = counting.made
        await asyncio.sleep(0.05)
    assert before < 200
    rest = [delta async for delta in stream]
    assert rest[-1].finish_reason == "length"
    assert counting.made == MANY
    await counted.aclose()


async def test_a_failure_in_the_middle_keeps_what_had_come(
    counting: Counting, counted: LocalClient
) -> None:
    counting.fails_after = 6
    with pytest.raises(StreamInterrupted, match="out of memory") as caught:
        await reply_of(counted, ask("count"))
    partial, usage = caught.value.partial, caught.value.usage
    assert isinstance(partial, Message)
    assert partial.text
    assert "one two three four five six seven".startswith(partial.text)
    assert usage is not None
    counting.fails_after = 0
    with pytest.raises(ProviderError, match="smaller model") as first:
        await reply_of(counted, ask("count"))
    assert not isinstance(first.value, StreamInterrupted)
    assert first.value.fault == "runner"
    counting.fails_after = None
    assert (await reply_of(counted, ask("hello"))).message.text == "Hello! I write scanpy code."
    await counted.aclose()


async def test_an_answer_that_takes_too_long_is_ended(
    counting: Counting, model_folder: Path
) -> None:
    backend = local_backend(f"counting/{model_folder}", max_output=MANY)
    slow = LocalClient(replace(backend, timeouts=Timeouts(total=0.0)), models=LoadedModels())
    with pytest.raises(ProviderError, match="took too long") as caught:
        await reply_of(slow, ask("sing"))
    assert caught.value.fault in {"timeout", "interrupted"}
    await slow.aclose()
    assert counting.made < MANY


async def test_calls_in_a_list_without_an_end(counting: Counting, counted: LocalClient) -> None:
    counting.marks = Marks(call_start="[TOOL_CALLS]", call_end="")
    reply = await reply_of(counted, ask("call a list"))
    assert [(call.name, call.arguments) for call in reply.message.tool_calls] == [
        ("look", {}),
        ("run", {"n": 1}),
    ]
    assert (reply.finish_reason, reply.message.text) == ("tool_calls", "")
    cut = await reply_of(counted, ask("call a list", max_output_tokens=30))
    assert cut.message.tool_calls == ()
    assert cut.details["dropped_tool_calls"] == ["look"]
    await counted.aclose()


# -- loading, unloading, ending ----------------------------------------------------------------


def model_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("ovagent-model-")]


async def test_clients_share_a_model_and_its_thread_ends_with_the_last(
    counting: Counting, model_folder: Path
) -> None:
    models, before = LoadedModels(), len(model_threads())
    backend = local_backend(f"counting/{model_folder}")
    clients = [LocalClient(backend, models=models) for _ in range(3)]
    assert len(model_threads()) == before
    for client in clients:
        await reply_of(client, ask("hello"))
    assert counting.loads == len(counting.threads) == len(models) == 1
    assert len(model_threads()) == before + 1
    await clients[0].aclose()
    await clients[0].aclose()
    assert clients[1].loaded
    await clients[1].aclose()
    clients.clear()
    del client
    gc.collect()  # the third was never closed
    assert len(models) == 0
    assert len(model_threads()) == before


async def test_an_idle_model_is_freed_and_loaded_again(
    counting: Counting, model_folder: Path
) -> None:
    backend = local_backend(f"counting/{model_folder}")
    told: list[LoadProgress] = []
    client = LocalClient(
        backend,
        device=DeviceConfig(idle_unload=0.01),
        models=LoadedModels(),
        progress=told.append,
    )
    assert not client.loaded
    await reply_of(client, ask("hello"))
    await until(lambda: not client.loaded)
    assert (await reply_of(client, ask("hello"))).message.text == "Hello! I write scanpy code."
    assert counting.loads == 2
    assert [each.done for each in told].count(0) == 2
    await client.aclose()


async def test_closing_the_model_ends_who_still_asks(counted: LocalClient) -> None:
    stream = cast(AsyncGenerator[ModelDelta], counted.stream(ask("sing")))
    await anext(stream)
    waiting = asyncio.create_task(reply_of(counted, ask("hello")))
    await asyncio.sleep(0)
    await counted.aclose()
    with pytest.raises(StreamInterrupted, match="closed"):
        async for _ in stream:
            pass
    with pytest.raises(ProviderError, match="closed"):
        await waiting
    # And it can be used again.
    assert (await reply_of(counted, ask("hello"))).finish_reason == "stop"
    await counted.aclose()


LEAVE = """
import asyncio, sys
from ovagent_jupyter.providers.local.client import LocalClient
from tests.providers.local.conftest import ask, local_backend

client = LocalClient(local_backend(f"mlx/{sys.argv[1]}", max_output=1500))

async def main():
    async for delta in client.stream(ask("sing")):
        if delta.text:
            break

loop = asyncio.new_event_loop()
loop.run_until_complete(main())
print("left")
"""


def test_a_process_that_leaves_in_the_middle_ends_cleanly(model_folder: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LEAVE, str(model_folder)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (ran.returncode, ran.stdout) == (0, "left\n"), ran.stderr


FORGET = """
import sys
import ovagent_jupyter as ov

agent = ov.Agent(model=f"mlx/{sys.argv[1]}")
print(agent.ask("hello").answer)
"""


def test_a_script_that_never_closes_its_agent_ends_without_a_word(
    model_folder: Path, tmp_path: Path
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FORGET, str(model_folder)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OVAGENT_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.strip()
