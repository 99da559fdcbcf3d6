"""A trial: who meets which variant, how many do, and what each came to."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from ovagent_jupyter.errors import ConfigError
from ovagent_jupyter.gateway.layer import Call
from ovagent_jupyter.gateway.variants import Trial, Variant, bucket
from tests.gateway.layered import ask, service
from tests.gateway.played import Played, answer, fails, read, read_until_failure

TWO = (
    Variant(name="plain", share=3),
    Variant(name="thinks", settings={"reasoning_effort": "high"}),
)


def test_the_same_session_always_meets_the_same_variant() -> None:
    one, other = Trial("effort", TWO), Trial("effort", TWO)
    for number in range(50):
        assert one.variant(f"s{number}") == other.variant(f"s{number}")


def test_shares_are_kept_and_experiments_are_independent() -> None:
    sessions = [f"session-{number}" for number in range(4_000)]
    trial, second = Trial("effort", TWO), Trial("another", TWO)
    met = Counter((trial.variant(each).name, second.variant(each).name) for each in sessions)
    plain = sum(count for (first, _), count in met.items() if first == "plain")
    assert 0.72 < plain / 4_000 < 0.78
    both = met["plain", "plain"] / plain
    assert 0.71 < both < 0.79


def test_buckets_do_not_run_together() -> None:
    assert bucket("ab", "c") != bucket("a", "bc")
    assert all(0 <= bucket("e", str(number)) < 1 for number in range(100))


def test_a_share_of_nothing_is_met_by_nobody() -> None:
    trial = Trial("e", (Variant(name="off", share=0), Variant(name="on")))
    assert {trial.variant(str(number)).name for number in range(200)} == {"on"}


async def test_settings_and_backend_of_the_variant_are_used_and_told() -> None:
    backend = service("other", "big-1")
    variant = Variant(name="big", backend=backend, settings={"temperature": 0.0})
    asked: list[Call] = []
    client = Played([answer("a"), fails()])

    def begin(call: Call):
        asked.append(call)
        return client.stream(call.request)

    trial = Trial("size", (variant,))
    call = ask("hello")
    text, reply = await read(trial(call, begin))
    await read_until_failure(trial(call, begin))
    assert text == "a"
    assert asked[0].backend is backend
    assert (asked[0].request.model, asked[0].request.temperature) == ("big-1", 0.0)
    assert asked[0].request.messages == call.request.messages
    assert reply.details["variant"] == "size/big"
    figures = trial.figures["big"]
    assert (figures.calls, figures.errors) == (2, {"overloaded": 1})


async def test_a_user_meets_the_same_in_all_sessions() -> None:
    trial = Trial("effort", TWO, user="me")
    client = Played([answer("a")])
    for session in ("a", "b", "c", "d", "e", "f"):
        await read(
            trial(replace(ask(), session_id=session), lambda call: client.stream(call.request))
        )
    assert sorted(figures.calls for figures in trial.figures.values()) == [0, 6]


@pytest.mark.parametrize(
    ("variants", "told"),
    [
        ((), "share above 0"),
        ((Variant(name="a", share=0),), "share above 0"),
        ((Variant(name="a", share=-1), Variant(name="b")), "none below 0"),
        ((Variant(name="a"), Variant(name="a")), "same name"),
        ((Variant(name="a", settings={"messages": ()}),), "sets messages"),
        ((Variant(name="a", settings={"warmth": 1}),), "temperature"),
    ],
)
def test_a_trial_that_cannot_be_is_an_error(variants: tuple[Variant, ...], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Trial("e", variants)
    assert told in str(caught.value)
