"""An analysis agent for JupyterLab; public names load when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from ovagent_jupyter.agent.turn import Turn
    from ovagent_jupyter.config.sandbox import SandboxSpec
    from ovagent_jupyter.config.schema import AgentConfig, SandboxFallbackPolicy
    from ovagent_jupyter.errors import (
        ChildStartError,
        ConfigError,
        ConfinementError,
        DataError,
        ExecutionError,
        HandoverError,
        OVAgentError,
        ProviderError,
        RegistryError,
        ResourceLimitExceeded,
        SandboxDeniedError,
        SandboxUnavailableError,
        StorageError,
        TurnFailed,
        TurnInterrupted,
        WorkflowNeedsFallback,
    )
    from ovagent_jupyter.events import AgentEvent
    from ovagent_jupyter.reporters import make_reporter
    from ovagent_jupyter.runtime import Agent, plan
    from ovagent_jupyter.storage.history import HistoryEntry, SessionHistory

__version__ = "0.1.0"

_HOMES = {
    "runtime": ("Agent", "plan"),
    "agent.turn": ("Turn",),
    "config.sandbox": ("SandboxSpec",),
    "config.schema": ("AgentConfig", "SandboxFallbackPolicy"),
    "errors": (
        "ChildStartError",
        "ConfigError",
        "ConfinementError",
        "DataError",
        "ExecutionError",
        "HandoverError",
        "OVAgentError",
        "ProviderError",
        "RegistryError",
        "ResourceLimitExceeded",
        "SandboxDeniedError",
        "SandboxUnavailableError",
        "StorageError",
        "TurnFailed",
        "TurnInterrupted",
        "WorkflowNeedsFallback",
    ),
    "events": ("AgentEvent",),
    "reporters": ("make_reporter",),
    "storage.history": ("HistoryEntry", "SessionHistory"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Agent",
    "AgentConfig",
    "AgentEvent",
    "ChildStartError",
    "ConfigError",
    "ConfinementError",
    "DataError",
    "ExecutionError",
    "HandoverError",
    "HistoryEntry",
    "OVAgentError",
    "ProviderError",
    "RegistryError",
    "ResourceLimitExceeded",
    "SandboxDeniedError",
    "SandboxFallbackPolicy",
    "SandboxSpec",
    "SandboxUnavailableError",
    "SessionHistory",
    "StorageError",
    "Turn",
    "TurnFailed",
    "TurnInterrupted",
    "WorkflowNeedsFallback",
    "__version__",
    "make_reporter",
    "plan",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Add ``%ovagent`` and ``%%ovagent`` to a session (``%load_ext ovagent_jupyter``)."""
    from ovagent_jupyter.notebook.extension import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Take the magics away again and end the child kernel."""
    from ovagent_jupyter.notebook.extension import unload

    unload(shell)


def _jupyter_server_extension_points() -> list[dict[str, object]]:
    """Where Jupyter Server finds our extension (``jupyter-config`` enables it)."""
    from ovagent_jupyter.server.extension import OVAgentServer

    return [{"module": "ovagent_jupyter", "app": OVAgentServer}]
