"""The ``%ovagent`` commands: each returns something that shows itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ovagent_jupyter.config.sources import Source
from ovagent_jupyter.errors import ConfigError
from ovagent_jupyter.notebook.arguments import COMMANDS, LIVE, MODES, Command, parser
from ovagent_jupyter.notebook.markdown import seconds
from ovagent_jupyter.notebook.policy import Policy
from ovagent_jupyter.notebook.shown import Shown, Traceback
from ovagent_jupyter.notebook.undo_commands import UndoCommands, number
from ovagent_jupyter.notebook.undo_memory import shown_size
from ovagent_jupyter.storage import paths

if TYPE_CHECKING:
    from ovagent_jupyter.agent.session import AgentSession
    from ovagent_jupyter.notebook.namespace import Namespace
    from ovagent_jupyter.runtime import Runtime
    from ovagent_jupyter.runtime.usable import Usable

EXAMPLES = (
    "QC these cells",
    "remove cells with more than 20% mito and fewer than 200 genes",
    "cluster them at resolution 0.5 and show the UMAP",
    "which genes mark each cluster?",
)


class Commands:
    """What each command does.

    Args:
        runtime: The sessions.
        namespace: The user's variables.
        usable: Gives the settings in force, without those that cannot be used.
        policy: What is granted to the code.
    """

    def __init__(
        self,
        runtime: Runtime,
        namespace: Namespace,
        usable: Callable[[], Usable],
        policy: Policy,
    ) -> None:
        self._runtime = runtime
        self._undo = UndoCommands(namespace, lambda: runtime.last_turn)
        self._usable = usable
        self._set_policy = policy.run
        self._table: dict[str, Callable[[str], Shown | Traceback]] = {
            "help": self._help,
            "status": self._status,
            "doctor": self._doctor,
            "models": self._models,
            "usage": self._usage,
            "policy": self._policy,
            "history": self._history,
            "diff": self._undo.diff,
            "undo": self._undo.undo,
            "redo": self._undo.redo,
            "checkpoint": self._undo.checkpoint,
            "restore": self._undo.restore,
            "session": self._session,
            "traceback": self._traceback,
            "restart": self._restart,
            "version": self._version,
        }

    def run(self, command: Command) -> Shown | Traceback:
        """Do one command and return what it shows.

        Raises:
            ConfigError: Its argument cannot be used.
        """
        return self._table[command.name](command.argument)

    def _help(self, _argument: str) -> Shown:
        rows = [("%%ovagent", "a request in words below it: plan, code, run, results")]
        rows += [(f"%%ovagent {name}", text) for name, text in MODES.items() if name != "run"]
        rows += [(f"%ovagent {name}", text) for name, text in COMMANDS.items()]
        note = (
            "Requests: "
            + "; ".join(EXAMPLES)
            + ". Options of a request: "
            + " ".join(
                name
                for a in parser()._actions
                for name in a.option_strings
                if name.startswith("--")
            )
        )
        return Shown("What you can type", ("type", "what it does"), tuple(rows), note)

    def _status(self, _argument: str) -> Shown:
        session = self._runtime.current
        usable = self._usable()
        resolved = usable.resolved
        rows = [("✗ setting", _in_a_line(problem)) for problem in usable.problems]
        if session is None:
            rows.append(("session", "none yet: it begins with the first request"))
        else:
            rows += [
                ("session", session.session_id),
                ("child kernel", _child_state(session)),
                ("notebook", str(session.recorder.notebook.path)),
                ("log", str(session.recorder.log.path)),
            ]
            turn = session.last_turn
            rows.append(("last turn", f"{turn.status}: {turn.answer}" if turn else "none"))
        keeper = self._runtime.keeper
        if resolved.config.execution.keep_ready:
            rows.append(("next child kernel", keeper.state if keeper else "not made ready yet"))
        rows += self._runtime.models.state()
        rows.append(("undo", self._undo.state()))
        memory, disk = map(shown_size, self._runtime.stored)
        rows.append(("kept data", f"{memory} in memory, {disk} on disk"))
        # What holds by itself is told by the commands of its own; here, what somebody has set.
        rows += [
            (name, f"{value} ({origin})")
            for name, value, origin in resolved.table()
            if resolved.provenance[name].source is not Source.DEFAULT
        ]
        note = "%ovagent policy shows the sandbox; settings that are not listed have their default."
        return Shown("Status", ("what", "is"), tuple(rows), note)

    def _doctor(self, argument: str) -> Shown:
        from ovagent_jupyter.runtime import examine_machine

        if argument not in {"", LIVE}:
            raise ConfigError(
                f"The doctor does not know {argument!r}.", next_step=f"See %ovagent doctor {LIVE}."
            )
        usable = self._usable()
        live = argument == LIVE
        checks = self._runtime.loop.run(examine_machine(usable.resolved.config, live=live))
        rows = [
            ("✗", "setting", f"{problem.what} {problem.why}".strip(), problem.next_step)
            for problem in usable.problems
        ]
        rows += [(check.mark, check.name, check.finding, check.remedy) for check in checks]
        return Shown(_verdict(rows), ("", "part", "found", "what to do"), tuple(rows))

    def _policy(self, argument: str) -> Shown:
        problems = self._usable().problems
        if problems:
            raise problems[0]
        return self._set_policy(argument)

    def _models(self, argument: str) -> Shown:
        from ovagent_jupyter.agent.model_report import known_models

        report = known_models(argument)
        return Shown(report.title, report.head, report.rows, report.note)

    def _usage(self, argument: str) -> Shown:
        from ovagent_jupyter.agent.model_report import used_models

        storage = self._usable().resolved.config.execution.storage_dir
        report = used_models(paths.sessions_dir(os.environ, storage), argument)
        return Shown(report.title, report.head, report.rows, report.note)

    def _history(self, argument: str) -> Shown:
        from ovagent_jupyter.storage.history import SessionHistory

        history = SessionHistory()
        entries = history.get_recent(number(argument, 10, "history"))
        rows = tuple(
            (
                f"{entry.timestamp.astimezone():%Y-%m-%d %H:%M}",
                "✓" if entry.success else "✗",
                _short(entry.request),
                _short(entry.result_summary),
                seconds(entry.duration),
            )
            for entry in entries
        )
        note = f"{history.skipped} damaged lines were skipped." if history.skipped else ""
        title = f"The last {len(rows)} turns" if rows else "No turns yet"
        return Shown(title, ("when", "", "request", "result", "took"), rows, note)

    def _session(self, argument: str) -> Shown:
        if argument:
            self._runtime.go_on_in(argument)
        current = self._runtime.current_name or "none yet: it begins with the first request"
        return Shown(f"Session: {current}")

    def _traceback(self, _argument: str) -> Traceback:
        turn = self._runtime.last_turn
        error = turn.code_error if turn else None
        if error is None:
            return Traceback("The last turn did not fail in its code.")
        lines = "\n".join(error.traceback) or f"{error.name}: {error.message}"
        return Traceback(lines)

    def _restart(self, _argument: str) -> Shown:
        session = self._runtime.current
        if session is None:
            return Shown("There is no child kernel yet")
        self._runtime.loop.run(session.restart_child())
        return Shown("A fresh child kernel is ready; your variables are as they were")

    def _version(self, _argument: str) -> Shown:
        from ovagent_jupyter.agent.doctor import versions

        return Shown("Versions", ("package", "version"), tuple(versions()))


def _child_state(session: AgentSession) -> str:
    state = "running" if session.executor.alive else "not running"
    label = session.sandbox.label
    return f"{state} · {label}" if label else state


def _verdict(rows: Sequence[tuple[str, ...]]) -> str:
    """What a doctor's rows come to."""
    bad, limited = (sum(row[0] == mark for row in rows) for mark in "✗!")
    if bad:
        return f"{bad} problem{'s' * (bad != 1)}"
    return f"All works, {limited} with a limit" if limited else "All is well"


def _in_a_line(problem: ConfigError) -> str:
    return " ".join(filter(None, (problem.what, problem.why, problem.next_step)))


def _short(text: str, limit: int = 90) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
