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

from ovagent_jupyter.config.llm import OFFLINE, is_loopback
from ovagent_jupyter.config.schema import AgentConfig
from ovagent_jupyter.errors import ConfigError, OVAgentError, ProviderError
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.catalog import PROVIDER_REGISTRY, Providers, misspelt, model_ref
from ovagent_jupyter.providers.credentials import find_key, needs_key
from ovagent_jupyter.providers.model_info import model_info
from ovagent_jupyter.providers.provider import ModelInfo, ProviderInfo, WireAPI
from ovagent_jupyter.providers.remedies import elsewhere
from ovagent_jupyter.providers.resolve import backend_of, base_url_of

Finding = tuple[Literal["✓", "!", "✗"], str, str, str]
"""Mark, name, what was found, what to do: as a row of ``doctor``."""

PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
AUTHORITIES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_CONNECT = 0.3
"""Seconds that a server of this machine may take to be noticed."""
_NOT_ASKED = "not asked; `doctor live` asks"
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
    name = f"model {backend.name}"
    if backend.wire_api is WireAPI.LOCAL:
        return await asyncio.to_thread(_local_line, name, backend)
    info = backend.model
    told = await (_asked(backend) if live else _noticed(backend))
    if told.failed:
        return "✗", name, _joined([*_reached_by(backend), told.words]), told.remedy
    parts = [*_reached_by(backend), _window(info), _prices(info), told.words]
    remedies = [told.remedy or _of_window(backend, told.window, live=live)]
    if info.retires and info.retires <= f"{datetime.now(UTC):%Y-%m-%d}":
        parts.append(f"dropped by its service on {info.retires}")
        remedies.append("Choose another model.")
    remedy = " ".join(filter(None, remedies))
    return "!" if remedy else "✓", name, _joined(parts), remedy


def _local_line(name: str, backend: Backend) -> Finding:
    """A model that runs in this process: what it needs, and what its files say."""
    from ovagent_jupyter.providers.local.readiness import examine_local

    try:
        found = examine_local(backend)
    except ProviderError as error:
        return _failed(name, error)
    mark: Literal["✓", "!"] = "!" if found.remedy else "✓"
    return mark, name, _joined(["no key needed", *found.parts, "costs nothing"]), found.remedy


def _of_window(backend: Backend, told: int, *, live: bool) -> str:
    """What to do about a window that is a guess; empty where it is none."""
    info = backend.model
    if info.window_known:
        return ""
    meant = misspelt(backend.provider, info.id)
    if meant:
        return f"Did you mean {meant!r}? This one is not known, and its window is a guess."
    by_hand = "in Python, register_provider sets it."
    if told:
        return f"It tells a window of {tokens(told)}; calls assume {tokens(info.window)}: {by_hand}"
    if live:
        return f"Its window is a guess, and the service does not tell it: {by_hand}"
    return f"Its window is a guess: `doctor live` asks for it; {by_hand}"


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
    parts = _reached_by(backend)
    if live:
        told = await _asked(backend)
        return "!" if told.failed else "✓", info.id, _joined([*parts, told.words]), told.remedy
    heard = "something listens there; " if info.local else ""
    return "✓", info.id, _joined([*parts, f"{heard}{_NOT_ASKED}"]), ""


@dataclass(frozen=True, slots=True)
class _Told:
    """What was found out at the address of a service."""

    words: str
    remedy: str = ""
    failed: bool = False
    window: int = 0
    """Of the model that is wanted; 0 where it is not told."""


async def _noticed(backend: Backend) -> _Told:
    """Without asking: whether something listens, where it is this machine that would."""
    if not is_loopback(backend.url):
        return _Told(_NOT_ASKED)
    if await _listens(backend.url):
        return _Told(f"something listens there; {_NOT_ASKED}")
    from ovagent_jupyter.providers.local.readiness import how_to_start

    start = how_to_start(backend)
    remedy = f"Start it with `{start}`." if start else "Start the server, or correct its address."
    return _Told("nothing listens there", elsewhere(backend, backend.url) or remedy, failed=True)


async def _asked(backend: Backend) -> _Told:
    """What a service tells of itself."""
    from ovagent_jupyter.providers.discovery import examine_endpoint

    try:
        found = await examine_endpoint(backend, seconds=_LIVE)
    except ProviderError as error:
        words = " ".join(filter(None, (error.what, error.why)))
        return _Told(words, error.next_step, failed=True)
    told = f"answers with {len(found.models)} model{'s' * (len(found.models) != 1)}"
    program = " ".join(filter(None, (found.server, found.version)))
    told = f"{told} ({program})" if program else told
    wanted = backend.model.id
    listed = {row.id: row for row in found.models}
    row = listed.get(wanted) or listed.get(f"{wanted}:latest")
    if row is not None:
        return _Told(told, window=row.window if row.window_known else 0)
    if not wanted or not listed:
        return _Told(told)
    return _Told(f"{told}, this one not among them", _like(wanted, listed))


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
    by = f" (endpoint, from {backend.endpoint_from})" if backend.endpoint_from else ""
    none = "no key needed" if backend.provider.local else "no key sent"
    return [key or none, f"{backend.url}{by}"]


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
