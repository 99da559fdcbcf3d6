"""Prices: what is known, what is not, and that nothing that was spent goes untold."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import genai_prices
import pytest
from genai_prices import data_snapshot
from genai_prices.types import ClauseEquals

from ovagent_jupyter.errors import ProviderError, StreamInterrupted
from ovagent_jupyter.events import Category
from ovagent_jupyter.gateway.cost import Prices, Pricing
from ovagent_jupyter.messages import Usage
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import ModelDelta
from ovagent_jupyter.storage.usage import ModelUse
from tests.gateway.layered import ask, service, through
from tests.gateway.played import (
    Clock,
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
HAIKU = service("anthropic", "claude-haiku-5-5", url="https://api.anthropic.com")
PRICED = service(prices=(2.0, 10.0))


def test_cached_tokens_are_a_part_of_the_input() -> None:
    usage = Usage(100_000, 1_000, cached_tokens=80_000)
    # 20,000 at $0.10, 80,000 at $0.01, 1,000 at $0.50 a million.
    assert PRICES.price(usage, HAIKU) == pytest.approx(0.0033)
    written = replace(usage, cache_write_tokens=10_000)
    assert PRICES.price(written, HAIKU) == pytest.approx(0.00355)


@pytest.mark.parametrize(
    ("provider", "model", "url"),
    [
        ("moonshot", "kimi-k2.5", ""),
        ("xai", "grok-4.7", ""),
        ("my-proxy", "kimi-k2.5", "https://api.moonshot.ai/v1"),
    ],
)
def test_providers_are_found_by_name_or_address(provider: str, model: str, url: str) -> None:
    price = PRICES.price(Usage(1_000_000), service(provider, model, url=url))
    assert price is not None
    assert price > 0


def test_a_deployment_is_priced_by_the_model_that_answered() -> None:
    azure = service("azure", "our-lab-deployment", url="https://lab.openai.azure.com/openai/v1")
    assert PRICES.price(Usage(1_000_000), azure) is None
    assert PRICES.price(Usage(1_000_000), azure, "gpt-5.1") == pytest.approx(1.25)


def test_local_costs_nothing_and_unknown_is_not_nothing() -> None:
    assert PRICES.price(Usage(10, 10), service(local=True)) == 0.0
    assert PRICES.price(Usage(10, 10), service()) is None
    assert PRICES.price(Usage(), service()) is None


def test_the_catalogue_is_the_fallback_and_the_user_goes_first() -> None:
    assert PRICES.price(Usage(1_000_000, 100_000), PRICED) == pytest.approx(3.0)
    own = Prices({"claude-haiku-5-5": (1.0, 1.0)})
    assert own.price(Usage(1_000_000), HAIKU) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("anthropic", "claude-haiku-5-5"),
        ("openai", "gpt-6-sol"),
        ("openai", "gpt-4o"),
        ("google", "gemini-2.5-pro"),
        ("deepseek", "deepseek-chat"),
        ("perplexity", "sonar"),
    ],
)
@pytest.mark.parametrize("read", [0, 7, 150_000, 200_000, 200_001, 272_001, 900_000])
def test_our_sums_are_those_of_the_lists(provider: str, model: str, read: int) -> None:
    usage = Usage(read, 321, cached_tokens=read // 3, cache_write_tokens=read // 5)
    counts = genai_prices.Usage(
        input_tokens=read,
        output_tokens=321,
        cache_read_tokens=read // 3,
        cache_write_tokens=read // 5,
    )
    theirs = genai_prices.calc_price(counts, model, provider_id=provider).total_price
    assert Prices().price(usage, service(provider, model)) == pytest.approx(float(theirs))


def test_the_lists_are_asked_again_after_a_while() -> None:
    clock = Clock()
    prices = Prices(clock=clock)
    unknown = service("openai", "gpt-of-tomorrow")
    assert prices.price(Usage(1), unknown) is None
    today = data_snapshot.get_snapshot()
    tomorrow = replace(
        today,
        providers=[
            replace(
                each,
                models=[replace(each.models[0], id="x", match=ClauseEquals("gpt-of-tomorrow"))],
            )
            for each in today.providers
            if each.id == "openai"
        ],
    )
    data_snapshot.set_custom_snapshot(tomorrow)
    try:
        assert prices.price(Usage(1), unknown) is None
        clock.now += 301
        assert prices.price(Usage(1), unknown) is not None
    finally:
        data_snapshot.set_custom_snapshot(None)


def test_impossible_counts_are_no_fault_of_the_call() -> None:
    assert PRICES.price(Usage(10, 1, cached_tokens=80, cache_write_tokens=80), HAIKU) is not None


def test_estimate_says_what_it_knows() -> None:
    asked = ask("word " * 400).request
    known = PRICES.estimate(replace(asked, max_output_tokens=1_000), PRICED)
    assert known.input_tokens == pytest.approx(500, rel=0.1)
    assert known.cost == pytest.approx((known.input_tokens * 2 + 1_000 * 10) / 1e6)
    assert "at most" in known.sentence()
    assert "not known" in PRICES.estimate(asked, service()).sentence()
    assert "how long" in PRICES.estimate(asked, PRICED).sentence()
    assert "costs nothing" in PRICES.estimate(asked, service(local=True, max_output=5)).sentence()


@pytest.mark.parametrize("backend", [HAIKU, PRICED])
def test_counts_beyond_numbers_have_no_price(backend: Backend) -> None:
    count = 10**400
    for usage in (Usage(count), Usage(0, count), Usage(count, cached_tokens=count)):
        assert PRICES.price(usage, backend) is None


async def test_reply_has_its_cost_and_is_told() -> None:
    ears = Ears()
    asked = replace(ask(to=PRICED), tell=ears)
    client = Played([answer("Hel", "lo", usage=Usage(1_000_000, 100_000))])
    text, reply = await read(through(Pricing(Prices()), client, asked))
    assert text == "Hello"
    assert reply.cost == pytest.approx(3.0)
    (event,) = ears.of(Category.MODEL_ANSWERED)
    assert event.data["cost"] == pytest.approx(3.0)
    assert event.data["call_id"] == asked.call_id
    assert ModelUse.from_record(event.as_record()).usage == Usage(1_000_000, 100_000)


async def test_what_the_service_says_stays() -> None:
    client = Played([[end("x", cost=0.5)]])
    _, reply = await read(through(Pricing(PRICES), client, ask(to=PRICED)))
    assert reply.cost == 0.5


async def test_backend_is_found_by_the_answer_outside_of_routing() -> None:
    last = end("x", Usage(1_000_000))
    assert last.reply is not None
    last = replace(last, reply=replace(last.reply, backend=PRICED.name))
    _, reply = await read(through(Pricing(PRICES, [PRICED]), Played([[last]]), ask()))
    assert reply.cost == pytest.approx(2.0)


async def test_a_failure_has_its_cost_and_is_told() -> None:
    ears = Ears()
    client = Played([fails(usage=Usage(500_000))])
    asked = replace(ask(to=PRICED), tell=ears)
    _, error = await read_until_failure(through(Pricing(PRICES), client, asked))
    assert error.cost == pytest.approx(1.0)
    (event,) = ears.of(Category.MODEL_FAILED)
    assert (event.data["fault"], event.data["cost"]) == ("overloaded", error.cost)


async def test_a_failure_of_unknown_usage_has_no_cost() -> None:
    _, error = await read_until_failure(through(Pricing(PRICES), Played([fails()]), ask(to=PRICED)))
    assert error.cost is None


async def test_who_stops_reading_pays_about_what_was_written() -> None:
    ears = Ears()
    client = Played([[*said("four", "four", "four"), end("x")]])
    stream = through(Pricing(PRICES), client, replace(ask(to=PRICED), tell=ears))
    async with aclosing(stream):
        await anext(stream)
        await anext(stream)
    (event,) = ears.of(Category.MODEL_FAILED)
    use = ModelUse.from_record(event.as_record())
    assert use.fault == "interrupted"
    assert use.usage.estimated
    assert use.usage.output_tokens >= 2
    assert use.cost == PRICES.price(use.usage, PRICED)
    assert client.closed == 1


async def test_who_stops_after_the_end_pays_once() -> None:
    ears = Ears()
    stream = through(Pricing(PRICES), Played([answer("x")]), replace(ask(to=PRICED), tell=ears))
    async with aclosing(stream):
        async for delta in stream:
            if delta.reply is not None:
                break
    assert len(ears.heard) == 1


async def test_an_interrupted_answer_keeps_its_part() -> None:
    error = StreamInterrupted("It broke.", usage=Usage(1_000_000), partial=None)

    async def breaks() -> AsyncGenerator[ModelDelta, None]:
        yield said("a")[0]
        raise error

    stream = Pricing(PRICES)(ask(to=PRICED), lambda _: breaks())
    with pytest.raises(StreamInterrupted) as caught:
        await read(stream)
    assert caught.value.cost == pytest.approx(2.0)


async def test_pieces_go_out_as_they_come() -> None:
    client = Played([[*said("a"), ProviderError("no more")]])
    stream = through(Pricing(Prices()), client, ask(to=PRICED))
    assert (await anext(stream)).text == "a"
    await stream.aclose()


async def test_who_leaves_while_prices_are_loaded_pays_what_the_service_said() -> None:
    gate = threading.Event()

    class Slow(Prices):
        """Takes as long as the test wants, in the thread that is to load them."""

        def load(self) -> None:
            """Wait, then load."""
            if threading.current_thread() is not threading.main_thread():
                gate.wait(60)
            super().load()

    ears = Ears()
    client = Played([answer("x", usage=Usage(7, 9))])
    stream = through(Pricing(Slow()), client, replace(ask(to=PRICED), tell=ears))
    task = asyncio.create_task(read(stream))
    await settle()
    task.cancel()
    await settle()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    (event,) = ears.of(Category.MODEL_FAILED)
    assert ModelUse.from_record(event.as_record()).usage == Usage(7, 9)
