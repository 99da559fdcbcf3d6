"""What is written on a ``%ovagent`` or ``%%ovagent`` line, parsed."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import NoReturn, cast

from ovagent_jupyter.agent.turn import Mode
from ovagent_jupyter.config.options import (
    CHOICES,
    SETTING_OF,
    add_model_options,
    add_options,
    given_options,
    model_option_values,
)
from ovagent_jupyter.errors import ConfigError

MODES: dict[str, str] = {
    "run": "plan, show the code, run it in the child kernel (default)",
    "plan": "show the steps only",
    "code": "show the steps and the code, run nothing",
    "ask": "have a model answer in words; nothing runs",
}
COMMANDS: dict[str, str] = {
    "help": "what you can type",
    "status": "session, child kernel, files, what can be undone",
    "doctor": "check this machine and the keys of models: doctor [live] also asks services",
    "models": "models with window, price and abilities: models [PART OF A NAME]",
    "usage": "what models have cost: by model, day and session",
    "policy": "what the code may use: policy [NAME [VALUE]], as in policy read ~/data",
    "history": "the last turns, newest last: history [N]",
    "diff": "what the last turn changed, in full, or the step N steps back: diff [N]",
    "undo": "put the variables back as they were before the last turn, or the last N: undo [N]",
    "redo": "take back the last undo, or the last N: redo [N]",
    "checkpoint": "keep your data as it is now, or list what is kept: checkpoint [NAME]",
    "restore": "bring back the data of a checkpoint: restore NAME",
    "session": "show the session, or go on in another one: session [NAME]",
    "traceback": "the full traceback of the last failure",
    "restart": "replace the child kernel by a fresh one",
    "version": "versions of the parts",
}
"""Every ``%ovagent`` command with its one line of help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """One request with its options."""

    text: str
    mode: Mode = "run"
    session: str = ""
    """Name of the session to go on in; empty for the current one."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Settings given as options, by their flat names; those of the sandbox as texts."""
    inputs: tuple[str, ...] = ()
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Name to bind → name in the child."""
    timeout: float | None = None
    dry_run: bool = False
    """Say what it would cost, and ask no model."""
    into_next: bool = False
    """Put the code into the next cell."""
    show_help: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """One ``%ovagent`` command with what follows it."""

    name: str
    argument: str = ""


DROP = "drop"
"""Typed after ``checkpoint`` to free one."""
LIVE = "live"
"""Typed after ``doctor`` to ask model services too."""
RESET = "reset"
"""Typed after ``policy`` to take back what was typed."""


class _Parser(argparse.ArgumentParser):
    """A parser that raises our error instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(
            f"The line was not understood: {message}.", next_step="See %%ovagent --help."
        )


def parser() -> argparse.ArgumentParser:
    """The parser of the options of a request; also the source of ``--help`` and completion."""
    made = _Parser(
        prog="%%ovagent",
        description="Ask for an analysis in words; the request stands below the line.",
        add_help=False,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="modes:\n" + "\n".join(f"  {name:<6}{text}" for name, text in MODES.items()),
    )
    add = made.add_argument
    add("-s", "--session", metavar="NAME", default="", help="go on in this session")
    add("-m", "--model", metavar="MODEL", help="who answers; 'offline' is the built-in planner")
    add("--dry-run", action="store_true", help="say what asking a model would cost; ask nothing")
    add_model_options(made)
    add("-i", "--input", metavar="A,B", default="", help="variables handed to the child")
    add(
        "-o",
        "--output",
        metavar="A,NEW=B",
        default="",
        help="variables brought back, NEW=B under another name (default: what changed)",
    )
    add("--timeout", type=float, metavar="S", help="seconds that one step may run")
    add("--next", action="store_true", help="put the code into the next cell; run nothing")
    add("-h", "--help", action="store_true", help="show this")
    add_options(made, "what gives the code more than %ovagent policy shows is asked for first")
    return made


def parse_cell(line: str, body: str) -> RunOptions:
    """The options on the line of a ``%%ovagent`` cell, and the request below it.

    Words of the line that are no options come before the body's text.

    Raises:
        ConfigError: An option is unknown or has a value that cannot be used.
    """
    # Split at spaces only: quotes in a request belong to the request.
    options, words = parser().parse_known_args(line.split())
    unknown = [word for word in words if re.match("--?[A-Za-z]", word)]
    if unknown:
        raise _unknown_option(unknown[0])
    mode: Mode = "run"
    if words and words[0] in MODES:
        mode = cast(Mode, words.pop(0))
    if options.next:
        mode = "code"
    return RunOptions(
        text="\n".join(part for part in (" ".join(words), body.strip()) if part),
        mode=mode,
        session=options.session,
        settings=_settings(options),
        inputs=tuple(_names(options.input)),
        outputs=_outputs(options.output),
        timeout=_positive(options.timeout),
        dry_run=options.dry_run,
        into_next=options.next,
        show_help=options.help,
    )


def parse_line(line: str) -> Command | RunOptions:
    """A ``%ovagent`` line: a command, or a request in words.

    Raises:
        ConfigError: One unknown word that is near to a command, or a bad option.
    """
    text = line.strip()
    if text in {"", "-h", "--help"}:
        return Command("help")
    first, _, rest = text.partition(" ")
    if first in COMMANDS:
        return Command(first, rest.strip())
    if not rest and first not in MODES:
        near = get_close_matches(first, COMMANDS, n=1)
        if near:
            raise ConfigError(
                f"There is no command {first!r}.", next_step=f"Did you mean %ovagent {near[0]}?"
            )
    return parse_cell(text, "")


def _settings(options: argparse.Namespace) -> dict[str, object]:
    model = {} if options.model is None else {"model": options.model}
    return {**model, **model_option_values(options), **given_options(options)}


def _names(text: str) -> list[str]:
    names = [name.strip().lstrip("@") for name in text.split(",") if name.strip()]
    for name in names:
        _check_name(name)
    return names


def _outputs(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    found = {left.strip(): (right or left).strip() for left, _, right in pairs}
    for left, right in found.items():
        _check_name(left)
        _check_name(right)
    return found


def _check_name(name: str) -> None:
    if not name.isidentifier():
        raise ConfigError(
            f"{name!r} is not the name of a variable.",
            next_step="Write names separated by commas, as in -i adata,markers.",
        )


def _positive(seconds: float | None) -> float | None:
    if seconds is not None and not seconds > 0:
        raise ConfigError(
            f"--timeout {seconds:g} cannot be used.", next_step="Give seconds above 0."
        )
    return seconds


def _unknown_option(option: str) -> ConfigError:
    known = [name for action in parser()._actions for name in action.option_strings]
    near = get_close_matches(option, known, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    return ConfigError(f"There is no option {option!r}.", next_step=f"{hint}See %%ovagent --help.")


def policy_completions(text: str, words: Sequence[str]) -> list[str]:
    """What can follow ``%ovagent policy``: a name, then what it may be set to.

    Args:
        text: The word being typed.
        words: The words between ``policy`` and it.
    """
    choices = CHOICES.get(words[0], ()) if words else (*SETTING_OF, RESET)
    return [choice for choice in choices if choice.startswith(text)]


def completions(text: str, words: Sequence[str], checkpoints: Sequence[str] = ()) -> list[str]:
    """What can follow on a line: commands and modes first, then options.

    Args:
        text: The word being typed.
        words: The words before it, without ``%ovagent`` itself.
        checkpoints: The names of those that there are.
    """
    if list(words) in (["restore"], ["checkpoint"], ["checkpoint", DROP]):
        also = [DROP] if list(words) == ["checkpoint"] and checkpoints else []
        return [name for name in (*checkpoints, *also) if name.startswith(text)]
    if words[:1] == ["policy"]:
        return policy_completions(text, words[1:])
    options = [n for a in parser()._actions for n in a.option_strings if n.startswith("--")]
    choices = [*COMMANDS, *MODES, *options] if not words else options
    return [choice for choice in choices if choice.startswith(text)]
