"""What each ``ovagent`` command does; it returns the exit code."""

from __future__ import annotations

import argparse
import base64
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from ovagent_jupyter.agent.turn import Turn
from ovagent_jupyter.errors import DataError, StorageError
from ovagent_jupyter.events import Category
from ovagent_jupyter.reporters import PrintReporter, plan_text
from ovagent_jupyter.runtime import Agent
from ovagent_jupyter.runtime import plan as plan_request


def run(options: argparse.Namespace) -> int:
    """``ovagent run``: one turn on a file."""
    out = _target(options.out, options)
    notebook = _target(options.notebook, options)
    figures = Path(options.figures) if options.figures else None
    flags = {} if options.fallback is None else {"sandbox_fallback_policy": options.fallback}
    reporter = PrintReporter(leave_out=(Category.TURN_STARTED, Category.TURN_FAILED))
    with Agent(reporter=reporter, **flags) as agent:
        turn = agent.run(options.request, options.data, timeout=options.timeout)
        if figures is not None:
            _write_figures(turn, figures)
        if notebook is not None and agent.notebook.is_file():
            shutil.copyfile(agent.notebook, notebook)
            _say(f"Notebook of what ran: {notebook}")
        if turn.error is not None:
            _say("\n".join(turn.error.lines()), error=True)
            return 1
        if out is not None:
            _write_data(turn, out)
    return 0


def plan(options: argparse.Namespace) -> int:
    """``ovagent plan``: the steps for a request."""
    made = plan_request(options.request, options.data)
    _say(plan_text(made))
    if options.code:
        _say(f"\n{made.code}")
    return 0


def demo(options: argparse.Namespace) -> int:
    """``ovagent demo``: the quickstart notebook, headless."""
    from ovagent_jupyter.cli.demo import run_demo

    return run_demo(Path(options.out))


def doctor(_options: argparse.Namespace) -> int:
    """``ovagent doctor``: what works on this machine."""
    from ovagent_jupyter.loop_thread import LoopThread
    from ovagent_jupyter.runtime import examine_machine, settings_in_force

    loop = LoopThread()
    checks = loop.run(examine_machine(settings_in_force().config))
    loop.close()
    width = max(len(check.name) for check in checks)
    for check in checks:
        _say(f"{check.mark} {check.name:<{width}}  {check.finding}")
        if check.remedy:
            _say(f"  {'':<{width}}  → {check.remedy}")
    return int(any(check.mark == "✗" for check in checks))


def history(options: argparse.Namespace) -> int:
    """``ovagent history``: the last turns."""
    from ovagent_jupyter.storage.history import SessionHistory

    for entry in SessionHistory().get_recent(options.number):
        mark = "✓" if entry.success else "✗"
        when = f"{entry.timestamp.astimezone():%Y-%m-%d %H:%M}"
        _say(f"{when} {mark} {_line(entry.request)} → {_line(entry.result_summary)}")
    return 0


def sessions(_options: argparse.Namespace) -> int:
    """``ovagent sessions``: the sessions that were kept."""
    from ovagent_jupyter.runtime import settings_in_force
    from ovagent_jupyter.storage import paths
    from ovagent_jupyter.storage.session_log import session_ids

    config = settings_in_force().config
    directory = paths.sessions_dir(os.environ, config.execution.storage_dir)
    for session_id in session_ids(directory):
        notebook = directory / f"{session_id}.ipynb"
        _say(f"{session_id}  {notebook if notebook.is_file() else '(no turn has ended)'}")
    return 0


def _target(name: str | None, options: argparse.Namespace) -> Path | None:
    """A file to be written, checked before anything runs: nobody wants to lose an hour.

    Raises:
        StorageError: It is the input, exists already, or its folder does not.
    """
    if name is None:
        return None
    path = Path(name)
    if options.data and path.absolute() == Path(options.data).absolute():
        raise StorageError(
            f"{name} is the input file; it is never overwritten.",
            next_step="Give another name.",
        )
    if path.exists() and not options.force:
        raise StorageError(f"{name} exists already.", next_step="Give another name, or --force.")
    if not path.absolute().parent.is_dir():
        raise StorageError(
            f"The folder of {name} does not exist.", next_step="Make it first, or name another."
        )
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


def _write_figures(turn: Turn, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, image in _figures(turn):
        (directory / name).write_bytes(image)
        _say(f"Figure: {directory / name}")


def _figures(turn: Turn) -> Iterable[tuple[str, bytes]]:
    number = 0
    for step in turn.steps:
        for output in step.outputs:
            if "image/png" in output.data:
                number += 1
                yield f"{number:02}-{step.id}.png", base64.b64decode(output.data["image/png"])


def _line(text: str, limit: int = 100) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def _say(text: str, *, error: bool = False) -> None:
    print(text, file=sys.stderr if error else sys.stdout, flush=True)
