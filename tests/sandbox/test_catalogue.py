"""The list of attacks is complete, and the page about it is that of this list."""

from __future__ import annotations

import ast
from collections import Counter

import pytest

from tests.sandbox.attack import Attack, Category
from tests.sandbox.catalogue import load_all
from tests.sandbox.report import PAGE, by_setup, page
from tests.sandbox.setups import SETUPS

ATTACKS = load_all()
LEAST = 60
LEAST_OF_EACH = 4
TEXT = PAGE.read_text("utf-8") if PAGE.exists() else ""


def test_every_category_has_several_attacks() -> None:
    counts = Counter(one.category for one in ATTACKS.values())
    assert {category for category in Category if counts[category] < LEAST_OF_EACH} == set()
    assert sum(counts.values()) >= LEAST


@pytest.mark.parametrize("one", ATTACKS.values(), ids=lambda one: one.id)
def test_an_attack_can_be_sent_and_is_on_the_page(one: Attack) -> None:
    module = ast.parse(one.code)
    assert any(
        isinstance(node, ast.FunctionDef) and node.name == one.function for node in module.body
    )
    assert f"| `{one.id}`: {one.text}" in TEXT, "run: python -m tests.sandbox.report"


def test_the_page_names_no_attack_that_is_gone() -> None:
    rows = [line.split("`")[1] for line in TEXT.splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(ATTACKS)


def test_a_success_shows_in_the_table() -> None:
    outcomes = {name: {"won": ""} for name in ATTACKS} | {"read-ssh-key": {"won": "it came out"}}
    report = {"setup": "level3", "user": 1000, "outcomes": outcomes, "absent": []}
    text = page(by_setup([report]))
    (row,) = (line for line in text.splitlines() if line.startswith("| `read-ssh-key`"))
    assert row.endswith("| **✗** |")
    assert f"| {SETUPS['level3'].text} | 1 of " in text
