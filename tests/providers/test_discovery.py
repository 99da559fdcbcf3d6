"""Asking a service what it serves, against a real server of this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.providers.discovery import ANSWER_CAP, discover, examine_endpoint
from ovagent_jupyter.providers.model_rows import read_rows
from ovagent_jupyter.providers.provider import ModelInfo
from ovagent_jupyter.providers.resolve import resolve_backend
from tests.providers.service import KEY, Service, serving


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service of ours."""
    async with serving() as made:
        yield made


def by_id(models: tuple[ModelInfo, ...]) -> dict[str, ModelInfo]:
    return {model.id: model for model in models}


async def test_a_vllm_server_tells_its_window_and_version(service: Service) -> None:
    service.answers = {
        "/v1/models": {"data": [{"id": "Qwen/Qwen3", "max_model_len": 40_960, "owned_by": "vllm"}]},
        "/version": {"version": "0.33.0"},
    }
    service.headers = {"server": "uvicorn"}
    found = await examine_endpoint(service.backend("vllm"))
    assert found.models == (ModelInfo(id="Qwen/Qwen3", window=40_960),)
    assert (found.server, found.version) == ("uvicorn", "0.33.0")
    assert service.asked[0][2]["authorization"] == f"Bearer {KEY}"


async def test_openrouter_tells_prices_and_abilities(service: Service) -> None:
    row = {
        "id": "anthropic/claude-x",
        "context_length": 200_000,
        "top_provider": {"max_completion_tokens": 64_000},
        "pricing": {"prompt": "0.000003", "completion": "0.000015"},
        "architecture": {"input_modalities": ["text", "image"]},
        "supported_parameters": ["tools", "reasoning", "structured_outputs", "temperature"],
    }
    auto = {"id": "openrouter/auto", "pricing": {"prompt": "-1", "completion": "-1"}}
    service.answers = {"/v1/models": {"data": [row, auto]}}
    models = by_id(await discover(service.backend("openrouter")))
    assert models["anthropic/claude-x"] == ModelInfo(
        id="anthropic/claude-x",
        window=200_000,
        max_output=64_000,
        input_price=3.0,
        output_price=15.0,
        abilities=frozenset({"tools", "images", "reasoning", "json_schema"}),
    )
    auto_info = models["openrouter/auto"]
    assert (auto_info.input_price, auto_info.window, auto_info.window_known) == (None, 0, False)


async def test_anthropic_is_asked_in_its_own_way(service: Service) -> None:
    row = {
        "id": "claude-x",
        "max_input_tokens": 1_000_000,
        "max_tokens": 128_000,
        "retires_at": "2027-01-31T00:00:00Z",
        "capabilities": {
            "thinking": {"supported": True},
            "image_input": {"supported": True},
            "structured_outputs": {"supported": False},
        },
    }
    service.answers = {"/v1/models?limit=1000": {"data": [row], "has_more": False}}
    (model,) = await discover(service.backend("anthropic", path=""))
    assert (model.window, model.max_output, model.retires) == (1_000_000, 128_000, "2027-01-31")
    assert model.abilities == {"reasoning", "images"}
    _, _, headers, _ = service.asked[0]
    assert headers["x-api-key"] == KEY
    assert "authorization" not in headers
    assert headers["anthropic-version"]


@pytest.mark.parametrize("provider", ["llamacpp", "mlx-server"])
async def test_llama_cpp_tells_the_window_it_was_started_with(
    service: Service, provider: str
) -> None:
    service.answers = {
        "/v1/models": {"data": [{"id": "m.gguf", "meta": {"n_ctx_train": 131_072}}]},
        "/props": {"default_generation_settings": {"n_ctx": 8_192}, "build_info": "b8681"},
    }
    service.headers = {"server": "llama.cpp"}
    found = await examine_endpoint(service.backend(provider))
    assert found.models == (ModelInfo(id="m.gguf", window=8_192),)
    assert found.version == "b8681"


@pytest.mark.parametrize(
    ("parameters", "running", "window"),
    [
        ("", [], 0),
        ("temperature 0.7\nnum_ctx    32768", [], 32_768),
        ("num_ctx 32768", [{"name": "qwen3:latest", "context_length": 4_096}], 4_096),
        ("", [{"name": "other", "context_length": 9}], 0),
    ],
)
async def test_ollama_tells_the_window_that_it_gives_and_not_that_of_the_training(
    service: Service, parameters: str, running: list[object], window: int
) -> None:
    service.answers = {
        "/v1/models": {"data": [{"id": "qwen3", "owned_by": "library"}, {"id": "other"}]},
        "/api/version": {"version": "0.40.12"},
        "/api/show": {
            "parameters": parameters,
            "capabilities": ["completion", "tools", "thinking"],
            "model_info": {"qwen3.context_length": 262_144},
        },
        "/api/ps": {"models": running},
    }
    found = await examine_endpoint(service.backend("ollama", "qwen3"))
    assert found.version == "0.40.12"
    model = by_id(found.models)["qwen3"]
    assert (model.window, model.window_known) == (window, window > 0)
    assert model.abilities == {"tools", "reasoning"}
    assert set(by_id(found.models)) == {"qwen3", "other"}
    assert ("POST", "/api/show", b'{"model":"qwen3"}') in [
        (method, path, body) for method, path, _, body in service.asked
    ]


async def test_lm_studio_tells_the_window_that_is_loaded(service: Service) -> None:
    row = {"id": "qwen3", "loaded_context_length": 4_096, "max_context_length": 131_072}
    service.answers = {"/v1/models": {"data": [{"id": "qwen3"}]}, "/api/v0/models": {"data": [row]}}
    assert (await discover(service.backend("lmstudio")))[0].window == 4_096


async def test_other_shapes_of_a_list(service: Service) -> None:
    service.answers = {"/v1/models": [{"id": "a", "context_length": 5}, {"no": "id"}, "b", None]}
    assert await discover(service.backend("together")) == (ModelInfo(id="a", window=5),)
    service.answers = {"/v1/models": {"models": [{"id": "models/gemini-x"}]}}
    assert (await discover(service.backend("google")))[0].id == "gemini-x"
    strange = {"id": "x", "context_length": True, "max_model_len": "9", "pricing": 3, "id2": {}}
    assert read_rows([strange]) == (ModelInfo(id="x", window_known=False),)


async def test_github_has_its_list_elsewhere(service: Service) -> None:
    row = {
        "id": "openai/gpt-x",
        "limits": {"max_input_tokens": 100_000, "max_output_tokens": 32_768},
        "supported_input_modalities": ["text", "image"],
        "capabilities": ["streaming", "tool-calling"],
    }
    service.answers = {"/catalog/models": [row]}
    (model,) = await discover(service.backend("github", path="/inference"))
    assert (model.window, model.max_output) == (100_000, 32_768)
    assert model.abilities == {"tools", "images"}


async def test_what_is_discovered_fills_the_backend(service: Service) -> None:
    service.answers = {"/v1/models": {"data": [{"id": "mine", "max_model_len": 16_384}]}}
    url = f"{service.url}/v1"
    asked = resolve_backend("mine", endpoint=url, environ={})
    assert not asked.model.window_known
    told = resolve_backend("mine", endpoint=url, environ={}, discovered=await discover(asked))
    assert (told.model.window, told.model.window_known) == (16_384, True)
    assert told.model.input_price == 0.0


async def test_a_part_is_better_than_nothing(service: Service) -> None:
    listed = {"data": [{"id": "m", "max_model_len": 7}]}
    service.answers = {"/v1/models": listed, "/version": None}
    found = await examine_endpoint(service.backend("vllm"), seconds=0.5)
    assert found.models == (ModelInfo(id="m", window=7),)
    service.answers = {"/v1/models": listed, "/version": b"<html>"}
    assert (await examine_endpoint(service.backend("vllm"))).version == ""


@pytest.mark.parametrize(
    ("status", "answer", "fault"),
    [
        (401, {"error": {"message": f"Incorrect key {KEY}"}}, "key"),
        (403, {"error": "no"}, "permission"),
        (404, b"404 page not found", "unknown_model"),
        (429, {"error": {"message": "slow down"}}, "rate_limited"),
        (500, b"", "server"),
        (200, b"<!DOCTYPE html><html><title>Welcome</title></html>", "malformed"),
        (200, b"not json", "malformed"),
        (200, b"", "malformed"),
        (200, {"object": "list"}, "malformed"),
        (200, 7, "malformed"),
    ],
)
async def test_every_failure_is_one_error_without_the_key(
    service: Service, status: int, answer: object, fault: str
) -> None:
    service.answers, service.status = {"/v1/models": answer}, {"/v1/models": status}
    with pytest.raises(ProviderError) as caught:
        await discover(service.backend("groq"))
    error = caught.value
    assert error.fault == fault
    assert error.provider == "groq"
    assert error.next_step
    assert KEY not in f"{error} {error!r} {error.__dict__} {error.__cause__!r}"
    assert len(str(error)) < 700


async def test_a_server_that_is_not_there_or_does_not_answer(service: Service) -> None:
    service.answers = {"/v1/models": None}
    with pytest.raises(ProviderError) as caught:
        await discover(service.backend("groq"), seconds=0.2)
    assert (caught.value.fault, caught.value.retryable) == ("timeout", True)
    gone = service.backend("groq")
    closed = replace(gone, base_url="http://127.0.0.1:1/v1")
    with pytest.raises(ProviderError) as caught:
        await discover(closed)
    assert caught.value.fault == "unreachable"


async def test_an_answer_that_is_too_long_is_not_read(service: Service) -> None:
    service.answers = {"/v1/models": b" " * (ANSWER_CAP + 1)}
    with pytest.raises(ProviderError) as caught:
        await discover(service.backend("groq"), seconds=60)
    assert caught.value.fault == "too_large"


async def test_what_runs_here_is_not_asked() -> None:
    backend = resolve_backend("mlx//models/tiny", environ={})
    assert await discover(backend) == (backend.model,)
