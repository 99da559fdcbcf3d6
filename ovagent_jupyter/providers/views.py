"""The tables that programs written for omicverse know, as live read-only views of the registry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from ovagent_jupyter.providers.catalog import PROVIDER_REGISTRY, Providers, model_ref

T = TypeVar("T")


class View(Mapping[str, T], Generic[T]):
    """A mapping that is computed from the registry at each look, so that it is never behind.

    Args:
        rows: Makes its rows.
        providers: The table.
    """

    def __init__(
        self,
        rows: Callable[[Providers], Iterable[tuple[str, T]]],
        providers: Providers = PROVIDER_REGISTRY,
    ) -> None:
        self._make = rows
        self._providers = providers
        self._made: tuple[tuple[str, ...], Mapping[str, T]] = ((), {})

    def _rows(self) -> Mapping[str, T]:
        # Rows of the registry neither change nor go, so its ids tell whether anything is new.
        ids = tuple(self._providers)
        if self._made[0] != ids:
            self._made = (ids, dict(self._make(self._providers)))
        return self._made[1]

    def __getitem__(self, name: str) -> T:
        return self._rows()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows())

    def __len__(self) -> int:
        return len(self._rows())

    def __repr__(self) -> str:
        return repr(self._rows())


def available_models(providers: Providers) -> Iterator[tuple[str, str]]:
    """Model, as ``-m`` takes it → what it is."""
    for info in providers.known():
        for model in info.models:
            yield model_ref(info, model.id, providers), f"{info.display_name} {model.id}"


def provider_api_keys(providers: Providers) -> Iterator[tuple[str, str]]:
    """Model, as ``-m`` takes it → the variable of its key."""
    for info in providers.known():
        for model in info.models:
            if info.env_key:
                yield model_ref(info, model.id, providers), info.env_key


def provider_endpoints(providers: Providers) -> Iterator[tuple[str, str]]:
    """Provider → its address; empty for one that has none of its own."""
    return ((info.id, info.base_url) for info in providers.known())


def provider_default_keys(providers: Providers) -> Iterator[tuple[str, str]]:
    """Provider → the variable of its key."""
    return ((info.id, info.env_key) for info in providers.known() if info.env_key)


def model_context_windows(providers: Providers) -> Iterator[tuple[str, int]]:
    """Model, as ``-m`` takes it → tokens of its window."""
    from ovagent_jupyter.providers.model_info import model_info  # the price data, when it is asked

    for info in providers.known():
        for model in info.models:
            window = model_info(info, model.id, providers=providers).window
            yield model_ref(info, model.id, providers), window


AVAILABLE_MODELS = View(available_models)
"""Model → what it is."""
PROVIDER_API_KEYS = View(provider_api_keys)
"""Model → the variable of its key."""
PROVIDER_ENDPOINTS = View(provider_endpoints)
"""Provider → its address."""
PROVIDER_DEFAULT_KEYS = View(provider_default_keys)
"""Provider → the variable of its key."""
MODEL_CONTEXT_WINDOWS = View(model_context_windows)
"""Model → tokens of its window."""
