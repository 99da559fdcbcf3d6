"""The card: what it says of the sandbox, and that texts of the child stay texts."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ovagent_jupyter.agent.sandbox_record import SandboxRecord
from ovagent_jupyter.events import AgentEvent, Category, Level
from ovagent_jupyter.notebook.display import REPAINT_EVERY, Card
from ovagent_jupyter.omics.planner.plan import Plan, PlannedStep

PLAN = Plan("x", (PlannedStep("normalize", "Normalise", {}, "pass", "you asked"),), 1.0)


class Screen:
    """What a front end shows in the end: the last of each display."""

    def __init__(self) -> None:
        self.shown: dict[str, dict[str, Any]] = {}

    def publish(self, data: dict[str, Any], metadata: dict[str, Any], **kwargs: Any) -> None:
        """Take one display."""
        key = (kwargs.get("transient") or {}).get("display_id", f"#{len(self.shown)}")
        self.shown[key] = data

    def text(self, mime: str = "text/plain") -> str:
        """All that is shown."""
        return "\n".join(str(data[mime]) for data in self.shown.values())


def drawn(*events: AgentEvent) -> Screen:
    """A card that was told of these events, then let be."""
    screen = Screen()
    card = Card(screen, "1")
    for event in events:
        card.show(event)
    time.sleep(REPAINT_EVERY)
    card.show(None)
    return screen


def event(
    category: Category, message: str = "", level: Level = Level.INFO, **data: object
) -> AgentEvent:
    return AgentEvent(category=category, message=message, level=level, data=data)


def ready(record: SandboxRecord) -> AgentEvent:
    level = Level.WARNING if record.banner else Level.INFO
    return event(Category.CHILD_READY, record.banner or record.label, level, sandbox=record)


def test_the_header_names_the_level_and_the_effects() -> None:
    screen = drawn(
        event(Category.PLAN_READY, plan=PLAN, effects=("drops cells", "writes /a/*b*.h5ad")),
        ready(SandboxRecord(level="namespaces", requested="namespaces")),
    )
    assert "ovagent · offline planner · sandbox: namespaces · " in screen.text()
    assert "Effects: drops cells; writes /a/*b*.h5ad" in screen.text()
    assert r"/a/\*b\*.h5ad" in screen.text("text/markdown")
    assert "⚠" not in screen.text("text/markdown")
    assert len(screen.shown) == 1


def test_no_effects_are_no_line() -> None:
    assert "Effects" not in drawn(event(Category.PLAN_READY, plan=PLAN, effects=())).text()


@pytest.mark.parametrize("told", [True, False])
def test_a_step_down_is_a_banner_unless_the_policy_is_silent(told: bool) -> None:
    record = SandboxRecord(
        level="confined", requested="namespaces", reason="AppArmor <b>forbids</b> it", told=told
    )
    screen = drawn(
        event(Category.SANDBOX_FALLBACK, "weaker", Level.WARNING if told else Level.DEBUG),
        ready(record),
    )
    assert "sandbox: confined" in screen.text()
    assert ("instead of namespaces: AppArmor" in screen.text()) is told
    assert "<b>" not in screen.text("text/markdown")


@pytest.mark.parametrize("level", ["process", "in_process"])
def test_without_a_sandbox_the_banner_is_there_whatever_the_policy(level: str) -> None:
    record = SandboxRecord(level=level, requested="namespaces", reason="none", told=False)
    screen = drawn(ready(record))
    assert f"no sandbox ({level})" in screen.text()
    assert "⚠ **Not confined" in screen.text("text/markdown")


def test_a_denial_is_one_line_with_the_command() -> None:
    message = "The sandbox did not let the code read /a_b. To allow it: %ovagent policy read /a_b"
    screen = drawn(event(Category.SANDBOX_DENIED, message, Level.WARNING, grant="read /a_b"))
    assert f"! {message}" in screen.text().splitlines()
    assert r"/a\_b" in screen.text("text/markdown")


def test_a_fresh_child_is_one_line_without_alarm() -> None:
    screen = drawn(event(Category.NOTICE, "A fresh child kernel was started."))
    assert "A fresh child kernel was started." in screen.text().splitlines()
    assert "⚠" not in screen.text("text/markdown")


def test_the_name_of_a_model_is_escaped_in_markdown_only() -> None:
    screen = drawn(
        event(Category.MODEL_ASKED, model="http://host/v1#lab_model"),
        event(Category.MODEL_RETRIED, "the service is busy; again in 2 s *"),
    )
    assert (
        screen.text() == "ovagent · http://host/v1#lab_model · the service is busy; again in 2 s *"
    )
    assert r"v1\#lab\_model" in screen.text("text/markdown")
    assert r"2 s \*" in screen.text("text/markdown")
