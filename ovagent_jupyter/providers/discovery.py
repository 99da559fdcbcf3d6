"""Asking a service what it serves: its models, their windows, and which version it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.failures import (
    failure_of_answer,
    failure_of_exception,
    make_failure,
)
from ovagent_jupyter.providers.model_rows import read_rows, read_shown
from ovagent_jupyter.providers.provider import ModelInfo, WireAPI

if TYPE_CHECKING:
    import httpx2

ANSWER_CAP = 16 << 20
"""Bytes of one answer; OpenRouter's list has about 3 MB."""
SECONDS = 10.0
"""For all questions together."""
_CHECK_V1 = "Check the base URL: it often ends with /v1."
_RUNS = "Check that it runs, its base URL and the proxy."
_VERSION_HEADERS = ("openai-version", "anthropic-version", "x-version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What a service told of itself."""

    models: tuple[ModelInfo, ...]
    """What it serves, as far as it says; a window of 0 is one that it does not tell."""
    server: str = ""
    """Its program, from the header of that name."""
    version: str = ""
    """Version of the program or of the protocol; empty where it tells none."""


async def discover(backend: Backend, *, seconds: float = SECONDS) -> tuple[ModelInfo, ...]:
    """The models that a service serves, with the windows, prices and abilities that it tells.

    Args:
        backend: Where to ask; of its model the most is asked.
        seconds: How long all of it may take.

    Raises:
        ProviderError: It did not tell; what it told before its time was up is kept.
    """
    return (await examine_endpoint(backend, seconds=seconds)).models


async def examine_endpoint(backend: Backend, *, seconds: float = SECONDS) -> Endpoint:
    """What a service tells of itself and of its models.

    Args:
        backend: Where to ask; of its model the most is asked.
        seconds: How long all of it may take.

    Raises:
        ProviderError: It did not tell; what it told before its time was up is kept.
    """
    if backend.wire_api is WireAPI.LOCAL:
        return Endpoint(models=(backend.model,), server=backend.provider.display_name)
    import httpx2  # loads much, and only who asks needs it

    found = Endpoint(models=())
    try:
        async with asyncio.timeout(seconds), httpx2.AsyncClient(timeout=seconds) as client:
            ask = _Questions(backend, client)
            answer, headers = await ask.get(_list_url(backend))
            found = _endpoint(backend, answer, headers)
            extra = _EXTRAS.get(backend.provider.id) or _EXTRAS.get(_program(answer, headers))
            return await extra(ask, found) if extra else found
    except TimeoutError:
        if found.models:
            return found
        why = f"It did not tell what it serves within {seconds:g} s."
        raise make_failure(backend, "timeout", why=why, next_step=_RUNS) from None


class _Questions:
    """Asks one service, with its key, and reads bounded JSON."""

    def __init__(self, backend: Backend, client: httpx2.AsyncClient) -> None:
        self.backend = backend
        self._client = client
        parts = urlsplit(backend.url)
        self.root = f"{parts.scheme}://{parts.netloc}{parts.path.removesuffix('/v1')}"

    async def get(self, url: str) -> tuple[Any, Mapping[str, str]]:
        """The JSON there, and the headers.

        Raises:
            ProviderError: There is none.
        """
        return await self._ask("GET", url, None)

    async def more(self, path: str, body: object = None) -> Any:
        """The JSON at a path of the server's own, or None: it need not have it."""
        try:
            answer, _ = await self._ask("POST" if body else "GET", f"{self.root}{path}", body)
        except ProviderError:
            return None
        return answer

    async def _ask(self, method: str, url: str, body: object) -> tuple[Any, Mapping[str, str]]:
        import httpx2

        try:
            async with self._client.stream(
                method, url, json=body, headers=_headers(self.backend)
            ) as response:
                content = await self._read(response)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise failure_of_exception(self.backend, error) from None
        if not response.is_success:
            raise failure_of_answer(
                self.backend, content, status=response.status_code, headers=response.headers
            )
        return _json(self.backend, content), response.headers

    async def _read(self, response: httpx2.Response) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in response.aiter_bytes():
            size += len(part)
            if size > ANSWER_CAP:
                why = f"What it tells of itself has more than {ANSWER_CAP >> 20} MiB."
                raise make_failure(self.backend, "too_large", why=why, next_step=_CHECK_V1)
            parts.append(part)
        return b"".join(parts)


# -- what is asked -------------------------------------------------------------------------------


def _list_url(backend: Backend) -> str:
    url, mark, query = backend.url.partition("?")
    url = url.rstrip("/")
    if backend.wire_api is WireAPI.ANTHROPIC_MESSAGES:
        return f"{url.removesuffix('/v1')}/v1/models?limit=1000"
    if backend.provider.id in _LISTS_ELSEWHERE:
        end, path = _LISTS_ELSEWHERE[backend.provider.id]
        return f"{url.removesuffix(end)}{path}"
    return f"{url}/models{mark}{query}"


_LISTS_ELSEWHERE: Mapping[str, tuple[str, str]] = {"github": ("/inference", "/catalog/models")}
"""Provider → the end of its base URL, and what stands there instead for the list."""


def _headers(backend: Backend) -> dict[str, str]:
    headers = {"accept": "application/json", **backend.provider.headers, **backend.headers}
    key = backend.key.reveal()
    own = backend.provider.key_header
    if backend.wire_api is WireAPI.ANTHROPIC_MESSAGES:
        headers.setdefault("anthropic-version", "2023-06-01")
        own = own or "x-api-key"
    if key and own:
        headers[own] = key
    elif key:
        headers["authorization"] = f"Bearer {key}"
    return headers


def _endpoint(backend: Backend, answer: object, headers: Mapping[str, str]) -> Endpoint:
    models = read_rows(answer)
    if models is None:
        raise make_failure(
            backend, "malformed", why="Its list of models is none.", next_step=_CHECK_V1
        )
    version = next((headers[name] for name in _VERSION_HEADERS if name in headers), "")
    return Endpoint(models=models, server=headers.get("server", ""), version=version)


def _program(answer: object, headers: Mapping[str, str]) -> str:
    """Which program serves, by what it says, for servers at an address of the user's own."""
    if "llama.cpp" in headers.get("server", ""):
        return "llamacpp"
    rows = answer.get("data") if isinstance(answer, dict) else None
    first = rows[0] if isinstance(rows, list) and rows else None
    owner = first.get("owned_by") if isinstance(first, dict) else None
    return {"llamacpp": "llamacpp", "vllm": "vllm"}.get(str(owner), "")


async def _of_llamacpp(ask: _Questions, found: Endpoint) -> Endpoint:
    """The window that the server was started with, which is that of its one model."""
    props = await ask.more("/props")
    if not isinstance(props, dict):
        return found
    settings = props.get("default_generation_settings")
    window = settings.get("n_ctx") if isinstance(settings, dict) else None
    models = found.models
    if isinstance(window, int) and window > 0:
        models = tuple(replace(row, window=window, window_known=True) for row in models)
    return replace(found, models=models, version=str(props.get("build_info", found.version))[:80])


async def _of_ollama(ask: _Questions, found: Endpoint) -> Endpoint:
    """Its version, and what it says of the one model that is wanted."""
    told = await ask.more("/api/version")
    version = str(told.get("version", ""))[:80] if isinstance(told, dict) else ""
    wanted = ask.backend.model.id
    shown = await ask.more("/api/show", {"model": wanted})
    running = await ask.more("/api/ps")
    row = read_shown(wanted, shown, running)
    others = tuple(each for each in found.models if each.id != wanted)
    models = (row, *others) if row is not None else found.models
    return replace(found, models=models, version=version or found.version)


async def _of_vllm(ask: _Questions, found: Endpoint) -> Endpoint:
    told = await ask.more("/version")
    version = str(told.get("version", ""))[:80] if isinstance(told, dict) else ""
    return replace(found, version=version or found.version)


async def _of_lmstudio(ask: _Questions, found: Endpoint) -> Endpoint:
    """The windows with which its models are loaded."""
    return replace(found, models=read_rows(await ask.more("/api/v0/models")) or found.models)


_EXTRAS: Mapping[str, Callable[[_Questions, Endpoint], Awaitable[Endpoint]]] = {
    "llamacpp": _of_llamacpp,
    "lmstudio": _of_lmstudio,
    "ollama": _of_ollama,
    "vllm": _of_vllm,
}
"""What servers tell besides their list, by the id of their provider."""


def _json(backend: Backend, content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        # Words of an error page, or of whatever else it is, without a key in them.
        raise failure_of_answer(backend, content, default="malformed") from None
