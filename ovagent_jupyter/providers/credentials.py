"""Keys: where they are looked for, and a holder that never shows one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ovagent_jupyter.config.secret import Secret
from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.providers.provider import ProviderInfo, WireAPI

__all__ = ["SERVICE", "Keyring", "Secret", "find_key", "installed_keyring", "variables_of"]

OWN_VARIABLE = "OVAGENT_API_KEY"
"""Holds the key of the model in the settings, whoever serves it."""

SERVICE = "ovagent"
"""Under which name keys lie in the keyring of the system; the user is the provider's id."""


class Keyring(Protocol):
    """Where the system keeps keys, as the package keyring gives it."""

    def get_password(self, service_name: str, username: str) -> str | None:
        """The key, or None."""
        ...


def find_key(
    provider: ProviderInfo,
    *,
    environ: Mapping[str, str],
    explicit: Secret | str | None = None,
    keyring: Keyring | None = None,
) -> Secret:
    """The key of a provider: given, from its variables, from the keyring, or its default one.

    Args:
        provider: Whose.
        environ: The environment.
        explicit: What was given; it wins.
        keyring: Asked when no variable has one; see ``installed_keyring``.

    Returns:
        The key; an empty one where there is none.

    Raises:
        ProviderError: What was found cannot be a key; its value is not told.
    """
    if explicit:
        given = explicit if isinstance(explicit, Secret) else Secret(explicit, "an argument")
        return _checked(provider, given)
    for variable in variables_of(provider):
        if environ.get(variable, "").strip():
            return _checked(provider, Secret(environ[variable].strip(), variable))
    kept = _kept(provider, keyring) if keyring is not None else None
    if kept:
        return _checked(provider, Secret(kept.strip(), "the keyring"))
    if provider.default_key:
        return Secret(provider.default_key, "the catalogue: it needs none")
    return Secret("")


def variables_of(provider: ProviderInfo) -> tuple[str, ...]:
    """The variables that may hold its key, in the order in which they are looked at."""
    return tuple(filter(None, (provider.env_key, *provider.alt_env_keys)))


def needs_key(provider: ProviderInfo) -> bool:
    """Whether it answers nobody without a key."""
    return not (provider.default_key or provider.local or provider.wire_api is WireAPI.LOCAL)


def missing_key(
    provider: ProviderInfo, *, keyring: bool = False, own: bool = True, meant: str = ""
) -> ProviderError:
    """The error for no key: where one was looked for, and how it can be given.

    Args:
        provider: Whose.
        keyring: Whether the keyring of the system was asked.
        own: Whether the key of the settings would be sent there.
        meant: A model that is known, where the name looks like a misspelling of it.
    """
    places = [*variables_of(provider), *(["the keyring"] if keyring else [])]
    return ProviderError(
        f"There is no key for {provider.display_name}.",
        provider=provider.id,
        fault="key",
        why=f"Looked at: {', '.join(places)}." if places else "It names no variable for one.",
        next_step=f"{f'Did you mean {meant!r}? ' if meant else ''}"
        f"{_how_to_give(provider, own=own)} Local models need none: 'ollama/NAME', 'mlx/FOLDER'.",
    )


def where_to_put(provider: ProviderInfo, *, own: bool = True) -> str:
    """The variables that a key can be put into: ``OPENAI_API_KEY or OVAGENT_API_KEY``."""
    names = [*variables_of(provider)[:1], *([OWN_VARIABLE] if own else [])]
    return " or ".join(names)


def _how_to_give(provider: ProviderInfo, *, own: bool) -> str:
    variables = where_to_put(provider, own=own)
    return f"Set {variables}." if variables else "Give it as api_key."


def installed_keyring() -> Keyring | None:
    """The package keyring, where it is installed: the keyring of this system."""
    from importlib import import_module

    try:
        found: Keyring = import_module("keyring")
    except ImportError:
        return None
    return found


def _kept(provider: ProviderInfo, keyring: Keyring) -> str | None:
    try:
        return keyring.get_password(SERVICE, provider.id)
    except Exception:  # noqa: BLE001 - each backend raises its own; one that is locked has no key
        return None


def _checked(provider: ProviderInfo, key: Secret) -> Secret:
    value = key.reveal()
    if value.isascii() and value.isprintable() and " " not in value:
        return key
    raise ProviderError(
        f"The key of {provider.display_name} cannot be one.",
        provider=provider.id,
        fault="key",
        why=f"It comes from {key.source or 'an argument'} and has a space or a special character.",
        next_step="Copy it again from the provider's page.",
    )
