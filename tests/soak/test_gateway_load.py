"""Two hundred streams at once, some failing: none lost, none mixed, fair, in bounded memory."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median, quantiles

import psutil
import pytest

from ovagent_jupyter.config.gateway import ConcurrencyConfig, GatewayConfig, RetryConfig
from ovagent_jupyter.errors import ProviderError, StreamInterrupted
from ovagent_jupyter.gateway.gateway import Gateway
from ovagent_jupyter.gateway.layer import Call, Priority
from ovagent_jupyter.messages import Message
from ovagent_jupyter.providers.backend import Timeouts
from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.providers.wires import client_for
from tests.providers.asking import ask, backend_at
from tests.soak.model_server import words

pytestmark = [pytest.mark.soak, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
SECONDS = float(os.environ.get("OVAGENT_LOAD_SECONDS", "60"))
WARM = 0.2
"""Share of the time after which the memory is measured for the first time."""
STREAMS = 200
CALLERS = 320
"""More than run at once, so that some always wait; as many of each priority."""
WORDS = 40
FAULTS = 0.05
MEGABYTES = 64
"""How much the process may grow after it is warm."""


@dataclass
class Figures:
    """What came of all calls."""

    answers: Counter[Priority] = field(default_factory=Counter)
    interrupted: int = 0
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    deltas: int = 0
    first: dict[Priority, list[float]] = field(
        default_factory=lambda: {priority: [] for priority in Priority}
    )
    attempts: Counter[int] = field(default_factory=Counter)
    memory: list[float] = field(default_factory=list)


@asynccontextmanager
async def server() -> AsyncIterator[tuple[int, dict[str, object]]]:
    """The service in a process of its own: its port, and in the end what it has done."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.soak.model_server", str(FAULTS),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    done: dict[str, object] = {}
    try:
        yield int(await process.stdout.readline()), done
        out, _ = await process.communicate(b"\n")  # which closes its input
        done.update(json.loads(out))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def one_call(gateway: Gateway, figures: Figures, name: str, priority: Priority) -> None:
    """Ask once and check every word."""
    expected = words(name, WORDS)
    begun = time.monotonic()
    heard: list[str] = []
    replies = []
    try:
        async for delta in gateway.call(Call(request=ask(f"{name} {WORDS}"), priority=priority)):
            if delta.text and not heard:
                figures.first[priority].append(time.monotonic() - begun)
            figures.deltas += 1
            heard.append(delta.text)
            if delta.reply is not None:
                replies.append(delta.reply)
    except StreamInterrupted as error:
        figures.interrupted += 1
        said = error.partial.text if isinstance(error.partial, Message) else ""
        if not said or not "".join(expected).startswith(said) or "".join(heard) != said:
            figures.wrong.append(f"{name} broke off with {said!r}")
        return
    except ProviderError as error:
        figures.failed.append(f"{name}: {error}")
        return
    figures.answers[priority] += 1
    if "".join(heard) != "".join(expected) or len(replies) != 1:
        figures.wrong.append(f"{name} heard {''.join(heard)!r} and {len(replies)} ends")
        return
    figures.attempts[int(str(replies[0].details.get("attempts", 1)))] += 1
    if replies[0].usage.output_tokens < WORDS:
        figures.wrong.append(f"{name} has lost usage: {replies[0].usage}")


async def caller(gateway: Gateway, figures: Figures, number: int, until: float) -> None:
    """Ask again and again."""
    priority = Priority(number % len(Priority))
    turn = 0
    while time.monotonic() < until:
        turn += 1
        await one_call(gateway, figures, f"c{number}t{turn}", priority)


async def watch_memory(figures: Figures, until: float) -> None:
    """Measure the memory of this process now and then."""
    me = psutil.Process()
    await asyncio.sleep(SECONDS * WARM)
    while time.monotonic() < until:
        gc.collect()
        figures.memory.append(me.memory_info().rss / (1 << 20))
        await asyncio.sleep(SECONDS / 10)


def report(figures: Figures, gateway: Gateway, done: dict[str, object], cpu: float) -> str:
    """The figures for a reader."""
    total = sum(figures.answers.values())
    lines = [
        f"{total} answers in {SECONDS:.0f} s, {figures.interrupted} broken off, "
        f"{len(figures.failed)} failed, {len(figures.wrong)} wrong",
        f"{figures.deltas} pieces, {figures.deltas / SECONDS:.0f} a second, "
        f"{cpu / max(figures.deltas, 1) * 1e6:.0f} µs of CPU each, all included",
        f"attempts {dict(figures.attempts)}; the service: {done}",
        f"memory {figures.memory[0]:.0f} MB warm, {max(figures.memory):.0f} MB at most, "
        f"{figures.memory[-1]:.0f} MB in the end",
    ]
    for priority, times in figures.first.items():
        late = quantiles(times, n=100)[98] if len(times) > 1 else mean(times or [0.0])
        lines.append(
            f"{priority.name:9} {figures.answers[priority]:6} answers, first word after "
            f"{median(times or [0.0]):.2f} s in the median, {late:.2f} s at the 99th percentile"
        )
    return "\n".join([*lines, *(f"{name}: {state}" for name, state in gateway.state())])


async def test_two_hundred_streams_at_once() -> None:
    figures, connections = Figures(), Connections()
    config = GatewayConfig(
        concurrency=ConcurrencyConfig(max_calls=STREAMS, queue=CALLERS, aging=2),
        retry=RetryConfig(attempts=4, base=0.05, cap=0.5),
    )
    async with server() as (port, done):
        backend = backend_at(
            f"http://127.0.0.1:{port}/v1",
            timeouts=Timeouts(connect=20, first_byte=10, between=20, total=60),
        )
        backends = [backend, replace(backend, name="backup")]
        gateway = Gateway(backends, lambda each: client_for(each, connections), config)
        until, cpu = time.monotonic() + SECONDS, time.process_time()
        async with asyncio.TaskGroup() as group:
            group.create_task(watch_memory(figures, until))
            for number in range(CALLERS):
                group.create_task(caller(gateway, figures, number, until))
        cpu = time.process_time() - cpu
        await gateway.aclose()
        await connections.aclose()
    print("\n" + report(figures, gateway, done, cpu))
    assert figures.wrong == []
    assert figures.failed == []
    told = done["done"]
    assert isinstance(told, dict)
    assert figures.interrupted == told["cut in the middle"]  # only what was begun breaks off
    assert sum(figures.answers.values()) == told["answered"]
    assert isinstance(done["most"], int)
    assert STREAMS * 3 // 4 <= done["most"] <= STREAMS
    served = [figures.answers[priority] for priority in Priority]
    assert served == sorted(served)
    assert served[0] > 0
    assert max(figures.memory) - figures.memory[0] < MEGABYTES
    assert dict(gateway.state())["gateway"].startswith("0 of")
