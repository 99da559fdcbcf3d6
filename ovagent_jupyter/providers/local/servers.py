"""Engines that are servers of their own: is one there, has it the model, and how is it started."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from ovagent_jupyter.errors import RunnerNotAvailable
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.local.runner import ServerRunner

LONGEST_LIST = 1 << 20
"""Bytes of a server's list of models."""

LLAMACPP = ServerRunner(
    name="llamacpp",
    provider="llamacpp",
    base_url="http://127.0.0.1:8080/v1",
    start="llama-server -m {model}.gguf --jinja",
)
OLLAMA = ServerRunner(
    name="ollama",
    provider="ollama",
    base_url="http://localhost:11434/v1",
    start="ollama serve, and then: ollama pull {model}",
)
LMSTUDIO = ServerRunner(
    name="lmstudio",
    provider="lmstudio",
    base_url="http://localhost:1234/v1",
    start="lms server start, and then: lms load {model}",
)


async def require_server(runner: ServerRunner, backend: Backend) -> Backend:
    """Check that a server answers and has the model; the backend with what it told.

    The call itself goes over the provider's wire, as to any other service.

    Raises:
        RunnerNotAvailable: It does not answer, is something else, or has no such model.
    """
    address = backend.base_url or runner.base_url
    found = await asyncio.to_thread(_models, runner, backend, address)
    model = backend.model
    if runner.strict_names and model.id not in found:
        raise RunnerNotAvailable(
            f"The {runner.name} server at {address} has no model {model.id!r}.",
            why=f"It has: {', '.join(sorted(found)[:8]) or 'none'}.",
            next_step=f"Start it with `{runner.start.format(model=model.id)}`.",
        )
    window = found.get(model.id)
    if window is not None:
        model = replace(model, window=window, window_known=True)
    return replace(backend, base_url=address, model=model)


def _models(runner: ServerRunner, backend: Backend, address: str) -> Mapping[str, int | None]:
    """Ids of a server's models, and their windows where it tells."""
    start = f"Start it with `{runner.start.format(model=backend.model.id)}`."
    try:
        status, body = _get(address.rstrip("/") + "/models", backend)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise RunnerNotAvailable(
            f"No {runner.name} server answers at {address}.",
            why=f"{type(error).__name__}: {error}"[:300],
            next_step=start,
        ) from error
    listed = _listed(body)
    if status != http.client.OK or listed is None:
        raise RunnerNotAvailable(
            f"What answers at {address} is no {runner.name} server.",
            why=f"It answered {status} and no list of models.",
            next_step=f"Check the address. {start}",
        )
    return listed


def _get(url: str, backend: Backend) -> tuple[int, bytes]:
    parts = urlsplit(url)
    timeout = backend.timeouts.connect
    host = parts.hostname or ""
    if parts.scheme not in {"http", "https"} or not host:
        raise ValueError("the base URL is none: it looks like http://localhost:8000/v1")
    connection = (
        http.client.HTTPSConnection(
            host, parts.port, timeout=timeout, context=ssl.create_default_context()
        )
        if parts.scheme == "https"
        else http.client.HTTPConnection(host, parts.port, timeout=timeout)
    )
    headers = {**backend.provider.headers, **backend.headers}
    if backend.key:
        headers["Authorization"] = f"Bearer {backend.key.reveal()}"
    try:
        connection.request("GET", parts.path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(LONGEST_LIST)
    finally:
        connection.close()


def _listed(body: bytes) -> Mapping[str, int | None] | None:
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    models = answer.get("data") if isinstance(answer, Mapping) else None
    if not isinstance(models, list):
        return None
    found: dict[str, int | None] = {}
    for model in models:
        if isinstance(model, Mapping) and isinstance(model.get("id"), str):
            window = model.get("max_model_len")
            found[model["id"]] = window if isinstance(window, int) else None
    return found
