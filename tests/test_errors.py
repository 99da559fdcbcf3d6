"""The tree of errors: what a user reads, and what a program can tell apart."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from ovagent_jupyter import errors
from ovagent_jupyter.errors import (
    ChildStartError,
    ConfinementError,
    OVAgentError,
    ProviderError,
    ResourceLimitExceeded,
    SandboxDeniedError,
    SandboxUnavailableError,
    TurnInterrupted,
    WorkflowNeedsFallback,
)

CLASSES = [
    thing
    for thing in vars(errors).values()
    if isinstance(thing, type) and issubclass(thing, OVAgentError)
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_error_says_what_why_and_next_in_three_lines(kind: type[OVAgentError]) -> None:
    error = kind("It broke.", why="It was old.", next_step="Get another.")
    assert error.lines() == [
        f"{kind.__name__}: It broke.",
        "Why: It was old.",
        "Next: Get another.",
    ]
    assert str(error) == "It broke.\nWhy: It was old.\nNext: Get another."
    assert error._render_traceback_() == error.lines()


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_empty_parts_take_no_line(kind: type[OVAgentError]) -> None:
    assert str(kind("It broke.")) == "It broke."
    assert len(kind("It broke.").lines()) == 1


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_error_survives_pickling(kind: type[OVAgentError]) -> None:
    error = pickle.loads(pickle.dumps(before := kind("It broke.", why="w", next_step="n")))
    assert type(error) is kind
    assert vars(error) == vars(before)
    assert error.lines()[1:] == ["Why: w", "Next: n"]


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in CLASSES]
    assert len(set(codes)) == len(codes)


def test_every_class_is_drawn_in_the_tree() -> None:
    assert errors.__doc__ is not None
    missing = [
        kind.__name__ for kind in CLASSES if f" {kind.__name__} " not in f" {errors.__doc__}"
    ]
    assert [name for name in missing if name != "OVAgentError"] == []


def test_provider_error_has_what_retries_need() -> None:
    error = ProviderError("It broke.", provider="p", status_code=429, retryable=True)
    assert (error.provider, error.status_code, error.retryable) == ("p", 429, True)


def test_fallback_keeps_what_was_understood() -> None:
    plan = object()
    error = WorkflowNeedsFallback(
        "Not covered.",
        unresolved_clauses=["c"],
        missing_slots=["s"],
        nearest_steps=["n"],
        partial_plan=plan,
    )
    assert error.unresolved_clauses == ("c",)
    assert error.missing_slots == ("s",)
    assert error.nearest_steps == ("n",)
    assert error.partial_plan is plan


def test_confinement_error_says_what_the_machine_lacks() -> None:
    probe = {"landlock": "missing"}
    error = ConfinementError("No sandbox.", cause="setup_failed", probe=probe)
    probe.clear()
    assert (error.cause, error.probe) == ("setup_failed", {"landlock": "missing"})
    assert isinstance(error, ChildStartError)
    assert ConfinementError("No sandbox.").cause == "unavailable"


def test_a_sandbox_that_is_unavailable_is_a_denial_with_the_report() -> None:
    error = SandboxUnavailableError("No sandbox.", probe={"landlock": "missing"})
    assert isinstance(error, SandboxDeniedError)
    assert error.probe == {"landlock": "missing"}


def test_a_cap_that_was_passed_is_named_with_the_use() -> None:
    error = ResourceLimitExceeded("Too much.", limit="memory", cap=1 << 30, used=2 << 30)
    assert (error.limit, error.cap, error.used) == ("memory", 1 << 30, 2 << 30)
    assert not isinstance(error, ChildStartError | SandboxDeniedError)


def test_interrupt_is_an_interrupt_shown_as_one_line() -> None:
    assert isinstance(TurnInterrupted(), KeyboardInterrupt)
    assert TurnInterrupted("Stopped.")._render_traceback_() == ["Stopped."]


SHELL = """
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
shell.run_cell("from ovagent_jupyter.errors import DataError, TurnInterrupted")
shell.run_cell("raise DataError('No data.', why='Empty.', next_step='Load some.')")
shell.run_cell("raise TurnInterrupted('Stopped.')")
"""


def test_ipython_shows_it_without_a_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", SHELL], capture_output=True, text=True, check=True)
    shown = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert shown == ["DataError: No data.", "Why: Empty.", "Next: Load some.", "Stopped."]


def test_an_error_commands_no_terminal() -> None:
    error = errors.OVAgentError("a\x1b[2Jb", why="c\x9b2Jd\ne", next_step="\x1b]52;c;ZXZpbA==\x07")
    assert error.lines() == ["OVAgentError: a[2Jb", "Why: c2Jd\ne", "Next: ]52;c;ZXZpbA=="]
