"""What the magics delegate to: turns and commands in one notebook."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ovagent_jupyter.agent.turn import Turn, TurnRequest
from ovagent_jupyter.config.llm import OFFLINE
from ovagent_jupyter.config.options import require_words
from ovagent_jupyter.events import AgentEvent, Category, Emit, Level
from ovagent_jupyter.notebook.arguments import Command, RunOptions, parse_cell, parse_line, parser
from ovagent_jupyter.notebook.asking import Asker
from ovagent_jupyter.notebook.bridge import Begin, Bridge, Show
from ovagent_jupyter.notebook.commands import Commands
from ovagent_jupyter.notebook.display import Card
from ovagent_jupyter.notebook.namespace import Namespace
from ovagent_jupyter.notebook.policy import Policy
from ovagent_jupyter.notebook.shown import Shown, Traceback
from ovagent_jupyter.reporters import PrintReporter
from ovagent_jupyter.runtime import Runtime
from ovagent_jupyter.runtime.usable import Usable, usable_settings

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


SHOWN_BY_THE_SHELL = (Category.TURN_STARTED, Category.TURN_FAILED)
"""In a terminal the request stands in the line above, and the error ends the input."""
SHOWN_BY_THE_CARD = (*SHOWN_BY_THE_SHELL, Category.CODE_OUTPUT)
"""In a notebook the card also relays what the code shows."""
PLANNED_HERE = (
    "The built-in planner answers this: in this version, models answer `ask` only, "
    "as in %%ovagent ask -m {model}."
)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A turn that is about to begin."""

    request: TurnRequest
    begin: Begin[Turn]
    show: Show


class Face:
    """One notebook's sessions and variables.

    Args:
        shell: IPython.
        traits: Gives the settings made as traitlets, read anew for each turn.
        profile: The settings that the user's own IPython profile makes.
    """

    def __init__(
        self,
        shell: InteractiveShell,
        traits: Callable[[], Mapping[str, object]],
        profile: Mapping[str, object],
    ) -> None:
        self.shell = shell
        self.ask = Asker(shell)
        self.runtime = Runtime(profile=profile, ask=self.ask)
        self.namespace = Namespace(shell.user_ns, self.runtime.store, self._undo_limit)
        self.bridge = Bridge(self.runtime.loop, self.runtime.caller)
        self.traits = traits
        self._profile = profile
        self.policy = Policy(self.runtime, traits, self.ask)
        self._commands = Commands(self.runtime, self.namespace, self._usable, self.policy)
        self._turns = 0

    def line(self, line: str) -> Shown | Traceback | None:
        """Answer ``%ovagent …``."""
        parsed = parse_line(line)
        if isinstance(parsed, Command):
            self.runtime.prepare(self.traits())
            return self._commands.run(parsed)
        self._run(parsed)
        return None

    def cell(self, line: str, body: str) -> None:
        """Answer a ``%%ovagent`` cell where nothing can be awaited."""
        self._run(parse_cell(line, body))

    async def drive(self, line: str, body: str) -> None:
        """Answer a ``%%ovagent`` cell in an asynchronous cell."""
        options = parse_cell(line, body)
        if options.show_help:
            self._show_help()
            return
        asked = self._turn(options)
        self._finish(options, asked, await self.bridge.drive(asked.begin, asked.show))

    def close(self) -> None:
        """End the child kernels and the loop thread."""
        self.runtime.close()

    def _run(self, options: RunOptions) -> None:
        if options.show_help:
            self._show_help()
            return
        asked = self._turn(options)
        self._finish(options, asked, self.bridge.run(asked.begin, asked.show))

    def _usable(self) -> Usable:
        """The settings in force without those that cannot be used."""
        return usable_settings(self.traits(), profile=self._profile, granted=self.runtime.granted)

    def _turn(self, options: RunOptions) -> _Asked:
        kind = "question" if options.mode == "ask" else "request"
        require_words(options.text, kind, "Write it below the line, in words.")
        settings = self._usable()
        if settings.problems:
            raise settings.problems[0]
        self._turns += 1
        request = TurnRequest(
            text=options.text,
            mode=options.mode,
            namespace=dict(self.namespace.variables),
            inputs=options.inputs,
            outputs=options.outputs,
            timeout=options.timeout,
            dry_run=options.dry_run,
            cell_id=self._cell_id(),
        )
        turn = partial(
            self.runtime.turn,
            request,
            session=options.session,
            traits=self.traits(),
            flags=self.policy.admit(options.settings),
        )

        def begin(emit: Emit) -> Coroutine[Any, Any, Turn]:
            model = options.settings.get("model", OFFLINE)
            if options.mode != "ask" and model != OFFLINE:
                emit(_notice(PLANNED_HERE.format(model=model), Level.INFO))
            return turn(emit=emit)

        show = self._show(options, verbose=settings.resolved.config.verbose)
        return _Asked(request, begin, show)

    def _show(self, options: RunOptions, *, verbose: bool) -> Show:
        if not hasattr(self.shell, "kernel"):
            return _printed(SHOWN_BY_THE_SHELL)
        key = f"{self.shell.execution_count}-{self._turns}"
        card = Card(
            self.shell.display_pub,
            key,
            show_code=options.mode == "code",
            redact=lambda text: self.runtime.redactor.text(text),
        )
        if not verbose:
            return card.show
        also = _printed(SHOWN_BY_THE_CARD)

        def show(event: AgentEvent | None) -> None:
            also(event)
            card.show(event)

        return show

    def _finish(self, options: RunOptions, asked: _Asked, turn: Turn) -> None:
        """Bind the results, or end the cell in error so that Run All stops."""
        if turn.error is not None:
            raise turn.error
        for message in self.namespace.bind(turn, asked.request.namespace):
            self._tell(message, turn, asked.show)
        if options.mode == "code" and not hasattr(self.shell, "kernel"):
            sys.stdout.write(f"\n{turn.code}\n")
        if options.into_next:
            self.shell.set_next_input(turn.code)

    def _tell(self, message: str, turn: Turn, show: Show) -> None:
        """A warning that belongs to a turn whose events are over: into the cell and the log."""
        event = _notice(message, Level.WARNING, turn.turn_id)
        show(event)
        if self.runtime.current is not None:
            self.runtime.current.hear(event)

    def _undo_limit(self) -> int:
        return self._usable().resolved.config.execution.undo_limit

    def _show_help(self) -> None:
        sys.stdout.write(parser().format_help())

    def _cell_id(self) -> str:
        """The notebook's id of the running cell; front ends need not send one."""
        get_parent = getattr(self.shell, "get_parent", None)
        if get_parent is None:
            return ""
        metadata = get_parent().get("metadata", {})
        return str(metadata.get("cellId", ""))


def _notice(message: str, level: Level, turn_id: str = "") -> AgentEvent:
    return AgentEvent(
        category=Category.NOTICE, message=message, level=level, correlation_id=turn_id
    )


def _printed(leave_out: Collection[Category]) -> Show:
    reporter = PrintReporter(leave_out=leave_out)
    return lambda event: reporter.report(event) if event is not None else None
