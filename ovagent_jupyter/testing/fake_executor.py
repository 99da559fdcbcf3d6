"""An executor that runs nothing: it answers as a test scripts it and remembers what was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ovagent_jupyter.errors import ExecutionError, OVAgentError
from ovagent_jupyter.execution.executor import (
    ExecutionRequest,
    ExecutionResult,
    ExecutionStatus,
    Isolation,
    OnOutput,
    Output,
)
from ovagent_jupyter.execution.handover import Changes, HandoverReport

Answer = Callable[[ExecutionRequest], ExecutionResult]
ScriptedResult = ExecutionResult | str | OVAgentError | Answer
"""What one cell answers: a result, what it prints, our failure, or a function of the request."""


class FakeExecutor:
    """Answers one cell after the other as scripted; when the script is used up, cells succeed.

    Args:
        results: One for each cell, in order.
        changes: What the code is said to have changed.
        start_error: Raised by ``start``.
        isolation: The level it pretends to have.
        work_dir: Where its code is said to leave files.
        protections: What is said to hold its code back.
    """

    def __init__(
        self,
        results: Iterable[ScriptedResult] = (),
        *,
        changes: Changes | None = None,
        start_error: OVAgentError | None = None,
        isolation: Isolation = Isolation.PROCESS,
        work_dir: Path | None = None,
        protections: Mapping[str, str] | None = None,
    ) -> None:
        self._results = list(results)
        self._changes = changes if changes is not None else Changes()
        self._start_error = start_error
        self._alive = False
        self._work_dir = work_dir
        self.isolation = isolation
        self.protections: Mapping[str, str] = protections or {}
        self.granted: set[Path] = set()
        """What its code may read besides."""
        self.requests: list[ExecutionRequest] = []
        """The cells it was asked to run, in order."""
        self.objects: dict[str, object] = {}
        """What was handed over."""
        self.calls: list[str] = []
        """The names of all calls, in order."""

    @property
    def alive(self) -> bool:
        """Whether it was started and no scripted death came since."""
        return self._alive

    @property
    def work_dir(self) -> Path:
        """The folder it was given.

        Raises:
            ExecutionError: It was given none.
        """
        if self._work_dir is None:
            raise ExecutionError("The fake executor was given no folder.")
        return self._work_dir

    async def grant(self, read: Sequence[Path] = ()) -> bool:
        """Remember what may be read; begins anew for what is new, as a confined child must."""
        self.calls.append("grant")
        new = set(read) - self.granted
        self.granted |= new
        if not (new and self._alive):
            return False
        self.objects.clear()
        return True

    async def start(self) -> None:
        """Be ready, or fail as scripted.

        Raises:
            OVAgentError: The script says so.
        """
        self.calls.append("start")
        if self._start_error is not None:
            raise self._start_error
        self._alive = True

    async def execute(
        self, request: ExecutionRequest, on_output: OnOutput | None = None
    ) -> ExecutionResult:
        """Answer with the next scripted result.

        Raises:
            OVAgentError: The script says so, or it was not started.
        """
        self._require_alive("execute")
        self.requests.append(request)
        scripted = self._results.pop(0) if self._results else ""
        if isinstance(scripted, OVAgentError):
            raise scripted
        result = _result(scripted, request)
        if on_output is not None and not request.silent:
            for output in result.outputs:
                on_output(output)
        if result.status is ExecutionStatus.DEAD:
            self._alive = False
            self.objects.clear()
        return result

    async def put(self, objects: Mapping[str, object]) -> HandoverReport:
        """Remember the objects."""
        self._require_alive("put")
        self.objects.update(objects)
        return HandoverReport(names=tuple(objects))

    async def changes(self, outputs: Sequence[str] = ()) -> Changes:
        """The scripted changes."""
        self._require_alive("changes")
        return self._changes

    async def interrupt(self) -> bool:
        """Nothing runs, so all variables are kept."""
        self.calls.append("interrupt")
        return self._alive

    async def restart(self) -> None:
        """Forget what was handed over."""
        self.calls.append("restart")
        self.objects.clear()
        self._alive = True

    async def shutdown(self) -> None:
        """End; safe to call twice."""
        self.calls.append("shutdown")
        self.objects.clear()
        self._alive = False

    def _require_alive(self, call: str) -> None:
        self.calls.append(call)
        if not self._alive:
            raise ExecutionError("The fake executor is not running.", next_step="Call start().")


def _result(scripted: ExecutionResult | str | Answer, request: ExecutionRequest) -> ExecutionResult:
    if isinstance(scripted, ExecutionResult):
        return scripted
    if isinstance(scripted, str):
        printed = (Output("stream", stream="stdout", text=scripted),) if scripted else ()
        return ExecutionResult(ExecutionStatus.OK, outputs=printed)
    return scripted(request)
