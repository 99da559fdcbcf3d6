"""Each fault in each phase, through real sockets: retried, failed over, or one clear error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest

from ovagent_jupyter.config.gateway import GatewayConfig, RetryConfig
from ovagent_jupyter.errors import ProviderError, StreamInterrupted
from ovagent_jupyter.gateway.gateway import Gateway
from ovagent_jupyter.messages import Message, ToolCall, Usage
from ovagent_jupyter.providers.backend import Backend, Timeouts
from ovagent_jupyter.providers.client import Reply, collect
from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.providers.provider import WireAPI
from ovagent_jupyter.providers.wires import client_for
from tests.gateway.faults import ANSWERED, INTERRUPTED, PAGE_FILE, Case, cases, page
from tests.gateway.speech import BEGUN, MESSAGES, OVERLOADED, SPEECHES, good, named
from tests.providers.asking import ask, backend_at
from tests.providers.served import Served

ROWS = list(cases())
HANGS_AFTER = 60.0
"""Seconds after which a call is taken to hang; none here needs more than one or two."""
PATIENT = Timeouts(connect=20, first_byte=20, between=20, total=50)
SILENT = replace(PATIENT, first_byte=0.3)
"""For a service that says nothing at all."""
BREAKING_OFF = replace(PATIENT, between=0.3)
"""For one that stops in the middle."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a caller got of one call."""

    text: str
    calls: tuple[ToolCall, ...]
    reply: Reply | None
    error: ProviderError | None


class Trial:
    """A server with the fault, one that is well, and a gateway to them."""

    def __init__(self, case: Case, connections: Connections) -> None:
        self.case = case
        self.faulty, self.well = Served(), Served()
        self._connections = connections
        self.slept: list[float] = []

    async def __aenter__(self) -> Trial:
        for server in (self.faulty, self.well):
            await server.__aenter__()
        case = self.case
        if case.steps or case.status == 200:
            self.faulty.answer(
                *case.steps, status=case.status, headers=case.headers, head=case.head
            )
        steps, headers = good(case.wire, streamed=case.streamed, tools=case.tools)
        self.faulty.always(*steps, headers=headers)
        self.well.always(*steps, headers=headers)
        return self

    async def __aexit__(self, *error: object) -> None:
        for server in (self.faulty, self.well):
            await server.__aexit__(None, None, None)

    async def call(self, *, attempts: int = 1, backup: bool = False) -> Outcome:
        """Ask once."""
        url = self.faulty.url
        if self.case.phase == "connect":
            url = "http://127.0.0.1:1"  # nobody listens there
        backends = [self._backend("first", f"{url}/v1")]
        if backup:
            backends.append(self._backend("backup", f"{self.well.url}/v1"))
        gateway = Gateway(
            backends,
            lambda backend: client_for(backend, self._connections),
            GatewayConfig(retry=RetryConfig(attempts=attempts)),
            sleep=self._sleep,
        )
        async with asyncio.timeout(HANGS_AFTER):
            outcome = await _read(gateway, streamed=self.case.streamed)
        assert dict(gateway.state())["gateway"].startswith("0 of")
        return outcome

    def _backend(self, name: str, url: str) -> Backend:
        timeouts = PATIENT
        if self.case.waits and name == "first":
            begins = self.case.phase in {"headers", "first byte"}
            timeouts = SILENT if begins else BREAKING_OFF
        if self.case.wire is WireAPI.ANTHROPIC_MESSAGES:
            url = url.removesuffix("/v1")  # its SDK adds that
        return replace(backend_at(url, self.case.wire, timeouts=timeouts), name=name)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


async def _read(gateway: Gateway, *, streamed: bool) -> Outcome:
    """Read to the end, and require that there is one."""
    deltas = []
    error: ProviderError | None = None
    try:
        async for delta in gateway.stream(ask(streamed=streamed)):
            deltas.append(delta)  # noqa: PERF401 - kept when it fails
    except ProviderError as failure:
        error = failure
    replies = [delta.reply for delta in deltas if delta.reply is not None]
    assert len(replies) + (error is not None) == 1, "exactly one outcome"
    if replies:
        assert deltas[-1].reply is not None
        assert [delta.finish_reason for delta in deltas[:-1]].count(None) == len(deltas) - 1
    calls = tuple(delta.tool_call for delta in deltas if delta.tool_call is not None)
    text = "".join(delta.text for delta in deltas)
    return Outcome(text, calls, replies[0] if replies else None, error)


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """Load the SDKs, which takes longer than a silent service is given below."""
    asyncio.run(_ask_each_wire())


async def _ask_each_wire() -> None:
    made = Connections()
    for wire in SPEECHES:
        steps, headers = good(wire, streamed=True, tools=False)
        async with Served() as server:
            server.answer(*steps, headers=headers)
            client = client_for(backend_at(server.url, wire, timeouts=PATIENT), made)
            await collect(client.stream(ask()))
    await made.aclose()


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    """Connections, closed after the test."""
    made = Connections()
    yield made
    await made.aclose()


def check_answer(case: Case, outcome: Outcome, *, by: str) -> None:
    """The whole answer, once."""
    assert outcome.error is None
    assert outcome.reply is not None
    assert outcome.text == outcome.reply.message.text == "Hello"
    assert outcome.reply.backend == by
    expected = [("run_code", {"code": "1 + 1"})] if case.tools else []
    assert [(each.name, each.arguments) for each in outcome.calls] == expected
    assert outcome.reply.message.tool_calls == outcome.calls
    assert outcome.reply.usage.input_tokens > 0
    assert outcome.reply.usage.output_tokens > 0


def check_failure(case: Case, outcome: Outcome) -> None:
    """The one error that the table says, with what had come and what was spent."""
    error = outcome.error
    assert error is not None
    assert error.fault == case.outcome, str(error)
    assert outcome.calls == ()
    if not outcome.text:
        assert not isinstance(error, StreamInterrupted)
        return
    assert case.outcome == INTERRUPTED
    assert isinstance(error, StreamInterrupted)
    assert isinstance(error.partial, Message)
    assert error.partial.text == outcome.text == "Hello"
    assert error.partial.tool_calls == ()
    assert isinstance(error.usage, Usage)
    assert error.usage.input_tokens > 0
    assert error.usage.output_tokens > 0


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.id)
async def test_alone(case: Case, connections: Connections) -> None:
    async with Trial(case, connections) as trial:
        outcome = await trial.call()
        if case.outcome == ANSWERED:
            check_answer(case, outcome, by="first")
        else:
            check_failure(case, outcome)
        assert len(trial.faulty.requests) == (case.phase != "connect")


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.id)
async def test_asked_again(case: Case, connections: Connections) -> None:
    async with Trial(case, connections) as trial:
        outcome = await trial.call(attempts=2)
        assert len(trial.slept) == case.retried
        if case.phase == "connect":
            check_failure(case, outcome)  # still nobody there
            return
        assert len(trial.faulty.requests) == 1 + case.retried
        if case.retried or case.outcome == ANSWERED:
            check_answer(case, outcome, by="first")
        else:
            check_failure(case, outcome)


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.id)
async def test_with_a_backup(case: Case, connections: Connections) -> None:
    async with Trial(case, connections) as trial:
        outcome = await trial.call(backup=True)
        assert len(trial.well.requests) == case.fails_over
        if case.fails_over:
            check_answer(case, outcome, by="backup")
        elif case.outcome == ANSWERED:
            check_answer(case, outcome, by="first")
        else:
            check_failure(case, outcome)


def test_every_phase_is_there_both_ways() -> None:
    phases = {"connect", "headers", "first byte", "mid-stream", "mid-tool-call"}
    assert {case.phase for case in ROWS if case.streamed} == phases | {"after the last byte"}
    assert {case.phase for case in ROWS if not case.streamed} >= phases
    assert len({case.id for case in ROWS}) == len(ROWS)


def test_the_page_in_the_docs_is_this_table() -> None:
    assert PAGE_FILE.read_text("utf-8") == page(), "run python -m tests.gateway.faults"


@pytest.mark.parametrize("backup", [False, True])
async def test_what_a_failed_attempt_had_spent_is_in_the_answer(
    connections: Connections, backup: bool
) -> None:
    async with Served() as server:
        server.answer(named(BEGUN, OVERLOADED)).always(MESSAGES.text, *MESSAGES.text_end)
        made = backend_at(server.url, WireAPI.ANTHROPIC_MESSAGES, timeouts=PATIENT)
        gateway = Gateway(
            [made, replace(made, name="backup")],
            lambda backend: client_for(backend, connections),
            GatewayConfig(retry=RetryConfig(attempts=1 if backup else 2, base=0.001)),
        )
        outcome = await _read(gateway, streamed=True)
    assert outcome.reply is not None, outcome.error
    assert outcome.reply.backend == ("backup" if backup else "acme/m")
    assert outcome.reply.usage.input_tokens == 50
    failed = outcome.reply.details["failed_usage"]
    assert isinstance(failed, dict)
    assert failed["input_tokens"] == 25
