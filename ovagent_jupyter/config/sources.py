"""Where settings come from: defaults < file < environment < profile < policy < traitlets < flags.

A later source wins over an earlier one, setting by setting. ``flags`` are what is given for one
call: keywords of ``Agent(...)``, options of a magic or of the command line.

What a notebook says, ``%config`` and the options of a magic, may only tighten: a notebook may
come from somebody else. What gives the code more comes from the other sources.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ovagent_jupyter.config.llm import LLMConfig
from ovagent_jupyter.config.loosening import loosens, written_value
from ovagent_jupyter.config.schema import (
    FIELDS,
    AgentConfig,
    Field,
    flat_names,
    from_flat,
    gateway_config,
)
from ovagent_jupyter.config.secret import Secret
from ovagent_jupyter.config.values import bad
from ovagent_jupyter.errors import ConfigError

if TYPE_CHECKING:
    from ovagent_jupyter.config.gateway import GatewayConfig

T = TypeVar("T")

GATEWAY = "gateway"
"""The table of the settings file that holds the layers of the gateway; nothing else sets them."""


class Source(StrEnum):
    """A place where settings are written; later members win over earlier ones."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    PROFILE = "profile"
    POLICY = "policy"
    TRAITLETS = "traitlets"
    FLAGS = "flags"


PRECEDENCE: tuple[Source, ...] = tuple(Source)
"""The order, weakest first."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the value of one setting was found."""

    source: Source
    """The kind of place."""
    place: str = ""
    """Which file or which variable; empty when the kind says all."""

    def __str__(self) -> str:
        return f"{self.source.value} ({self.place})" if self.place else self.source.value


@dataclass(frozen=True, slots=True)
class Resolved:
    """The settings in force, and where each was found."""

    config: AgentConfig
    """The settings."""
    provenance: Mapping[str, Origin]
    """Flat name of every setting → its origin; ``gateway`` is there too."""

    def table(self) -> tuple[tuple[str, object, str], ...]:
        """One row a setting: name, value, origin; in the order of the documentation."""
        return tuple(
            (row.name, row.value_in(self.config), str(self.provenance[row.name])) for row in FIELDS
        )


@dataclass(frozen=True, slots=True)
class _Found:
    """One value in one source."""

    value: object
    origin: Origin


def resolve(
    *,
    flags: Mapping[str, object] | None = None,
    traits: Mapping[str, object] | None = None,
    granted: Mapping[str, object] | None = None,
    profile: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
    file: Path | None = None,
    notebook: bool = False,
) -> Resolved:
    """The settings from all sources.

    Args:
        flags: What is given for this call; omicverse's names are accepted.
        traits: Traitlets set in the session (``%config``), under their flat names.
        granted: What the user said yes to in this session.
        profile: Traitlets set in the configuration file of the IPython profile.
        env: Environment variables.
        file: A TOML file; one that does not exist sets nothing.
        notebook: Whether the flags stand in a notebook.

    Raises:
        ConfigError: A source names an unknown setting or has a value that cannot be used; or a
            notebook loosens what the user has set. It names the source, also when a stronger
            source would have won.
    """
    written, origin = _read(file), Origin(Source.FILE, str(file))
    table = written.pop(GATEWAY, None)
    layers = {
        Source.FILE: _from_mapping(written, origin),
        Source.ENVIRONMENT: _from_environment(env or {}),
        Source.PROFILE: _from_mapping(profile or {}, Origin(Source.PROFILE)),
        Source.POLICY: _from_mapping(granted or {}, Origin(Source.POLICY)),
        Source.TRAITLETS: _from_mapping(traits or {}, Origin(Source.TRAITLETS)),
        Source.FLAGS: _from_mapping(flags or {}, Origin(Source.FLAGS)),
    }
    for layer in layers.values():
        for name, found in layer.items():
            _attributed(found.origin, from_flat, {name: found.value})
    in_a_notebook = {Source.TRAITLETS, Source.FLAGS} if notebook else {Source.TRAITLETS}
    base = _by_the_user(layers, in_a_notebook)
    _require_tighter(layers, in_a_notebook, base)
    winners = _merged(layers.values())
    default = Origin(Source.DEFAULT)
    config = from_flat({name: found.value for name, found in winners.items()})
    if any(winners[n].origin.source not in in_a_notebook for n in _SENT if n in winners):
        config = replace(config, llm=_keyed(config.llm, base.llm))
    if table is not None:
        config = replace(config, gateway=_attributed(origin, _gateway, {GATEWAY: table}))
    provenance = {
        row.name: winners[row.name].origin if row.name in winners else default for row in FIELDS
    }
    return Resolved(config, provenance | {GATEWAY: default if table is None else origin})


def _gateway(values: Mapping[str, object]) -> GatewayConfig:
    table = values[GATEWAY]
    if not isinstance(table, Mapping):
        raise bad(GATEWAY, table, "Write it as a table, [gateway], or as [gateway.retry].")
    return gateway_config(table)


def _merged(layers: Iterable[Mapping[str, _Found]]) -> dict[str, _Found]:
    merged: dict[str, _Found] = {}
    for layer in layers:
        merged |= layer
    return merged


_SENT = ("api_key", "headers")
"""What goes to a service with each call."""


def _keyed(llm: LLMConfig, base: LLMConfig) -> LLMConfig:
    """Settings whose key goes where the user meant it to, whatever a notebook asks."""
    meant = (base.model, base.endpoint)
    return llm if (llm.model, llm.endpoint) == meant else replace(llm, key_for=meant)


def _by_the_user(
    layers: Mapping[Source, Mapping[str, _Found]], in_a_notebook: Collection[Source]
) -> AgentConfig:
    """The settings without what a notebook says."""
    found = _merged(layer for source, layer in layers.items() if source not in in_a_notebook)
    return from_flat({name: each.value for name, each in found.items()})


def _require_tighter(
    layers: Mapping[Source, Mapping[str, _Found]],
    in_a_notebook: Collection[Source],
    base: AgentConfig,
) -> None:
    """Check that a notebook loosens nothing that the user has set, or left at its default.

    Raises:
        ConfigError: It does.
    """
    for source in in_a_notebook:
        for name, found in layers[source].items():
            if loosens(name, found.value, base):
                raise _loosened(name, found, base)


def _loosened(name: str, found: _Found, by_the_user: AgentConfig) -> ConfigError:
    row = next(row for row in FIELDS if row.name == name)
    of_the_model = row.group == "llm"
    does = _DOES.get(name, _SPENDS) if of_the_model else "gives the code more than"
    place = "in" if of_the_model else "with %ovagent policy, in"
    return ConfigError(
        f"{name}={found.value!r} is not accepted from a notebook ({found.origin.source.value}).",
        why=f"It {does} your own settings: {written_value(row, by_the_user)}.",
        next_step=f"Set it {place} your settings file, or as {row.variable}.",
    )


_SPENDS = "may spend more than"
_ELSEWHERE = "sends what you ask, and a key, to another place than"
_DOES = {"model": _ELSEWHERE, "endpoint": _ELSEWHERE, "backups": _ELSEWHERE}
"""Why a setting of the model is not for a notebook to make."""


def _attributed(
    origin: Origin, read: Callable[[Mapping[str, object]], T], values: Mapping[str, object]
) -> T:
    """What ``read`` makes of the values; its error then also says where they were found."""
    try:
        return read(values)
    except ConfigError as error:
        why = f"{error.why} It comes from: {origin}.".strip()
        raise ConfigError(error.what, why=why, next_step=error.next_step) from None


def _from_mapping(values: Mapping[str, object], origin: Origin) -> dict[str, _Found]:
    named = _attributed(origin, flat_names, values)
    return {name: _Found(value, origin) for name, value in named.items()}


def _read(file: Path | None) -> dict[str, object]:
    """What the file says; one that is not there says nothing."""
    if file is None:
        return {}
    import tomllib  # only those who have a file pay for it

    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:  # ValueError: not TOML, or not UTF-8
        raise ConfigError(
            f"The settings file {file} cannot be read.",
            why=str(error),
            next_step="Correct it or remove it.",
        ) from error


def _from_environment(env: Mapping[str, str]) -> dict[str, _Found]:
    """The variables that are set and not empty, read by the kind of their setting."""
    return {
        row.name: _Found(parsed(row, env[row.variable]), Origin(Source.ENVIRONMENT, row.variable))
        for row in FIELDS
        if env.get(row.variable, "").strip()
    }


_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


def parsed(row: Field, text: str) -> object:
    """A variable's text as the kind of value that its setting has.

    Raises:
        ConfigError: The text cannot be read as that.
    """
    text = text.strip()
    try:
        match row.kind:
            case "bool":
                return _parsed_bool(text)
            case "int":
                return int(text)
            case "float":
                return float(text)
            case "paths":
                return [part for part in text.split(os.pathsep) if part]
            case "hosts" | "names":
                return [part.strip() for part in text.split(",") if part.strip()]
            case "secret":
                return Secret(text, row.variable)
            case "headers":
                return _parsed_headers(text)
            case _:
                return text
    except ValueError:
        if row.hidden:
            remedy = "Write it as 'Name: text'; separate several by ';'."
            raise ConfigError(f"{row.variable} cannot be used.", next_step=remedy) from None
        wanted = {"bool": "true or false", "int": "a whole number", "float": "a number"}
        raise ConfigError(
            f"{row.variable}={text!r} cannot be used.",
            next_step=f"Set it to {wanted[row.kind]}, or unset it.",
        ) from None


def _parsed_bool(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(text)


def _parsed_headers(text: str) -> dict[str, str]:
    pairs = [part.partition(":") for part in text.split(";") if part.strip()]
    if not all(name.strip() and colon for name, colon, _ in pairs):
        raise ValueError(text)
    return {name.strip(): value.strip() for name, _, value in pairs}
