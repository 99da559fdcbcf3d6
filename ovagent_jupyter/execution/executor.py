"""Running code somewhere: what is asked, what comes back, and what an executor promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from ovagent_jupyter.execution.handover import Changes, HandoverReport


class Isolation(IntEnum):
    """How far code is kept from the user's kernel; a larger number is further."""

    IN_PROCESS = 0
    PROCESS = 1


class ExecutionStatus(StrEnum):
    """How a piece of code ended."""

    OK = "ok"
    ERROR = "error"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    LIMIT = "limit"
    DEAD = "dead"


OutputKind = Literal["stream", "display", "update", "result", "error", "clear"]


@dataclass(frozen=True, slots=True)
class Output:
    """One thing that code printed or displayed, bounded in size."""

    kind: OutputKind
    stream: Literal["stdout", "stderr", ""] = ""
    text: str = ""
    """Text of a stream, or of an error's last line."""
    data: Mapping[str, str] = field(default_factory=dict)
    """MIME type → content; images are base64."""
    metadata: Mapping[str, object] = field(default_factory=dict)
    display_id: str = ""
    """Identity of a display that is updated later; unique to the child."""


@dataclass(frozen=True, slots=True)
class CodeError:
    """The exception that ended user code."""

    name: str
    message: str
    traceback: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExecutionRequest:
    """One cell to run."""

    code: str
    timeout: float | None = None
    """Seconds of wall time; None for no limit."""
    silent: bool = False
    """Ours, not the user's: no outputs are passed on and no execution count is used."""


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """How one cell ended. User code that fails is a result, never an exception."""

    status: ExecutionStatus
    outputs: tuple[Output, ...] = ()
    error: CodeError | None = None
    duration: float = 0.0
    """Seconds of wall time."""
    truncated: bool = False
    """Some output was left out because it passed the bound."""

    @property
    def ok(self) -> bool:
        """Whether the code ran to its end."""
        return self.status is ExecutionStatus.OK

    @property
    def stdout(self) -> str:
        """All that was printed."""
        return "".join(o.text for o in self.outputs if o.stream == "stdout")

    @property
    def stderr(self) -> str:
        """All that was written to standard error."""
        return "".join(o.text for o in self.outputs if o.stream == "stderr")


OnOutput = Callable[[Output], None]


class Executor(Protocol):
    """A place to run code, with its own variables.

    An executor turns every ``BaseException`` of user code, ``sys.exit()`` included, into a
    result, and runs a cell at most once. Only infrastructure failures raise.
    """

    isolation: Isolation

    @property
    def alive(self) -> bool:
        """Whether it can run the next cell without being started."""
        ...

    async def start(self) -> None:
        """Make it ready; does nothing when it is.

        Raises:
            ChildStartError: It cannot be started.
        """
        ...

    async def execute(
        self, request: ExecutionRequest, on_output: OnOutput | None = None
    ) -> ExecutionResult:
        """Run one cell once and return how it ended; outputs are also passed on live, in order.

        Cancelling the call interrupts the code, by force if it does not stop.
        """
        ...

    async def put(self, objects: Mapping[str, object]) -> HandoverReport:
        """Bind objects to names there; what cannot travel is named in the report.

        What an earlier call bound stays, but its changes are no longer told.

        Raises:
            HandoverError: Nothing could be handed over.
        """
        ...

    async def changes(self, outputs: Sequence[str] = ()) -> Changes:
        """What changed in the objects that were ``put``, and the new variables ``outputs``.

        Raises:
            HandoverError: What the child sent is malformed; nothing of it was used.
        """
        ...

    async def interrupt(self) -> bool:
        """Stop the running cell; True when it stopped with its variables kept."""
        ...

    async def restart(self) -> None:
        """Begin anew with no variables."""
        ...

    async def shutdown(self) -> None:
        """End for good; safe to call twice."""
        ...
