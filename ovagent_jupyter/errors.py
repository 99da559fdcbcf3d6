"""The one exception tree: what failed, why, and what to do next.

OVAgentError
├── ConfigError                 a setting has a name or a value that cannot be used
├── RegistryError               a name is unknown or registered twice
├── DataError                   the user's data is missing, ambiguous or cannot be read
├── WorkflowNeedsFallback       the offline planner cannot cover the request
├── ProviderError               a model service failed
│   ├── StreamInterrupted       its answer broke off; the part that came is kept
│   ├── BudgetExceeded          a budget of requests, tokens or money is used up
│   └── RunnerNotAvailable      a local model cannot be run here
├── StorageError                one of our files cannot be written or read
├── SignatureError              something signed is not what was signed, or is too old
├── TurnFailed                  the code of a turn failed (raised by the faces, to end a cell)
├── HandoverError               data could not cross the process border
└── ExecutionError              code could not be run (never: the code failed)
    ├── ChildStartError         the child kernel could not be started
    │   └── ConfinementError    its level could not be set up; none of its code has run
    ├── SandboxDeniedError      the sandbox policy forbids running
    │   └── SandboxUnavailableError     no level that is allowed works on this machine
    └── ResourceLimitExceeded   the code went over a cap; nothing is wrong with the session
KeyboardInterrupt
└── TurnInterrupted             the user stopped a turn
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal


def without_escapes(text: str) -> str:
    """Text without what moves a cursor, colours, or writes to a clipboard in a terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", text)


class OVAgentError(Exception):
    """Base of every error of ours: a short text a user can act on.

    Args:
        what: What failed, one sentence.
        why: The reason, one sentence; may be empty.
        next_step: What the user can do now, one sentence; may be empty.
    """

    code: ClassVar[str] = "ovagent_error"

    def __init__(self, what: str, *, why: str = "", next_step: str = "") -> None:
        # They may quote a service or a file: nothing in them may command a terminal.
        self.what = without_escapes(what)
        super().__init__(self.what)
        self.why = without_escapes(why)
        self.next_step = without_escapes(next_step)

    def lines(self) -> list[str]:
        """The error as the few lines a user reads."""
        lines = [f"{type(self).__name__}: {self.what}"]
        if self.why:
            lines.append(f"Why: {self.why}")
        if self.next_step:
            lines.append(f"Next: {self.next_step}")
        return lines

    def __str__(self) -> str:
        parts = [self.what]
        if self.why:
            parts.append(f"Why: {self.why}")
        if self.next_step:
            parts.append(f"Next: {self.next_step}")
        return "\n".join(parts)

    def _render_traceback_(self) -> list[str]:
        """The hook by which IPython shows an exception; ours stay short."""
        return self.lines()


class ConfigError(OVAgentError):
    """A setting has a name or a value that cannot be used."""

    code = "config"


class RegistryError(OVAgentError):
    """A name is not registered, or is registered twice."""

    code = "registry"


class DataError(OVAgentError):
    """The data a request needs is missing, ambiguous, or cannot be read."""

    code = "data"


class WorkflowNeedsFallback(OVAgentError):
    """The offline planner cannot cover a request; nothing was run.

    Args:
        what: What could not be covered.
        unresolved_clauses: The parts of the request that no step explains.
        missing_slots: Data slots that a step needs and nothing can make.
        nearest_steps: Ids of the steps that come closest, best first.
        partial_plan: The plan for the part that was understood (an ``omics.Plan``), or None.
        why: The reason.
        next_step: What the user can do now.
    """

    code = "workflow_needs_fallback"

    def __init__(
        self,
        what: str,
        *,
        unresolved_clauses: Sequence[str] = (),
        missing_slots: Sequence[str] = (),
        nearest_steps: Sequence[str] = (),
        partial_plan: object | None = None,
        why: str = "",
        next_step: str = "",
    ) -> None:
        super().__init__(what, why=why, next_step=next_step)
        self.unresolved_clauses = tuple(unresolved_clauses)
        self.missing_slots = tuple(missing_slots)
        self.nearest_steps = tuple(nearest_steps)
        self.partial_plan = partial_plan


ProviderFault = Literal[
    "unreachable", "timeout",  # no connection, no such name, TLS; connected, but no answer in time
    "rate_limited", "overloaded", "server",  # 429; 503 and 529; other 5xx
    "key", "permission", "payment",  # 401, or none at all; 403; 402, or the account's quota is gone
    "unknown_model", "bad_request",  # 404, or no provider of that name; other 4xx
    "context_full",  # the conversation is longer than the model's window
    "too_large",  # an answer beyond our cap, or a request beyond the service's
    "policy",  # refused by a rule of the service
    "malformed", "interrupted",  # an answer that is none; one that broke off
    "unhealthy", "busy", "budget",  # not asked: failed too often, too many wait, nothing is left
    "runner", "other",  # a local model cannot be run
]  # fmt: skip


class ProviderError(OVAgentError):
    """A model service failed.

    Args:
        what: What failed.
        provider: Id of the provider.
        status_code: HTTP status, or None when there was no answer.
        retryable: Whether the same call may succeed later.
        fault: What kind of failure it is.
        retry_after: Seconds that the service asks to wait; None when it did not say.
        request_id: The service's name for the call.
        usage: What was spent all the same, a ``messages.Usage``; None when it is not known.
        why: The reason.
        next_step: What the user can do now.
    """

    code = "provider"

    def __init__(
        self,
        what: str,
        *,
        provider: str = "",
        status_code: int | None = None,
        retryable: bool = False,
        fault: ProviderFault = "other",
        retry_after: float | None = None,
        request_id: str = "",
        usage: object | None = None,
        why: str = "",
        next_step: str = "",
    ) -> None:
        super().__init__(what, why=why, next_step=next_step)
        self.provider = provider
        self.status_code = status_code
        self.retryable = retryable
        self.fault = fault
        self.retry_after = retry_after
        self.request_id = request_id
        self.usage = usage
        self.cost: float | None = None
        """US dollars that ``usage`` cost; None when that or its price is not known."""
        self.partial: object | None = None
        """What had come of the answer, a ``messages.Message``; None when that is nothing."""


class StreamInterrupted(ProviderError):
    """An answer broke off after a part of it had come; that part is kept.

    Args:
        what: What failed.
        partial: What had come, a ``messages.Message``; None when that was nothing.
        provider: Id of the provider.
        usage: What was spent, a ``messages.Usage``.
        why: The reason.
        next_step: What the user can do now.
    """

    code = "stream_interrupted"

    def __init__(
        self,
        what: str,
        *,
        partial: object | None = None,
        provider: str = "",
        usage: object | None = None,
        why: str = "",
        next_step: str = "",
    ) -> None:
        super().__init__(
            what,
            provider=provider,
            retryable=True,
            fault="interrupted",
            usage=usage,
            why=why,
            next_step=next_step,
        )
        self.partial = partial


class BudgetExceeded(ProviderError):
    """A budget of requests, tokens or money is used up; nothing was asked.

    Args:
        what: What failed; names the budget.
        budget: Which one: ``money of the day``.
        used: What was spent of it, or is promised to calls that run.
        limit: What it allows.
        why: The reason.
        next_step: What the user can do now.
    """

    code = "budget"

    def __init__(
        self,
        what: str,
        *,
        budget: str = "",
        used: float = 0.0,
        limit: float = 0.0,
        why: str = "",
        next_step: str = "",
    ) -> None:
        super().__init__(what, fault="budget", why=why, next_step=next_step)
        self.budget = budget
        self.used = used
        self.limit = limit


class RunnerNotAvailable(ProviderError):
    """A local model cannot be run here: a package, the model or memory is missing."""

    code = "runner"

    def __init__(self, what: str, *, why: str = "", next_step: str = "") -> None:
        super().__init__(what, provider="local", fault="runner", why=why, next_step=next_step)


class StorageError(OVAgentError):
    """One of our files cannot be written or read."""

    code = "storage"


class SignatureError(OVAgentError):
    """Something signed is not what was signed, or its time is not ours."""

    code = "signature"


class TurnFailed(OVAgentError):
    """The code of a turn failed. For the agent that is a result; a face ends its cell with it."""

    code = "turn_failed"


class HandoverError(OVAgentError):
    """Data could not cross the border between the user's kernel and the child."""

    code = "handover"


class ExecutionError(OVAgentError):
    """Code could not be run. Code that ran and failed is a result, not this."""

    code = "execution"


class ChildStartError(ExecutionError):
    """The child kernel could not be started; this never leads to a weaker level."""

    code = "child_start"


class ConfinementError(ChildStartError):
    """A level could not be set up, before any guest code ran: the one failure that may step down.

    Args:
        what: What failed.
        cause: ``"unavailable"``, the machine does not have it; ``"setup_failed"``, it has.
        probe: What was found, by the name of each protection.
        why: The reason.
        next_step: What the user can do now.
    """

    code = "confinement"

    def __init__(
        self,
        what: str,
        *,
        cause: Literal["unavailable", "setup_failed"] = "unavailable",
        probe: Mapping[str, str] | None = None,
        why: str = "",
        next_step: str = "",
    ) -> None:
        super().__init__(what, why=why, next_step=next_step)
        self.cause = cause
        self.probe = dict(probe or {})


class SandboxDeniedError(ExecutionError):
    """The sandbox policy forbids running; nothing was run."""

    code = "sandbox_denied"


class SandboxUnavailableError(SandboxDeniedError):
    """No level that the policy allows can be set up on this machine; nothing was run.

    Args:
        what: What failed.
        probe: What was found, by the name of each protection.
        why: The reason.
        next_step: What the user can do now.
    """

    code = "sandbox_unavailable"

    def __init__(
        self,
        what: str,
        *,
        probe: Mapping[str, str] | None = None,
        why: str = "",
        next_step: str = "",
    ) -> None:
        super().__init__(what, why=why, next_step=next_step)
        self.probe = dict(probe or {})


class ResourceLimitExceeded(ExecutionError):
    """The code of a turn went over a cap and was stopped; the session goes on.

    Args:
        what: What happened; names the cap and the use.
        limit: Which cap: ``memory``, ``cpu_time``, ``processes``, ``disk``, ``file_size``,
            ``wall_time`` or ``output``.
        cap: Its value, in bytes, seconds or processes.
        used: What was used when it was stopped.
        why: The reason.
        next_step: What the user can do now.
    """

    code = "resource_limit"

    def __init__(
        self,
        what: str,
        *,
        limit: str = "",
        cap: float = 0.0,
        used: float = 0.0,
        why: str = "",
        next_step: str = "",
    ) -> None:
        super().__init__(what, why=why, next_step=next_step)
        self.limit = limit
        self.cap = cap
        self.used = used


class TurnInterrupted(KeyboardInterrupt):
    """The user stopped a turn; IPython shows it as one line."""

    def __init__(self, note: str = "Stopped. Your data is as it was before this cell.") -> None:
        super().__init__(note)
        self.note = note

    def _render_traceback_(self) -> list[str]:
        """The hook by which IPython shows an exception."""
        return [self.note]
