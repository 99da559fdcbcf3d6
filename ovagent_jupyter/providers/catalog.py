"""The table of providers: those of ``catalog.toml``, of plugins, and what a user adds."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from importlib.resources import files
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ovagent_jupyter.config.llm import address, is_loopback
from ovagent_jupyter.errors import ProviderError, RegistryError
from ovagent_jupyter.providers.provider import ModelInfo, ProviderInfo, Quirks, WireAPI
from ovagent_jupyter.registry import Registry

FILE = "catalog.toml"
OWNER = "ovagent-jupyter"
_ID = re.compile(r"[a-z0-9][a-z0-9._-]*")
_PATH_STARTS = ("/", "./", "../", "~")
_NEAR, _NEAR_ID = 60.0, 75.0
"""How alike, of 100, a model's or a provider's name must be to be offered instead."""
_MISSPELT = 88.0
"""The same for a model whose provider is known, which may have others that we do not know."""


class Providers(Mapping[str, ProviderInfo]):
    """Id → provider, for reading; ``register`` is the one way to add one.

    A view of a ``Registry``, which also has the rows of plugins (entry points of the group
    ``ovagent_jupyter.provider``). The rows of the file are read at the first question.

    Args:
        built_in: Whether the rows of ``catalog.toml`` are in it.
    """

    def __init__(self, *, built_in: bool = True) -> None:
        self._registry: Registry[ProviderInfo] = Registry("provider")
        self._unread = built_in
        # Two threads may ask first at the same time; one reads the file, the other waits for it.
        self._reading = threading.Lock()

    def register(self, info: ProviderInfo, *, owner: str = "") -> None:
        """Add a provider; the same row again changes nothing, as in a cell that is run twice.

        Raises:
            RegistryError: It is no usable row, or its id or an alias is taken.
        """
        _check(info)
        rows = self._rows()
        if info.id in rows and rows.get(info.id) == info:
            return
        others = [row for row in self.known() if row.id != info.id]
        for name in (info.id, *info.aliases):
            taken = next((row.id for row in others if name in (row.id, *row.aliases)), "")
            if taken:
                raise RegistryError(
                    f"The name {name!r} of the provider {info.id!r} is taken by {taken!r}.",
                    next_step="Give it another one.",
                )
        rows.register(info.id, info, owner=owner or _caller())

    def known(self) -> Iterator[ProviderInfo]:
        """Every row that can be loaded; a plugin that is broken is told of when it is asked for."""
        for name in self:
            with contextlib.suppress(RegistryError):
                yield self[name]

    def named(self, name: str) -> ProviderInfo | None:
        """The provider of that id or alias, in any case; None when there is none."""
        name = name.lower()
        if name in self:
            return self[name]
        return next((row for row in self.known() if name in row.aliases), None)

    def __getitem__(self, name: str) -> ProviderInfo:
        rows = self._rows()
        if name not in rows:
            raise KeyError(name)
        info = rows.get(name)
        _check(info)
        return info

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows())

    def __len__(self) -> int:
        return len(self._rows())

    def __repr__(self) -> str:
        return f"Providers({', '.join(self)})"

    def _rows(self) -> Registry[ProviderInfo]:
        if self._unread:
            with self._reading:
                if self._unread:
                    for info in read_catalog():
                        self._registry.register(info.id, info, owner=OWNER)
                    self._unread = False
        return self._registry


PROVIDER_REGISTRY = Providers()
"""Every provider by its id; read-only."""


def register_provider(info: ProviderInfo) -> None:
    """Add a provider, for this process; plugins use an entry point instead.

    Raises:
        RegistryError: It is no usable row, or its id or an alias is taken.
    """
    PROVIDER_REGISTRY.register(info, owner=_caller())


def get_provider(name_or_model: str, providers: Providers = PROVIDER_REGISTRY) -> ProviderInfo:
    """The provider of a name or of a model.

    Args:
        name_or_model: ``groq``, ``groq/<model>``, ``claude-…``, ``mlx/<path>``, a URL.
        providers: The table.

    Raises:
        ProviderError: None is known by it; the nearest is named.
        ConfigError: It is a URL that cannot be used.
    """
    return split_model(name_or_model, providers)[0]


def split_model(name: str, providers: Providers = PROVIDER_REGISTRY) -> tuple[ProviderInfo, str]:
    """The provider of a model, and the model's id as its service knows it; may be empty.

    Only the provider in front is taken off; the rest is passed on as it is.

    Args:
        name: As in ``get_provider``; a model of a URL stands behind a ``#``.
        providers: The table.

    Raises:
        ProviderError: None is known by it; the nearest is named.
        ConfigError: It is a URL that cannot be used.
    """
    name = name.strip()
    if "://" in name:
        url, _, model = name.partition("#")
        return provider_at(url, providers), model
    head, slash, rest = name.partition("/")
    named = providers.named(head)
    if named is not None:
        return named, rest if slash else ""
    if name.startswith(_PATH_STARTS) and "local" in providers:
        return providers["local"], name
    found = _by_prefix(name, providers)
    if found is None:
        raise unknown(name, providers)
    return found, name


def provider_at(url: str, providers: Providers = PROVIDER_REGISTRY) -> ProviderInfo:
    """The provider at an address: a known one, or any that speaks OpenAI's chat completions.

    An address that ends with ``/anthropic`` is taken to speak Anthropic's wire.

    Raises:
        ConfigError: It cannot be used.
    """
    url = address("endpoint", url)
    parts = urlsplit(url)
    info = ProviderInfo(
        id="custom",
        display_name=f"OpenAI-compatible service at {parts.netloc}",
        wire_api=WireAPI.CHAT_COMPLETIONS,
        default_key="none",
        local=is_loopback(url),
    )
    for row in providers.known():
        # A port of this machine says nothing of who listens there.
        if row.base_url and not row.local and _covers(urlsplit(row.base_url), parts):
            info = row
            break
    if parts.path.endswith("/anthropic"):
        # An older version than its own service speaks now, which all that imitate it know.
        headers = {**info.headers, "anthropic-version": "2023-06-01"}
        info = replace(info, wire_api=WireAPI.ANTHROPIC_MESSAGES, headers=headers)
    return replace(info, base_url=url)


def unknown(name: str, providers: Providers = PROVIDER_REGISTRY) -> ProviderError:
    """The error for a model that no provider is known for; it names the nearest."""
    close = nearest(name, providers)
    meant = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
    known = ", ".join(row.id for row in providers.known())
    form = "Write it as '<provider>/<model>'."
    return ProviderError(
        f"There is no model {name!r}.",
        fault="unknown_model",
        why="No provider is known by that name.",
        next_step=f"{meant}{form}" if close else f"{form} Providers: {known}.",
    )


def nearest(name: str, providers: Providers = PROVIDER_REGISTRY) -> tuple[str, ...]:
    """Names of models or providers that are like one, best first; two at most."""
    from rapidfuzz import fuzz, process, utils  # only errors need it

    head, slash, rest = name.partition("/")
    models = [
        model_ref(row, model.id, providers) for row in providers.known() for model in row.models
    ]
    found = process.extract(
        name,
        models,
        scorer=fuzz.ratio,
        processor=utils.default_process,
        score_cutoff=_NEAR,
        limit=2,
    )
    if not found:
        rows = list(providers.known())
        # Of two that are as near, the one whose own name it is: groq for groc, not xai's grok.
        ids = [*(row.id for row in rows), *(alias for row in rows for alias in row.aliases)]
        found = process.extract(head, ids, scorer=fuzz.ratio, score_cutoff=_NEAR_ID, limit=1)
        return tuple(f"{near}/{rest}" if slash else near for near, *_ in found)
    return tuple(near for near, *_ in found)


def misspelt(
    provider: ProviderInfo, model_id: str, providers: Providers = PROVIDER_REGISTRY
) -> str:
    """The model of a provider that a name is a misspelling of, as a user names it; may be empty.

    One that differs in digits alone is another version, and not misspelt.
    """
    from rapidfuzz import fuzz, process  # only errors need it

    wanted = model_id.lower()
    ids = {row.id.lower(): row.id for row in provider.models}
    if wanted in ids or _without_digits(wanted) in map(_without_digits, ids):
        return ""
    found = process.extractOne(wanted, list(ids), scorer=fuzz.ratio, score_cutoff=_MISSPELT)
    if found is None or wanted.startswith(found[0]):  # more in the name is another model
        return ""
    return model_ref(provider, ids[found[0]], providers)


def _without_digits(model_id: str) -> str:
    return re.sub(r"[\d.]+", "", model_id)


def model_ref(
    provider: ProviderInfo, model_id: str, providers: Providers = PROVIDER_REGISTRY
) -> str:
    """How a user names a model: alone where that leads to its provider, else with it in front."""
    found = None if "/" in model_id else _by_prefix(model_id, providers)
    return (
        model_id if found is not None and found.id == provider.id else f"{provider.id}/{model_id}"
    )


def read_catalog() -> tuple[ProviderInfo, ...]:
    """The rows of ``catalog.toml``.

    Raises:
        RegistryError: A row is no usable one.
    """
    import tomllib  # the file is read by the first question about a model, not at import

    written = tomllib.loads(files(__package__).joinpath(FILE).read_text(encoding="utf-8"))
    return tuple(_provider(name, _whole(row, written)) for name, row in written.items())


def _whole(row: Mapping[str, Any], written: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row with what it takes from the one that it is like; names are its own."""
    if "like" not in row:
        return row
    return {"price_list": row["like"], **written[row["like"]], "aliases": (), "prefixes": (), **row}


def _provider(name: str, row: Mapping[str, Any]) -> ProviderInfo:
    keys = row.get("keys", ())
    plain = ("base_url", "default_key", "headers", "key_header", "price_list", "local")
    info = ProviderInfo(
        id=name,
        display_name=row["name"],
        wire_api=WireAPI(row["wire"]),
        env_key=keys[0] if keys else "",
        alt_env_keys=tuple(keys[1:]),
        base_url_env=tuple(row.get("base_url_env", ())),
        aliases=tuple(row.get("aliases", ())),
        prefixes=tuple(row.get("prefixes", ())),
        quirks=Quirks(**row.get("quirks", {})),
        models=tuple(
            _model(model_id, {**row.get("every", {}), **own})
            for model_id, own in row.get("models", {}).items()
        ),
        **{key: row[key] for key in plain if key in row},
    )
    _check(info)
    return info


def _model(model_id: str, row: Mapping[str, Any]) -> ModelInfo:
    wire = row.get("wire")
    return ModelInfo(
        id=model_id,
        window=row.get("window", 0),
        window_known="window" in row,
        max_output=row.get("max_output"),
        input_price=row.get("input_price"),
        output_price=row.get("output_price"),
        abilities=frozenset(row.get("abilities", ())),
        wire_api=WireAPI(wire) if wire else None,
        quirks=row.get("quirks", {}),
        retires=row.get("retires", ""),
    )


def _check(info: object) -> None:
    """Check a row before it is taken in.

    Raises:
        RegistryError: Its id, address or quirks cannot be used.
    """
    if not isinstance(info, ProviderInfo):
        kind = type(info).__name__
        raise RegistryError(f"A provider is a ProviderInfo, not a {kind}.")
    wrong = ""
    if not _ID.fullmatch(info.id):
        wrong = "Its id is made of small letters, digits, '.', '-' and '_'."
    elif info.wire_api not in tuple(WireAPI):
        wrong = f"Its wire_api is one of {', '.join(WireAPI)}."
    elif info.base_url and urlsplit(info.base_url).scheme not in {"http", "https"}:
        wrong = "Its base_url begins with https:// or http://."
    elif not info.base_url and not info.base_url_env and info.wire_api is not WireAPI.LOCAL:
        wrong = "It needs a base_url, or a variable that has one."
    unknown_quirks = {name for model in info.models for name in model.quirks} - _QUIRKS
    if unknown_quirks:
        wrong = f"There is no quirk {sorted(unknown_quirks)[0]!r}."
    if wrong:
        raise RegistryError(f"The provider {info.id!r} cannot be used.", why=wrong)


_QUIRKS = {field.name for field in fields(Quirks)}


def _by_prefix(model_id: str, providers: Providers) -> ProviderInfo | None:
    lower = model_id.lower()
    found = [
        (len(p), row) for row in providers.known() for p in row.prefixes if lower.startswith(p)
    ]
    # The first of the longest: a row of the file before those that come later.
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _covers(known: SplitResult, given: SplitResult) -> bool:
    """Whether an address is at a known one: the same host and port, below the same path."""
    here = given.path.rstrip("/")
    path = known.path.rstrip("/")
    return (known.scheme, known.netloc) == (given.scheme, given.netloc.lower()) and (
        here == path or here.startswith(f"{path}/")
    )


def _caller() -> str:
    """Name of the module that registers, to name owners in errors."""
    return str(sys._getframe(2).f_globals.get("__name__", "unknown"))
