"""Through the whole gateway: what is spent is charged, told and reported, once each."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from ovagent_jupyter.config.gateway import GatewayConfig
from ovagent_jupyter.config.llm import Budget
from ovagent_jupyter.errors import BudgetExceeded, ProviderError
from ovagent_jupyter.events import Emitter
from ovagent_jupyter.gateway.cache import MemoryStore, ResponseCache
from ovagent_jupyter.gateway.cost import Prices, Pricing
from ovagent_jupyter.gateway.gateway import Gateway
from ovagent_jupyter.gateway.layer import Call
from ovagent_jupyter.gateway.quota import Quota
from ovagent_jupyter.messages import Usage
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.storage.day_ledger import Spent
from ovagent_jupyter.storage.redaction import Redactor
from ovagent_jupyter.storage.session_log import SessionLog
from ovagent_jupyter.storage.usage import UsageRow, read_uses, usage_report
from tests.gateway.layered import ask, service
from tests.gateway.played import Clock, Played, answer, fails, read, said

FIRST = replace(service(prices=(1.0, 1.0)), name="first")
SECOND = replace(service(prices=(10.0, 10.0)), name="second")


class Desk:
    """A gateway with budgets, prices and a session log."""

    def __init__(self, folder: Path, budget: Budget, **clients: Played) -> None:
        self.clients = clients
        prices, clock = Prices(), Clock()
        self.quota = Quota({"session": budget}, prices)
        self.gateway = Gateway(
            [FIRST, SECOND],
            self._client,
            GatewayConfig(),
            layers={
                "quota": self.quota,
                "cost": Pricing(prices),
                "cache": ResponseCache(MemoryStore(), sampled=True),
            },
            clock=clock,
            sleep=clock.sleep,
        )
        self.folder = folder
        self._log = SessionLog(folder, "s", Redactor({}))

    def _client(self, asked: Backend) -> Played:
        return self.clients[asked.name]

    def call(self, text: str = "hello") -> Call:
        """A call whose events go to the log."""
        return replace(ask(text), tell=Emitter(self._log.append, "s", "t"))

    @property
    def spent(self) -> Spent:
        """What the session has spent."""
        return self.quota.spent(self.call())["session"]

    @property
    def reported(self) -> UsageRow:
        """What its log says."""
        return usage_report(read_uses(self.folder)).total


async def test_attempts_that_failed_are_in_the_sum_and_in_the_report(tmp_path: Path) -> None:
    desk = Desk(
        tmp_path,
        Budget(requests=100, money=10.0),
        first=Played([fails(usage=Usage(100_000))]),
        second=Played([answer("Hel", "lo", usage=Usage(200_000, 1))]),
    )
    text, reply = await read(desk.gateway.call(desk.call()))
    asked = len(desk.clients["first"].asked)
    assert text == "Hello"
    assert asked > 1
    assert reply.usage == Usage(100_000 * asked + 200_000, 1)
    assert reply.cost == pytest.approx(0.1 * asked + 2.00001)
    assert desk.spent.requests == desk.reported.calls == asked + 1
    assert desk.spent.tokens == reply.usage.input_tokens + 1
    assert desk.reported.usage == reply.usage
    assert desk.spent.money == pytest.approx(reply.cost)
    assert desk.reported.cost == pytest.approx(reply.cost)
    again, cached = await read(desk.gateway.call(desk.call()))
    assert (again, cached.cost) == ("Hello", 0.0)
    assert desk.spent.requests == asked + 1
    assert (desk.reported.calls, desk.reported.cached) == (asked + 1, 1)


async def test_a_budget_ends_retries_and_asks_no_other_backend(tmp_path: Path) -> None:
    desk = Desk(
        tmp_path,
        Budget(requests=2),
        first=Played([fails(usage=Usage(5))]),
        second=Played([answer("x")]),
    )
    with pytest.raises(ProviderError) as caught:
        await read(desk.gateway.call(desk.call()))
    assert caught.value.fault == "overloaded"
    assert isinstance(caught.value.__cause__, BudgetExceeded)
    assert caught.value.next_step.startswith("Raise budget_session")
    assert len(desk.clients["first"].asked) == 2
    assert desk.clients["second"].asked == []
    assert caught.value.usage == Usage(10)


async def test_whoever_leaves_has_paid(tmp_path: Path) -> None:
    desk = Desk(
        tmp_path,
        Budget(requests=100),
        first=Played([[*said("x" * 40), asyncio.Event()]]),
        second=Played([answer("x")]),
    )
    async with aclosing(desk.gateway.call(desk.call())) as deltas:
        await anext(deltas)
    assert desk.spent.requests == 1
    assert desk.spent.tokens >= 10
    reported = desk.reported
    assert (reported.calls, reported.failures) == (1, 1)
    assert reported.usage.estimated
    assert reported.cost > 0
    assert desk.clients["first"].closed == 1
    assert desk.clients["first"].running == 0
