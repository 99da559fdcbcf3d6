"""What is written on a ``%ovagent`` or ``%%ovagent`` line, parsed."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import NoReturn, cast, get_args

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
from ovagent_jupyter.storage.usage import By

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
    """Say what asking a model would cost, or show the steps; ask and run nothing."""
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
    add("--dry-run", action="store_true", help="ask: say what it would cost; else show the steps")
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

    Words of the line that are no options come before the body's text. The value of an option may
    stand in quotes, as in a shell; quotes and apostrophes in a request belong to the request.

    Raises:
        ConfigError: An option is unknown, has a value that cannot be used, or stands with another
            that it contradicts.
    """
    options, words = parser().parse_known_args(list(_parts(line)))
    unknown = [word for word in words if re.match("--?[A-Za-z]", word)]
    if unknown:
        raise _unknown_option(unknown[0])
    mode: Mode = "run"
    if words and words[0] in MODES:
        mode = cast(Mode, words.pop(0))
    if options.next and mode == "ask":
        raise ConfigError(
            "--next cannot stand with ask.",
            why="A model answers a question in words; there is no code for the next cell.",
            next_step="Leave out one of the two.",
        )
    if options.next:
        mode = "code"
    elif options.dry_run and mode == "run":
        mode = "plan"
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


_OPTION = re.compile(r"(--?[A-Za-z][\w-]*)(=|\s+|$)")
_SHELL_WORD = re.compile(
    r"""(?: '[^']*' | "(?:\\.|[^"\\])*" | \\. | [^\s'"\\] )+ (?!\S)""", re.VERBOSE | re.DOTALL
)


def _parts(line: str) -> Iterator[str]:
    """The words of a line, each value of an option read as a shell reads it."""
    takes_value = {n for a in parser()._actions if a.nargs is None for n in a.option_strings}
    rest = line.strip()
    while rest:
        option = _OPTION.match(rest)
        if option is None or option[1] not in takes_value:
            word, rest = _first_word(rest)
            yield word
        elif option[2] == "=":
            value, rest = _value(option[1], rest[option.end() :])
            yield f"{option[1]}={value}"
        else:
            yield option[1]
            rest = rest[option.end() :]
            if rest:
                value, rest = _value(option[1], rest)
                yield value


def _value(option: str, text: str) -> tuple[str, str]:
    """The value at the start of a text, without its quotes, and what comes after it.

    Raises:
        ConfigError: A quote is not closed.
    """
    found = _SHELL_WORD.match(text)
    if found is not None:
        return "".join(shlex.split(found[0])), text[found.end() :].lstrip()
    if text[:1] in {"'", '"'}:
        raise ConfigError(
            f"The quote after {option} is not closed.", next_step=f"As in {option} 'two words'."
        )
    return ("", text.lstrip()) if text[:1].isspace() else _first_word(text)


def _first_word(text: str) -> tuple[str, str]:
    """The text up to the first space, and what comes after the space."""
    found = re.match(r"\S*", text)
    assert found is not None  # it may be empty
    return found[0], text[found.end() :].lstrip()


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
    """What can follow on a line: commands and modes first, then options and their values.

    Args:
        text: The word being typed.
        words: The words before it, without ``%ovagent`` itself.
        checkpoints: The names of those that there are.
    """
    if words[:1] == ["policy"]:
        return policy_completions(text, words[1:])
    command = bool(words) and words[0] in COMMANDS
    found = _after_command(words, checkpoints) if command else _in_request(words)
    return [choice for choice in found if choice.startswith(text)]


def _after_command(words: Sequence[str], checkpoints: Sequence[str]) -> Sequence[str]:
    """What can follow a command; nothing, where one takes no names."""
    match list(words):
        case ["restore"] | ["checkpoint", "drop"]:
            return checkpoints
        case ["checkpoint"]:
            return (*checkpoints, DROP) if checkpoints else ()
        case ["usage"]:
            return get_args(By)
        case ["doctor"]:
            return (LIVE,)
        case ["models"]:
            return _models()
        case _:
            return ()


def _in_request(words: Sequence[str]) -> Sequence[str]:
    """What can follow in a request: the values of an option, else the options."""
    actions = parser()._actions
    last = words[-1] if words else ""
    option = next((a for a in actions if last in a.option_strings and a.nargs is None), None)
    if option is not None:
        takes_model = option.dest in {"model", "backups"}
        return _models() if takes_model else tuple(option.choices or ())
    options = [name for a in actions for name in a.option_strings if name.startswith("--")]
    return options if words else [*COMMANDS, *MODES, *options]


def _models() -> Sequence[str]:
    """The models that are known by name."""
    from ovagent_jupyter.agent.model_report import model_names

    return model_names()
