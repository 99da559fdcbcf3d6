"""Settings as options of a line: ``--read PATH``, ``--memory 8G``, ``--backup MODEL``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from ovagent_jupyter.config.llm import EFFORTS
from ovagent_jupyter.config.schema import (
    APPROVALS,
    FIELDS,
    LEVELS,
    AgentConfig,
    Field,
    SandboxFallbackPolicy,
)
from ovagent_jupyter.config.sources import parsed
from ovagent_jupyter.errors import ConfigError

CHOICES: Mapping[str, Sequence[str]] = {
    "level": LEVELS,
    "floor": LEVELS,
    "fallback": tuple(policy.value for policy in SandboxFallbackPolicy),
    "approve": APPROVALS,
}
"""Options that are a choice."""
GRANTS = ("read", "write", "network")
"""Options that may be given several times; each adds to what is granted."""
CAPS = ("memory", "cpu_time", "processes", "file_size", "disk")
SETTING_OF: Mapping[str, str] = {
    "level": "sandbox_level",
    "floor": "fallback_floor",
    "fallback": "sandbox_fallback_policy",
    "approve": "approve",
    **{name: f"sandbox_{name}" for name in (*GRANTS, *CAPS)},
}
"""The setting that each option stands for."""
LISTS = frozenset(SETTING_OF[name] for name in GRANTS)
HELP: Mapping[str, str] = {
    "level": "how far the code is kept apart",
    "floor": "the weakest level that may be taken instead",
    "fallback": "what to do when this machine cannot confine that far",
    "approve": "when to ask before the code runs",
    "read": "a file or folder that the code may read",
    "write": "a file or folder that it may change too",
    "network": "a host that it may reach",
    "memory": "cap on its memory, as in 8G",
    "cpu_time": "cap on its seconds of CPU",
    "processes": "cap on its processes",
    "file_size": "cap on one file, as in 2G",
    "disk": "cap on the files in its own folders, as in 20G",
}
"""What each option does, in a few words."""
_METAVAR = {"network": "HOST", "cpu_time": "S", "processes": "N"}
_ROWS = {row.name: row for row in FIELDS}


MODEL_OPTIONS: Mapping[str, tuple[str, str, str]] = {
    "backup": ("backups", "MODEL", "asked when the model fails; may be given several times"),
    "endpoint": ("endpoint", "URL", "address of an OpenAI-compatible service that has the model"),
    "effort": ("reasoning_effort", "", "how much the model may think"),
    "max-tokens": ("max_output_tokens", "N", "bound on an answer of the model"),
    "temperature": ("temperature", "T", "0 to 2, where the model takes one"),
    "budget": ("budget_turn", "LIMITS", "what it may spend: '5 requests, 200k tokens, $0.50'"),
}
"""Options of the model: the setting, what is typed for its value, what it does.

There is none for a key: a line is kept in notebooks and histories, and seen by other users.
"""


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of the model, ``-m`` itself left to the caller."""
    group = parser.add_argument_group("model", "how the model is asked")
    for name, (setting, metavar, text) in MODEL_OPTIONS.items():
        if setting == "reasoning_effort":
            group.add_argument(f"--{name}", choices=EFFORTS, dest=setting, help=text)
        else:
            action = "append" if setting == "backups" else "store"
            group.add_argument(f"--{name}", action=action, metavar=metavar, dest=setting, help=text)


def model_option_values(options: argparse.Namespace) -> dict[str, object]:
    """The options of the model that were given, as settings.

    Raises:
        ConfigError: One cannot be read.
    """
    given = {setting: getattr(options, setting) for setting, *_ in MODEL_OPTIONS.values()}
    return {
        setting: value if isinstance(value, list) else parsed(_ROWS[setting], value)
        for setting, value in given.items()
        if value is not None
    }


def require_words(text: str, kind: str, next_step: str) -> str:
    """A request or a question as it was given; an empty one is refused before anything starts.

    Args:
        text: What was given.
        kind: ``request`` or ``question``.
        next_step: Where to write it.

    Raises:
        ConfigError: There are no words in it.
    """
    if not text.strip():
        raise ConfigError(f"There is no {kind}.", why="It is empty.", next_step=next_step)
    return text


def add_options(parser: argparse.ArgumentParser, about: str) -> None:
    """Give a parser the options of the sandbox.

    Args:
        parser: Gets a group of them.
        about: One line above the group.
    """
    group = parser.add_argument_group("sandbox", about)
    for name, choices in CHOICES.items():
        group.add_argument(f"--{name}", choices=choices, help=HELP[name])
    for name in GRANTS:
        metavar = _METAVAR.get(name, "PATH")
        group.add_argument(f"--{name}", action="append", metavar=metavar, help=HELP[name])
    for name in CAPS:
        metavar = _METAVAR.get(name, "SIZE")
        group.add_argument(f"--{name.replace('_', '-')}", metavar=metavar, help=HELP[name])


def given_options(options: argparse.Namespace) -> dict[str, tuple[str, ...]]:
    """The options that were given: setting → texts, in the order in which they stand."""
    found = {setting: getattr(options, name) for name, setting in SETTING_OF.items()}
    return {
        setting: tuple(value) if isinstance(value, list) else (value,)
        for setting, value in found.items()
        if value is not None
    }


def option_value(row: Field, texts: Sequence[str], config: AgentConfig) -> object:
    """What was typed, as the setting takes it; a list grows by it.

    Args:
        row: The setting.
        texts: What was typed: several for a list, else one.
        config: The settings in force.

    Raises:
        ConfigError: It cannot be read as that.
    """
    if row.name not in LISTS:
        return parsed(row, texts[-1])
    held = row.value_in(config)
    assert isinstance(held, tuple)
    # One path each: a space or a colon belongs to its name.
    added = map(_located, texts) if row.kind == "paths" else texts
    return tuple(dict.fromkeys([*map(str, held), *map(str, added)]))


def option_values(options: argparse.Namespace, config: AgentConfig) -> dict[str, object]:
    """The options that were given, as settings on top of those in force.

    Raises:
        ConfigError: One cannot be read.
    """
    return {
        setting: option_value(_ROWS[setting], texts, config)
        for setting, texts in given_options(options).items()
    }


def _located(text: str) -> Path:
    """A path as it was typed, with or without quotes, links followed."""
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in {'"', "'"}
    return Path(text[1:-1] if quoted else text).expanduser().resolve()
