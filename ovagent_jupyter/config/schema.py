"""Every setting on one page: its groups, its default, and what makes a value valid."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ovagent_jupyter.config.llm import OFFLINE, LLMConfig
from ovagent_jupyter.config.sandbox import SandboxSpec
from ovagent_jupyter.config.values import (
    MIB,
    bad,
    count,
    directory,
    require_bool,
    seconds,
    set_field,
    size,
)
from ovagent_jupyter.errors import ConfigError

if TYPE_CHECKING:
    from ovagent_jupyter.config.gateway import GatewayConfig

__all__ = [
    "APPROVALS",
    "FIELDS",
    "GROUPS",
    "LEVELS",
    "NOT_YET",
    "OFFLINE",
    "STRONGEST",
    "AgentConfig",
    "Approve",
    "ExecutionConfig",
    "Field",
    "Group",
    "LLMConfig",
    "LevelName",
    "SandboxFallbackPolicy",
    "flat_errors",
    "flat_names",
    "from_flat",
    "gateway_config",
    "unknown_setting",
]

Group = Literal["", "llm", "execution", "sandbox"]
"""Attribute of ``AgentConfig`` that holds a setting; empty for ``AgentConfig`` itself."""

LevelName = Literal["namespaces", "confined", "process", "in_process"]
"""How far code is kept from the user's kernel; the first two are guarded by the system."""

LEVELS: tuple[LevelName, ...] = ("namespaces", "confined", "process", "in_process")
"""Strongest first."""

Approve = Literal["always", "risky", "never"]
"""When the user is asked before the code of a turn runs."""

APPROVALS: tuple[Approve, ...] = ("always", "risky", "never")
"""Strictest first."""

STRONGEST: LevelName = "confined" if sys.platform == "darwin" else "namespaces"
"""The most that this kind of system has."""

GROUPS: tuple[Group, ...] = ("", "llm", "execution", "sandbox")
"""The groups of ``AgentConfig``; the empty name is itself."""


class SandboxFallbackPolicy(StrEnum):
    """What to do when this machine cannot confine code as far as is asked."""

    RAISE = "raise"
    """Stop with a ``SandboxUnavailableError``; nothing is run."""
    WARN_AND_FALLBACK = "warn"
    """Say so and take the next weaker level, never one below ``fallback_floor``."""
    SILENT = "silent"
    """The same without saying so."""


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
    """What to do when this machine cannot confine code as far as is asked."""
    sandbox_level: LevelName = STRONGEST
    """How far code is kept apart; below ``"confined"`` it can do all that you can."""
    fallback_floor: LevelName = "confined"
    """No fallback goes below this level."""
    approve: Approve = "risky"
    """Ask before a turn's code runs: ``"risky"`` where the system does not hold it back."""
    keep_ready: bool = True
    """Keep a child ready in the background, with scanpy imported; it takes about 0.3 GB."""
    undo_memory: int | None = None
    """Bytes that undo and checkpoints may hold; None is a quarter of the machine's memory."""

    def __post_init__(self) -> None:
        require_bool("use_notebook", self.use_notebook)
        set_field(self, "max_prompts", count("max_prompts", self.max_prompts))
        set_field(self, "storage_dir", directory("storage_dir", self.storage_dir))
        set_field(self, "timeout", seconds("timeout", self.timeout))
        set_field(self, "sandbox_fallback_policy", _policy(self.sandbox_fallback_policy))
        _require_one("sandbox_level", self.sandbox_level, LEVELS)
        _require_one("fallback_floor", self.fallback_floor, LEVELS)
        _require_one("approve", self.approve, APPROVALS)
        require_bool("keep_ready", self.keep_ready)
        if self.undo_memory is not None:
            set_field(self, "undo_memory", size("undo_memory", self.undo_memory, MIB))

    @property
    def undo_limit(self) -> int:
        """Bytes that undo and checkpoints may hold, on this machine."""
        if self.undo_memory is not None:
            return self.undo_memory
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


def gateway_config(values: Mapping[str, object] | None = None) -> GatewayConfig:
    """The layers of the gateway, by default or as a table of a file says.

    Raises:
        ConfigError: The table has a name or a value that cannot be used.
    """
    from ovagent_jupyter.config.gateway import GatewayConfig, from_mapping  # slow to load

    return from_mapping(GatewayConfig, values or {})


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """All settings of an agent."""

    llm: LLMConfig = field(default_factory=LLMConfig)
    """Who answers."""
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    """Where code runs."""
    sandbox: SandboxSpec = field(default_factory=SandboxSpec)
    """What is granted to the code, and its caps."""
    gateway: GatewayConfig = field(default_factory=gateway_config)
    """What lies between us and a model service: retries, limits, cache."""
    verbose: bool = False
    """Print what happens as text, also where there is no cell to draw in."""
    history_enabled: bool = True
    """Append each turn to the history file."""

    def __post_init__(self) -> None:
        if not isinstance(self.llm, LLMConfig):
            raise bad("llm", self.llm, "Pass an LLMConfig.")
        if not isinstance(self.execution, ExecutionConfig):
            raise bad("execution", self.execution, "Pass an ExecutionConfig.")
        if not isinstance(self.sandbox, SandboxSpec):
            raise bad("sandbox", self.sandbox, "Pass a SandboxSpec.")
        if type(self.gateway).__name__ != "GatewayConfig":  # by name: the class is slow to load
            raise bad("gateway", self.gateway, "Pass a GatewayConfig.")
        require_bool("verbose", self.verbose)
        require_bool("history_enabled", self.history_enabled)

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
    group: Group
    """Attribute of ``AgentConfig`` that holds it; empty for ``AgentConfig`` itself."""
    kind: Literal[
        "bool", "int", "float", "text", "path", "paths", "hosts", "size", "names", "secret",
        "headers",
    ]  # fmt: skip
    """How text from the environment is read."""
    aliases: tuple[str, ...] = ()
    """Keywords of omicverse that mean the same."""
    env: str = ""
    """The environment variable, where it is not ``OVAGENT_`` and the name in capitals."""

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return self.env or f"OVAGENT_{self.name.upper()}"

    @property
    def hidden(self) -> bool:
        """Whether its value is not for showing."""
        return self.kind in {"secret", "headers"}

    @property
    def attribute(self) -> str:
        """What its group calls it: ``sandbox_memory`` is ``memory`` of ``sandbox``."""
        return self.name.removeprefix("sandbox_") if self.group == "sandbox" else self.name

    def value_in(self, config: AgentConfig) -> object:
        """The value that a configuration has for it."""
        holder = getattr(config, self.group) if self.group else config
        return getattr(holder, self.attribute)


FIELDS: tuple[Field, ...] = (
    Field("model", "llm", "text"),
    Field("api_key", "llm", "secret"),
    Field("endpoint", "llm", "text"),
    Field("backups", "llm", "names"),
    Field("reasoning_effort", "llm", "text"),
    Field("max_output_tokens", "llm", "int"),
    Field("temperature", "llm", "float"),
    Field("headers", "llm", "headers"),
    Field("budget_turn", "llm", "text"),
    Field("budget_session", "llm", "text"),
    Field("budget_day", "llm", "text"),
    Field("use_notebook", "execution", "bool", ("use_notebook_execution",)),
    Field("max_prompts", "execution", "int", ("max_prompts_per_session",)),
    Field("storage_dir", "execution", "path", ("notebook_storage_dir",)),
    Field("timeout", "execution", "float", ("notebook_timeout",)),
    Field("sandbox_fallback_policy", "execution", "text"),
    Field("sandbox_level", "execution", "text"),
    Field("fallback_floor", "execution", "text"),
    Field("approve", "execution", "text"),
    Field("keep_ready", "execution", "bool"),
    Field("undo_memory", "execution", "size"),
    Field("sandbox_read", "sandbox", "paths"),
    Field("sandbox_write", "sandbox", "paths"),
    Field("sandbox_network", "sandbox", "hosts"),
    Field("sandbox_memory", "sandbox", "size"),
    Field("sandbox_cpu_time", "sandbox", "float"),
    Field("sandbox_processes", "sandbox", "int"),
    Field("sandbox_file_size", "sandbox", "size"),
    Field("sandbox_disk", "sandbox", "size"),
    Field("sandbox_force", "sandbox", "bool"),
    Field("verbose", "", "bool"),
    Field("history_enabled", "", "bool", env="OVAGENT_HISTORY"),
)
"""Every setting, once: keywords, variables and files are all read by this table."""


NOT_YET = frozenset(
    {
        "agent_mode",
        "approval_handler",
        "approval_mode",
        "context_storage_dir",
        "enable_filesystem_context",
        "enable_reflection",
        "enable_result_review",
        "keep_execution_notebooks",
        "max_agent_turns",
        "memory_dir",
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
    groups: dict[Group, dict[str, object]] = {group: {} for group in GROUPS}
    for row in FIELDS:
        if row.name in values:
            groups[row.group][row.attribute] = values[row.name]
    llm = LLMConfig(**groups["llm"])  # type: ignore[arg-type]  # checked at construction
    execution = ExecutionConfig(**groups["execution"])  # type: ignore[arg-type]  # likewise
    with flat_errors():
        sandbox = SandboxSpec(**groups["sandbox"])  # type: ignore[arg-type]  # likewise
    own = groups[""]
    return AgentConfig(llm=llm, execution=execution, sandbox=sandbox, **own)  # type: ignore[arg-type]


@contextlib.contextmanager
def flat_errors() -> Iterator[None]:
    """Have errors of a ``SandboxSpec`` name the flat setting: ``sandbox_memory``."""
    try:
        yield
    except ConfigError as error:
        named = ConfigError(f"sandbox_{error.what}", why=error.why, next_step=error.next_step)
        raise named from None


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


def _require_one(name: str, value: object, choices: Collection[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise bad(name, value, f"Use one of {', '.join(map(repr, choices))}.")


def _policy(value: object) -> SandboxFallbackPolicy:
    try:
        return SandboxFallbackPolicy(str(value))
    except ValueError:
        choices = ", ".join(repr(policy.value) for policy in SandboxFallbackPolicy)
        raise bad("sandbox_fallback_policy", value, f"Use one of {choices}.") from None
