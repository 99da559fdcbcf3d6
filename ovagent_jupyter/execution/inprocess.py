"""Runs code in this process: no isolation, so only by explicit choice."""

from __future__ import annotations

import ast
import base64
import builtins
import contextlib
import io
import linecache
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, Literal

from ovagent_jupyter.errors import ChildStartError, ExecutionError
from ovagent_jupyter.execution.executor import (
    CodeError,
    ExecutionRequest,
    ExecutionResult,
    ExecutionStatus,
    Isolation,
    OnOutput,
)
from ovagent_jupyter.execution.handover.exchange import Exchange
from ovagent_jupyter.execution.outputs import OutputCollector, OutputLimits
from ovagent_jupyter.execution.rundir import RunDirectory
from ovagent_jupyter.execution.transfer import OtherSide, StoreSource, Transfer

if TYPE_CHECKING:
    from ovagent_jupyter.execution.handover import Changes, HandoverReport

WORK = "work"
"""Folder below the private one in which the code runs."""
RunInCell = Callable[[Callable[[], None]], Awaitable[None]]
"""Runs a function in the thread of the user's cell and waits for it."""


class InProcessExecutor:
    """An executor whose code runs in this process, in variables of its own.

    What it cannot do: stop code that runs (the interrupt of the user's own cell does), enforce a
    time-out (it is looked at when the code has ended), survive code that ends the process, run
    magics, or capture what is shown by IPython's ``display``.

    Args:
        namespace: The variables of the code; by default a private namespace.
        run_in_cell: Runs the code in the cell's thread; by default it runs in the caller's.
        limits: How much output of a cell is passed on.
        store: Gives the store in which handed-over objects are kept; None for one of its own.
    """

    isolation = Isolation.IN_PROCESS

    def __init__(
        self,
        namespace: dict[str, object] | None = None,
        run_in_cell: RunInCell | None = None,
        *,
        limits: OutputLimits | None = None,
        store: StoreSource | None = None,
    ) -> None:
        self._namespace: dict[str, object] = {} if namespace is None else namespace
        self._run_in_cell = run_in_cell
        self._limits = limits or OutputLimits()
        self._directory: RunDirectory | None = None
        self._count = 0
        self._running = False
        self._transfer = Transfer(self._run_silently, store)
        self._exchange: Exchange | None = None

    @property
    def alive(self) -> bool:
        """Whether it was started."""
        return self._directory is not None

    @property
    def work_dir(self) -> Path:
        """Where the code runs, so that a bare name in it never hits a file of the user.

        Raises:
            ExecutionError: It was not started.
        """
        return self._started() / WORK

    @property
    def protections(self) -> Mapping[str, str]:
        """Nothing holds the code back here."""
        return {}

    async def grant(self, read: Sequence[Path] = ()) -> bool:
        """The code may read whatever the user may: there is nothing to do."""
        del read
        return False

    async def start(self) -> None:
        """Make the private namespace ready.

        Raises:
            ChildStartError: There is no place for what is handed over.
        """
        if self._directory is not None:
            return
        try:
            directory = RunDirectory(Path(tempfile.gettempdir()), "ovagent-put-")
            (directory.path / WORK).mkdir()
            self._exchange = Exchange()
        except OSError as error:
            raise ChildStartError(
                "Code cannot be run in this process.",
                why=f"There is no temporary directory: {error}",
                next_step="Free space there.",
            ) from error
        self._directory = directory
        self._namespace.setdefault("__name__", "__main__")
        self._namespace.setdefault("__builtins__", builtins)

    async def execute(
        self, request: ExecutionRequest, on_output: OnOutput | None = None
    ) -> ExecutionResult:
        """Run one cell once in this process and return how it ended.

        Raises:
            ExecutionError: It was not started.
        """
        self._started()
        collector = OutputCollector(self._limits, None if request.silent else on_output)
        cell = _Cell(request.code, self._namespace, collector, self._count, self.work_dir)
        self._count += 1
        self._running = True
        begun = time.monotonic()
        try:
            if self._run_in_cell is None:
                cell.run()
            else:
                await self._run_in_cell(cell.run)
        finally:
            self._running = False
        duration = time.monotonic() - begun
        status, error = cell.status, cell.error
        if request.timeout is not None and duration > request.timeout:
            status = ExecutionStatus.TIMEOUT
            error = error or CodeError(
                "TimeoutError", f"The cell took longer than {request.timeout:g} s; it has ended."
            )
        return ExecutionResult(
            status=status,
            outputs=() if request.silent else collector.outputs,
            error=error,
            duration=duration,
            truncated=collector.truncated,
        )

    async def put(self, objects: Mapping[str, object]) -> HandoverReport:
        """Bind copies of objects there.

        Raises:
            HandoverError: Nothing could be handed over.
            ExecutionError: It was not started.
        """
        return await self._transfer.put(objects, self._other_side())

    async def changes(self, outputs: Sequence[str] = ()) -> Changes:
        """What changed in the copies, and the new ``outputs``.

        Raises:
            HandoverError: They cannot be fetched.
            ExecutionError: It was not started.
        """
        return await self._transfer.changes(outputs, self._other_side())

    async def interrupt(self) -> bool:
        """True when nothing runs; code that runs here cannot be stopped from another thread."""
        return self.alive and not self._running

    async def restart(self) -> None:
        """Begin anew with no variables."""
        await self.shutdown()
        await self.start()

    async def shutdown(self) -> None:
        """Forget all variables; safe to call twice."""
        self._transfer.forget()
        self._namespace.clear()
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None
        if self._directory is not None:
            self._directory.remove()
            self._directory = None

    async def _run_silently(self, code: str) -> ExecutionResult:
        return await self.execute(ExecutionRequest(code, silent=True))

    def _other_side(self) -> OtherSide:
        directory = self._started()
        assert self._exchange is not None
        return OtherSide(self._exchange, directory)

    def _started(self) -> Path:
        if self._directory is None:
            raise ExecutionError(
                "Nothing is ready to run code.",
                why="It was not started, or it was shut down.",
                next_step="Call start().",
            )
        return self._directory.path


class _Cell:
    """One piece of code on its way through this process."""

    def __init__(
        self,
        code: str,
        namespace: dict[str, object],
        collector: OutputCollector,
        number: int,
        directory: Path,
    ) -> None:
        self._code = code
        self._namespace = namespace
        self._collector = collector
        self._file = f"<ovagent cell {number}>"
        self._directory = directory
        self.status = ExecutionStatus.OK
        self.error: CodeError | None = None

    def run(self) -> None:
        """Run the code to its end; whatever it raises is kept, not raised."""
        stdout, stderr = _Stream(self._collector, "stdout"), _Stream(self._collector, "stderr")
        figures = _open_figures()
        try:
            with (
                contextlib.chdir(self._directory),
                contextlib.redirect_stdout(stdout),
                contextlib.redirect_stderr(stderr),
            ):
                self._execute()
                _show_figures(self._collector, figures)
        except KeyboardInterrupt as error:
            self._failed(error, ExecutionStatus.INTERRUPTED)
        except BaseException as error:  # noqa: BLE001 - the code's failure is a result, exit() too
            self._failed(error, ExecutionStatus.ERROR)
        self._collector.flush(force=True)

    def _execute(self) -> None:
        # Without this a traceback would show no source lines.
        lines = self._code.splitlines(keepends=True)
        linecache.cache[self._file] = (len(self._code), None, lines, self._file)
        tree = ast.parse(self._code, self._file)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        self._evaluate(compile(tree, self._file, "exec"))
        if isinstance(last, ast.Expr):
            value = self._evaluate(compile(ast.Expression(last.value), self._file, "eval"))
            if value is not None:
                self._namespace["_"] = value
                self._collector.take("execute_result", {"data": _represent(value)})

    def _evaluate(self, code: CodeType) -> object:
        return eval(code, self._namespace)  # noqa: S307 - running the user's code is the purpose

    def _failed(self, error: BaseException, status: ExecutionStatus) -> None:
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code.co_filename != self._file:
            frames = frames.tb_next
        self.status = status
        self._collector.take("error", _describe(error, frames))
        self.error = self._collector.error


class _Stream(io.TextIOBase):
    """Standard output or error of the code."""

    def __init__(self, collector: OutputCollector, name: Literal["stdout", "stderr"]) -> None:
        self._collector = collector
        self._name = name

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Libraries ask for it before they print symbols."""
        return "utf-8"

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Pass the text on."""
        self._collector.take("stream", {"name": self._name, "text": text})
        self._collector.flush()
        return len(text)


def _describe(error: BaseException, frames: TracebackType | None) -> dict[str, object]:
    try:
        message = str(error)
        lines = traceback.format_exception(type(error), error, frames)
    except Exception:  # noqa: BLE001 - an exception whose text fails is still the code's failure
        message, lines = "(its text cannot be shown)", []
    traceback_lines = [line for part in lines for line in part.splitlines()]
    return {"ename": type(error).__name__, "evalue": message, "traceback": traceback_lines}


def _represent(value: object) -> dict[str, str]:
    data = {"text/plain": repr(value)}
    as_html = getattr(type(value), "_repr_html_", None)
    if callable(as_html):
        html = as_html(value)
        if isinstance(html, str):
            data["text/html"] = html
    return data


def _open_figures() -> frozenset[int]:
    # Only where matplotlib is already in use; importing it here would cost a second.
    pyplot = sys.modules.get("matplotlib.pyplot")
    return frozenset(pyplot.get_fignums()) if pyplot is not None else frozenset()


def _show_figures(collector: OutputCollector, before: frozenset[int]) -> None:
    """Show and close the figures that the code opened, as a notebook does."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    for number in sorted(_open_figures() - before):
        assert pyplot is not None
        figure = pyplot.figure(number)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", bbox_inches="tight")
        pyplot.close(figure)
        png = base64.b64encode(buffer.getvalue()).decode()
        collector.take("display_data", {"data": {"image/png": png, "text/plain": repr(figure)}})
