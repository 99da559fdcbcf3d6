"""From the name of a model to where it is asked: provider, address, key."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

from ovagent_jupyter.config.llm import OFFLINE, LLMConfig, address
from ovagent_jupyter.config.secret import Headers, Secret
from ovagent_jupyter.errors import ConfigError, ProviderError
from ovagent_jupyter.providers.backend import Backend, Timeouts
from ovagent_jupyter.providers.catalog import (
    PROVIDER_REGISTRY,
    Providers,
    get_provider,
    misspelt,
    provider_at,
    split_model,
)
from ovagent_jupyter.providers.credentials import Keyring, find_key, missing_key, needs_key
from ovagent_jupyter.providers.model_info import model_info
from ovagent_jupyter.providers.provider import ModelInfo, ProviderInfo, WireAPI

BEARER_TOKENS = frozenset({"ANTHROPIC_AUTH_TOKEN", "AZURE_OPENAI_AD_TOKEN"})
"""Variables whose text is a token for the header Authorization, not a key."""
ENDPOINT = "OVAGENT_ENDPOINT"
"""Variable of the setting ``endpoint``."""
_OLLAMA_PORT = 11434
_ALL_INTERFACES = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - where it listens; asked at loopback


def resolve_backend(
    model: str,
    *,
    api_key: Secret | str | None = None,
    endpoint: str = "",
    headers: Mapping[str, str] | None = None,
    timeouts: Timeouts | None = None,
    environ: Mapping[str, str] | None = None,
    keyring: Keyring | None = None,
    override: ModelInfo | None = None,
    discovered: Iterable[ModelInfo] = (),
    providers: Providers = PROVIDER_REGISTRY,
    own_key: bool = True,
) -> Backend:
    """Where a model is asked.

    Args:
        model: ``claude-…``, ``groq/<model>``, ``https://host/v1#<model>``; with an ``endpoint``,
            the id as it is known there. What stands behind the provider is passed on verbatim.
        api_key: Its key; without one, those of its provider are looked for. With an endpoint of
            nobody we know, no other key is sent there.
        endpoint: Address of an OpenAI-compatible service that has the model.
        headers: Sent with every call.
        timeouts: How long it may take.
        environ: The environment; None is that of this process.
        keyring: Where the system keeps keys; see ``credentials.installed_keyring``.
        override: What the user says of the model.
        discovered: What the service told of its models.
        providers: The table.
        own_key: Whether the settings' own key would be its key, for the error where there is none.

    Raises:
        ProviderError: No provider is known, no model is named, or there is no key.
        ConfigError: An address cannot be used, or is missing.
    """
    environ = os.environ if environ is None else environ
    provider, model_id, base_url = _place(model, endpoint, environ, providers)
    if not model_id or model_id == OFFLINE:
        raise _no_model(model, provider)
    key = find_key(provider, environ=environ, explicit=api_key, keyring=keyring)
    if not key and needs_key(provider):
        meant = misspelt(provider, model_id, providers)
        raise missing_key(provider, keyring=keyring is not None, own=own_key, meant=meant)
    sent = dict(headers or {})
    if key.source in BEARER_TOKENS:
        # The wires send a key in the header of keys, and this is none.
        sent.setdefault("Authorization", f"Bearer {key.reveal()}")
        key = Secret("", key.source)
    return Backend(
        name=f"{provider.id}/{model_id}",
        provider=provider,
        model=model_info(
            provider, model_id, override=override, discovered=discovered, providers=providers
        ),
        base_url=base_url,
        key=key,
        headers=Headers(sent),
        endpoint_from=_endpoint_from(endpoint, environ),
        timeouts=timeouts or Timeouts(),
    )


def _endpoint_from(endpoint: str, environ: Mapping[str, str]) -> str:
    """Where the setting is from, as far as one can tell here."""
    if not endpoint:
        return ""
    same = endpoint.rstrip("/") == environ.get(ENDPOINT, "").strip().rstrip("/")
    return ENDPOINT if same else "config.toml, %config or an argument"


def _place(
    model: str, endpoint: str, environ: Mapping[str, str], providers: Providers
) -> tuple[ProviderInfo, str, str]:
    """Provider, id of the model and address."""
    if endpoint:
        provider = provider_at(endpoint, providers)
        return provider, model.strip(), provider.base_url
    provider, model_id = split_model(model, providers)
    if "://" in model:
        return provider, model_id, provider.base_url
    if provider.wire_api is WireAPI.LOCAL and model_id:
        provider, model_id = _one_of_this_machine(provider, model_id, providers)
    return provider, model_id, base_url_of(provider, environ)


def _one_of_this_machine(
    provider: ProviderInfo, model_id: str, providers: Providers
) -> tuple[ProviderInfo, str]:
    """The same model by one name, however its folder was written: usage is counted by it."""
    from ovagent_jupyter.providers.local.runner import choose_runner, one_name, runners

    if provider.id not in runners():
        try:
            choice = choose_runner(model_id)
        except ProviderError:
            return provider, model_id  # told of when it is asked
        chosen = providers.get(choice.runner)
        if chosen is None or chosen.wire_api is not WireAPI.LOCAL:
            return provider, model_id
        provider, model_id = chosen, choice.model_id
    return provider, one_name(model_id)


def backends_of(
    llm: LLMConfig,
    *,
    environ: Mapping[str, str] | None = None,
    timeouts: Timeouts | None = None,
    keyring: Keyring | None = None,
    providers: Providers = PROVIDER_REGISTRY,
) -> tuple[Backend, ...]:
    """Where the model of the settings and its backups are asked, in their order.

    Raises:
        ProviderError: As ``resolve_backend``.
        ConfigError: As ``resolve_backend``.
    """
    return tuple(
        backend_of(
            llm, name, environ=environ, timeouts=timeouts, keyring=keyring, providers=providers
        )
        for name in dict.fromkeys((llm.model, *llm.backups))
        if name != OFFLINE
    )


def backend_of(
    llm: LLMConfig,
    name: str,
    *,
    environ: Mapping[str, str] | None = None,
    timeouts: Timeouts | None = None,
    keyring: Keyring | None = None,
    providers: Providers = PROVIDER_REGISTRY,
) -> Backend:
    """Where one model of the settings is asked: ``llm.model`` or one of its backups.

    Key, address and headers of the settings are those of ``llm.model``. A backup of the same
    provider gets the key too, one of another provider gets nothing of it.

    Raises:
        ProviderError: As ``resolve_backend``.
        ConfigError: As ``resolve_backend``.
    """
    first = name == llm.model
    keyed = _is_keyed(llm, name, providers)
    return resolve_backend(
        name,
        api_key=llm.api_key if keyed else None,
        endpoint=llm.endpoint if first else "",
        headers=llm.headers if first and keyed else None,
        environ=environ,
        timeouts=timeouts,
        keyring=keyring,
        providers=providers,
        own_key=keyed,
    )


def _is_keyed(llm: LLMConfig, name: str, providers: Providers) -> bool:
    """Whether the key of the settings is for a model."""
    first = name == llm.model
    if llm.key_for is None:
        return first or (not llm.endpoint and _same_provider(name, llm.model, providers))
    # A notebook has named another model than the user: their key goes to their own service.
    model, endpoint = llm.key_for
    if endpoint or (first and llm.endpoint):
        return first and llm.endpoint == endpoint
    return model != OFFLINE and _same_provider(name, model, providers)


def _same_provider(one: str, other: str, providers: Providers) -> bool:
    try:
        ours, theirs = get_provider(one, providers), get_provider(other, providers)
    except (ProviderError, ConfigError):
        return False
    return (ours.id, ours.base_url) == (theirs.id, theirs.base_url)


def base_url_of(provider: ProviderInfo, environ: Mapping[str, str]) -> str:
    """The address of a provider: from its variables, else the catalogue's.

    Raises:
        ConfigError: A variable has no address, or none has one and there is no other.
    """
    for variable in provider.base_url_env:
        text = environ.get(variable, "").strip()
        if text:
            read = _READERS.get(variable, _as_it_is)
            return address(variable, read(text), why="It is a variable of the environment.")
    if provider.base_url or provider.wire_api is WireAPI.LOCAL:
        return provider.base_url
    variables = " or ".join(provider.base_url_env)
    raise ConfigError(
        f"The address of {provider.display_name} is not known.",
        why=f"Looked at: {variables}.",
        next_step=f"Set {variables}, as in https://<resource>.openai.azure.com.",
    )


def _as_it_is(text: str) -> str:
    return text


def _ollama_host(text: str) -> str:
    """The address that Ollama's own variable means: ``host``, ``:port``, ``0.0.0.0``, a URL."""
    if "://" not in text:
        text = f"http://{f'[{text}]' if text.count(':') > 1 and '[' not in text else text}"
        port = _OLLAMA_PORT
    else:
        port = {"http": 80, "https": 443}.get(urlsplit(text).scheme, _OLLAMA_PORT)
    try:
        parts = urlsplit(text)
        port = parts.port or port
    except ValueError:
        return text  # told of as it is, by who reads it
    host = parts.hostname or ""
    host = "127.0.0.1" if host in _ALL_INTERFACES else host
    return _below_v1(
        f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}{parts.path.rstrip('/')}"
    )


def _below_v1(url: str) -> str:
    """The address of the OpenAI-compatible part of a server."""
    return url if url.rstrip("/").endswith("/v1") else f"{url.rstrip('/')}/v1"


def _azure(url: str) -> str:
    return url if "/openai" in url else f"{url.rstrip('/')}/openai/v1"


_READERS: Mapping[str, Callable[[str], str]] = {
    "OLLAMA_HOST": _ollama_host,
    "OLLAMA_BASE_URL": _below_v1,
    "AZURE_OPENAI_ENDPOINT": _azure,
}
"""Variables whose text is not yet the address of the wire."""


def _no_model(name: str, provider: ProviderInfo) -> ProviderError:
    known = next((model.id for model in provider.models), "")
    example = f", such as '{provider.id}/{known}'" if known else ""
    return ProviderError(
        f"{name!r} names no model.",
        provider=provider.id,
        fault="unknown_model",
        why=f"It is {provider.display_name}.",
        next_step="Write the model behind a #, as in https://host/v1#my-model."
        if "://" in name
        else f"Write it as '{provider.id}/<model>'{example}.",
    )
