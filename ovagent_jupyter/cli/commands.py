"""What each ``ovagent`` command does; it returns the exit code."""

from __future__ import annotations

import argparse
import base64
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovagent_jupyter.agent.turn import Turn
from ovagent_jupyter.config.options import model_option_values, option_values, require_words
from ovagent_jupyter.errors import DataError, StorageError
from ovagent_jupyter.events import Category
from ovagent_jupyter.reporters import AnswerReporter, PrintReporter, plan_text
from ovagent_jupyter.runtime import Agent, settings_in_force
from ovagent_jupyter.runtime import plan as plan_request
from ovagent_jupyter.runtime.usable import usable_settings

if TYPE_CHECKING:
    from ovagent_jupyter.agent.model_report import Report
    from ovagent_jupyter.config.schema import AgentConfig


def run(options: argparse.Namespace) -> int:
    """``ovagent run``: one turn on a file."""
    request = _words(options)
    out = _target(options.out, ".h5ad", options)
    notebook = _target(options.notebook, ".ipynb", options)
    figures = _figure_directory(options.figures)
    flags: dict[str, Any] = option_values(options, settings_in_force().config)
    reporter = PrintReporter(leave_out=(Category.TURN_STARTED, Category.TURN_FAILED))
    ask = _ask if sys.stdin is not None and sys.stdin.isatty() else None
    with Agent(reporter=reporter, ask=ask, **flags) as agent:
        turn = agent.run(request, options.data, timeout=options.timeout)
        if figures is not None:
            _write_figures(turn, figures)
        if notebook is not None:
            _write_notebook(agent.notebook, notebook)
        if turn.error is not None:
            _say("\n".join(turn.error.lines()), error=True)
            return 1
        if out is not None:
            _write_data(turn, out)
        elif turn.bindings:
            _say("The changed data was not written; --out FILE keeps it.")
    return 0


def plan(options: argparse.Namespace) -> int:
    """``ovagent plan``: the steps for a request."""
    made = plan_request(_words(options), options.data)
    _say(plan_text(made))
    if options.code:
        _say(f"\n{made.code}")
    return 0


def ask(options: argparse.Namespace) -> int:
    """``ovagent ask``: a question to a model, answered in words."""
    question = _question(options)
    model = {} if options.model is None else {"model": options.model}
    flags: dict[str, Any] = {**model, **model_option_values(options)}
    told = (Category.TURN_STARTED, Category.TURN_FAILED)
    with Agent(reporter=AnswerReporter(None, sys.stderr, leave_out=told), **flags) as agent:
        turn = agent.ask(question, options.data, dry_run=options.dry_run)
    return int(turn.error is not None)


def demo(options: argparse.Namespace) -> int:
    """``ovagent demo``: the quickstart notebook, headless."""
    from ovagent_jupyter.cli.demo import run_demo

    return run_demo(Path(options.out))


def doctor(options: argparse.Namespace) -> int:
    """``ovagent doctor``: what works on this machine."""
    from ovagent_jupyter.agent.doctor import Check
    from ovagent_jupyter.loop_thread import LoopThread
    from ovagent_jupyter.runtime import examine_machine

    loop = LoopThread()
    usable = usable_settings()
    checks = [
        Check("✗", "setting", f"{problem.what} {problem.why}".strip(), problem.next_step)
        for problem in usable.problems
    ]
    checks += loop.run(examine_machine(usable.resolved.config, live=options.live))
    loop.close()
    width = max(len(check.name) for check in checks)
    for check in checks:
        _say(f"{check.mark} {check.name:<{width}}  {check.finding}")
        if check.remedy:
            _say(f"  {'':<{width}}  → {check.remedy}")
    return int(any(check.mark == "✗" for check in checks))


def models(options: argparse.Namespace) -> int:
    """``ovagent models``: the models that are known by name."""
    from ovagent_jupyter.agent.model_report import known_models

    report = known_models(options.part)
    _say_table(report)
    return int(not report.rows)


def usage(options: argparse.Namespace) -> int:
    """``ovagent usage``: what models have cost."""
    from ovagent_jupyter.agent.model_report import used_models
    from ovagent_jupyter.storage import paths

    storage = _settings().execution.storage_dir
    _say_table(used_models(paths.sessions_dir(os.environ, storage), options.by))
    return 0


def history(options: argparse.Namespace) -> int:
    """``ovagent history``: the last turns."""
    from ovagent_jupyter.storage.history import SessionHistory

    entries = SessionHistory().get_recent(options.number)
    if not entries:
        _say("No turns yet.")
    for entry in entries:
        mark = "✓" if entry.success else "✗"
        when = f"{entry.timestamp.astimezone():%Y-%m-%d %H:%M}"
        _say(f"{when} {mark} {_line(entry.request)} → {_line(entry.result_summary)}")
    return 0


def sessions(_options: argparse.Namespace) -> int:
    """``ovagent sessions``: the sessions that were kept."""
    from ovagent_jupyter.storage import paths
    from ovagent_jupyter.storage.session_log import session_ids

    directory = paths.sessions_dir(os.environ, _settings().execution.storage_dir)
    for session_id in session_ids(directory):
        notebook = directory / f"{session_id}.ipynb"
        _say(f"{session_id}  {notebook if notebook.is_file() else '(no turn has ended)'}")
    return 0


def _settings() -> AgentConfig:
    """The settings for what only reads; one that cannot be used is told, and does not end it."""
    usable = usable_settings()
    for problem in usable.problems:
        _say("\n".join(problem.lines()), error=True)
    return usable.resolved.config


def _words(options: argparse.Namespace) -> str:
    """The request, with or without quotes around it.

    Raises:
        ConfigError: It is empty.
    """
    words = " ".join(options.request)
    return require_words(words, "request", "Write it after the command, in words.")


def _question(options: argparse.Namespace) -> str:
    """The question; ``-`` is what the standard input says.

    Raises:
        ConfigError: It is empty.
    """
    words = " ".join(options.request)
    if words == "-":
        words = sys.stdin.buffer.read().decode(errors="replace") if sys.stdin is not None else ""
    return require_words(words, "question", "Write it after the command, or pipe it into `-`.")


def _target(name: str | None, suffix: str, options: argparse.Namespace) -> Path | None:
    """A file to be written, checked before anything runs: nobody wants to lose an hour.

    Raises:
        StorageError: It is the input, exists already, has another ending, or has no folder.
    """
    if name is None:
        return None
    path = Path(name)
    if path.suffix != suffix:
        raise StorageError(
            f"{name} does not end in {suffix}.", next_step=f"As in {path.stem}{suffix}."
        )
    if options.data and _is_same_file(path, Path(options.data)):
        raise StorageError(
            f"{name} is the input file; it is never overwritten.",
            next_step="Give another name.",
        )
    if path.is_dir():
        raise StorageError(f"{name} is a folder.", next_step="Give the name of a file.")
    if path.exists() and not options.force:
        raise StorageError(f"{name} exists already.", next_step="Give another name, or --force.")
    _check_folder(name, path.absolute().parent)
    return path


def _is_same_file(one: Path, other: Path) -> bool:
    """Whether two names lead to one file: links and ``..`` are followed."""
    try:
        return one.samefile(other)
    except OSError:  # one of them does not exist
        return one.resolve() == other.resolve()


def _check_folder(name: str, folder: Path) -> None:
    if not folder.is_dir():
        raise StorageError(
            f"The folder of {name} does not exist.", next_step="Make it first, or name another."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"{name} cannot be written.", next_step="Name a folder of your own.")


def _figure_directory(name: str | None) -> Path | None:
    """The folder for figures, made now so that a bad name is told before anything runs.

    Raises:
        StorageError: It cannot be made.
    """
    if name is None:
        return None
    path = Path(name)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritten(path, error) from error
    _check_folder(name, path)
    return path


def _write_data(turn: Turn, out: Path) -> None:
    """Write the data beside the target, then move it there: a full disk leaves no half file.

    Raises:
        DataError: There is no data to write, or h5ad cannot hold it.
    """
    if turn.data is None:
        raise DataError("There is no data to write.", next_step="Give --data FILE.")
    scratch = out.with_name(f".{out.name}.part")
    try:
        turn.data.write_h5ad(scratch)  # type: ignore[attr-defined]  # an AnnData by now
        scratch.replace(out)
    except Exception as error:
        scratch.unlink(missing_ok=True)
        raise DataError(
            f"The result cannot be written to {out}.",
            why=" ".join(f"{type(error).__name__}: {error}".split())[:200],
            next_step="The session notebook has all code; run it to get the result again.",
        ) from error
    _say(f"Data: {out}")


def _write_notebook(kept: Path, target: Path) -> None:
    """Copy the session's notebook to where the user wants it.

    Raises:
        StorageError: It was not kept, or cannot be copied.
    """
    try:
        shutil.copyfile(kept, target)
    except OSError as error:
        raise _unwritten(target, error) from error
    _say(f"Notebook of what ran: {target}")


def _write_figures(turn: Turn, directory: Path) -> None:
    for name, image in _figures(turn):
        try:
            (directory / name).write_bytes(image)
        except OSError as error:
            raise _unwritten(directory / name, error) from error
        _say(f"Figure: {directory / name}")


def _unwritten(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{path} cannot be written.",
        why=f"{error.filename or path}: {error.strerror or error}",
        next_step="Free space or permissions there, or name another place.",
    )


def _figures(turn: Turn) -> Iterable[tuple[str, bytes]]:
    number = 0
    for step in turn.steps:
        for output in step.outputs:
            if "image/png" in output.data:
                number += 1
                yield f"{number:02}-{step.id}.png", base64.b64decode(output.data["image/png"])


def _say_table(report: Report) -> None:
    _say(report.title)
    if not report.rows:
        return
    table = (report.head, *report.rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        _say("  ".join(map(str.ljust, row, widths)).rstrip())
    if report.note:
        _say(report.note)


def _ask(question: str) -> bool:
    """Ask on the terminal; anything but a yes is a no."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        return False


def _line(text: str, limit: int = 100) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def _say(text: str, *, error: bool = False) -> None:
    stream = sys.stderr if error else sys.stdout
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), file=stream, flush=True)
