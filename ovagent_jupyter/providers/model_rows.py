"""Reading what services tell of their models; each has names of its own for the same."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ovagent_jupyter.providers.provider import Ability, ModelInfo

MOST_ROWS = 20_000
"""Models of a list that are read."""
_LONGEST_ID = 300
_WINDOWS = (
    "max_model_len",  # vLLM
    "loaded_context_length",  # LM Studio, of a model in memory
    "context_length",  # OpenRouter, Together
    "context_window",  # Groq
    "max_context_length",  # Mistral, LM Studio
    "max_input_tokens",  # Anthropic
)
"""Fields that have the window, the surest first."""
_MOST_OUT = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_SAID: Mapping[str, Ability] = {
    "tools": "tools",
    "tool_use": "tools",
    "function_calling": "tools",
    "tool-calling": "tools",
    "vision": "images",
    "image": "images",
    "image_input": "images",
    "reasoning": "reasoning",
    "thinking": "reasoning",
    "structured_outputs": "json_schema",
    "response_format": "json_schema",
}
"""Words by which services say what a model can do."""
_NUM_CTX = re.compile(r"^\s*num_ctx\s+(\d+)", re.MULTILINE)


def read_rows(answer: object) -> tuple[ModelInfo, ...] | None:
    """The models of an answer: a list, or an object with one; None when it is neither."""
    rows = answer
    if isinstance(answer, dict):
        rows = answer.get("data", answer.get("models"))
    if not isinstance(rows, list):
        return None
    return tuple(
        read_row(row)
        for row in rows[:MOST_ROWS]
        if isinstance(row, dict) and isinstance(row.get("id"), str) and row["id"]
    )


def read_row(row: Mapping[str, Any]) -> ModelInfo:
    """One model, as far as its service tells."""
    top = _part(row, "top_provider") or _part(row, "limits")
    window = _first(row, _WINDOWS) or _first(top, _WINDOWS) or 0
    pricing = _part(row, "pricing")
    per_token = _price(pricing, "prompt"), _price(pricing, "completion")
    per_million = _price(pricing, "input"), _price(pricing, "output")
    return ModelInfo(
        # Google's list has the kind in front, which a request does not need.
        id=row["id"][:_LONGEST_ID].removeprefix("models/"),
        window=window,
        window_known=window > 0,
        max_output=_first(row, _MOST_OUT) or _first(top, _MOST_OUT),
        input_price=_million(per_token[0], per_million[0]),
        output_price=_million(per_token[1], per_million[1]),
        abilities=_abilities(_words(row)),
        retires=_date(row),
    )


def read_shown(model_id: str, shown: object, running: object) -> ModelInfo | None:
    """What Ollama says of a model: the window that it is, or will be, loaded with.

    Args:
        model_id: The model.
        shown: The answer of ``/api/show``.
        running: The answer of ``/api/ps``, which has the models in memory.
    """
    if not isinstance(shown, dict):
        return None
    names = {model_id, f"{model_id}:latest"}
    loaded = [
        _first(row, ("context_length",))
        for row in _list(running, "models")
        if isinstance(row, dict) and row.get("name") in names
    ]
    set_by_user = _NUM_CTX.search(str(shown.get("parameters", "")))
    window = next(filter(None, loaded), 0) or (int(set_by_user[1]) if set_by_user else 0)
    # The window of its training is what the server could give, not what it does.
    return ModelInfo(
        id=model_id,
        window=window,
        window_known=window > 0,
        abilities=_abilities(
            word for word in _list(shown, "capabilities") if isinstance(word, str)
        ),
    )


def _words(row: Mapping[str, Any]) -> Iterable[str]:
    for name in ("supported_parameters", "capabilities"):
        said = row.get(name)
        if isinstance(said, list):
            yield from (word for word in said if isinstance(word, str))
        elif isinstance(said, dict):
            yield from (word for word, has in said.items() if _has(has))
    modalities = _list(row.get("architecture"), "input_modalities")
    modalities += _list(row, "supported_input_modalities")
    yield from (word for word in modalities if word == "image")


def _has(said: object) -> bool:
    """Whether a capability is there: ``true``, or Anthropic's ``{"supported": true}``."""
    return said.get("supported") is True if isinstance(said, dict) else said is True


def _abilities(words: Iterable[str]) -> frozenset[Ability]:
    return frozenset(_SAID[word] for word in words if word in _SAID)


def _first(row: Mapping[str, Any], names: Iterable[str]) -> int | None:
    """The first of several fields that is a number of tokens."""
    for name in names:
        value = row.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _price(pricing: Mapping[str, Any], name: str) -> float | None:
    value = pricing.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        price = float(value)
    except ValueError:
        return None
    # OpenRouter says -1 where the price depends on which model it chooses.
    return price if price >= 0 and math.isfinite(price) else None


def _million(per_token: float | None, per_million: float | None) -> float | None:
    return per_million if per_token is None else round(per_token * 1e6, 6)


def _date(row: Mapping[str, Any]) -> str:
    for name in ("retires_at", "shutdown_date", "deprecation"):
        value = row.get(name)
        if isinstance(value, str) and re.match(r"\d{4}-\d{2}-\d{2}", value):
            return value[:10]
    return ""


def _part(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = row.get(name)
    return value if isinstance(value, dict) else {}


def _list(holder: object, name: str) -> list[Any]:
    value = holder.get(name) if isinstance(holder, dict) else None
    return value if isinstance(value, list) else []
