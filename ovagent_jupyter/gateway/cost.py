"""What a call costs: an estimate before, the price after, and telling of it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any

from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.events import Category, Level
from ovagent_jupyter.gateway.layer import Call, Next
from ovagent_jupyter.gateway.partial import estimated_input
from ovagent_jupyter.messages import Usage, dollars
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import ModelDelta, ModelRequest, Reply
from ovagent_jupyter.storage.usage import ModelUse

MILLION = 1_000_000
KEPT = 300.0
"""Seconds after which the lists are asked again."""

_PRICE_LISTS: Mapping[str, str] = {
    "moonshot": "moonshotai",
    "xai": "x-ai",
    "zhipu": "zhipuai",
}
"""Our id of a provider → that of genai-prices, where they differ."""

NOT_ASKED = frozenset({"unhealthy", "busy", "budget", "runner"})
"""Faults of calls that no service has seen."""


def delta_tokens(delta: ModelDelta) -> float:
    """About how many tokens a piece of an answer has; asked for each, so it is short."""
    text = delta.text or delta.reasoning
    if not text and delta.tool_progress is not None:
        text = delta.tool_progress.arguments
    return len(text) / 4 if text.isascii() else len(text) / 2


# -- prices --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a call would take, before it is made."""

    model: str
    """Who would be asked."""
    input_tokens: int
    """About what it would read."""
    output_tokens: int | None
    """The most that it may write; None when that is not known."""
    input_cost: float | None
    """US dollars for what it would read; None when the price is not known."""
    cost: float | None
    """US dollars with the longest answer; None when that or the price is not known."""

    def sentence(self) -> str:
        """The estimate for a reader."""
        text = f"{self.model} would read about {self.input_tokens:,} tokens"
        if self.input_cost is None:
            return f"{text}; its price is not known."
        if self.input_cost == 0 == self.cost:
            return f"{text}; it costs nothing."
        text += f" for {dollars(self.input_cost)}"
        if self.cost is None or self.output_tokens is None:
            return f"{text}; how long its answer may be is not known."
        return (
            f"{text}; with an answer of {self.output_tokens:,} tokens, the longest that it may "
            f"write, that is {dollars(self.cost)} at most."
        )


class Prices:
    """Prices of models, from the data of genai-prices as it is installed: nothing is fetched.

    Looked up by provider and model, then by the address and model; else the catalogue's own
    price counts, with cached tokens at the price of others, which is an upper bound.

    Args:
        own: What the user pays, before all else: name of a backend or id of a model → US dollars
            for a million tokens read and written.
        clock: Seconds; some prices change with the hour.
    """

    def __init__(
        self,
        own: Mapping[str, tuple[float, float]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own = dict(own or {})
        self._clock = clock
        self._rates: dict[tuple[str, str], tuple[_Rates | None, float]] = {}
        self._lists_there = False
        self.loaded = False
        """Whether the data is in memory."""

    def load(self) -> None:
        """Load the data, which takes some tenths of a second once; safe in any thread."""
        with suppress(ImportError):  # an answer is not lost for want of a price
            from genai_prices import data_snapshot

            data_snapshot.get_snapshot()
            self._lists_there = True
        self.loaded = True

    def price(self, usage: Usage, backend: Backend, answered_by: str = "") -> float | None:
        """US dollars for tokens; None when a price is not known, which is never 0.

        Tokens that no price can be made of, as a client of another make may tell them, have none.

        Args:
            usage: The tokens.
            backend: Who was asked.
            answered_by: Model as the answer names it, for names that only a deployment has.
        """
        if backend.provider.local:
            return 0.0
        try:
            price = self._find(usage, backend, answered_by)
        except ArithmeticError:
            return None
        return price if price is not None and math.isfinite(price) else None

    def _find(self, usage: Usage, backend: Backend, answered_by: str) -> float | None:
        model = backend.model
        own = self._own.get(backend.name) or self._own.get(model.id)
        if own is None:
            listed = self._listed(usage, backend, answered_by)
            if listed is not None:
                return listed
            if model.input_price is None or model.output_price is None:
                return None
            own = (model.input_price, model.output_price)
        return (usage.input_tokens * own[0] + usage.output_tokens * own[1]) / MILLION

    def estimate(self, request: ModelRequest, backend: Backend) -> Estimate:
        """What a request would take of a backend."""
        most = request.max_output_tokens or backend.model.max_output
        read = estimated_input(request)
        return Estimate(
            model=backend.model.id,
            input_tokens=read,
            output_tokens=most,
            input_cost=self.price(Usage(read), backend),
            cost=None if most is None else self.price(Usage(read, most), backend),
        )

    def _listed(self, usage: Usage, backend: Backend, answered_by: str) -> float | None:
        if not self.loaded:
            self.load()
        if not self._lists_there:
            return None
        key = (backend.name, answered_by)
        rates, until = self._rates.get(key, (None, 0.0))
        if self._clock() >= until:
            rates = _find_rates(backend, answered_by)
            self._rates[key] = (rates, self._clock() + KEPT)
        return None if rates is None else rates.price(usage)


@dataclass(frozen=True, slots=True)
class _Rates:
    """What a model costs a token, as its list says now.

    The lists' own calculation takes as long as all our layers together. It is linear up to the
    first tier of its prices, so these are asked of it once; above that, it is asked each time.
    """

    call: float
    read: float
    cached: float
    cache_written: float
    written: float
    up_to: float
    """Tokens read at most for these to hold."""
    place: Mapping[str, Any]
    model: str

    def price(self, usage: Usage) -> float | None:
        cached = min(usage.cached_tokens, usage.input_tokens)
        put = min(usage.cache_write_tokens, usage.input_tokens - cached)
        if usage.input_tokens > self.up_to:
            told = replace(usage, cached_tokens=cached, cache_write_tokens=put)
            return _calculated(told, self.model, self.place)[0]
        price = self.call + (usage.input_tokens - cached - put) * self.read
        return (
            price
            + cached * self.cached
            + put * self.cache_written
            + (usage.output_tokens * self.written)
        )


def _find_rates(backend: Backend, answered_by: str) -> _Rates | None:
    """The rates of a backend; None where no list has its model."""
    provider = _PRICE_LISTS.get(backend.provider.id, backend.provider.id)
    places: list[dict[str, str]] = [{"provider_id": provider}]
    if backend.url:
        places.append({"provider_api_url": backend.url})
    for model in filter(None, dict.fromkeys((backend.model.id, answered_by))):
        for place in places:
            call, up_to = _calculated(Usage(), model, place)
            if call is None:
                continue
            each = (_calculated(one, model, place)[0] or 0.0 for one in _ONE_OF_EACH)
            read, cached, put, written = ((price - call) / _UNIT for price in each)
            return _Rates(call, read, cached, put, written, up_to, place, model)
    return None


_UNIT = 1_000
_ONE_OF_EACH = (
    Usage(_UNIT),
    Usage(_UNIT, cached_tokens=_UNIT),
    Usage(_UNIT, cache_write_tokens=_UNIT),
    Usage(0, _UNIT),
)


def _calculated(usage: Usage, model: str, place: Mapping[str, Any]) -> tuple[float | None, float]:
    """The price by the lists, and the tokens read up to which it is linear."""
    import genai_prices

    counts = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
    try:
        found = genai_prices.calc_price(counts, model, **place)
    except (LookupError, ValueError):
        return None, 0  # not in its lists, or counts that it has no unit for
    tiers = [
        tier.start
        for price in vars(found.model_price).values()
        for tier in getattr(price, "tiers", ())
    ]
    return float(found.total_price), min(tiers, default=math.inf)


# -- the layer -----------------------------------------------------------------------------------


class Pricing:
    """Sets what an answer or a failure cost, and tells ``model.answered`` or ``model.failed``.

    It belongs around every attempt, inside of retries, so that nothing that was spent is lost.
    A price that the service itself has told stays.

    Args:
        prices: Where prices are found.
        backends: For calls that are not routed yet: their backends, found by the answer's.
    """

    def __init__(self, prices: Prices, backends: Iterable[Backend] = ()) -> None:
        self._prices = prices
        self._backends = {backend.name: backend for backend in backends}

    async def __call__(self, call: Call, call_next: Next) -> AsyncGenerator[ModelDelta, None]:
        """Pass on the answer; its last piece has the cost."""
        loading = self._load(call)
        written, ended, told = 0.0, False, None
        try:
            async with aclosing(call_next(call)) as deltas:
                async for delta in deltas:
                    if delta.reply is None:
                        written += delta_tokens(delta)
                        yield delta
                        continue
                    told = delta.reply.usage
                    if loading is not None:
                        await loading
                    reply = self.priced(call, delta.reply)
                    ended = True
                    tell_answered(call, reply)
                    yield replace(delta, reply=reply)
        except ProviderError as error:
            ended = True
            self.charge(call, error)
            tell_failed(call, error.fault, error.usage, error.cost, error.why or error.what)
            raise
        finally:
            if not ended:  # closed or cancelled by whoever reads
                usage = told or broken_off(call, written)
                tell_failed(call, "interrupted", usage, self._price(call, usage), "ended by us")

    def priced(self, call: Call, reply: Reply) -> Reply:
        """The answer with its cost."""
        if reply.cost is not None:
            return reply
        return replace(reply, cost=self._price(call, reply.usage, reply.backend, reply.model))

    def charge(self, call: Call, error: ProviderError) -> None:
        """Note on a failure what it cost."""
        if isinstance(error.usage, Usage) and error.cost is None:
            error.cost = self._price(call, error.usage)

    def _price(self, call: Call, usage: Usage, name: str = "", model: str = "") -> float | None:
        backend = call.backend or self._backends.get(name)
        return None if backend is None else self._prices.price(usage, backend, model)

    def _load(self, call: Call) -> asyncio.Future[None] | None:
        """Load the prices while the service is busy; None when that is done or not needed."""
        local = call.backend is not None and call.backend.provider.local
        if self._prices.loaded or local:
            return None
        return asyncio.get_running_loop().run_in_executor(None, self._prices.load)


def broken_off(call: Call, written: float) -> Usage:
    """About what a call took that ended before its service said so."""
    return Usage(estimated_input(call.request), math.ceil(written), estimated=True)


def tell_answered(call: Call, reply: Reply) -> None:
    """Tell of an answer: the event that the usage report reads."""
    backend = call.backend
    use = ModelUse(
        model=reply.model or call.request.model,
        provider=reply.provider or (backend.provider.id if backend else ""),
        backend=reply.backend or (backend.name if backend else ""),
        call_id=call.call_id,
        attempt=call.attempt,
        usage=reply.usage,
        cost=reply.cost,
        latency=round(reply.latency, 4),
        first_token=None if reply.first_token is None else round(reply.first_token, 4),
        finish_reason=reply.finish_reason,
        cached=reply.details.get("cached") is True,
    )
    price = "price not known" if reply.cost is None else dollars(reply.cost)
    told = f"{use.model} answered: {reply.usage.output_tokens:,} tokens, {price}"
    call.tell(Category.MODEL_ANSWERED, told, level=Level.DEBUG, **use.as_data())


def tell_failed(call: Call, fault: str, usage: object, cost: float | None, why: str) -> None:
    """Tell of a failure and of what was spent all the same."""
    backend = call.backend
    use = ModelUse(
        model=call.request.model,
        provider=backend.provider.id if backend else "",
        backend=backend.name if backend else "",
        call_id=call.call_id,
        attempt=call.attempt,
        usage=usage if isinstance(usage, Usage) else Usage(),
        cost=cost,
        fault=fault,
    )
    told = f"{use.model} gave no whole answer ({fault}): {why}"
    call.tell(Category.MODEL_FAILED, told, level=Level.DEBUG, **use.as_data())
