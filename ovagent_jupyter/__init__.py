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
        BudgetExceeded,
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
        RunnerNotAvailable,
        SandboxDeniedError,
        SandboxUnavailableError,
        StorageError,
        StreamInterrupted,
        TurnFailed,
        TurnInterrupted,
        WorkflowNeedsFallback,
    )
    from ovagent_jupyter.events import AgentEvent
    from ovagent_jupyter.providers.catalog import (
        PROVIDER_REGISTRY,
        get_provider,
        register_provider,
    )
    from ovagent_jupyter.providers.local.runner import get_runner, register_runner
    from ovagent_jupyter.providers.provider import ModelInfo, ProviderInfo, WireAPI
    from ovagent_jupyter.providers.views import (
        AVAILABLE_MODELS,
        MODEL_CONTEXT_WINDOWS,
        PROVIDER_API_KEYS,
        PROVIDER_DEFAULT_KEYS,
        PROVIDER_ENDPOINTS,
    )
    from ovagent_jupyter.reporters import make_reporter
    from ovagent_jupyter.runtime import Agent, LocalAgent, OnlineAgent, create_agent, plan
    from ovagent_jupyter.storage.history import HistoryEntry, SessionHistory

__version__ = "0.1.0"

_HOMES = {
    "runtime": ("Agent", "LocalAgent", "OnlineAgent", "create_agent", "plan"),
    "agent.turn": ("Turn",),
    "config.sandbox": ("SandboxSpec",),
    "config.schema": ("AgentConfig", "SandboxFallbackPolicy"),
    "errors": (
        "BudgetExceeded",
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
        "RunnerNotAvailable",
        "SandboxDeniedError",
        "SandboxUnavailableError",
        "StorageError",
        "StreamInterrupted",
        "TurnFailed",
        "TurnInterrupted",
        "WorkflowNeedsFallback",
    ),
    "events": ("AgentEvent",),
    "providers.catalog": ("PROVIDER_REGISTRY", "get_provider", "register_provider"),
    "providers.local.runner": ("get_runner", "register_runner"),
    "providers.provider": ("ModelInfo", "ProviderInfo", "WireAPI"),
    "providers.views": (
        "AVAILABLE_MODELS",
        "MODEL_CONTEXT_WINDOWS",
        "PROVIDER_API_KEYS",
        "PROVIDER_DEFAULT_KEYS",
        "PROVIDER_ENDPOINTS",
    ),
    "reporters": ("make_reporter",),
    "storage.history": ("HistoryEntry", "SessionHistory"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AVAILABLE_MODELS",
    "MODEL_CONTEXT_WINDOWS",
    "PROVIDER_API_KEYS",
    "PROVIDER_DEFAULT_KEYS",
    "PROVIDER_ENDPOINTS",
    "PROVIDER_REGISTRY",
    "Agent",
    "AgentConfig",
    "AgentEvent",
    "BudgetExceeded",
    "ChildStartError",
    "ConfigError",
    "ConfinementError",
    "DataError",
    "ExecutionError",
    "HandoverError",
    "HistoryEntry",
    "LocalAgent",
    "ModelInfo",
    "OVAgentError",
    "OnlineAgent",
    "ProviderError",
    "ProviderInfo",
    "RegistryError",
    "ResourceLimitExceeded",
    "RunnerNotAvailable",
    "SandboxDeniedError",
    "SandboxFallbackPolicy",
    "SandboxSpec",
    "SandboxUnavailableError",
    "SessionHistory",
    "StorageError",
    "StreamInterrupted",
    "Turn",
    "TurnFailed",
    "TurnInterrupted",
    "WireAPI",
    "WorkflowNeedsFallback",
    "__version__",
    "create_agent",
    "get_provider",
    "get_runner",
    "make_reporter",
    "plan",
    "register_provider",
    "register_runner",
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
