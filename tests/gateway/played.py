"""Backends and clients that do what a test wrote down, step by step, and note what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ovagent_jupyter.config.gateway import GatewayConfig
from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.events import AgentEvent, Category, Level
from ovagent_jupyter.gateway.gateway import Gateway
from ovagent_jupyter.gateway.layer import Call, Priority, nobody_hears
from ovagent_jupyter.messages import Message, TextPart, Usage
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import FinishReason, ModelDelta, ModelRequest, Reply
from ovagent_jupyter.providers.provider import ModelInfo, ProviderInfo, WireAPI

PROVIDER = ProviderInfo(
    id="played",
    display_name="Played",
    wire_api=WireAPI.CHAT_COMPLETIONS,
    base_url="http://127.0.0.1:9/v1",
)


@dataclass(frozen=True)
class Hang:
    """A wait that only cancellation ends."""


Step = ModelDelta | ProviderError | Hang | asyncio.Event
Script = Iterable[Step]


def backend(name: str, window: int = 1000) -> Backend:
    """A place to ask that does not exist."""
    return Backend(name=name, provider=PROVIDER, model=ModelInfo(id=f"{name}-model", window=window))


def request(text: str = "Say hello.") -> ModelRequest:
    """A question."""
    return ModelRequest(model="any", messages=(Message("user", (TextPart(text),)),))


def said(*texts: str) -> list[ModelDelta]:
    """Pieces of text."""
    return [ModelDelta(text=text) for text in texts]


def end(
    text: str = "",
    usage: Usage | None = None,
    reason: FinishReason = "stop",
    cost: float | None = None,
) -> ModelDelta:
    """A last piece."""
    reply = Reply(
        message=Message("assistant", (TextPart(text),)),
        usage=usage or Usage(3, 2),
        finish_reason=reason,
        cost=cost,
    )
    return ModelDelta(finish_reason=reason, reply=reply)


def answer(*texts: str, usage: Usage | None = None) -> list[Step]:
    """A whole answer."""
    return [*said(*texts), end("".join(texts), usage)]


def fails(
    fault: str = "overloaded",
    *,
    retryable: bool = True,
    usage: Usage | None = None,
    after: float | None = None,
) -> list[Step]:
    """An answer that is a failure."""
    error = ProviderError(
        f"It is {fault}.",
        provider="played",
        retryable=retryable,
        fault=fault,  # type: ignore[arg-type]
        usage=usage,
        retry_after=after,
    )
    return [error]


@dataclass
class Played:
    """A model client: each call plays the next script; the last one is played again and again."""

    scripts: list[Script]
    asked: list[ModelRequest] = field(default_factory=list)
    running: int = 0
    most: int = 0
    cancelled: int = 0
    closed: int = 0

    async def stream(self, asked: ModelRequest) -> AsyncGenerator[ModelDelta, None]:
        """Play one script."""
        script = self.scripts[min(len(self.asked), len(self.scripts) - 1)]
        self.asked.append(asked)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            for step in script:
                if isinstance(step, ProviderError):
                    raise _fresh(step)
                if isinstance(step, Hang):
                    await asyncio.Event().wait()
                elif isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    yield step
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        except GeneratorExit:
            self.closed += 1
            raise
        finally:
            self.running -= 1


def _fresh(error: ProviderError) -> ProviderError:
    return ProviderError(
        error.what,
        provider=error.provider,
        retryable=error.retryable,
        fault=error.fault,
        usage=error.usage,
        retry_after=error.retry_after,
        why=error.why,
        next_step=error.next_step,
    )


NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Calendar:
    """A time that the test moves."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


class Clock:
    """Seconds that pass when the test says so, or somebody sleeps by it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Let the time pass at once."""
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class Ears:
    """Hears events."""

    def __init__(self) -> None:
        self.heard: list[AgentEvent] = []

    def __call__(
        self, category: Category, message: str, *, level: Level = Level.INFO, **data: object
    ) -> AgentEvent:
        event = AgentEvent(category=category, message=message, level=level, data=data)
        self.heard.append(event)
        return event

    def of(self, category: Category) -> list[AgentEvent]:
        """The events of one kind."""
        return [event for event in self.heard if event.category is category]


def call(
    text: str = "Say hello.",
    *,
    to: Backend | None = None,
    priority: Priority = Priority.NORMAL,
    deadline: float | None = None,
    tell: Ears | None = None,
) -> Call:
    """A call."""
    return Call(
        request=request(text),
        backend=to,
        priority=priority,
        deadline=deadline,
        tell=tell or nobody_hears,
    )


def gateway(
    clients: Mapping[str, Played],
    config: GatewayConfig | None = None,
    *,
    clock: Clock | None = None,
    tell: Ears | None = None,
    windows: Mapping[str, int] | None = None,
) -> Gateway:
    """A gateway to played clients, by the names of their backends."""
    clock = clock or Clock()
    return Gateway(
        [backend(name, (windows or {}).get(name, 1000)) for name in clients],
        lambda asked: clients[asked.name],
        config,
        clock=clock,
        sleep=clock.sleep,
        tell=tell or Ears(),
    )


async def read(deltas: AsyncGenerator[ModelDelta, None]) -> tuple[str, Reply]:
    """All text, and the reply.

    Raises:
        AssertionError: There is not exactly one end.
    """
    pieces = [delta async for delta in deltas]
    replies = [delta.reply for delta in pieces if delta.reply is not None]
    assert len(replies) == 1
    assert pieces[-1].reply is not None
    return "".join(delta.text for delta in pieces), replies[0]


async def settle() -> None:
    """Let everybody else on the loop come to where they wait."""
    for _ in range(30):
        await asyncio.sleep(0)


async def read_until_failure(
    deltas: AsyncGenerator[ModelDelta, None],
) -> tuple[list[ModelDelta], ProviderError]:
    """What came, and how it ended.

    Raises:
        AssertionError: It did not fail.
    """
    pieces: list[ModelDelta] = []
    try:
        async for delta in deltas:
            pieces.append(delta)  # noqa: PERF401 - kept when it fails
    except ProviderError as error:
        return pieces, error
    raise AssertionError("It did not fail.")
