"""A trial of variants: each session, or user, always meets the same one, and all are measured."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256

from ovagent_jupyter.errors import ConfigError
from ovagent_jupyter.gateway.layer import Call, Next
from ovagent_jupyter.gateway.metrics import Figures, Metrics
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import ModelDelta, ModelRequest, Reply

BUCKETS = 10_000
"""Parts into which those who ask are divided: shares are exact to a hundredth of a percent."""

_FIXED = frozenset({"messages", "tools", "streamed"})
"""Fields of a request that are what is asked, not how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to answer."""

    name: str
    """Its name."""
    share: float = 1.0
    """How many meet it, against the shares of the others; 0 is nobody."""
    backend: Backend | None = None
    """Who answers; None leaves that as it is."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Fields of the request to set: ``model``, ``temperature``, ``reasoning_effort``, …"""


def bucket(experiment: str, unit: str) -> float:
    """Where somebody stands in an experiment: from 0 up to 1, the same each time.

    Args:
        experiment: Its name; another one divides people in another way.
        unit: Who asks: a session or a user.
    """
    # The length keeps ("ab", "c") and ("a", "bc") apart.
    hashed = sha256(f"{len(experiment)}:{experiment}:{unit}".encode()).digest()
    return int.from_bytes(hashed[:8], "big") % BUCKETS / BUCKETS


class Trial:
    """Sends each call to its variant; the answer has ``details["variant"]``.

    Args:
        experiment: Its name.
        variants: What is tried.
        user: Who asks; empty divides by session.

    Raises:
        ConfigError: No variant has a share, two have a name, or a setting is none of a request.
    """

    def __init__(self, experiment: str, variants: Sequence[Variant], *, user: str = "") -> None:
        _require_fit(experiment, variants)
        self.experiment = experiment
        self.variants = tuple(variants)
        self._user = user
        self.metrics = Metrics(label=self._label)
        """Figures of each variant."""
        self._total = sum(variant.share for variant in variants)

    def variant(self, unit: str) -> Variant:
        """The variant that somebody meets."""
        place = bucket(self.experiment, unit) * self._total
        chosen = [variant for variant in self.variants if variant.share > 0]
        for variant in chosen:
            place -= variant.share
            if place < 0:
                return variant
        return chosen[-1]  # the sum of shares is a float

    @property
    def figures(self) -> dict[str, Figures]:
        """Variant → what its calls came to."""
        return {variant.name: self.metrics.of(variant.name) for variant in self.variants}

    def _of(self, call: Call) -> Variant:
        return self.variant(self._user or call.session_id or call.call_id)

    def _label(self, call: Call, reply: Reply | None) -> str:
        return self._of(call).name

    async def __call__(self, call: Call, call_next: Next) -> AsyncGenerator[ModelDelta, None]:
        """Pass on the answer of the variant."""
        variant = self._of(call)
        label = f"{self.experiment}/{variant.name}"
        async with aclosing(self.metrics(_varied(call, variant), call_next)) as deltas:
            async for delta in deltas:
                if delta.reply is None:
                    yield delta
                    continue
                details = {**delta.reply.details, "variant": label}
                yield replace(delta, reply=replace(delta.reply, details=details))


def _varied(call: Call, variant: Variant) -> Call:
    """The call as the variant has it."""
    request: ModelRequest = replace(call.request, **dict(variant.settings))  # type: ignore[arg-type]
    if variant.backend is None:
        return replace(call, request=request)
    if "model" not in variant.settings:
        request = replace(request, model=variant.backend.model.id)
    return replace(call, request=request, backend=variant.backend)


def _require_fit(experiment: str, variants: Sequence[Variant]) -> None:
    names = [variant.name for variant in variants]
    shares = [variant.share for variant in variants]
    if len(set(names)) != len(names):
        what, remedy = "has two variants of the same name", "Give each a name of its own."
    elif not any(shares) or min(shares) < 0:
        what, remedy = "has no variant with a share above 0", "Give one a share, none below 0."
    else:
        known = {row.name for row in fields(ModelRequest)} - _FIXED
        wrong = sorted({name for variant in variants for name in variant.settings} - known)
        if not wrong:
            return
        what, remedy = f"sets {', '.join(wrong)}", f"Use some of {', '.join(sorted(known))}."
    raise ConfigError(f"The experiment {experiment!r} {what}.", next_step=remedy)
