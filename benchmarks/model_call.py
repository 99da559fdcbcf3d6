"""What one call costs that is answered in one piece."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.figure import Figure
from benchmarks.model_workers import medians

AGAINST = "openai SDK"
WAYS = {
    "socket": ("a bare socket, nothing read", ""),
    "httpx2": ("httpx2 and json", ""),
    "ours-chat": ("our wire, chat completions", ""),
    "ours-responses": ("our wire, responses", ""),
    "ours-messages": ("our wire, messages", ""),
    "ours-gateway": ("ours with all default layers", "≤ 1.25×"),
    "anthropic": ("anthropic SDK", ""),
    "pydantic-ai": ("pydantic-ai, direct", ""),
    "litellm": ("LiteLLM's router", ""),
}


def measure() -> Iterator[Figure]:
    """CPU time of a call, by each way."""
    taken = medians(("openai", *WAYS), "call")
    for name, (told, target) in WAYS.items():
        if name in taken:
            ratio = taken[name] / taken["openai"]
            yield Figure(f"a call: {told}", ratio, "×", AGAINST, target)
    yield Figure(
        "a call: ours with all default layers", taken["ours-gateway"] * 1e3, "ms of CPU", ""
    )
