"""The same attacks on children that a zygote has forked: they hold as those that are started."""

from __future__ import annotations

import pytest

from tests.sandbox.catalogue import on_the_system
from tests.sandbox.escape_runs import ATTACKS, LIMIT, report, successes
from tests.sandbox.users import users

USERS = users()
pytestmark = pytest.mark.timeout(LIMIT + 60)


HIGHEST, LOWER = "level3-forked", "level2-forked"
RUNS = [
    # Each level as one of the users in CI: what differs from a started child is not the user's.
    pytest.param(setup, user, marks=pytest.mark.soak if (setup == LOWER) == bool(user) else ())
    for setup in (HIGHEST, LOWER)
    for user in USERS
]


@pytest.mark.parametrize(("setup", "user"), RUNS)
def test_a_forked_child_is_held_as_one_that_was_started(setup: str, user: int) -> None:
    assert successes(report(setup, user, on_the_system(ATTACKS))) == {}
