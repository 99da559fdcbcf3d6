"""A session over a fake executor, with all its files in one place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ovagent_jupyter.agent.ask import ModelSource
from ovagent_jupyter.agent.recorder import Recorder
from ovagent_jupyter.agent.session import AgentSession
from ovagent_jupyter.config.schema import AgentConfig
from ovagent_jupyter.events import AgentEvent
from ovagent_jupyter.execution.executor import Executor
from ovagent_jupyter.storage.history import SessionHistory
from ovagent_jupyter.storage.redaction import Redactor

Build = Callable[..., AgentSession]


@pytest.fixture
def events() -> list[AgentEvent]:
    """What the session told."""
    return []


@pytest.fixture
def build(tmp_path: Path, events: list[AgentEvent]) -> Build:
    """Builds a session over an executor."""

    def make(
        executor: Executor, config: AgentConfig | None = None, models: ModelSource | None = None
    ) -> AgentSession:
        redactor = Redactor({"SOME_API_KEY": "planted-secret-value"})
        history = SessionHistory(tmp_path / "history.jsonl", redactor=redactor)
        recorder = Recorder.at(tmp_path, "s1", redactor, history)
        settings = config or AgentConfig()
        return AgentSession("s1", settings, executor, recorder, events.append, models=models)

    return make
