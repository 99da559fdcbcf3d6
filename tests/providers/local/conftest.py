"""What tests of local models share: a tiny model that is really run, and clients of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from ovagent_jupyter.messages import Message, TextPart
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import ModelClient, ModelRequest, Reply, collect
from ovagent_jupyter.providers.local.client import LocalClient
from ovagent_jupyter.providers.local.loaded import LoadedModels
from ovagent_jupyter.providers.local.runner import DeviceConfig, Progress
from ovagent_jupyter.providers.provider import ModelInfo, ProviderInfo, WireAPI
from tests.providers.local.tiny_model import WINDOW, tiny_model

PROVIDER = ProviderInfo(id="local", display_name="This machine", wire_api=WireAPI.LOCAL, local=True)
NewClient = Callable[..., LocalClient]


@pytest.fixture(scope="session", autouse=True)
def _no_network_no_compiler() -> Iterator[None]:
    """Nothing is fetched, and MLX does not look for a compiler."""
    before = {name: os.environ.get(name) for name in ("HF_HUB_OFFLINE", "MLX_DISABLE_COMPILE")}
    os.environ.update(HF_HUB_OFFLINE="1", MLX_DISABLE_COMPILE="1")
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(scope="session")
def model_folder(_no_network_no_compiler: None) -> Path:
    """The tiny model, trained when this machine has none yet."""
    pytest.importorskip("mlx.core", reason="needs the extra mlx")
    pytest.importorskip("mlx_lm", reason="needs the extra mlx")
    return tiny_model()


@pytest.fixture(scope="session")
def models() -> LoadedModels:
    """The models of all tests, so that each is loaded once."""
    return LoadedModels()


def local_backend(model_id: str, *, window: int = WINDOW, max_output: int | None = 128) -> Backend:
    """A backend that is a model of this machine."""
    model = ModelInfo(id=model_id, window=window, max_output=max_output)
    return Backend(name="tiny", provider=PROVIDER, model=model)


@pytest.fixture
async def new_client(model_folder: Path, models: LoadedModels) -> AsyncIterator[NewClient]:
    """Makes clients of the tiny model; they are closed after the test."""
    made: list[LocalClient] = []

    def make(
        *, device: DeviceConfig | None = None, progress: Progress | None = None, own: bool = False
    ) -> LocalClient:
        client = LocalClient(
            local_backend(f"mlx/{model_folder}"),
            device=device,
            progress=progress,
            models=LoadedModels() if own else models,
        )
        made.append(client)
        return client

    yield make
    for client in made:
        await client.aclose()


def ask(text: str, *before: Message, **options: object) -> ModelRequest:
    """A request with one question."""
    messages = (*before, Message("user", (TextPart(text),)))
    return ModelRequest(model="tiny", messages=messages, **options)  # type: ignore[arg-type]


async def reply_of(client: ModelClient, request: ModelRequest) -> Reply:
    """The whole answer."""
    return await collect(client.stream(request))


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that another thread does."""
    while not holds():  # noqa: ASYNC110 - nobody tells when it does
        await asyncio.sleep(0.01)
