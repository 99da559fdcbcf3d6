"""Tokens as the services of the chat-completions wire name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovagent_jupyter.messages import Usage
from ovagent_jupyter.providers.token_counts import count_of


def usage_of_chunk(chunk: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Where a chunk or an answer tells its usage, if it does."""
    usage = chunk.get("usage")
    if not usage:
        groq = chunk.get("x_groq")
        usage = groq.get("usage") if isinstance(groq, Mapping) else None
    if not usage:
        choices = chunk.get("choices")
        usage = choices[0].get("usage") if choices else None  # Moonshot
    return usage if isinstance(usage, Mapping) else None


def read_usage(told: Mapping[str, Any]) -> Usage:
    """Tokens, whatever they are called."""
    read = _count(told, "prompt_tokens", "input_tokens", "prompt_eval_count")
    written = _count(told, "completion_tokens", "output_tokens", "eval_count")
    prompt = _details(told, "prompt_tokens_details", "input_tokens_details")
    answer = _details(told, "completion_tokens_details", "output_tokens_details")
    names = ("prompt_cache_hit_tokens", "cache_read_input_tokens", "num_cached_tokens")
    cached = _count(prompt, "cached_tokens") or _count(told, "cached_tokens", *names)
    stored = _count(prompt, "cache_write_tokens", "cache_creation_tokens")
    stored = stored or _count(told, "cache_creation_input_tokens", "cache_write_tokens")
    thought = _count(answer, "reasoning_tokens") or _count(told, "reasoning_tokens")
    if thought and _count(told, "total_tokens") == read + written + thought:
        written += thought  # xAI counts it apart
    return Usage(read, written, cached, stored, thought)


def uncounted(told: Mapping[str, Any], usage: Usage) -> int:
    """Tokens of the total that are neither read nor written: Gemini's thinking."""
    return max(0, _count(told, "total_tokens") - usage.input_tokens - usage.output_tokens)


def _details(told: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    found = (told.get(name) for name in names)
    return next((each for each in found if isinstance(each, Mapping)), {})


def _count(told: Mapping[str, Any], *names: str) -> int:
    """The first that is told; 0 for none, which the assembly estimates where it cannot be."""
    return next(filter(None, (count_of(told.get(name)) for name in names)), 0)
