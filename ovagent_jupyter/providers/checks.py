"""What a user can reach: keys, addresses, proxies and models, for ``doctor`` and ``models``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from ovagent_jupyter.config.llm import OFFLINE
from ovagent_jupyter.config.schema import AgentConfig
from ovagent_jupyter.errors import ConfigError, OVAgentError, ProviderError
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.catalog import PROVIDER_REGISTRY, Providers, model_ref
from ovagent_jupyter.providers.credentials import find_key, needs_key
from ovagent_jupyter.providers.model_info import model_info
from ovagent_jupyter.providers.provider import ModelInfo, ProviderInfo, WireAPI
from ovagent_jupyter.providers.resolve import backend_of, base_url_of

Finding = tuple[Literal["✓", "!", "✗"], str, str, str]
"""Mark, name, what was found, what to do: as a row of ``doctor``."""

PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
AUTHORITIES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_CONNECT = 0.3
"""Seconds that a server of this machine may take to be noticed."""
_LIVE = 5.0
"""Seconds that a service may take to tell what it serves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """One line of ``%ovagent models``."""

    model: str
    """As ``-m`` takes it; ``groq/…`` for a provider of which no model is listed."""
    provider: str
    """Who serves it."""
    info: ModelInfo | None
    """What is known of it; None for a provider of which no model is listed."""
    key: str
    """Variable that has its key, ``none needed``, or empty where there is none."""

    def cells(self) -> tuple[str, ...]:
        """Model, provider, window, longest answer, prices read and written, abilities, key."""
        key = self.key or "missing"
        if self.info is None:
            return self.model, self.provider, "", "", "", "", "", key
        info = self.info
        return (
            self.model,
            self.provider,
            tokens(info.window) if info.window_known else "not known",
            tokens(info.max_output) if info.max_output else "",
            "" if info.input_price is None else f"{info.input_price:g}",
            "" if info.output_price is None else f"{info.output_price:g}",
            ", ".join(sorted(info.abilities)),
            key,
        )


HEAD = (
    "model", "provider", "window", "longest answer", "$ read", "$ written", "can do", "key",
)  # fmt: skip
"""What stands above ``ModelRow.cells``; prices are for a million tokens."""


def models_table(
    environ: Mapping[str, str], providers: Providers = PROVIDER_REGISTRY
) -> tuple[ModelRow, ...]:
    """Every model that is known by name, those with a key first.

    Args:
        environ: The environment.
        providers: The table.
    """
    rows = [row for info in providers.known() for row in _rows_of(info, environ, providers)]
    return tuple(sorted(rows, key=lambda row: not row.key))


def _rows_of(
    info: ProviderInfo, environ: Mapping[str, str], providers: Providers
) -> Iterator[ModelRow]:
    key = _key_place(info, environ)
    for model in info.models:
        yield ModelRow(
            model=model_ref(info, model.id, providers),
            provider=info.display_name,
            info=model_info(info, model.id, providers=providers),
            key=key,
        )
    if not info.models:
        yield ModelRow(model=f"{info.id}/…", provider=info.display_name, info=None, key=key)


def _key_place(info: ProviderInfo, environ: Mapping[str, str]) -> str:
    with suppress(ProviderError):  # what cannot be a key is none
        found = find_key(info, environ=environ)
        if found and found.source in environ:
            return found.source
    return "" if needs_key(info) else "none needed"


async def check_models(
    config: AgentConfig,
    environ: Mapping[str, str],
    *,
    live: bool = False,
    providers: Providers = PROVIDER_REGISTRY,
) -> tuple[Finding, ...]:
    """Whether models can be reached, a line each: those in the settings, then what else is there.

    Args:
        config: The settings in force.
        environ: The environment.
        live: Also ask each service what it serves, which needs the network.
        providers: The table.
    """
    configured = _configured(config, environ, providers)
    used = {each.provider.id for each in configured if isinstance(each, Backend)}
    others = [info for info in providers.known() if info.id not in used]
    ready = [info for info in others if not info.local and _key_place(info, environ)]
    local = [info for info in others if info.local and info.wire_api is not WireAPI.LOCAL]
    running = await asyncio.gather(*(_listens(_url(info, environ)) for info in local))
    ready += [info for info, runs in zip(local, running, strict=True) if runs]
    rows = await asyncio.gather(
        *(_model_line(each, live=live) for each in configured),
        *(_provider_line(info, environ, live=live) for info in ready),
    )
    if not rows:
        rows = [("✓", "models", "none asked: the built-in planner needs no key", "")]
    return (*rows, *_network(environ))


def _configured(
    config: AgentConfig, environ: Mapping[str, str], providers: Providers
) -> list[Backend | Finding]:
    """The models of the settings, or why one cannot be asked."""
    llm = config.llm
    found: list[Backend | Finding] = []
    for name in dict.fromkeys((llm.model, *llm.backups)):
        if name == OFFLINE:
            continue
        try:
            backend = backend_of(llm, name, environ=environ, providers=providers)
        except (ProviderError, ConfigError) as error:
            found.append(_failed(f"model {name}", error))
        else:
            found.append(backend)
    return found


async def _model_line(backend: Backend | Finding, *, live: bool) -> Finding:
    if not isinstance(backend, Backend):
        return backend
    info = backend.model
    parts = [*_reached_by(backend), _window(info), _prices(info)]
    remedies = []
    if not info.window_known:
        remedies.append("Its window is a guess; `%ovagent models` lists those that are known.")
    if info.retires and info.retires <= f"{datetime.now(UTC):%Y-%m-%d}":
        parts.append(f"dropped by its service on {info.retires}")
        remedies.append("Choose another model.")
    if live:
        told, remedy, failed = await _asked(backend)
        parts.append(told)
        remedies = [remedy] if remedy else remedies
        if failed:
            return "✗", f"model {backend.name}", _joined(parts), remedy
    return "!" if remedies else "✓", f"model {backend.name}", _joined(parts), " ".join(remedies)


async def _provider_line(info: ProviderInfo, environ: Mapping[str, str], *, live: bool) -> Finding:
    try:
        backend = Backend(
            name=info.id,
            provider=info,
            model=ModelInfo(id=""),
            base_url=base_url_of(info, environ),
            key=find_key(info, environ=environ),
        )
    except (ProviderError, ConfigError) as error:
        return _failed(info.id, error)
    parts = [*_reached_by(backend), *(["something listens there"] if info.local else [])]
    if not live:
        return "✓", info.id, _joined(parts), ""
    told, remedy, failed = await _asked(backend)
    return "!" if failed else "✓", info.id, _joined([*parts, told]), remedy


async def _asked(backend: Backend) -> tuple[str, str, bool]:
    """What a service tells of itself: a part of a line, what to do, and whether it failed."""
    from ovagent_jupyter.providers.discovery import examine_endpoint

    try:
        found = await examine_endpoint(backend, seconds=_LIVE)
    except ProviderError as error:
        return error.why or error.what, error.next_step, True
    told = f"answers with {len(found.models)} model{'s' * (len(found.models) != 1)}"
    program = " ".join(filter(None, (found.server, found.version)))
    told = f"{told} ({program})" if program else told
    wanted = backend.model.id
    listed = {row.id for row in found.models}
    if not wanted or not listed or listed & {wanted, f"{wanted}:latest"}:
        return told, "", False
    return f"{told}, this one not among them", _like(wanted, listed), False


def _like(wanted: str, listed: Iterable[str]) -> str:
    from rapidfuzz import fuzz, process

    near = process.extract(wanted, sorted(listed), scorer=fuzz.ratio, limit=3)
    return f"It has: {', '.join(name for name, *_ in near)}."


async def _listens(url: str) -> bool:
    """Whether something listens at an address."""
    parts = urlsplit(url)
    if not parts.hostname:
        return False
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(_CONNECT):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _url(info: ProviderInfo, environ: Mapping[str, str]) -> str:
    try:
        return base_url_of(info, environ)
    except ConfigError:
        return ""


def _reached_by(backend: Backend) -> list[str]:
    default = backend.provider.default_key and backend.key.reveal() == backend.provider.default_key
    key = f"key from {backend.key.source}" if backend.key.source and not default else ""
    return [key or "no key needed", backend.url]


def _window(info: ModelInfo) -> str:
    return f"window {tokens(info.window)}{'' if info.window_known else ' (a guess)'}"


def _prices(info: ModelInfo) -> str:
    if info.input_price is None or info.output_price is None:
        return "price not known"
    if not info.input_price and not info.output_price:
        return "costs nothing"
    return f"${info.input_price:g} read, ${info.output_price:g} written per million tokens"


def tokens(number: int) -> str:
    """A number of tokens for a reader: ``128,000``."""
    return f"{number:,}"


def _joined(parts: Iterable[str]) -> str:
    return "; ".join(filter(None, parts))


def _failed(name: str, error: OVAgentError) -> Finding:
    return "✗", name, " ".join(filter(None, (error.what, error.why))), error.next_step


def _network(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Proxies and authorities, which hold for every service."""
    seen = [
        f"{name}={_without_password(value)}"
        for name in PROXIES
        if (value := environ.get(name) or environ.get(name.lower()))
    ]
    if seen:
        yield "✓", "proxy", _joined(seen), ""
    for name in AUTHORITIES:
        place = environ.get(name, "")
        if not place:
            continue
        if Path(place).exists():
            yield "✓", "certificates", f"{name}={place}", ""
        else:
            remedy = f"Correct {name} or unset it."
            yield "✗", "certificates", f"{name}={place}: there is no such file", remedy


def _without_password(url: str) -> str:
    scheme, slashes, rest = url.rpartition("://")
    return f"{scheme}{slashes}{rest.rpartition('@')[2]}"
