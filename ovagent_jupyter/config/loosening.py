"""Which values of a setting give the code more, send elsewhere or spend more: not a notebook's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ovagent_jupyter.config.llm import LLMConfig, is_loopback
from ovagent_jupyter.config.schema import (
    APPROVALS,
    FIELDS,
    LEVELS,
    AgentConfig,
    Field,
    SandboxFallbackPolicy,
    from_flat,
)
from ovagent_jupyter.config.values import written

STRICTEST_FIRST: Mapping[str, Sequence[object]] = {
    "use_notebook": (True, False),
    "sandbox_fallback_policy": tuple(SandboxFallbackPolicy),
    "sandbox_level": LEVELS,
    "fallback_floor": LEVELS,
    "approve": APPROVALS,
}
"""The settings of the sandbox that are a choice; those of the group ``sandbox`` are compared."""


def loosens(name: str, value: object, base: AgentConfig) -> bool:
    """Whether a value of a setting gives the code more than the settings ``base`` do.

    Args:
        name: Flat name of the setting.
        value: A value that it may have.
        base: The settings that the user has made.

    Raises:
        ConfigError: The setting cannot have the value.
    """
    row = next(row for row in FIELDS if row.name == name)
    if name in _OF_THE_MODEL:
        wanted = from_flat(_flat(base) | {name: value})
        return _OF_THE_MODEL[name](wanted.llm, base.llm, name)
    order = STRICTEST_FIRST.get(name)
    if order is None and row.group != "sandbox":
        return False
    wanted = from_flat(_flat(base) | {name: value})
    if order is None:
        return row.attribute in wanted.sandbox.loosens(base.sandbox)
    return order.index(row.value_in(wanted)) > order.index(row.value_in(base))


def _sends_elsewhere(wanted: LLMConfig, base: LLMConfig, name: str) -> bool:
    """Whether a request, and a key with it, goes to an address that the user has not named.

    A port of this machine may be asked: ``ollama/…`` does the same.
    """
    value = getattr(wanted, name)
    given = {base.endpoint, base.model, *base.backups}
    urls = [text for text in (value if isinstance(value, tuple) else (value,)) if "://" in text]
    return any(url not in given and not is_loopback(url) for url in urls)


def _spends_more(wanted: LLMConfig, base: LLMConfig, name: str) -> bool:
    return bool(getattr(wanted, name).exceeds(getattr(base, name)))


_OF_THE_MODEL: Mapping[str, Callable[[LLMConfig, LLMConfig, str], bool]] = {
    **dict.fromkeys(("model", "endpoint", "backups"), _sends_elsewhere),
    **dict.fromkeys(("budget_turn", "budget_session", "budget_day"), _spends_more),
}
"""The settings of the model that a notebook may not make as it likes."""


def written_value(row: Field, config: AgentConfig) -> str:
    """The value in force as a reader knows it: ``8G``, ``nothing``, ``80 % of the machine's``."""
    value = row.value_in(config)
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "nothing"
    if value is None:
        return _UNSET.get(row.name, "no cap")
    return written(value) if row.kind == "size" and isinstance(value, int) else str(value) or "none"


_UNSET: Mapping[str, str] = {
    "sandbox_memory": "80 % of the machine's",
    "sandbox_file_size": "as much as disk",
    "undo_memory": "a quarter of the machine's",
}


def _flat(config: AgentConfig) -> dict[str, object]:
    return {row.name: row.value_in(config) for row in FIELDS}
