"""Attacks on our own sandbox: none with impact may succeed at a full level."""

from __future__ import annotations

import pytest

from tests.sandbox.catalogue import on_the_system, quick
from tests.sandbox.escape_runs import ATTACKS, LIMIT, report, successes
from tests.sandbox.users import users

USERS = users()
pytestmark = pytest.mark.timeout(LIMIT + 60)


def test_the_highest_level_and_the_parent_hold() -> None:
    assert successes(report("level3", USERS[-1], quick(ATTACKS))) == {}


@pytest.mark.parametrize(
    "user",
    # Root in CI on a forked child of this level: the layers are the same.
    [pytest.param(each, marks=pytest.mark.soak if each == 0 else ()) for each in USERS],
)
def test_the_level_without_namespaces_holds(user: int) -> None:
    assert successes(report("level2", user, on_the_system(ATTACKS))) == {}


@pytest.mark.skipif(len(USERS) < 2, reason="only root can be two users")
def test_the_highest_level_holds_for_root() -> None:
    assert successes(report("level3", USERS[0], on_the_system(ATTACKS))) == {}
