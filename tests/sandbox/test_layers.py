"""The same attacks where layers are missing, older, or another client reads the child."""

from __future__ import annotations

import pytest

from tests.sandbox.attack import Category
from tests.sandbox.catalogue import on_the_system, shared
from tests.sandbox.escape_runs import ATTACKS, LIMIT, report, successes
from tests.sandbox.setups import NEWEST
from tests.sandbox.users import users

USERS = users()
SHARED = shared(ATTACKS)
LEAST_BITE = 0.75
"""Share of the attacks with impact that must succeed where nothing stands against them."""
pytestmark = pytest.mark.timeout(LIMIT + 60)

OLDER = [
    # For root the layers are the same, but for one attack or two: the newest of CI is enough.
    pytest.param(abi, user, marks=[pytest.mark.soak] if user == 0 and abi > 1 else [])
    for user in USERS
    for abi in range(1, NEWEST)
]


@pytest.mark.parametrize(("abi", "user"), OLDER)
def test_an_older_landlock_holds(abi: int, user: int) -> None:
    assert successes(report(f"abi{abi}", user, SHARED)) == {}


def test_the_kernelspec_holds() -> None:
    assert successes(report("kernelspec", USERS[-1], on_the_system(ATTACKS))) == {}


@pytest.mark.skipif(len(USERS) < 2, reason="only root can be two users")
def test_the_kernelspec_holds_for_root() -> None:
    tried = tuple(name for name in SHARED if not ATTACKS[name].parent)
    assert successes(report("kernelspec", USERS[0], tried)) == {}


@pytest.mark.parametrize("user", USERS)
def test_the_attacks_bite_where_nothing_confines(user: int) -> None:
    found = report("process", user, SHARED)
    tried = [n for n in found["outcomes"] if not ATTACKS[n].minor and not ATTACKS[n].parent]
    assert len(set(successes(found)) & set(tried)) >= LEAST_BITE * len(tried)


def test_the_attacks_on_our_reading_bite_a_client_without_it() -> None:
    tried = tuple(name for name in SHARED if ATTACKS[name].parent)
    found = report("stock", USERS[-1], tried)
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


@pytest.mark.parametrize("setup", sorted(NEEDED))
def test_each_layer_does_its_part_and_needs_the_others(setup: str) -> None:
    closed, opened = NEEDED[setup]
    won = successes(report(setup, USERS[-1], SHARED))
    assert {name: won[name] for name in won if ATTACKS[name].category in closed} == {}
    assert opened <= {ATTACKS[name].category for name in won}
