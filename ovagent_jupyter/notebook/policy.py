"""``%ovagent policy``: what is granted to the code, what holds it back, and changing that."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from ovagent_jupyter.config.loosening import loosens, written_value
from ovagent_jupyter.config.options import LISTS, SETTING_OF, option_value
from ovagent_jupyter.config.sandbox import SandboxSpec
from ovagent_jupyter.config.schema import FIELDS, AgentConfig, Field
from ovagent_jupyter.config.values import written
from ovagent_jupyter.errors import ConfigError, SandboxDeniedError
from ovagent_jupyter.notebook.arguments import RESET
from ovagent_jupyter.notebook.shown import Shown
from ovagent_jupyter.storage import paths

if TYPE_CHECKING:
    from ovagent_jupyter.runtime import Runtime

NAMES: Mapping[str, str] = {**SETTING_OF, "force": "sandbox_force"}
"""What is typed after ``policy``, and the setting it stands for."""
NOTHING = "none"
"""Typed to empty a list."""
_ASKED: Mapping[str, str] = {
    "sandbox_read": "Let the code read {value}?",
    "sandbox_write": "Let the code read and change {value}?",
    "sandbox_network": "Let the code reach {value} over the network?",
}
_ROWS = {row.name: row for row in FIELDS}
Ask = Callable[[str], bool]


class Policy:
    """The settings of the sandbox in this kernel, as the user types them.

    What tightens takes effect at once. What gives the code more is asked for first, and kept for
    this kernel. Either way the next request gets a child that is started with it.

    Args:
        runtime: Holds what was said yes to.
        traits: Gives the settings made as traitlets.
        ask: Asks the user for a yes.
    """

    def __init__(
        self, runtime: Runtime, traits: Callable[[], Mapping[str, object]], ask: Ask
    ) -> None:
        self._runtime = runtime
        self._traits = traits
        self._ask = ask

    def run(self, argument: str) -> Shown:
        """Show all, show one, or set one.

        Raises:
            ConfigError: There is no such setting, or it cannot have that value.
            SandboxDeniedError: It gives the code more, and nobody can be asked.
        """
        word, _, text = argument.strip().partition(" ")
        if not word:
            return self._table()
        if word == RESET:
            self._runtime.granted.clear()
            return Shown("What was typed in this kernel is taken back")
        if word not in NAMES:
            raise _unknown(word)
        if text.strip():
            name = NAMES[word]
            if not self._set(name, self._value(name, (text.strip(),))):
                return Shown(f"Nothing was changed: {self._said(word)}")
        return Shown(self._said(word))

    def admit(self, flags: Mapping[str, object]) -> dict[str, object]:
        """The flags of one cell that only tighten; for others the user is asked, once a kernel.

        Raises:
            ConfigError: A value cannot be used.
            SandboxDeniedError: One gives the code more, and nobody can be asked, or said no.
        """
        left: dict[str, object] = {}
        for name, given in flags.items():
            if not isinstance(given, tuple):
                left[name] = given
                continue
            value = self._value(name, given)
            if not loosens(name, value, self._config()):
                # A grant that is there already is not made narrower by naming a part of it.
                if name not in LISTS:
                    left[name] = value
            elif not self._set(name, value):
                raise SandboxDeniedError(f"{_word(name)} was not allowed; nothing was run.")
        return left

    def _set(self, name: str, value: object) -> bool:
        """Keep a value, after a yes where it gives more; True when it is kept."""
        config = self._config()
        if loosens(name, value, config):
            _check(name, value)
            if not self._ask(_question(name, value, config)):
                return False
        elif value == _ROWS[name].value_in(config):
            return True
        self._runtime.granted[name] = value
        return True

    def _value(self, name: str, texts: Sequence[str]) -> object:
        if name in LISTS and tuple(texts) == (NOTHING,):
            return ()
        return option_value(_ROWS[name], texts, self._config())

    def _config(self) -> AgentConfig:
        return self._runtime.settings(self._traits()).config

    def _said(self, word: str) -> str:
        """One setting in words: value and where it comes from."""
        resolved = self._runtime.settings(self._traits())
        row = _ROWS[NAMES[word]]
        return f"{word}: {shown(row, resolved.config)} ({resolved.provenance[row.name]})"

    def _table(self) -> Shown:
        resolved = self._runtime.settings(self._traits())
        session = self._runtime.current
        rows = [
            (word, shown(_ROWS[name], resolved.config), str(resolved.provenance[name]))
            for word, name in NAMES.items()
        ]
        now = session.sandbox.label if session else ""
        rows.insert(0, ("in force", now or "nothing runs yet", ""))
        if session is not None and session.named:
            rows.append(("also read", ", ".join(map(str, session.named)), "named in a request"))
        note = (
            "Change one with %ovagent policy NAME VALUE, as in policy read ~/data or policy memory "
            "8G; what gives the code more is asked for. %ovagent policy reset takes back what was "
            f"typed. To keep it: {paths.config_file(os.environ)}."
        )
        return Shown("Sandbox policy", ("what", "is", "from"), tuple(rows), note)


def shown(row: Field, config: AgentConfig) -> str:
    """The value in force as a reader knows it: ``8G``, ``nothing``, ``80 % of the machine's``."""
    value = row.value_in(config)
    if row.kind == "size" and isinstance(value, int):
        return written(value)
    if value is None:
        return _UNSET.get(row.name, "no cap")
    return written_value(row, config)


_UNSET: Mapping[str, str] = {
    "sandbox_memory": "80 % of the machine's",
    "sandbox_file_size": "as much as disk",
}


def _check(name: str, value: object) -> None:
    """Refuse what is never granted, before anybody is asked for it."""
    from ovagent_jupyter.runtime import own_folders

    if name in LISTS:
        spec = SandboxSpec(**{_ROWS[name].attribute: value})  # type: ignore[arg-type]
        spec.check(Path.home(), own_folders())


def _question(name: str, value: object, config: AgentConfig) -> str:
    row = _ROWS[name]
    if name in _ASKED and isinstance(value, tuple):
        held = row.value_in(config)
        assert isinstance(held, tuple)
        new = [item for item in value if item not in set(map(str, held))]
        return _ASKED[name].format(value=", ".join(new))
    before = shown(row, config)
    return f"This gives the code more: {_word(name)} from {before} to {value}. Do it?"


def _word(name: str) -> str:
    """What a setting is called after ``policy``."""
    return next(word for word, setting in NAMES.items() if setting == name)


def _unknown(word: str) -> ConfigError:
    near = get_close_matches(word, [*NAMES, RESET], n=1)
    known = ", ".join([*NAMES, RESET])
    return ConfigError(
        f"The policy has no {word!r}.",
        next_step=f"Did you mean %ovagent policy {near[0]}?" if near else f"There are: {known}.",
    )
