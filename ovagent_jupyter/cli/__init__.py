"""The command line: ``ovagent run|plan|ask|demo|doctor|models|usage|history|sessions``."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence

from ovagent_jupyter.errors import OVAgentError, TurnInterrupted


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: done; 1: the code of a turn failed; 2: a bad request, option or file; 130: Ctrl-C.
    """
    options = parser().parse_args(arguments)
    try:
        from ovagent_jupyter.cli import commands

        run = getattr(commands, options.command)
        return int(run(options))
    except OVAgentError as error:
        print("\n".join(error.lines()), file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(stop.note if isinstance(stop, TurnInterrupted) else "Stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read along has enough, as in `ovagent history | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; also the source of the reference page."""
    from ovagent_jupyter import __version__

    made = argparse.ArgumentParser(
        prog="ovagent",
        description="An analysis agent for omics data: say what you want in words.",
    )
    made.add_argument("--version", action="version", version=f"ovagent_jupyter {__version__}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", help="answer a request about a data file"))
    _add_plan(commands.add_parser("plan", help="show the steps for a request, run nothing"))
    _add_ask(commands.add_parser("ask", help="have a model answer a question in words"))
    _add_demo(commands.add_parser("demo", help="run the quickstart notebook on real cells"))
    doctor = commands.add_parser("doctor", help="check this machine")
    doctor.add_argument("--live", action="store_true", help="ask model services what they serve")
    models = commands.add_parser("models", help="models with window, price and abilities")
    models.add_argument("part", nargs="?", default="", help="a part of a name")
    usage = commands.add_parser("usage", help="what models have cost")
    usage.add_argument("by", nargs="?", default="", help="model (default), day or session")
    history = commands.add_parser("history", help="the last turns of all sessions")
    history.add_argument("number", nargs="?", type=_count, default=10, help="how many (10)")
    commands.add_parser("sessions", help="the sessions that were kept, latest first")
    return made


def _add_request(made: argparse.ArgumentParser, words: str = "what to do, in words") -> None:
    made.add_argument("request", nargs="+", help=words)
    made.add_argument("--data", metavar="FILE", help=".h5ad, 10x .h5, 10x folder, .h5mu")


def _add_run(made: argparse.ArgumentParser) -> None:
    _add_request(made)
    made.add_argument("--out", metavar="FILE", help="write the changed data here (.h5ad)")
    made.add_argument("--notebook", metavar="FILE", help="write what ran here (.ipynb)")
    made.add_argument("--figures", metavar="DIR", help="write the figures here (.png)")
    made.add_argument("--force", action="store_true", help="replace files that exist")
    made.add_argument("--timeout", type=_seconds, metavar="S", help="seconds that a step may run")
    from ovagent_jupyter.config.options import add_options

    add_options(made, "what the code may use, besides what the settings file says")


def _add_plan(made: argparse.ArgumentParser) -> None:
    _add_request(made)
    made.add_argument("--code", action="store_true", help="show the code too")


def _add_ask(made: argparse.ArgumentParser) -> None:
    _add_request(made, "what you want to know; - reads it from the standard input")
    made.add_argument("-m", "--model", metavar="MODEL", help="who answers; see ovagent models")
    made.add_argument("--dry-run", action="store_true", help="say what it would cost; ask nothing")
    from ovagent_jupyter.config.options import add_model_options

    add_model_options(made)


def _add_demo(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--out", metavar="DIR", default="demo-output", help="where to write (demo-output)"
    )


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


def _seconds(text: str) -> float:
    seconds = float(text)
    if not (seconds > 0 and math.isfinite(seconds)):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return seconds
