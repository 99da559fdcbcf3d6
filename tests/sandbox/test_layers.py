"""The same attacks where layers are missing, older, or another client reads the child."""

from __future__ import annotations

import pytest

from tests.sandbox.attack import Category
from tests.sandbox.catalogue import on_the_system, shared
from tests.sandbox.escape_runs import ATTACKS, LIMIT, report, successes
from tests.sandbox.setups import NEWEST
from tests.sandbox.users import users

USERS = users()
SHARED = tuple(name for name in shared(ATTACKS) if not ATTACKS[name].parent)
OUR_READING = tuple(name for name in shared(ATTACKS) if ATTACKS[name].parent)
ABIS = [f"abi{version}" for version in range(1, NEWEST)]
LEAST_BITE = 0.75
"""Share of the attacks with impact that must succeed where nothing stands against them."""
pytestmark = pytest.mark.timeout(LIMIT + 60)

# In CI the oldest, for root too, and the newest: those between have layers that these have.
IN_CI = {(ABIS[0], user) for user in USERS} | {(ABIS[-1], user) for user in USERS if user}
OLDER = [
    pytest.param(abi, user, marks=[] if (abi, user) in IN_CI else [pytest.mark.soak])
    for user in USERS
    for abi in ABIS
]


@pytest.mark.parametrize(("abi", "user"), OLDER)
def test_an_older_landlock_holds(abi: str, user: int) -> None:
    among = ABIS if user or len(USERS) == 1 else [abi]
    assert successes(report(abi, user, SHARED, among=among)) == {}


def test_the_kernelspec_holds() -> None:
    assert successes(report("kernelspec", USERS[-1], on_the_system(ATTACKS))) == {}


@pytest.mark.skipif(len(USERS) < 2, reason="only root can be two users")
def test_the_kernelspec_holds_for_root() -> None:
    assert successes(report("kernelspec", USERS[0], SHARED)) == {}


@pytest.mark.parametrize("user", USERS)
def test_the_attacks_bite_where_nothing_confines(user: int) -> None:
    found = report("process", user, SHARED)
    tried = [name for name in found["outcomes"] if not ATTACKS[name].minor]
    assert len(successes(found)) >= LEAST_BITE * len(tried)


def test_the_attacks_on_our_reading_bite_a_client_without_it() -> None:
    found = report("stock", USERS[-1], OUR_READING)
    assert len(successes(found)) >= LEAST_BITE * len(found["outcomes"])


NEEDED = {
    # Landlock keeps files, but not the kernel's surface, nor limits of other processes.
    "landlock": ({Category.FILES, Category.WRITES}, {Category.FOREIGN, Category.SURFACE}),
    # A filter of system calls cannot read a path.
    "seccomp": ({Category.FOREIGN}, {Category.FILES, Category.WRITES, Category.PERSISTENCE}),
    # What is not there cannot be touched; the kernel's whole surface is there.
    "namespaces": ({Category.FILES, Category.WRITES}, {Category.SURFACE}),
    "namespaces-seccomp": ({Category.FILES, Category.WRITES, Category.FOREIGN}, set()),
}
"""Layers alone: categories in which nothing gets through, and in which something does."""
BY_PATH = {"offer-process-to-killer", "write-foreign-descriptor", "write-foreign-memory-file"}
"""Foreign processes that are reached through files of /proc, which a filter cannot tell apart."""


@pytest.mark.parametrize("setup", sorted(NEEDED))
def test_each_layer_does_its_part_and_needs_the_others(setup: str) -> None:
    closed, opened = NEEDED[setup]
    won = successes(report(setup, USERS[-1], SHARED, among=sorted(NEEDED)))
    stopped = {name for name in won if ATTACKS[name].category in closed}
    assert stopped <= (BY_PATH if setup == "seccomp" else set())
    assert opened <= {ATTACKS[name].category for name in won}
