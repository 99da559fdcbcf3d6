"""What one piece of a streamed answer costs, on its way from the socket to who reads it."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.figure import Figure
from benchmarks.model_workers import medians

AGAINST = "openai SDK's typed stream"
WAYS = {
    "socket": ("a bare socket, nothing read", ""),
    "httpx2": ("httpx2, nothing read", ""),
    "ours-chat": ("our wire, chat completions", ""),
    "ours-responses": ("our wire, responses", ""),
    "ours-messages": ("our wire, messages", ""),
    "ours-gateway": ("ours with all default layers and events", "≤ 0.35×"),
    "anthropic": ("anthropic SDK's typed stream", ""),
    "pydantic-ai": ("pydantic-ai, direct", ""),
    "litellm": ("LiteLLM's router", ""),
}


def measure() -> Iterator[Figure]:
    """CPU time of a piece, by each way."""
    taken = medians(("openai", *WAYS), "stream")
    for name, (told, target) in WAYS.items():
        if name in taken:
            ratio = taken[name] / taken["openai"]
            yield Figure(f"a streamed piece: {told}", ratio, "×", AGAINST, target)
    micro = taken["ours-gateway"] * 1e6
    yield Figure(
        "a streamed piece: ours with all default layers and events", micro, "µs of CPU", ""
    )
    sent = medians(("ours-gateway",), "first")["ours-gateway"]
    yield Figure("pieces sent when the first is heard", sent, "pieces", "50 are sent", "≤ 1")
