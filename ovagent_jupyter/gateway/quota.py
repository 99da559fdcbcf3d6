"""Budgets of requests, tokens and money, of a turn, a session and a day: checked, then charged."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from ovagent_jupyter.config.llm import Budget
from ovagent_jupyter.errors import BudgetExceeded, ProviderError, StorageError, StreamInterrupted
from ovagent_jupyter.events import Category, Level
from ovagent_jupyter.gateway.cost import NOT_ASKED, Prices, broken_off, delta_tokens
from ovagent_jupyter.gateway.layer import Call, Next
from ovagent_jupyter.gateway.partial import estimated_input
from ovagent_jupyter.messages import Usage, dollars
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import ModelDelta, Reply
from ovagent_jupyter.storage.day_ledger import DayLedger, Spent
from ovagent_jupyter.storage.usage import day_of

Scope = Literal["turn", "session", "day"]
"""What a budget is for."""

SCOPES: tuple[Scope, ...] = ("turn", "session", "day")
ASSUMED_ANSWER = 1_000
"""Tokens of an answer that are promised to a call which says no bound; or its bound, if less."""
REMEMBERED = 10_000
"""Turns, and sessions, whose spending is kept in memory; far more than run at once."""


@dataclass(slots=True)
class _Account:
    """What one turn, session or day has spent, and what is promised to calls that run.

    That of a day with a ledger has only what could not be written there.
    """

    spent: Spent = field(default_factory=Spent)
    promised: Spent = field(default_factory=Spent)
    running: int = 0


class Accounts:
    """What each turn and session has spent in this process.

    Each set of settings has a gateway, with budgets of its own: they share these, else a session
    would have its budget once for each. They belong to one event loop.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Scope, str], _Account] = OrderedDict()

    def known(self, scope: Scope, name: str) -> _Account | None:
        """The account, if there is one."""
        account = self._kept.get((scope, name))
        if account is not None:
            self._kept.move_to_end((scope, name))
        return account

    def open(self, scope: Scope, name: str, spent: Spent) -> _Account:
        """A new account; the one that was used longest ago makes room for it."""
        if len(self._kept) >= REMEMBERED:
            idle = (key for key, account in self._kept.items() if not account.running)
            key = next(idle, None)
            if key is not None:
                del self._kept[key]
        account = self._kept[scope, name] = _Account(spent)
        return account


@dataclass(frozen=True, slots=True)
class _Promise:
    """What was set aside for one call, and where."""

    amount: Spent
    accounts: tuple[_Account, ...]
    """Those that are kept in memory."""
    daily: _Account | None
    """That of a day with a ledger."""
    day: str = ""
    """In whose file the ledger has it; empty when it could not be written."""


class Quota:
    """Lets a call through when every budget still has what it is likely to take.

    That much is set aside while it runs, so that calls at the same time cannot spend the same
    money. Afterwards what it took is charged, also when it failed or was broken off. It belongs
    around every attempt, inside of retries and of the cache: an answer of the cache costs nothing.

    A call may take more than was set aside, as its answer has no length before it is written: a
    budget is passed by at most the answers that are being written at that moment. The promises of
    a day are in its ledger, so that other kernels see them, and a kernel that is killed in the
    middle of a call has spent them.

    Without a known price a budget of money cannot be kept: the call is refused, unless
    ``allow_unpriced`` says to let it through uncounted.

    Args:
        budgets: Scope → what it may spend.
        prices: Where prices are found.
        ledger: The spending of the day by all kernels; None counts this process alone.
        allow_unpriced: Let calls through whose price is not known.
        backend: For calls that are not routed yet.
        earlier: What a session has spent before this process: asked once for each session.
        accounts: What was spent so far, shared with other gateways; None begins with nothing.
        today: The day, where there is no ledger to tell it.
    """

    def __init__(
        self,
        budgets: Mapping[Scope, Budget],
        prices: Prices,
        *,
        ledger: DayLedger | None = None,
        allow_unpriced: bool = False,
        backend: Backend | None = None,
        earlier: Callable[[str], Spent] = lambda _: Spent(),
        accounts: Accounts | None = None,
        today: Callable[[], str] = lambda: day_of(datetime.now(UTC)),
    ) -> None:
        self._budgets = {scope: budgets[scope] for scope in SCOPES if budgets.get(scope)}
        self._prices = prices
        self._ledger = ledger
        self._allow_unpriced = allow_unpriced
        self._backend = backend
        self._earlier = earlier
        self._today = today
        self._accounts = Accounts() if accounts is None else accounts
        self._priced = any(budget.money is not None for budget in self._budgets.values())

    def __call__(self, call: Call, call_next: Next) -> AsyncGenerator[ModelDelta, None]:
        """Pass on the answer of a call that the budgets allow; without budgets, nothing is done."""
        return self._limited(call, call_next) if self._budgets else call_next(call)

    def spent(self, call: Call) -> dict[Scope, Spent]:
        """What was spent in the turn, the session and the day of a call, so far.

        That of a day with a ledger includes what is promised to calls that run.

        Raises:
            StorageError: The ledger cannot be read.
        """
        return {scope: self._spent(scope, self._account(scope, call)) for scope in self._budgets}

    async def _limited(self, call: Call, call_next: Next) -> AsyncGenerator[ModelDelta, None]:
        if self._priced and not self._prices.loaded:
            await asyncio.to_thread(self._prices.load)
        promise = self._promise(call)
        bill: Spent | None = None
        written = 0.0
        try:
            async with aclosing(call_next(call)) as deltas:
                async for delta in deltas:
                    if delta.reply is None:
                        written += delta_tokens(delta)
                    else:
                        bill = self._bill(call, delta.reply)
                    yield delta
        except ProviderError as error:
            bill = self._bill_of_failure(call, error, written)
            raise
        finally:
            # None: closed or cancelled by whoever reads.
            self._settle(call, promise, bill or self._priced_bill(call, broken_off(call, written)))

    # -- before ------------------------------------------------------------------------------

    def _promise(self, call: Call) -> _Promise:
        """Set aside what a call is likely to take.

        Raises:
            BudgetExceeded: A budget does not have it.
        """
        likely = self._likely(call)
        accounts: dict[Scope, _Account] = {}
        for scope, budget in self._budgets.items():
            account = accounts[scope] = self._account(scope, call)
            used = self._spent(scope, account) + account.promised
            _require_room(scope, budget, used, likely, running=account.running > 0)
        for scope in SCOPES[:2]:  # a budget that is set again later must know of this call
            other = self._accounts.known(scope, self._name(scope, call))
            if other is not None:
                accounts.setdefault(scope, other)
        daily = accounts.pop("day", None) if self._ledger is not None else None
        day = self._write(likely) if daily is not None else ""
        for account in (*accounts.values(), *([daily] if daily else [])):
            account.running += 1
            account.promised += Spent() if account is daily and day else likely
        return _Promise(likely, tuple(accounts.values()), daily, day)

    def _write(self, likely: Spent) -> str:
        """Put a promise into the ledger, and say under which day; empty where it cannot be."""
        assert self._ledger is not None
        try:
            return self._ledger.add(likely)
        except StorageError:  # this process keeps it; the call tells if its bill fails as well
            return ""

    def _likely(self, call: Call) -> Spent:
        request, backend = call.request, call.backend or self._backend
        usage = Usage(
            estimated_input(request),
            min(request.max_output_tokens or ASSUMED_ANSWER, ASSUMED_ANSWER),
        )
        price: float | None = 0.0
        if self._priced:
            price = None if backend is None else self._prices.price(usage, backend)
        if price is None and not self._allow_unpriced:
            raise BudgetExceeded(
                f"{request.model} was not asked: there is a budget of money.",
                budget="money",
                why="The price of this model is not known, so that the budget cannot be kept.",
                next_step="Set gateway.prices.own or allow_unknown, or use a budget of tokens.",
            )
        return Spent(1, usage.input_tokens + usage.output_tokens, price or 0.0)

    def _account(self, scope: Scope, call: Call) -> _Account:
        name = self._name(scope, call)
        account = self._accounts.known(scope, name)
        if account is None:
            before = self._earlier(name) if scope == "session" and name else Spent()
            account = self._accounts.open(scope, name, before)
        return account

    def _spent(self, scope: Scope, account: _Account) -> Spent:
        if scope == "day" and self._ledger is not None:
            return (self._ledger.spent() + account.spent).floored()
        return account.spent

    def _name(self, scope: Scope, call: Call) -> str:
        match scope:
            case "turn":
                return f"{call.session_id} {call.turn_id}"
            case "session":
                return call.session_id
            case "day":
                return self._today() if self._ledger is None else str(self._ledger.path)

    # -- after -------------------------------------------------------------------------------

    def _bill(self, call: Call, reply: Reply) -> Spent:
        if reply.details.get("cached") is True:
            return Spent()
        usage = reply.usage
        if reply.cost is None:
            return self._priced_bill(call, usage, reply.model)
        return _bill(usage, reply.cost)

    def _bill_of_failure(self, call: Call, error: ProviderError, written: float) -> Spent:
        if error.fault in NOT_ASKED:
            return Spent()
        usage = error.usage if isinstance(error.usage, Usage) else Usage()
        if usage == Usage() and (written or isinstance(error, StreamInterrupted)):
            usage = broken_off(call, written)
        if error.cost is None:
            return self._priced_bill(call, usage)
        return _bill(usage, error.cost)

    def _priced_bill(self, call: Call, usage: Usage, model: str = "") -> Spent:
        backend = call.backend or self._backend
        price = None
        if self._priced and backend is not None:
            price = self._prices.price(usage, backend, model)
        return _bill(usage, price or 0.0)

    def _settle(self, call: Call, promise: _Promise, bill: Spent) -> None:
        for account in promise.accounts:
            account.running -= 1
            account.promised = _at_least_nothing(account.promised - promise.amount)
            account.spent += bill
        daily = promise.daily
        if self._ledger is None or daily is None:
            return
        daily.running -= 1
        if promise.day:
            bill -= promise.amount
        else:
            daily.promised = _at_least_nothing(daily.promised - promise.amount)
        if bill == Spent():
            return
        try:
            self._ledger.add(bill, promise.day)
        except StorageError as error:  # the answer is there and paid for: it is not thrown away
            daily.spent += bill
            told = (
                f"The spending of this call is not in the day's ledger: {error.why or error.what}"
            )
            call.tell(Category.NOTICE, told, level=Level.WARNING)


def _bill(usage: Usage, cost: float) -> Spent:
    return Spent(1, usage.input_tokens + usage.output_tokens, cost).bounded()


def _at_least_nothing(spent: Spent) -> Spent:
    """Without the dust that adding and taking away leaves."""
    return replace(spent, money=max(0.0, spent.money)) if spent.requests else Spent()


def _require_room(
    scope: Scope, budget: Budget, used: Spent, likely: Spent, *, running: bool
) -> None:
    """Check that a budget has what a call is likely to take.

    Raises:
        BudgetExceeded: It has not.
    """
    kinds = (
        ("requests", used.requests, likely.requests, budget.requests),
        ("tokens", used.tokens, likely.tokens, budget.tokens),
        ("money", used.money, likely.money, budget.money),
    )
    for kind, taken, more, limit in kinds:
        if limit is None or taken + more <= limit:
            continue
        show = dollars if kind == "money" else "{:,.0f}".format
        promised = " or promised to calls that run" if running else ""
        raise BudgetExceeded(
            f"The budget of {kind} of this {scope} does not allow one more call.",
            budget=f"{kind} of the {scope}",
            used=taken,
            limit=limit,
            why=f"{show(taken)} of {show(limit)} are spent{promised}; this call would take about "
            f"{show(more)}.",
            next_step=f"Raise budget_{scope}, or {_until(scope)}.",
        )


def _until(scope: Scope) -> str:
    return {
        "turn": "ask for less in one turn",
        "session": "begin a new session",
        "day": "wait until tomorrow",
    }[scope]
