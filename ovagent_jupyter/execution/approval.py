"""Who must say yes before code runs, and how they are asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ovagent_jupyter.errors import SandboxDeniedError
from ovagent_jupyter.execution.executors import level_name

if TYPE_CHECKING:
    from ovagent_jupyter.config.schema import Approve
    from ovagent_jupyter.execution.executor import CodeBatch, ExecutionRequest, Isolation

Ask = Callable[[str], bool]
"""Puts a question of one or two lines to the user and returns whether they said yes."""

RunInCell = Callable[[Callable[[], None]], Awaitable[None]]
"""Runs a function in the cell's thread, where the user can be asked."""


class Approval:
    """Asks the user before code runs, as often as the settings want it; no answer is a no.

    Args:
        when: ``"risky"`` asks where the system does not hold the code back, ``"always"``
            everywhere, ``"never"`` nowhere.
        ask: Puts the question; None where there is nobody to ask.
        run_in_cell: Runs ``ask`` in the cell's thread; by default it runs in the caller's.
    """

    def __init__(
        self, when: Approve, ask: Ask | None = None, run_in_cell: RunInCell | None = None
    ) -> None:
        self._when = when
        self._ask = ask
        self._run_in_cell = run_in_cell
        self._approved: CodeBatch | None = None

    async def require(self, request: ExecutionRequest, level: Isolation) -> None:
        """Return if the cell may run at the level; asks once for all cells of a batch.

        Raises:
            SandboxDeniedError: The user said no, or there is nobody to ask.
        """
        if self._when == "never" or (self._when == "risky" and level.guarded):
            return
        batch = request.batch
        known = batch is not None and request.code in batch.codes
        if known and batch is self._approved:
            return
        self._approved = None
        cells = len(batch.codes) if batch is not None and known else 1
        effects = batch.effects if batch is not None and known else ()
        if not await self._answer(_question(cells, effects, level), level):
            raise SandboxDeniedError(
                "The code was not run.",
                why="You said no.",
                next_step="Change the request, or look at the code first with mode 'code'.",
            )
        self._approved = batch if known else None

    async def _answer(self, question: str, level: Isolation) -> bool:
        ask = self._ask
        if ask is None:
            raise _nobody(level)
        if self._run_in_cell is None:
            return ask(question) is True
        answers: list[bool] = []
        await self._run_in_cell(lambda: answers.append(ask(question)))
        return answers[0] is True


def _question(cells: int, effects: tuple[str, ...], level: Isolation) -> str:
    what = "the code of this turn" if cells > 1 else "this code"
    does = f" It {', '.join(effects)}." if effects else ""
    return f"Run {what} at level {level_name(level)!r}? {_meaning(level)}{does}"


def _meaning(level: Isolation) -> str:
    if level.guarded:
        return "The system holds it back."
    return "The system does not hold it back: it can do all that you can do."


def _nobody(level: Isolation) -> SandboxDeniedError:
    return SandboxDeniedError(
        f"Code that runs at level {level_name(level)!r} needs your yes, and nobody can be asked.",
        why=_meaning(level),
        next_step="Run it where you can answer; or set approve='never' in your own settings.",
    )
