"""What is known of a model: its window, its prices and what it can do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ovagent_jupyter.providers.catalog import PROVIDER_REGISTRY, Providers
from ovagent_jupyter.providers.provider import ModelInfo, ProviderInfo, Quirks

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo as PricedModel

DEFAULT_WINDOW = 128_000
"""Tokens that a model is taken to have whose window nobody tells."""
DEFAULT_LOCAL_WINDOW = 4_096
"""The same for a model on this machine, where servers start with little."""

_DATE = re.compile(r"[-@:](?:20\d{2}-?\d{2}-?\d{2})$")
_VERSION = re.compile(r"-\d{1,2}(?:$|[-.@:])")
"""How the rest of an id begins that is another version: ``-5`` of ``claude-opus-5-5``."""
_BOUNDARIES = "-:@"
_NAMES_ELSEWHERE: Mapping[str, str] = {"gpt-35-turbo": "gpt-3.5-turbo"}
"""What Azure calls models by default, and what they are."""
_FREE = ":free"
"""How OpenRouter marks what costs nothing."""


def model_info(
    provider: ProviderInfo,
    model_id: str,
    *,
    override: ModelInfo | None = None,
    discovered: Iterable[ModelInfo] = (),
    deployment_of: str = "",
    providers: Providers = PROVIDER_REGISTRY,
) -> ModelInfo:
    """All that is known of a model, each figure from the first place that has it.

    The places, in order: the user, the service itself, the catalogue, genai-prices as it is
    installed (nothing is fetched), and a default window with ``window_known`` False.

    Args:
        provider: Who serves it.
        model_id: As the service knows it; kept as it is.
        override: What the user says of it.
        discovered: What the service told; see ``discovery.discover``.
        deployment_of: The model behind a name that says nothing, such as that of a deployment.
        providers: The table, for models of one provider that another serves.
    """
    name = deployment_of or model_id
    told = next((row for row in discovered if row.id.lower() == model_id.lower()), None)
    kin = known_model(provider, name)
    places = (override, told, *_known(provider, name, providers), kin)
    return _merged(model_id, provider, [place for place in places if place is not None])


def known_model(
    provider: ProviderInfo, model_id: str, *, exactly: bool = False
) -> ModelInfo | None:
    """The row of the catalogue for a model, None where there is none.

    A date at the end does not count. Else the longest row whose id the model's begins with,
    as ``gpt-5`` for ``gpt-5-codex``, but not for ``gpt-5.9``: that is another model.

    Args:
        provider: Whose rows.
        model_id: The model.
        exactly: Whether only the id itself, with or without a date, will do.
    """
    wanted = model_id.lower()
    rows = {row.id.lower(): row for row in provider.models}
    found = rows.get(wanted) or rows.get(_DATE.sub("", wanted))
    if found is not None or exactly:
        return found
    kin = [row_id for row_id in rows if _is_kin(wanted, row_id)]
    return rows[max(kin, key=len)] if kin else None


def _is_kin(model_id: str, row_id: str) -> bool:
    rest = model_id.removeprefix(row_id)
    return rest != model_id and rest[0] in _BOUNDARIES and not _VERSION.match(rest)


def _known(
    provider: ProviderInfo, model_id: str, providers: Providers
) -> Iterator[ModelInfo | None]:
    """Places that know the model itself, the best first."""
    name = _NAMES_ELSEWHERE.get(model_id, model_id)
    yield known_model(provider, name, exactly=True)
    yield _listed(provider, name)
    vendor, slash, of_vendor = name.partition("/")
    maker = providers.named(vendor) if slash else None
    if slash and name.endswith(_FREE):
        yield ModelInfo(id=model_id, window_known=False, input_price=0.0, output_price=0.0)
    if maker is not None and maker.id != provider.id:
        # Another service has it: it reads and can do the same, but its price is another.
        plain = of_vendor.partition(":")[0]
        for spelt in dict.fromkeys((plain, plain.replace(".", "-"))):
            yield _unpriced(known_model(maker, spelt, exactly=True))
            yield _unpriced(_listed(maker, spelt))


def _unpriced(info: ModelInfo | None) -> ModelInfo | None:
    if info is None:
        return None
    return replace(info, input_price=None, output_price=None, wire_api=None, quirks={})


def _merged(model_id: str, provider: ProviderInfo, places: list[ModelInfo]) -> ModelInfo:
    """One row of several, each field from the first that has it."""
    window = next((row.window for row in places if row.window and row.window_known), 0)
    default = DEFAULT_LOCAL_WINDOW if provider.local else DEFAULT_WINDOW
    priced = next(
        (row for row in places if row.input_price is not None or row.output_price is not None),
        ModelInfo(id=model_id, input_price=0.0, output_price=0.0) if provider.local else None,
    )
    quirks = {key: value for row in reversed(places) for key, value in row.quirks.items()}
    return ModelInfo(
        id=model_id,
        window=window or default,
        window_known=window > 0,
        max_output=next((row.max_output for row in places if row.max_output is not None), None),
        input_price=priced.input_price if priced else None,
        output_price=priced.output_price if priced else None,
        abilities=next((row.abilities for row in places if row.abilities), frozenset()),
        wire_api=next((row.wire_api for row in places if row.wire_api is not None), None),
        quirks={key: quirks[key] for key in quirks if key in _QUIRKS},
        retires=next((row.retires for row in places if row.retires), ""),
    )


_QUIRKS = frozenset(field.name for field in fields(Quirks))


def _listed(provider: ProviderInfo, model_id: str) -> ModelInfo | None:
    """What genai-prices has of a model, as it is installed; it is loaded on first use."""
    from genai_prices.data_snapshot import get_snapshot

    rows = {row.id: row for row in get_snapshot().providers}
    listed = rows.get(provider.price_list or provider.id)
    if listed is None or provider.local:
        return None
    found = listed.find_model(model_id, all_providers=list(rows.values()))
    if found is None:
        return None
    read, written = _prices(found)
    return ModelInfo(
        id=model_id,
        window=found.context_window or 0,
        window_known=bool(found.context_window),
        input_price=read,
        output_price=written,
    )


def _prices(model: PricedModel) -> tuple[float | None, float | None]:
    """US dollars for a million tokens read and written, at this hour and for a short request."""
    try:
        now = model.get_prices(datetime.now(UTC))
    except IndexError:  # a model without prices
        return None, None
    return _price(getattr(now, "input_mtok", None)), _price(getattr(now, "output_mtok", None))


def _price(value: Any) -> float | None:
    base = getattr(value, "base", value)  # of a price in tiers, that of the first
    return None if base is None else float(base)
