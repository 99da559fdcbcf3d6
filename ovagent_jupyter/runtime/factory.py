"""Agents by where their model runs; all of them are the same ``Agent``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ovagent_jupyter.config.llm import OFFLINE
from ovagent_jupyter.config.schema import AgentConfig
from ovagent_jupyter.runtime.api import Agent


class OnlineAgent(Agent):
    """An agent whose model is asked over the network.

    Args:
        model: ``claude-…``, ``groq/…``; with a ``base_url``, the id as it is known there.
        base_url: Address of an OpenAI-compatible service, ``https://host/v1``.
        api_key: Its key; without one, the variable of its provider is read.
        headers: Sent with every call of the model.
        backups: Models that are asked, in order, when it fails.
        **settings: Further settings by their flat names, and what ``Agent`` takes by keyword.

    Raises:
        ConfigError: A setting is unknown or cannot be used.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str = "",
        api_key: str = "",
        headers: Mapping[str, str] | None = None,
        backups: Sequence[str] = (),
        **settings: object,
    ) -> None:
        given = {"endpoint": base_url, "api_key": api_key, "headers": headers, "backups": backups}
        own = {name: value for name, value in given.items() if value}
        super().__init__(model=model, **own, **settings)  # type: ignore[arg-type]


class LocalAgent(Agent):
    """An agent whose model runs on this machine.

    Args:
        model_id: A folder or an id of the model hub, run by MLX in this process; with a
            ``base_url``, the id as the server there knows it.
        base_url: Address of a server on this machine, such as ``http://127.0.0.1:8000/v1``.
        **settings: Further settings by their flat names, and what ``Agent`` takes by keyword.

    Raises:
        ConfigError: A setting is unknown or cannot be used.
    """

    def __init__(self, model_id: str, *, base_url: str = "", **settings: object) -> None:
        runner = "" if base_url or model_id.partition("/")[0] in _SERVERS else "mlx/"
        named = model_id if model_id.startswith("mlx/") else f"{runner}{model_id}"
        own = {"endpoint": base_url} if base_url else {}
        super().__init__(model=named, **own, **settings)  # type: ignore[arg-type]


_SERVERS = frozenset({"ollama", "vllm", "lmstudio", "llamacpp"})
"""Providers that are servers of this machine: ``ollama/qwen3`` names its model there."""


def create_agent(
    config: AgentConfig | None = None, *, model: str = OFFLINE, **settings: object
) -> Agent:
    """An agent from settings: those given, else those of file and environment.

    Args:
        config: All settings; None takes them from file, environment and keywords.
        model: Who answers; ``"offline"`` leaves it to the settings.
        **settings: Settings by their flat names, and what ``Agent`` takes by keyword.

    Raises:
        ConfigError: A setting is unknown or cannot be used.
    """
    return Agent(config, model, **settings)  # type: ignore[arg-type]
