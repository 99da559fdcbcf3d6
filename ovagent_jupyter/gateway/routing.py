"""Which backend is asked, and which next when it fails.

Two rules hold whatever is set. As long as nothing of an answer has been passed on, the next
backend is asked. Once something has, no other is: the caller gets ``StreamInterrupted`` with the
part that came, and decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import NamedTuple

from ovagent_jupyter.config.gateway import RoutingConfig
from ovagent_jupyter.errors import (
    ConfigError,
    OVAgentError,
    ProviderError,
    RegistryError,
    StreamInterrupted,
)
from ovagent_jupyter.events import Category, Level
from ovagent_jupyter.gateway.layer import Call, Next
from ovagent_jupyter.gateway.partial import Spending, broken_off, ended_by_budget, with_budget
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import ModelDelta

STOPS = frozenset({"budget", "busy"})
"""Faults of ours, which no other backend mends."""


class Failure(NamedTuple):
    """A backend that was asked in vain."""

    backend: Backend
    error: ProviderError


class Routing:
    """Chooses a backend for each call, and the next when one fails before it has said anything.

    One that cannot be asked as it is set up, such as at an address that is none, is one more that
    failed; where it is the only one, its own error says so.

    Args:
        backends: Whom to ask, in order.
        config: How one is chosen.
        unhealthy: Whether a backend is asked after the others.

    Raises:
        ConfigError: There is none, two have the same name, or a weight is nobody's.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        config: RoutingConfig,
        *,
        unhealthy: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._backends = tuple(backends)
        self._config = config
        self._unhealthy = unhealthy
        self._turn = 0
        self._credit: dict[str, float] = {}
        self.in_flight: Counter[str] = Counter()
        """Calls that are running, by the name of the backend."""
        _check(self._backends, config)

    async def __call__(self, call: Call, call_next: Next) -> AsyncGenerator[ModelDelta, None]:
        """The stream of the first backend that gives one.

        Raises:
            StreamInterrupted: The answer broke off after a part of it had been passed on.
            ProviderError: No backend answered.
        """
        failures: list[Failure] = []
        order = self._order(call)
        for number, backend in enumerate(order):
            if not _may_follow(backend, failures):
                continue
            _tell_switch(call, failures, backend)
            begun = ended = False
            self.in_flight[backend.name] += 1
            try:
                async with aclosing(call_next(_sent_to(backend, call))) as deltas:
                    async for delta in deltas:
                        if delta.reply is not None:
                            more = number + 1 < len(order) and not begun
                            if more and self._refused(delta):
                                raise _refusal(backend, delta)
                            ended = True
                            delta = _signed(delta, backend, failures)
                        elif not begun:
                            begun = delta.has_content
                        yield delta
                if not ended:
                    raise _no_end(backend)
                return
            except (ProviderError, ConfigError, RegistryError) as fault:
                if ended:
                    return  # the answer is whole: what fails after it is no failure of the call
                failures.append(_failure(backend, fault, alone=len(order) == 1))
                if begun:
                    raise _interrupted(failures) from fault
                if self._ends_with(failures[-1]):
                    break
            finally:
                self.in_flight[backend.name] -= 1
        raise _all_failed(failures)

    def _ends_with(self, failure: Failure) -> bool:
        """Whether nobody else is asked after it."""
        fault = failure.error.fault
        if fault in STOPS or ended_by_budget(failure.error):
            return True
        return fault == "policy" and not self._config.refusal_fails_over

    def _refused(self, delta: ModelDelta) -> bool:
        return self._config.refusal_fails_over and delta.finish_reason == "refused"

    def _order(self, call: Call) -> list[Backend]:
        """Whom to ask, first to last: as the strategy says, what is unhealthy after the rest."""
        if len(self._backends) == 1:
            return list(self._backends)
        chosen = call.backend.name if call.backend else ""
        order = sorted(self._by_strategy(), key=lambda each: self._unhealthy(each.name))
        return sorted(order, key=lambda each: each.name != chosen)

    def _by_strategy(self) -> list[Backend]:
        backends = list(self._backends)
        match self._config.strategy:
            case "failover":
                return backends
            case "round_robin":
                first = self._turn % len(backends)
                self._turn += 1
                return backends[first:] + backends[:first]
            case "least_connections":
                return sorted(backends, key=lambda each: self.in_flight[each.name])
            case "weighted":
                return self._by_weight(backends)

    def _by_weight(self, backends: list[Backend]) -> list[Backend]:
        """Smooth weighted round robin, as nginx has it: no bursts, and no chance."""
        weights = {each.name: self._config.weights.get(each.name, 1.0) for each in backends}
        credit = self._credit
        for name, weight in weights.items():
            credit[name] = credit.get(name, 0.0) + weight
        order = sorted(backends, key=lambda each: (not weights[each.name], -credit[each.name]))
        credit[order[0].name] -= sum(weights.values())
        return order


def _check(backends: Sequence[Backend], config: RoutingConfig) -> None:
    names = [backend.name for backend in backends]
    if not names:
        raise ConfigError("There is no backend to ask.", next_step="Name a model.")
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ConfigError(
            f"Two backends are called {twice[0]!r}.", next_step="Name each model once."
        )
    strangers = sorted(set(config.weights) - set(names))
    if strangers:
        raise ConfigError(
            f"routing.weights names {strangers[0]!r}, which is no backend.",
            next_step=f"Use one of {', '.join(names)}.",
        )


def _sent_to(backend: Backend, call: Call) -> Call:
    request = call.request
    if request.model != backend.model.id:
        request = replace(request, model=backend.model.id)
    return replace(call, backend=backend, request=request)


def _may_follow(backend: Backend, failures: list[Failure]) -> bool:
    """Whether it makes sense to ask it: what was too long for one needs a larger window."""
    return not failures or all(
        backend.model.window > failed.backend.model.window
        for failed in failures
        if failed.error.fault == "context_full"
    )


def _tell_switch(call: Call, failures: list[Failure], backend: Backend) -> None:
    if not failures:
        return
    last = failures[-1]
    call.tell(
        Category.MODEL_SWITCHED,
        f"{last.backend.name} failed ({last.error.fault}); asking {backend.name}.",
        level=Level.WARNING,
        call_id=call.call_id,
        left=last.backend.name,
        backend=backend.name,
        fault=last.error.fault,
    )


def _signed(delta: ModelDelta, backend: Backend, failures: list[Failure]) -> ModelDelta:
    """The last piece, saying who answered and what the others have spent."""
    if delta.reply is None:
        return delta
    if delta.reply.backend != backend.name:
        delta = replace(delta, reply=replace(delta.reply, backend=backend.name))
    if not failures:
        return delta
    spending = Spending(failed.error for failed in failures)
    return spending.signed(delta, failed_backends=[each.backend.name for each in failures])


def _failure(backend: Backend, fault: OVAgentError, *, alone: bool) -> Failure:
    """A backend that cannot be asked as it is set up is one more that failed."""
    if isinstance(fault, ProviderError):
        return Failure(backend, fault)
    if alone:
        raise fault
    what, why, next_step = fault.what, fault.why, fault.next_step
    error = ProviderError(what, provider=backend.provider.id, why=why, next_step=next_step)
    return Failure(backend, error)


def _refusal(backend: Backend, delta: ModelDelta) -> ProviderError:
    return ProviderError(
        "The model has refused to answer.",
        provider=backend.provider.id,
        fault="policy",
        usage=delta.reply.usage if delta.reply else None,
    )


def _no_end(backend: Backend) -> ProviderError:
    return ProviderError(
        "The answer has no end.", provider=backend.provider.id, retryable=True, fault="malformed"
    )


def _interrupted(failures: list[Failure]) -> StreamInterrupted:
    """The error for an answer that broke off, with what all backends have spent."""
    error = broken_off(failures[-1].error)
    Spending([*(failed.error for failed in failures[:-1]), error]).charge(error)
    return error


def _all_failed(failures: list[Failure]) -> ProviderError:
    """One error for all: that of the only one, or a line for each.

    A budget that ended it is not the failure: it says only why nobody else was asked.
    """
    if len(failures) == 1:
        return failures[0].error
    if failures[-1].error.fault == "budget":
        return with_budget(_all_failed(failures[:-1]), failures[-1].error)
    errors = [failed.error for failed in failures]
    waits = [error.retry_after for error in errors if error.retry_after is not None]
    # What a shorter conversation mends goes first; who was not even asked says nothing new.
    main = min(
        errors, key=lambda error: (error.fault != "context_full", error.fault == "unhealthy")
    )
    last = errors[-1] if ended_by_budget(errors[-1]) else main
    error = ProviderError(
        f"None of {len(failures)} models answered.",
        provider=main.provider,
        status_code=main.status_code,
        retryable=any(error.retryable for error in errors),
        fault=main.fault,
        retry_after=min(waits, default=None),
        why="\n".join(f"{name.name}: {_line(error)}" for name, error in failures),
        next_step=last.next_step or "Try again, or name another model.",
    )
    Spending(errors).charge(error)
    return error


def _line(error: ProviderError) -> str:
    why = error.why.split("\n", 1)[0]
    return f"{error.what} {why}".strip()
