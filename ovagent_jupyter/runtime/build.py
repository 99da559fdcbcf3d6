"""Puts the parts of one session together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from ovagent_jupyter.agent.doctor import Check, examine
from ovagent_jupyter.agent.recorder import Recorder
from ovagent_jupyter.agent.session import AgentSession
from ovagent_jupyter.config.schema import AgentConfig, flat_errors
from ovagent_jupyter.config.sources import Resolved, resolve
from ovagent_jupyter.events import AgentEvent, Emit
from ovagent_jupyter.execution.approval import Approval, Ask
from ovagent_jupyter.execution.executor import Isolation
from ovagent_jupyter.execution.executors import executors, level_name, level_named, levels_from
from ovagent_jupyter.execution.policy import PolicyExecutor
from ovagent_jupyter.loop_thread import CallerThread
from ovagent_jupyter.storage import paths
from ovagent_jupyter.storage.history import SessionHistory
from ovagent_jupyter.storage.redaction import Redactor

if TYPE_CHECKING:
    from ovagent_jupyter.agent.ask import Model, ModelSource
    from ovagent_jupyter.execution.transfer import StoreSource
    from ovagent_jupyter.execution.warm import Keeper
    from ovagent_jupyter.runtime.models import Models

WARM = ("scanpy", "matplotlib.pyplot")
"""What a child imports in the background: the code of every plan begins with it."""


def settings_in_force(
    flags: Mapping[str, object] | None = None,
    traits: Mapping[str, object] | None = None,
    *,
    profile: Mapping[str, object] | None = None,
    granted: Mapping[str, object] | None = None,
    notebook: bool = False,
) -> Resolved:
    """The settings from all sources of this process; see ``config.sources.resolve``."""
    return resolve(
        flags=flags,
        traits=traits,
        granted=granted,
        profile=profile,
        env=os.environ,
        file=paths.config_file(os.environ),
        notebook=notebook,
    )


def new_session_id() -> str:
    """An id that sorts by time and is unique."""
    now = datetime.now(UTC).astimezone()
    return f"{now:%Y%m%d-%H%M%S}-{uuid4().hex[:4]}"


def build_session(
    session_id: str,
    resolved: Resolved,
    emit: Emit,
    caller: CallerThread,
    ask: Ask | None = None,
    *,
    keeper: Keeper | None = None,
    store: StoreSource | None = None,
    models: Models | None = None,
    redactor: Redactor | None = None,
) -> AgentSession:
    """One session with its child, log, notebook and history.

    Args:
        session_id: Its name.
        resolved: The settings in force.
        emit: Told of every event.
        caller: The thread whose cell is answered.
        ask: Asks the user before code runs.
        keeper: Keeps a child ready; the session does not close it.
        store: Gives the store that keeps what is handed over; None for one of its own.
        models: Gives the model that the settings name; the session does not close it.
        redactor: Keeps keys out of what is recorded; None knows those of the environment.

    Raises:
        ConfigError: A grant of the sandbox is refused.
    """
    config = resolved.config
    redactor = Redactor(os.environ) if redactor is None else redactor
    directory = paths.sessions_dir(os.environ, config.execution.storage_dir)
    history = SessionHistory(redactor=redactor) if config.history_enabled else None
    recorder = Recorder.at(directory, session_id, redactor, history)
    # Looked up late: the session needs the executor, which speaks only once a turn runs.
    executor = build_executor(
        config, lambda event: session.hear(event), caller, ask, keeper=keeper, store=store
    )
    source = _learning(models, redactor) if models is not None else None
    session = AgentSession(session_id, config, executor, recorder, emit, models=source)
    return session


def build_executor(
    config: AgentConfig,
    emit: Emit,
    caller: CallerThread,
    ask: Ask | None = None,
    *,
    keeper: Keeper | None = None,
    store: StoreSource | None = None,
) -> PolicyExecutor:
    """Where code runs: at the level that is asked for, and what the policy may fall back to.

    Raises:
        ConfigError: A grant of the sandbox is refused.
    """
    run, spec = config.execution, config.sandbox
    with flat_errors():
        spec.check(Path.home(), own_folders(run.storage_dir) if spec.read or spec.write else ())
    table = executors()
    options: Mapping[Isolation, Mapping[str, object]] = {
        Isolation.IN_PROCESS: {"run_in_cell": caller.run, "store": store}
    }
    ready = keeper if run.keep_ready else None
    child = {"warm": WARM, "spec": spec, "keeper": ready, "store": store}
    return PolicyExecutor(
        [table.get(level_name(level))(**options.get(level, child)) for level in levels_from(run)],
        policy=run.sandbox_fallback_policy,
        floor=level_named(run.fallback_floor),
        emit=emit,
        approval=Approval(run.approve, ask, caller.run),
    )


def _learning(models: Models, redactor: Redactor) -> ModelSource:
    """The same models; their keys are kept out of what is recorded before they are used."""

    def source(config: AgentConfig, *, dry: bool = False) -> Model:
        model = models(config, dry=dry)
        redactor.learn(model.secrets)
        return model

    return source


def own_folders(storage_dir: Path | None = None) -> tuple[Path, ...]:
    """Where our own files lie: never granted to the child."""
    env = os.environ
    return (
        paths.home_dir(env),
        paths.sessions_dir(env, storage_dir),
        paths.cache_dir(env),
        paths.config_dir(env),
        paths.runtime_dir(env),
    )


async def examine_machine(config: AgentConfig, *, live: bool = False) -> tuple[Check, ...]:
    """What works on this machine, tried with a child of its own.

    Args:
        config: The settings in force.
        live: Also ask model services what they serve.
    """
    executor = build_executor(config, nobody_watches, CallerThread())
    return await examine(config, executor, live=live)


def nobody_watches(_event: AgentEvent) -> None:
    """Watches until the first turn names somebody who does."""
