"""Runs models with vLLM: in a server of its own, over the wire that it shares with OpenAI."""

from __future__ import annotations

from ovagent_jupyter.providers.local.runner import ServerRunner

RUNNER = ServerRunner(
    name="vllm",
    provider="vllm",
    base_url="http://localhost:8000/v1",
    start="vllm serve {model}",
    strict_names=True,
)
