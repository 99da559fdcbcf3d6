"""Budgets: what is checked before, what is charged after, and calls at the same time."""

from __future__ import annotations

import asyncio
import fcntl
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path

import pytest

from ovagent_jupyter.config.llm import Budget
from ovagent_jupyter.errors import BudgetExceeded, ProviderError
from ovagent_jupyter.events import Category
from ovagent_jupyter.gateway.cost import Prices, Pricing
from ovagent_jupyter.gateway.layer import around
from ovagent_jupyter.gateway.quota import REMEMBERED, Accounts, Quota, Scope
from ovagent_jupyter.messages import Usage
from ovagent_jupyter.storage.day_ledger import DayLedger, Spent
from tests.gateway.layered import ask, service, through
from tests.gateway.played import (
    Calendar,
    Ears,
    Played,
    answer,
    end,
    fails,
    read,
    read_until_failure,
    said,
    settle,
)

PRICES = Prices()
PRICED = service(prices=(2.0, 10.0))


def quota(ledger: DayLedger | None = None, **budgets: Budget) -> Quota:
    """Budgets by scope."""
    scoped: dict[Scope, Budget] = {"turn": Budget(), "session": Budget(), "day": Budget()}
    return Quota({scope: budgets.get(scope, Budget()) for scope in scoped}, PRICES, ledger=ledger)


async def test_without_budgets_nothing_is_in_the_way() -> None:
    client = Played([answer("x")])
    stream = client.stream(ask().request)
    assert quota()(ask(), lambda _: stream) is stream
    await stream.aclose()


@pytest.mark.parametrize("scope", ["turn", "session", "day"])
async def test_a_budget_of_requests_ends_calls(scope: Scope) -> None:
    layer = quota(**{scope: Budget(requests=2)})
    client = Played([answer("x")])
    for _ in range(2):
        await read(through(layer, client, ask(to=PRICED)))
    with pytest.raises(BudgetExceeded) as caught:
        await read(through(layer, client, ask(to=PRICED)))
    error = caught.value
    assert (error.budget, error.used, error.limit) == (f"requests of the {scope}", 2, 2)
    assert f"budget_{scope}" in error.next_step
    assert error.fault == "budget"
    assert len(client.asked) == 2


async def test_turns_and_sessions_have_their_own() -> None:
    layer = quota(turn=Budget(requests=1), session=Budget(requests=2))
    client = Played([answer("x")])
    first, second = ask(to=PRICED), replace(ask(to=PRICED), turn_id="t2")
    await read(through(layer, client, first))
    with pytest.raises(BudgetExceeded, match="this turn"):
        await read(through(layer, client, first))
    await read(through(layer, client, second))
    with pytest.raises(BudgetExceeded, match="this session"):
        await read(through(layer, client, replace(first, turn_id="t3")))
    await read(through(layer, client, replace(first, session_id="other", turn_id="t4")))


async def test_tokens_are_those_that_were_used() -> None:
    layer = quota(turn=Budget(tokens=3_000))
    client = Played([answer("x", usage=Usage(1_500, 600))])
    await read(through(layer, client, ask(to=PRICED)))
    assert layer.spent(ask())["turn"].tokens == 2_100
    with pytest.raises(BudgetExceeded) as caught:
        await read(through(layer, client, ask(to=PRICED)))
    assert caught.value.used == 2_100
    asked = ask(to=PRICED, max_output_tokens=100)
    await read(through(layer, client, asked))  # one that asks for less still fits


async def test_money_is_that_of_the_price() -> None:
    layer = quota(session=Budget(money=1.0))
    client = Played([answer("x", usage=Usage(450_000))])
    await read(through(layer, client, ask(to=PRICED)))
    assert layer.spent(ask())["session"].money == pytest.approx(0.9)
    with pytest.raises(BudgetExceeded, match="money of this session") as caught:
        await read(through(layer, client, ask("word " * 200_000, to=PRICED)))
    assert caught.value.used == pytest.approx(0.9)
    assert "$0.9 of $1.00" in caught.value.why


async def test_calls_at_the_same_time_cannot_spend_the_same() -> None:
    layer = quota(turn=Budget(requests=3))
    gate = asyncio.Event()
    client = Played([[gate, *answer("x")]])
    tasks = [asyncio.create_task(read(through(layer, client, ask(to=PRICED)))) for _ in range(10)]
    await settle()
    gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [each for each in outcomes if isinstance(each, BudgetExceeded)]
    assert len(refused) == 7
    assert "promised to calls that run" in refused[0].why
    assert layer.spent(ask())["turn"].requests == 3


async def test_failures_are_charged_and_calls_that_nobody_saw_are_not() -> None:
    layer = quota(turn=Budget(tokens=100_000))
    client = Played([fails(usage=Usage(700, 5)), fails("busy"), fails("unreachable")])
    for _ in range(3):
        await read_until_failure(through(layer, client, ask(to=PRICED)))
    assert layer.spent(ask())["turn"] == Spent(2, 705, 0.0)


async def test_what_is_broken_off_is_charged_by_estimate() -> None:
    layer = quota(turn=Budget(tokens=100_000, money=1.0))
    client = Played([[*said("x" * 400), end("x")]])
    stream = through(layer, client, ask(to=PRICED))
    async with aclosing(stream):
        await anext(stream)
    spent = layer.spent(ask())["turn"]
    assert spent.requests == 1
    assert spent.tokens >= 100
    assert spent.money > 0.001


async def test_what_is_cancelled_while_it_waits_is_charged_and_frees_its_promise() -> None:
    layer = quota(turn=Budget(requests=2))
    client = Played([[asyncio.Event()], answer("x")])
    task = asyncio.create_task(read(through(layer, client, ask(to=PRICED))))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await read(through(layer, client, ask(to=PRICED)))
    assert layer.spent(ask())["turn"].requests == 2


async def test_an_answer_of_the_cache_costs_nothing() -> None:
    last = end("x", Usage(5, 5), cost=0.0)
    assert last.reply is not None
    last = replace(last, reply=replace(last.reply, details={"cached": True}))
    layer = quota(turn=Budget(requests=1))
    for _ in range(3):
        await read(through(layer, Played([[last]]), ask(to=PRICED)))
    assert layer.spent(ask())["turn"] == Spent()


async def test_unknown_prices_are_refused_unless_allowed() -> None:
    budgets: dict[Scope, Budget] = {"day": Budget(money=1.0)}
    client = Played([answer("x")])
    with pytest.raises(BudgetExceeded, match="budget of money") as caught:
        await read(through(Quota(budgets, PRICES), client, ask(to=service())))
    assert "tokens" in caught.value.next_step
    assert client.asked == []
    lenient = Quota(budgets, PRICES, allow_unpriced=True)
    await read(through(lenient, client, ask(to=service())))
    assert lenient.spent(ask())["day"] == Spent(1, 5, 0.0)


async def test_a_budget_of_nothing_lets_local_models_answer() -> None:
    layer = quota(day=Budget(money=0.0))
    await read(through(layer, Played([answer("x")]), ask(to=service(local=True))))
    with pytest.raises(BudgetExceeded):
        await read(through(layer, Played([answer("x")]), ask(to=PRICED)))


async def test_what_a_session_spent_before_counts() -> None:
    layer = Quota(
        {"session": Budget(requests=3)}, PRICES, earlier=lambda name: Spent(len(name) * 2)
    )
    client = Played([answer("x")])
    await read(through(layer, client, ask(to=PRICED)))
    with pytest.raises(BudgetExceeded):
        await read(through(layer, client, ask(to=PRICED)))


async def test_gateways_of_other_settings_have_the_same_budget() -> None:
    accounts, begun = Accounts(), []

    def earlier(name: str) -> Spent:
        begun.append(name)
        return Spent(1)

    def of(**budgets: Budget) -> Quota:
        scoped: dict[Scope, Budget] = {"turn": Budget(), "session": Budget()} | budgets  # type: ignore[assignment]
        return Quota(scoped, PRICES, earlier=earlier, accounts=accounts)

    client = Played([answer("x")])
    await read(through(of(session=Budget(requests=4)), client, ask(to=PRICED)))
    await read(through(of(session=Budget(requests=4)), client, ask(to=PRICED)))
    # Also what was asked while the session had no budget.
    await read(through(of(turn=Budget(requests=9)), client, ask(to=PRICED)))
    with pytest.raises(BudgetExceeded) as caught:
        await read(through(of(session=Budget(requests=4)), client, ask(to=PRICED)))
    assert caught.value.used == 4
    assert begun == ["s"]


async def test_turns_of_two_sessions_may_have_the_same_name() -> None:
    layer, client = quota(turn=Budget(requests=1)), Played([answer("x")])
    await read(through(layer, client, ask(to=PRICED)))
    await read(through(layer, client, replace(ask(to=PRICED), session_id="other")))


async def test_what_is_remembered_has_a_bound() -> None:
    asked: list[str] = []

    def earlier(name: str) -> Spent:
        asked.append(name)
        return Spent()

    layer = Quota({"session": Budget(requests=9)}, PRICES, earlier=earlier)
    for number in (*range(REMEMBERED + 1), REMEMBERED, 0):
        layer.spent(replace(ask(), session_id=str(number)))
    assert len(asked) == REMEMBERED + 2
    assert asked[-1] == "0"


@pytest.mark.parametrize("usage", [Usage(10**400), Usage(-10_000), Usage(0, -(10**400))])
async def test_counts_of_a_client_of_another_make_fit_in_a_ledger(
    tmp_path: Path, usage: Usage
) -> None:
    ledger = DayLedger(tmp_path, now=Calendar(), zone=UTC)
    layer = quota(ledger, turn=Budget(tokens=4_000_000_000), day=Budget(requests=3, money=2e9))
    client = Played([answer("x", usage=usage)])
    for _ in range(3):
        await read(through(layer, client, ask(to=PRICED)))
    spent = layer.spent(ask())["day"]
    assert (spent.requests, spent.money) == (3, pytest.approx(0.0, abs=0.1))
    assert spent.tokens in (0, 3_000_000_000)
    with pytest.raises(BudgetExceeded):
        await read(through(layer, client, ask(to=PRICED)))


async def test_around_pricing_the_price_is_taken_once() -> None:
    layer = quota(turn=Budget(money=100.0))
    client = Played([answer("x", usage=Usage(1_000_000))])
    inner = around(Pricing(PRICES), lambda call: client.stream(call.request))
    _, reply = await read(layer(ask(to=PRICED), inner))
    assert layer.spent(ask())["turn"].money == reply.cost == pytest.approx(2.0)


# -- the day ------------------------------------------------------------------------------------


async def test_another_kernel_sees_what_was_spent_today(tmp_path: Path) -> None:
    one, other = (
        quota(DayLedger(tmp_path, now=Calendar(), zone=UTC), day=Budget(requests=3))
        for _ in range(2)
    )
    client = Played([answer("x")])
    await read(through(one, client, ask(to=PRICED)))
    await read(through(other, client, ask(to=PRICED)))
    await read(through(one, client, ask(to=PRICED)))
    for layer in (one, other):
        with pytest.raises(BudgetExceeded, match="this day"):
            await read(through(layer, client, ask(to=PRICED)))


async def test_a_new_day_begins_with_nothing(tmp_path: Path) -> None:
    calendar = Calendar()
    layer = quota(DayLedger(tmp_path, now=calendar, zone=UTC), day=Budget(requests=1))
    client = Played([answer("x")])
    await read(through(layer, client, ask(to=PRICED)))
    with pytest.raises(BudgetExceeded):
        await read(through(layer, client, ask(to=PRICED)))
    calendar.now += timedelta(days=1)
    await read(through(layer, client, ask(to=PRICED)))


async def test_a_ledger_that_cannot_be_written_costs_no_answer(tmp_path: Path) -> None:
    ledger = DayLedger(tmp_path / "ledger", now=Calendar(), zone=UTC)
    layer = quota(ledger, day=Budget(requests=1))
    ears = Ears()
    (tmp_path / "ledger").write_text("a file is in the way")
    with pytest.raises(Exception, match="ledger"):
        ledger.spent()
    (tmp_path / "ledger").unlink()
    client = Played([[_Blocks(tmp_path / "ledger"), *answer("x")]])
    text, _ = await read(through(layer, client, replace(ask(to=PRICED), tell=ears)))
    assert text == "x"
    assert len(ears.of(Category.NOTICE)) == 1
    (tmp_path / "ledger").unlink()
    (tmp_path / "aside").rename(tmp_path / "ledger")
    assert ledger.spent().tokens > layer.spent(ask())["day"].tokens == 5  # it knows its bill
    with pytest.raises(BudgetExceeded):
        await read(through(layer, client, ask(to=PRICED)))


async def test_a_promise_that_cannot_be_written_is_kept_in_memory(tmp_path: Path) -> None:
    ledger = DayLedger(tmp_path, now=Calendar(), zone=UTC)
    layer = quota(ledger, day=Budget(requests=2))
    ledger.add(Spent(1))
    gate = asyncio.Event()
    client = Played([[gate, *answer("x")]])
    with ledger.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as another kernel that hangs while it writes
        task = asyncio.create_task(read(through(layer, client, ask(to=PRICED))))
        await settle()
        assert ledger.spent() == Spent(1)
        with pytest.raises(BudgetExceeded, match="of this day"):
            await read(through(layer, client, ask(to=PRICED)))
    gate.set()
    await task
    assert ledger.spent() == Spent(2, 5)


async def test_a_promise_is_in_the_ledger_while_the_call_runs(tmp_path: Path) -> None:
    one, other = (
        quota(DayLedger(tmp_path, now=Calendar(), zone=UTC), day=Budget(requests=1, money=9.0))
        for _ in range(2)
    )
    gate = asyncio.Event()
    client = Played([[gate, *answer("x")]])
    task = asyncio.create_task(read(through(one, client, ask(to=PRICED))))
    await settle()
    promised = other.spent(ask())["day"]
    assert (promised.requests, promised.tokens > 1_000, promised.money > 0.01) == (1, True, True)
    with pytest.raises(BudgetExceeded):  # as after the kernel of the first was killed
        await read(through(other, client, ask(to=PRICED)))
    with pytest.raises(BudgetExceeded, match="promised to calls that run"):
        await read(through(one, client, ask(to=PRICED)))
    gate.set()
    await task
    spent = other.spent(ask())["day"]
    assert (spent.requests, spent.tokens) == (1, 5)
    assert spent.money == pytest.approx(3 * 2e-6 + 2 * 10e-6)


async def test_a_call_that_nobody_saw_takes_its_promise_back(tmp_path: Path) -> None:
    layer = quota(DayLedger(tmp_path, now=Calendar(), zone=UTC), day=Budget(requests=1))
    client = Played([fails("busy"), answer("x")])
    await read_until_failure(through(layer, client, ask(to=PRICED)))
    assert layer.spent(ask())["day"] == Spent()
    await read(through(layer, client, ask(to=PRICED)))


async def test_a_call_over_midnight_is_all_of_the_day_in_which_it_began(tmp_path: Path) -> None:
    calendar = Calendar()
    ledger = DayLedger(tmp_path, now=calendar, zone=UTC)
    layer = quota(ledger, day=Budget(requests=1))
    gate = asyncio.Event()
    client = Played([[gate, *answer("x")]])
    task = asyncio.create_task(read(through(layer, client, ask(to=PRICED))))
    await settle()
    calendar.now += timedelta(days=1)
    gate.set()
    await task
    assert ledger.spent() == Spent()
    calendar.now -= timedelta(days=1)
    assert ledger.spent() == Spent(1, 5)


class _Blocks(asyncio.Event):
    """A step at which a file appears in the place of a folder."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    async def wait(self) -> bool:  # type: ignore[override]
        """Put the file there, and the folder aside."""
        self._path.rename(self._path.with_name("aside"))
        self._path.write_text("a file is in the way")
        return True


async def test_an_error_of_the_wire_passes_as_it_is() -> None:
    layer = quota(turn=Budget(requests=5))
    _, error = await read_until_failure(through(layer, Played([fails("key")]), ask(to=PRICED)))
    assert type(error) is ProviderError
