"""The models of the settings: their backends, and the layers around them."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ovagent_jupyter.config.llm import Budget, LLMConfig
from ovagent_jupyter.config.schema import AgentConfig
from ovagent_jupyter.config.secret import Secret
from ovagent_jupyter.errors import ConfigError, ProviderError
from ovagent_jupyter.providers.provider import WireAPI
from ovagent_jupyter.storage import paths
from ovagent_jupyter.storage.redaction import Redactor

if TYPE_CHECKING:
    from ovagent_jupyter.config.gateway import GatewayConfig
    from ovagent_jupyter.gateway.cost import Prices
    from ovagent_jupyter.gateway.gateway import Gateway
    from ovagent_jupyter.gateway.layer import Call, Layer
    from ovagent_jupyter.gateway.quota import Accounts, Scope
    from ovagent_jupyter.providers.backend import Backend
    from ovagent_jupyter.providers.client import ModelDelta, ModelRequest
    from ovagent_jupyter.providers.connections import Connections
    from ovagent_jupyter.storage.day_ledger import Spent


KEPT = 8
"""Gateways that are kept, each of other settings; they share their connections."""


class ConfiguredModel:
    """A gateway with what the settings say of each request.

    Args:
        gateway: Who answers.
        llm: The settings.
        prices: What it costs.
        left_out: Which backups are not asked, and why.
    """

    def __init__(
        self, gateway: Gateway, llm: LLMConfig, prices: Prices, left_out: tuple[str, ...] = ()
    ) -> None:
        self.gateway = gateway
        self.name = llm.model
        self._llm = llm
        self._prices = prices
        self._left_out = left_out

    @property
    def notes(self) -> tuple[str, ...]:
        """Which backups are not asked, and which windows are guesses."""
        guesses = (
            f"The window of {backend.model.id} is not known: {backend.model.window:,} tokens are "
            "assumed."
            for backend in self.gateway.backends
            if not backend.model.window_known
        )
        return (*self._left_out, *guesses)

    @property
    def window(self) -> int:
        """Tokens that a conversation may have."""
        return self.gateway.backends[0].model.window

    @property
    def secrets(self) -> tuple[str, ...]:
        """Keys, and what headers say, for whoever keeps them out of a file."""
        return tuple(secret for backend in self.gateway.backends for secret in _secrets(backend))

    def call(self, call: Call) -> AsyncGenerator[ModelDelta, None]:
        """The answer as it comes; see ``Gateway.call``."""
        return self.gateway.call(replace(call, request=self._as_set(call.request)))

    def estimate(self, request: ModelRequest) -> str:
        """What asking would cost, as a sentence."""
        return self._prices.estimate(self._as_set(request), self.gateway.backends[0]).sentence()

    async def aclose(self) -> None:
        """End what is open."""
        await self.gateway.aclose()

    def _as_set(self, request: ModelRequest) -> ModelRequest:
        llm = self._llm
        return replace(
            request,
            model=self.gateway.backends[0].model.id,
            reasoning_effort=request.reasoning_effort or llm.reasoning_effort,
            max_output_tokens=request.max_output_tokens or llm.max_output_tokens,
            temperature=llm.temperature if request.temperature is None else request.temperature,
        )


class Models:
    """Gives the model that settings name; the same one as long as they stay.

    It belongs to one event loop. Nothing of it is imported until a model is first asked.

    Args:
        environ: Where keys are; None is this process's environment.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ
        self._connections: Connections | None = None
        self._accounts: Accounts | None = None
        self._made: list[tuple[tuple[LLMConfig, GatewayConfig, Path | None], ConfiguredModel]] = []

    def __call__(self, config: AgentConfig, *, dry: bool = False) -> ConfiguredModel:
        """The model of these settings, and its backups.

        Args:
            config: The settings.
            dry: Only for an estimate: it needs no key, and cannot be asked.

        Raises:
            ProviderError: A model is not known, or has no key.
            ConfigError: An address cannot be used.
        """
        if dry and not config.llm.api_key:
            llm = replace(config.llm, api_key=Secret("not-asked"), backups=())
            return self._make(replace(config, llm=llm))
        key = (config.llm, config.gateway, config.execution.storage_dir)
        for known, model in self._made:
            if known == key:
                # Called once a turn: a user who asks again has had time to mend it.
                model.gateway.forgive_keys()
                return model
        model = self._make(config)
        self._made = [*self._made[1 - KEPT :], (key, model)]
        return model

    def state(self) -> list[tuple[str, str]]:
        """How the layers and backends are that were used, for ``status``."""
        # A model that was asked in several ways has a row for the last of them.
        rows = {row[0]: row for _, model in self._made for row in model.gateway.state()}
        return list(rows.values())

    async def aclose(self) -> None:
        """End all connections; safe to call twice."""
        made, self._made = self._made, []
        for _, model in made:
            await model.aclose()
        if self._connections is not None:
            await self._connections.aclose()
            self._connections = None

    def _make(self, config: AgentConfig) -> ConfiguredModel:
        from ovagent_jupyter.gateway.cost import Prices
        from ovagent_jupyter.gateway.gateway import Gateway
        from ovagent_jupyter.providers.connections import Connections
        from ovagent_jupyter.providers.wires import client_for

        connections = self._connections = self._connections or Connections()
        prices = Prices(config.gateway.prices.own)
        backends, left_out = self._backends(config)
        gateway = Gateway(
            backends,
            lambda backend: client_for(backend, connections),
            config.gateway,
            layers=self._layers(config, backends, prices),
        )
        return ConfiguredModel(gateway, config.llm, prices, left_out)

    def _backends(self, config: AgentConfig) -> tuple[tuple[Backend, ...], tuple[str, ...]]:
        """Whom to ask, and what a user has to know of whom not."""
        from ovagent_jupyter.providers.backend import Timeouts
        from ovagent_jupyter.providers.credentials import installed_keyring
        from ovagent_jupyter.providers.resolve import backend_of

        limits, llm = config.gateway.timeouts, config.llm
        timeouts = Timeouts(**{row.name: getattr(limits, row.name) for row in fields(limits)})
        found: list[Backend] = []
        left_out: list[str] = []
        for name in dict.fromkeys((llm.model, *llm.backups)):
            try:
                backend = backend_of(
                    llm,
                    name,
                    environ=self._environ,
                    timeouts=timeouts,
                    keyring=installed_keyring(),
                )
            except ProviderError as error:
                if not found:  # the model itself, and not a backup
                    raise
                left_out.append(f"The backup {name} is left out: {error.what}")
            else:
                found.append(_as_its_files_say(backend))
        return tuple(found), tuple(left_out)

    def _layers(
        self, config: AgentConfig, backends: tuple[Backend, ...], prices: Prices
    ) -> dict[str, Layer]:
        """The layers that need more than their own settings; one that is off is not made."""
        from ovagent_jupyter.gateway.cost import Pricing
        from ovagent_jupyter.gateway.validation import Validation

        settings, redactor = config.gateway, Redactor(self._environ)
        layers: dict[str, Layer] = {"cost": Pricing(prices, backends), "validation": Validation()}
        if settings.trace.enabled:
            from ovagent_jupyter.gateway.tracing import Tracing

            layers["tracing"] = Tracing(content=settings.trace.content, redactor=redactor)
        if settings.metrics.enabled:
            from ovagent_jupyter.gateway.metrics import Metrics

            layers["metrics"] = Metrics()
        if settings.transforms.answer:
            from ovagent_jupyter.gateway.transforms import Transforms

            layers["transforms"] = Transforms(settings.transforms.answer)
        redactor.learn(secret for backend in backends for secret in _secrets(backend))
        return layers | self._quota(config, prices) | self._kept(settings, backends, redactor)

    def _quota(self, config: AgentConfig, prices: Prices) -> dict[str, Layer]:
        llm = config.llm
        budgets: dict[Scope, Budget] = {
            "turn": llm.budget_turn,
            "session": llm.budget_session,
            "day": llm.budget_day,
        }
        if not any(budgets.values()):
            return {}
        from ovagent_jupyter.gateway.quota import Accounts, Quota
        from ovagent_jupyter.storage.day_ledger import DayLedger

        # One for all gateways: other options do not begin a budget anew.
        accounts = self._accounts = self._accounts or Accounts()
        directory = paths.sessions_dir(self._environ, config.execution.storage_dir)
        ledger = DayLedger(paths.home_dir(self._environ) / "spent")
        return {
            "quota": Quota(
                budgets,
                prices,
                ledger=ledger,
                accounts=accounts,
                allow_unpriced=config.gateway.prices.allow_unknown,
                earlier=partial(_spent_in, directory),
            )
        }

    def _kept(
        self, settings: GatewayConfig, backends: tuple[Backend, ...], redactor: Redactor
    ) -> dict[str, Layer]:
        """Cassettes, answers kept, trials."""
        layers: dict[str, Layer] = {}
        replay, cache, trial = settings.replay, settings.cache, settings.variants
        if replay.path is not None and replay.mode != "off":
            from ovagent_jupyter.gateway.replay import Recorder, Replay

            kind = Recorder if replay.mode == "record" else Replay
            layers["replay"] = kind(replay.path, redactor)
        if cache.enabled:
            from ovagent_jupyter.gateway.cache import MemoryStore, ResponseCache
            from ovagent_jupyter.storage.response_cache import DiskStore

            answers = paths.cache_dir(self._environ) / "answers.sqlite"
            store = DiskStore(answers) if cache.on_disk else MemoryStore(cache.size, cache.ttl)
            whom = " ".join(f"{backend.name} {backend.url}" for backend in backends)
            layers["cache"] = ResponseCache(
                store, ttl=cache.ttl, sampled=cache.sampled, whom=whom, redactor=redactor
            )
        if trial.experiment:
            from ovagent_jupyter.gateway.variants import Trial, Variant

            named = {backend.name: backend for backend in backends}
            for name in trial.shares.keys() - named.keys():
                raise ConfigError(
                    f"variants.shares names {name!r}, which is no backend.",
                    next_step=f"Use one of {', '.join(named)}.",
                )
            variants = [
                Variant(name=name, share=share, backend=named[name])
                for name, share in trial.shares.items()
            ]
            layers["variants"] = Trial(trial.experiment, variants)
        return layers


def _as_its_files_say(backend: Backend) -> Backend:
    """A model of this machine has the window that its own files name."""
    if backend.wire_api is not WireAPI.LOCAL:
        return backend
    from ovagent_jupyter.providers.local.model_files import describe_model

    found = describe_model(backend.model.id)
    return backend if found is None else replace(backend, model=found)


def _secrets(backend: Backend) -> tuple[str, ...]:
    return (backend.key.reveal(), *backend.headers.values())


def _spent_in(directory: Path, session_id: str) -> Spent:
    """What a session has spent before, as its log tells it."""
    from ovagent_jupyter.gateway.cost import NOT_ASKED
    from ovagent_jupyter.storage.day_ledger import Spent
    from ovagent_jupyter.storage.usage import read_uses

    total = Spent()
    for use in read_uses(directory, session_id):
        if not use.cached and use.fault not in NOT_ASKED:
            tokens = use.usage.input_tokens + use.usage.output_tokens
            total += Spent(1, tokens, use.cost or 0.0).bounded()
    return total
