"""Every setting on one page: its groups, its default, and what makes a value valid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

from ovagent_jupyter.errors import ConfigError

OFFLINE = "offline"
"""The model that is no model: the built-in planner answers."""

Floor = Literal["process", "in_process"]
"""The weakest place where code may run: a child process, or the user's own kernel."""

FLOORS: tuple[Floor, ...] = ("process", "in_process")


class SandboxFallbackPolicy(StrEnum):
    """What to do when the place where code should run cannot be started."""

    RAISE = "raise"
    """Stop with a ``SandboxDeniedError``."""
    WARN_AND_FALLBACK = "warn"
    """Say so and take the next weaker place, never one below ``fallback_floor``."""
    SILENT = "silent"
    """The same without saying so."""


@dataclass(frozen=True, slots=True)
class LLMConfig:
    """Who answers."""

    model: str = OFFLINE
    """``"offline"`` is the built-in planner: no key, no network."""

    def __post_init__(self) -> None:
        if self.model != OFFLINE:
            raise ConfigError(
                f"model={self.model!r} cannot be used.",
                why="This version answers with the built-in planner only.",
                next_step=f"Set model={OFFLINE!r}, or leave it out.",
            )


@dataclass(frozen=True, slots=True)
class ExecutionConfig:
    """Where code runs, for how long, and what is kept of it."""

    use_notebook: bool = True
    """Run code in a child kernel; False runs it in the user's own process."""
    max_prompts: int = 0
    """Replace the child by a fresh one after so many turns; 0 keeps it."""
    storage_dir: Path | None = None
    """Where session notebooks and logs are kept; None is the user's data directory."""
    timeout: float = 600.0
    """Seconds that one cell may run."""
    sandbox_fallback_policy: SandboxFallbackPolicy = SandboxFallbackPolicy.WARN_AND_FALLBACK
    """What to do when the child kernel cannot be started."""
    fallback_floor: Floor = "process"
    """No fallback goes below this: ``"in_process"`` also allows the user's own process."""

    def __post_init__(self) -> None:
        _require_bool("use_notebook", self.use_notebook)
        _set(self, "max_prompts", _count("max_prompts", self.max_prompts))
        _set(self, "storage_dir", _directory("storage_dir", self.storage_dir))
        _set(self, "timeout", _seconds("timeout", self.timeout))
        _set(self, "sandbox_fallback_policy", _policy(self.sandbox_fallback_policy))
        if self.fallback_floor not in FLOORS:
            raise _bad("fallback_floor", self.fallback_floor, "Use 'process' or 'in_process'.")


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """All settings of an agent."""

    llm: LLMConfig = field(default_factory=LLMConfig)
    """Who answers."""
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    """Where code runs."""
    verbose: bool = False
    """Print what happens as text, also where there is no cell to draw in."""
    history_enabled: bool = True
    """Append each turn to the history file."""

    def __post_init__(self) -> None:
        if not isinstance(self.llm, LLMConfig):
            raise _bad("llm", self.llm, "Pass an LLMConfig.")
        if not isinstance(self.execution, ExecutionConfig):
            raise _bad("execution", self.execution, "Pass an ExecutionConfig.")
        _require_bool("verbose", self.verbose)
        _require_bool("history_enabled", self.history_enabled)

    @classmethod
    def from_flat_kwargs(cls, **kwargs: object) -> AgentConfig:
        """The settings from flat keywords, as users of ``ov.Agent`` of omicverse write them.

        Raises:
            ConfigError: A keyword is unknown, has no effect yet, is given under two names, or
                has a value that cannot be used.
        """
        return from_flat(flat_names(kwargs))


@dataclass(frozen=True, slots=True)
class Field:
    """One setting: where it lives and what else it is called."""

    name: str
    """Its flat name, the same in files, traitlets, flags and (in capitals) the environment."""
    group: Literal["", "llm", "execution"]
    """Attribute of ``AgentConfig`` that holds it; empty for ``AgentConfig`` itself."""
    kind: Literal["bool", "int", "float", "text", "path"]
    """How text from the environment is read."""
    aliases: tuple[str, ...] = ()
    """Keywords of omicverse that mean the same."""
    env: str = ""
    """The environment variable, where it is not ``OVAGENT_`` and the name in capitals."""

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return self.env or f"OVAGENT_{self.name.upper()}"

    def value_in(self, config: AgentConfig) -> object:
        """The value that a configuration has for it."""
        holder = getattr(config, self.group) if self.group else config
        return getattr(holder, self.name)


FIELDS: tuple[Field, ...] = (
    Field("model", "llm", "text"),
    Field("use_notebook", "execution", "bool", ("use_notebook_execution",)),
    Field("max_prompts", "execution", "int", ("max_prompts_per_session",)),
    Field("storage_dir", "execution", "path", ("notebook_storage_dir",)),
    Field("timeout", "execution", "float", ("notebook_timeout",)),
    Field("sandbox_fallback_policy", "execution", "text"),
    Field("fallback_floor", "execution", "text"),
    Field("verbose", "", "bool"),
    Field("history_enabled", "", "bool", env="OVAGENT_HISTORY"),
)
"""Every setting, once: keywords, variables and files are all read by this table."""


NOT_YET = frozenset(
    {
        "agent_mode",
        "api_key",
        "approval_handler",
        "approval_mode",
        "context_storage_dir",
        "enable_filesystem_context",
        "enable_reflection",
        "enable_result_review",
        "endpoint",
        "keep_execution_notebooks",
        "max_agent_turns",
        "memory_dir",
        "reasoning_effort",
        "reflection_iterations",
        "security_level",
        "strict_kernel_validation",
    }
)
"""Keywords of omicverse's ``ov.Agent`` that would have no effect here yet: refused, not ignored."""


def flat_names(given: Mapping[str, object]) -> dict[str, object]:
    """Flat keywords under their own names instead of omicverse's.

    Raises:
        ConfigError: A keyword is unknown, has no effect yet, or is given under two names.
    """
    own = {alias: row.name for row in FIELDS for alias in (row.name, *row.aliases)}
    named: dict[str, object] = {}
    for keyword, value in given.items():
        if keyword in NOT_YET:
            raise ConfigError(
                f"{keyword!r} is not available yet in this version.",
                why="It would have no effect.",
                next_step="Leave it out.",
            )
        if keyword not in own:
            raise unknown_setting(keyword)
        if own[keyword] in named:
            raise ConfigError(
                f"{own[keyword]!r} is given twice, once as {keyword!r}.",
                next_step=f"Keep {own[keyword]!r}.",
            )
        named[own[keyword]] = value
    return named


def from_flat(values: Mapping[str, object]) -> AgentConfig:
    """The settings from values under their own flat names; what is not given has its default.

    Raises:
        ConfigError: A value cannot be used.
    """
    groups: dict[str, dict[str, object]] = {"": {}, "llm": {}, "execution": {}}
    for row in FIELDS:
        if row.name in values:
            groups[row.group][row.name] = values[row.name]
    llm = LLMConfig(**groups["llm"])  # type: ignore[arg-type]  # checked at construction
    execution = ExecutionConfig(**groups["execution"])  # type: ignore[arg-type]  # likewise
    return AgentConfig(llm=llm, execution=execution, **groups[""])  # type: ignore[arg-type]


def unknown_setting(keyword: str) -> ConfigError:
    """The error for a name that no setting has; it names the nearest one."""
    from difflib import get_close_matches  # only errors need it

    names = [name for row in FIELDS for name in (row.name, *row.aliases)]
    close = get_close_matches(keyword.lower(), names, n=1, cutoff=0.5)
    known = ", ".join(row.name for row in FIELDS)
    return ConfigError(
        f"There is no setting named {keyword!r}.",
        next_step=f"Did you mean {close[0]!r}?" if close else f"Settings: {known}.",
    )


def _bad(name: str, value: object, remedy: str) -> ConfigError:
    return ConfigError(f"{name}={value!r} cannot be used.", next_step=remedy)


def _set(config: object, name: str, value: object) -> None:
    """Normalise a field of a frozen dataclass while it is being built."""
    object.__setattr__(config, name, value)


def _require_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise _bad(name, value, "Use True or False.")


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _bad(name, value, "Use a whole number, 0 or more.")
    return value


def _seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _bad(name, value, "Use a number of seconds above 0.")
    if not (value > 0 and math.isfinite(value)):
        raise _bad(name, value, "Use a number of seconds above 0.")
    return float(value)


def _directory(name: str, value: object) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str | Path) or not str(value):
        raise _bad(name, value, "Use the path of a directory.")
    path = Path(value).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise _bad(name, str(value), "It is a file; use the path of a directory.")
    return path


def _policy(value: object) -> SandboxFallbackPolicy:
    try:
        return SandboxFallbackPolicy(str(value))
    except ValueError:
        choices = ", ".join(repr(policy.value) for policy in SandboxFallbackPolicy)
        raise _bad("sandbox_fallback_policy", value, f"Use one of {choices}.") from None
