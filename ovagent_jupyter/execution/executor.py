"""Running code somewhere: what is asked, what comes back, and what an executor promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from ovagent_jupyter.execution.handover import Changes, HandoverReport


class Isolation(IntEnum):
    """How far code is kept from the user's kernel; a larger number is further.

    Between ``PROCESS`` and ``CONFINED`` lies the boundary that the operating system guards.
    """

    IN_PROCESS = 0
    """The user's own kernel."""
    PROCESS = 1
    """A child with an environment and folders of its own; it can do all that the user can."""
    CONFINED = 2
    """A child that gives up rights before it runs: Landlock and seccomp, or Seatbelt on macOS."""
    NAMESPACES = 3
    """The same in Linux namespaces of its own, in which only what is granted exists."""

    @property
    def guarded(self) -> bool:
        """Whether the operating system holds the code back."""
        return self >= Isolation.CONFINED


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
class LimitHit:
    """A cap that code went over, and for which it was ended."""

    limit: str
    """``memory``, ``cpu_time``, ``processes``, ``disk`` … as ``SandboxSpec`` names it."""
    cap: float
    """Bytes, seconds, or a number of processes."""
    used: float
    """The same, as it was measured when the cap was found passed."""


@dataclass(frozen=True, slots=True, eq=False)
class CodeBatch:
    """The cells of one turn, about which the user is asked once; each batch is its own."""

    codes: tuple[str, ...]
    effects: tuple[str, ...] = ()
    """What the code does to the user's work, for the question."""


@dataclass(frozen=True, slots=True)
class ExecutionRequest:
    """One cell to run."""

    code: str
    timeout: float | None = None
    """Seconds of wall time; None for no limit."""
    silent: bool = False
    """Ours, not the user's: no outputs are passed on and no execution count is used."""
    batch: CodeBatch | None = None
    """The cells that it belongs to; None when it stands alone."""


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
    limit: LimitHit | None = None
    """The cap for which it was ended; None unless the status is LIMIT."""

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


@runtime_checkable
class Preparable(Protocol):
    """What can have something made ready before it is started."""

    def prepare(self) -> None:
        """Begin in the background; does nothing when it has begun."""
        ...


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

    @property
    def work_dir(self) -> Path:
        """Where the code runs and leaves its files; it goes with the executor's child.

        Raises:
            ExecutionError: It was not started.
        """
        ...

    @property
    def protections(self) -> Mapping[str, str]:
        """What holds the code back, as measured where it runs; empty when nothing does.

        Each is ``"enforced"``, ``"missing"`` or ``"not applicable"``.
        """
        ...

    async def grant(self, read: Sequence[Path] = ()) -> bool:
        """Let the code read these files or folders too; True when it began anew for that.

        What was granted already changes nothing. Before the start, it is kept for the start.

        Args:
            read: Resolved paths that exist.

        Raises:
            ChildStartError: It could not begin anew.
        """
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
