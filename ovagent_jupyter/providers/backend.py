"""One place to ask: a provider, a model of it, an address and a key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ovagent_jupyter.providers.credentials import Secret
from ovagent_jupyter.providers.provider import ModelInfo, ProviderInfo, Quirks, WireAPI


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds that a service may take; every wait has an end."""

    connect: float = 10.0
    """For a connection, name and TLS included."""
    first_byte: float = 120.0
    """Until something of the answer comes."""
    between: float = 60.0
    """Between two pieces of a streamed answer; comments of the service count as pieces."""
    total: float = 900.0
    """For the whole answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """Where a call goes."""

    name: str
    """Unique among the backends of one gateway: ``groq/qwen3``, or the user's own name."""
    provider: ProviderInfo
    model: ModelInfo
    base_url: str = ""
    """Empty is the provider's own."""
    key: Secret = field(default_factory=lambda: Secret(""))
    headers: Mapping[str, str] = field(default_factory=dict)
    """The user's own, sent with every call."""
    endpoint_from: str = ""
    """Where the setting ``endpoint`` is from that leads here; empty where the model's name does."""
    timeouts: Timeouts = field(default_factory=Timeouts)
    answer_cap: int = 64 << 20
    """Bytes of an answer after which the call is ended."""
    event_cap: int = 8 << 20
    """Bytes of one event of a stream after which the call is ended."""

    @property
    def url(self) -> str:
        """Where it is."""
        return self.base_url or self.provider.base_url

    @property
    def wire_api(self) -> WireAPI:
        """How it is spoken to."""
        return self.model.wire_api or self.provider.wire_api

    @property
    def quirks(self) -> Quirks:
        """How it differs from its wire: the provider's, with the model's own."""
        own = self.provider.quirks
        values = {name: getattr(own, name) for name in Quirks.__slots__}
        return Quirks(**(values | dict(self.model.quirks)))
