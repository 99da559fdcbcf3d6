"""Every setting has the effect that its documentation names, by way of the public ``Agent``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from anndata import AnnData

import ovagent_jupyter as ov
from ovagent_jupyter.config.schema import FIELDS, AgentConfig, ExecutionConfig
from ovagent_jupyter.errors import (
    ChildStartError,
    ConfigError,
    ConfinementError,
    SandboxDeniedError,
)
from ovagent_jupyter.events import AgentEvent, Category
from ovagent_jupyter.execution import warm
from ovagent_jupyter.execution.launch import LaunchOptions
from ovagent_jupyter.loop_thread import CallerThread
from ovagent_jupyter.runtime.build import build_executor
from ovagent_jupyter.storage.history import SessionHistory
from tests.agent.test_sandbox_settings import SHOWN as OF_THE_SANDBOX
from tests.execution.poorer_machine import LANDLOCK, NAMESPACES, run_without

NAMES = (
    "use_notebook", "max_prompts", "storage_dir", "timeout", "keep_ready", "verbose",
    "history_enabled",
)  # fmt: skip
"""Shown below, with ``model``, ``sandbox_fallback_policy`` and ``fallback_floor``; the settings
of the sandbox are shown in a file of their own, and so are those of who is asked, in
``tests/providers/test_resolve.py``."""
OF_THE_NOTEBOOK = {"undo_memory"}
"""Shown in ``tests/notebook/test_undo.py``: an agent binds nothing."""


@pytest.fixture
def adata() -> AnnData:
    return AnnData(np.random.default_rng(0).poisson(1.0, (60, 30)).astype("float32"))


class Seen:
    """The events of an agent."""

    def __init__(self) -> None:
        self.events: list[AgentEvent] = []

    def of(self, category: Category) -> list[AgentEvent]:
        return [event for event in self.events if event.category is category]


@pytest.fixture
def seen() -> Seen:
    return Seen()


Start = Callable[..., ov.Agent]


@pytest.fixture
def start(home: Path, seen: Seen) -> Start:
    """Makes agents with a home of their own, whose events are seen."""

    def make(**settings: object) -> ov.Agent:
        return ov.Agent(callback=seen.events.append, **settings)  # type: ignore[arg-type]

    return make


def test_every_setting_is_shown_here() -> None:
    shown = {*NAMES, "model", "sandbox_fallback_policy", "fallback_floor"}
    of_the_model = {row.name for row in FIELDS if row.group == "llm"}
    assert {row.name for row in FIELDS} == shown | OF_THE_SANDBOX | OF_THE_NOTEBOOK | of_the_model


@pytest.mark.parametrize("model", ["offline", "gpt-5", "ollama/qwen3"])
def test_what_the_planner_covers_asks_no_model(start: Start, adata: AnnData, model: str) -> None:
    with start(model=model) as agent:
        assert agent.run("normalise", data=adata, mode="plan").ok
    with pytest.raises(ConfigError, match="name of a model"):
        start(model="gpt 5")


def test_use_notebook_false_runs_without_a_child(start: Start, adata: AnnData, seen: Seen) -> None:
    before = psutil.Process().children(recursive=True)
    denied = pytest.raises(SandboxDeniedError, match="nobody can be asked")
    with start(use_notebook=False) as agent, denied:
        agent.run("normalise", data=adata)
    with start(use_notebook=False, approve="never") as agent:
        turn = agent.run("normalise and log transform", data=adata)
        assert turn.ok, turn.error
        assert "log1p" in turn.data.uns
        assert "log1p" not in adata.uns
        assert psutil.Process().children(recursive=True) == before
    assert seen.of(Category.SANDBOX_FALLBACK) == []


def test_max_prompts_replaces_the_child_after_so_many_turns(
    start: Start, adata: AnnData, seen: Seen
) -> None:
    with start(max_prompts=1) as agent:
        for _ in range(2):
            assert agent.run("normalise", data=adata).ok
    began = [event.message for event in seen.of(Category.CHILD_STARTING)]
    assert len(began) == 2
    assert "max_prompts" in began[1]


def test_storage_dir_is_where_log_and_notebook_are_kept(
    start: Start, adata: AnnData, tmp_path: Path
) -> None:
    place = tmp_path / "kept here"
    with start(storage_dir=place, session="mine") as agent:
        agent.run("normalise", data=adata, mode="plan")
    assert {path.name for path in place.iterdir()} == {"mine.jsonl", "mine.ipynb"}


def test_timeout_ends_a_step_that_takes_longer(start: Start, adata: AnnData) -> None:
    with start(timeout=0.001) as agent:
        turn = agent.run("normalise", data=adata)
        assert not turn.ok
        assert "time limit" in str(turn.error)
        assert agent.run("normalise", data=adata, timeout=100).ok


@pytest.mark.parametrize("keep_ready", [True, False])
async def test_keep_ready_says_whether_a_child_is_made_beforehand(keep_ready: bool) -> None:
    asked: list[LaunchOptions] = []

    class Keeper(warm.Keeper):
        """Takes note of who asks."""

        def prepare(self, options: LaunchOptions, *_: object) -> None:
            asked.append(options)

    config = AgentConfig(execution=ExecutionConfig(keep_ready=keep_ready))
    build_executor(config, lambda _event: None, CallerThread(), keeper=Keeper()).prepare()
    assert bool(asked) is keep_ready


def test_history_enabled_false_leaves_no_history(start: Start, adata: AnnData) -> None:
    with start(history_enabled=False) as agent:
        agent.run("normalise", data=adata, mode="plan")
    assert SessionHistory().get_recent() == []
    with start() as agent:
        agent.run("normalise", data=adata, mode="plan")
    assert len(SessionHistory().get_recent()) == 1


@pytest.mark.parametrize("verbose", [True, False])
def test_verbose_prints_what_happens(
    start: Start, adata: AnnData, capsys: pytest.CaptureFixture[str], verbose: bool
) -> None:
    with start(verbose=verbose) as agent:
        agent.run("normalise", data=adata, mode="plan")
    assert ("normalize" in capsys.readouterr().out) is verbose


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other levels")
@pytest.mark.parametrize(("policy", "told"), [("warn", "warning"), ("silent", "debug")])
def test_the_policy_says_whether_a_step_down_is_told(policy: str, told: str) -> None:
    answer = run_without(NAMESPACES, {"sandbox_fallback_policy": policy})
    assert answer["stdout"] == "42\n", answer
    assert answer["steps"] == [["namespaces", "confined", told]]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other levels")
@pytest.mark.parametrize(
    ("calls", "settings"),
    [
        (NAMESPACES, {"sandbox_fallback_policy": "raise"}),
        (NAMESPACES, {"fallback_floor": "namespaces"}),
        (NAMESPACES | LANDLOCK, {"sandbox_fallback_policy": "warn"}),
        (NAMESPACES | LANDLOCK, {"sandbox_fallback_policy": "silent"}),
    ],
    ids=["raise", "the floor named", "the default floor", "silence is no consent"],
)
def test_neither_policy_nor_floor_is_passed(
    calls: dict[str, int], settings: dict[str, object]
) -> None:
    answer = run_without(calls, settings)
    assert answer["error"] == "SandboxUnavailableError", answer
    assert (answer["stdout"], answer["steps"]) == ("", [])
    assert len(answer["lines"]) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other levels")
def test_the_floor_lets_code_run_where_the_system_does_not_hold_it_back() -> None:
    floor = {"fallback_floor": "process"}
    asked = run_without(NAMESPACES | LANDLOCK, floor)
    assert asked["error"] == "SandboxDeniedError", asked
    assert "nobody can be asked" in asked["lines"][0]
    answer = run_without(NAMESPACES | LANDLOCK, floor | {"approve": "never"})
    assert (answer["stdout"], answer["level"]) == ("42\n", "process"), answer
    assert len(answer["steps"]) == 2


def test_a_child_that_does_not_start_leads_nowhere_weaker(
    start: Start, adata: AnnData, seen: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "broken" / "ipykernel"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('a broken installation')\n")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    with start(fallback_floor="in_process", approve="never") as agent:
        with pytest.raises(ChildStartError) as failed:
            agent.run("normalise", data=adata)
        assert not isinstance(failed.value, ConfinementError)
    assert seen.of(Category.SANDBOX_FALLBACK) == []
