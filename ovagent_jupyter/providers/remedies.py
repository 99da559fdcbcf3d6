"""What a user can do when a model service fails."""

from __future__ import annotations

from ovagent_jupyter.errors import ConfigError, ProviderError, ProviderFault
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.catalog import misspelt, split_model
from ovagent_jupyter.providers.credentials import where_to_put

_NEXT: dict[ProviderFault, str] = {
    "unreachable": "Check the network, the base URL and the proxy; `doctor live` tests them.",
    "timeout": "Run it again, or choose another model.",
    "rate_limited": "Wait a moment, or name a backup model.",
    "overloaded": "Wait a moment, or name a backup model.",
    "server": "Run it again; if it stays, choose another model.",
    "key": "Check the key{source}; `doctor live` tests it.",
    "permission": "Check what the key may do, or choose another model.",
    "payment": "Add credit to the account, or choose another model.",
    "unknown_model": "Check its name; `models` lists those that are known.",
    "bad_request": "Choose another model, or report this text.",
    "context_full": "Ask with less, or choose a model with a larger window.",
    "too_large": "Ask with less: fewer images, or a shorter conversation.",
    "policy": "Say it in other words; another model may answer.",
    "malformed": "Check the base URL; run it again.",
    "interrupted": "Run it again.",
    "busy": "Wait until the other calls have ended.",
    "other": "Run it again; if it stays, report this text.",
}


def usual(backend: Backend, fault: ProviderFault) -> str:
    """What mostly helps."""
    source = f" in {backend.key.source}" if backend.key.source else ""
    return _NEXT.get(fault, "").format(source=source)


def sends_key(backend: Backend) -> bool:
    """Whether a key of the user's goes with a call, and not the word that stands in for one."""
    key, names = backend.key.reveal(), {name.lower() for name in backend.headers}
    sent = key and key != backend.provider.default_key
    return bool(sent or names & {"authorization", "x-api-key", backend.provider.key_header.lower()})


def remedy_by_settings(backend: Backend, fault: ProviderFault, url: str) -> str:
    """What to do that is seen from where and how the model is asked; may be empty."""
    if fault == "key" and not sends_key(backend):
        return f"Set {where_to_put(backend.provider)}."
    if fault == "unknown_model":
        caught = elsewhere(backend, url)
        meant = "" if caught else misspelt(backend.provider, backend.model.id)
        return f"Did you mean {meant!r}? `models` lists those that are known." if meant else caught
    if fault == "unreachable" and backend.endpoint_from:
        return f"Check the setting endpoint, {url} (from {backend.endpoint_from}), and the network."
    return ""


def elsewhere(backend: Backend, url: str) -> str:
    """That the setting endpoint has caught a model whose name leads to another service."""
    if not backend.endpoint_from:
        return ""
    try:
        owner, _ = split_model(backend.model.id)
    except (ProviderError, ConfigError):
        return ""
    if owner.id == backend.provider.id:
        return ""
    return (
        f"The setting endpoint (from {backend.endpoint_from}) sends every model to "
        f"{url}; without it, {owner.display_name} is asked."
    )


def address_remedy(url: str, *, page: bool) -> str:
    """What may be wrong with an address: it is a web page, or there is nothing at the path."""
    said = "is a web page" if page else "has nothing at this path"
    remedy = "it may lack its version, such as /v1" if "/v1" not in url else "check it"
    return f"The base URL {url} {said}: {remedy}."
