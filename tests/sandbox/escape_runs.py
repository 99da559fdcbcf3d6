"""Runs of the suite for tests: each setup once, and it must be in force where it can be."""

from __future__ import annotations

from collections.abc import Mapping
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
def report(setup: str, user: int, attacks: tuple[str, ...]) -> Mapping[str, Any]:
    """What attacks came to; a setup that this machine supports must be in force."""
    reason = lacks(setup, user)
    if reason:
        pytest.skip(reason)
    run = run_harness(user, [setup], attacks, limit=LIMIT)
    assert run.code == 0, run.output
    (found,) = run.reports
    assert not found["failure"], found["failure"]
    assert SETUPS[setup].not_engaged(found["protections"]) == []
    assert len(found["outcomes"]) + len(found["absent"]) == len(taken(setup, attacks))
    assert found["left"] == 0
    return dict(found)


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
