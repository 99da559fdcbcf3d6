"""Settings without those that cannot be used, and how each of these is undone."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from ovagent_jupyter.config.schema import FIELDS, AgentConfig
from ovagent_jupyter.config.sources import Resolved, resolve
from ovagent_jupyter.config.values import written
from ovagent_jupyter.errors import ConfigError
from ovagent_jupyter.storage import paths


@dataclass(frozen=True, slots=True)
class Usable:
    """Settings that can be used, and what is wrong with the others."""

    resolved: Resolved
    """What holds without the settings that cannot be used."""
    problems: tuple[ConfigError, ...] = ()
    """One for each of them; its next step says how to undo it."""


def usable_settings(
    traits: Mapping[str, object] | None = None,
    *,
    profile: Mapping[str, object] | None = None,
    granted: Mapping[str, object] | None = None,
) -> Usable:
    """The settings of this process; what cannot be used is left out and told.

    Args:
        traits: Traitlets set in the session, under their flat names.
        profile: Traitlets set in the configuration file of the IPython profile.
        granted: What the user said yes to in this session.
    """
    sieve = _Sieve([])
    path = paths.config_file(os.environ)
    file = path if sieve.passes("", file=path) else None
    env = {
        row.variable: text
        for row in FIELDS
        if (text := os.environ.get(row.variable))
        and sieve.passes(f"Or unset {row.variable}.", env={row.variable: text})
    }
    own = {
        name: value
        for name, value in (profile or {}).items()
        if sieve.passes(f"It is OVAgent.{name} of your profile.", profile={name: value})
    }
    rest = partial(resolve, granted=granted, profile=own, env=env, file=file, notebook=True)
    given = {
        name: value
        for name, value in (traits or {}).items()
        if sieve.passes(f"Undo it: {undo_of(name)}", rest, traits={name: value})
    }
    if not sieve.passes("", rest, traits=given):
        return Usable(resolve(), tuple(sieve.problems))
    return Usable(rest(traits=given), tuple(sieve.problems))


@dataclass(frozen=True, slots=True)
class _Sieve:
    """Tries settings, and keeps what is wrong with those that cannot be used."""

    problems: list[ConfigError]

    def passes(
        self, undo: str, attempt: Callable[..., Resolved] = resolve, **sources: object
    ) -> bool:
        """Whether settings can be used; ``undo`` is told besides the error's own next step."""
        try:
            attempt(**sources)
        except ConfigError as error:
            next_step = " ".join(filter(None, (error.next_step, undo)))
            self.problems.append(ConfigError(error.what, why=error.why, next_step=next_step))
            return False
        return True


def undo_of(name: str) -> str:
    """What a user types to have a traitlet of ``OVAgent`` at its default again."""
    row = next(row for row in FIELDS if row.name == name)
    default = row.value_in(AgentConfig())
    if row.kind == "size" and isinstance(default, int):
        shown = repr(written(default))
    elif isinstance(default, str):
        shown = repr(str(default))
    elif isinstance(default, bool | int | float):
        shown = repr(default)
    elif isinstance(default, tuple):
        shown = "[]"
    else:
        shown = "None" if row.kind in {"int", "float", "secret", "headers"} else "''"
    return f"%config OVAgent.{name} = {shown}"
