"""Runs of the suite for tests: each setup once, and it must be in force where it can be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import pytest

from tests.sandbox.catalogue import load_all
from tests.sandbox.host import lacks
from tests.sandbox.setups import SETUPS
from tests.sandbox.users import run_harness

ATTACKS = load_all()
LIMIT = 900
"""Seconds after which a run of the harness is given up; no test asserts a time."""


@lru_cache
def reports(
    setups: tuple[str, ...], user: int, attacks: tuple[str, ...]
) -> Mapping[str, Mapping[str, Any]]:
    """What attacks came to on several setups, tried one after the other by one harness."""
    run = run_harness(user, setups, attacks, limit=LIMIT)
    assert run.code == 0, f"exit code {run.code}\n{run.output}"
    return {found["setup"]: found for found in run.reports}


def report(
    setup: str, user: int, attacks: tuple[str, ...], *, among: Iterable[str] = ()
) -> Mapping[str, Any]:
    """What attacks came to; a setup that this machine supports must be in force.

    Args:
        setup: Its name.
        user: Who runs it.
        attacks: By their ids.
        among: Setups that are tried in the same run, this one among them.
    """
    reason = lacks(setup, user)
    if reason:
        pytest.skip(reason)
    together = tuple(name for name in among or [setup] if not lacks(name, user))
    found = reports(together, user, attacks)[setup]
    assert not found["failure"], found["failure"]
    assert SETUPS[setup].not_engaged(found["protections"]) == []
    assert len(found["outcomes"]) + len(found["absent"]) == len(taken(setup, attacks))
    assert found["left"] == 0
    return found


def taken(setup: str, attacks: tuple[str, ...]) -> list[str]:
    """Those of the attacks that make sense on a setup."""
    return [name for name in attacks if SETUPS[setup].takes(ATTACKS[name])]


def successes(found: Mapping[str, Any]) -> dict[str, str]:
    """The attacks with impact that succeeded, and what they achieved."""
    return {
        name: one["won"]
        for name, one in found["outcomes"].items()
        if one["won"] and not ATTACKS[name].minor
    }
