"""From a name to a backend: addresses, keys, and what an error says."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovagent_jupyter.config.llm import LLMConfig
from ovagent_jupyter.errors import ConfigError, ProviderError
from ovagent_jupyter.providers.backend import Timeouts
from ovagent_jupyter.providers.catalog import PROVIDER_REGISTRY
from ovagent_jupyter.providers.provider import ModelInfo, WireAPI
from ovagent_jupyter.providers.resolve import backends_of, base_url_of, resolve_backend

KEYS = {"OPENAI_API_KEY": "sk-openai", "GROQ_API_KEY": "gsk-groq"}


def test_a_backend_has_all_that_a_call_needs() -> None:
    backend = resolve_backend(
        "groq/openai/gpt-oss-120b",
        environ=KEYS,
        headers={"X-Title": "ovagent"},
        timeouts=Timeouts(total=5.0),
    )
    assert backend.name == "groq/openai/gpt-oss-120b"
    assert backend.model.id == "openai/gpt-oss-120b"
    assert backend.url == "https://api.groq.com/openai/v1"
    assert backend.key.reveal() == "gsk-groq"
    assert backend.key.source == "GROQ_API_KEY"
    assert backend.headers == {"X-Title": "ovagent"}
    assert backend.timeouts.total == 5.0
    assert backend.wire_api is WireAPI.CHAT_COMPLETIONS
    assert backend.quirks.max_tokens_field == "max_completion_tokens"
    assert "gsk-groq" not in repr(backend)


def test_the_wire_and_the_quirks_of_a_model_are_its_own() -> None:
    many = resolve_backend("xai/grok-4.20-multi-agent-0309", api_key="k", environ={})
    assert many.wire_api is WireAPI.RESPONSES
    assert resolve_backend("gpt-4.1", environ=KEYS).quirks.supports_temperature
    assert not resolve_backend("gpt-5", environ=KEYS).quirks.supports_temperature


def test_a_missing_key_is_told_with_the_places_that_were_looked_at() -> None:
    with pytest.raises(ProviderError) as caught:
        resolve_backend("claude-opus-5-5", environ=KEYS | {"ANTHROPIC_API_KEY": "  "})
    assert caught.value.fault == "key"
    assert "ANTHROPIC_API_KEY, ANTHROPIC_AUTH_TOKEN" in caught.value.why
    assert "Set ANTHROPIC_API_KEY" in caught.value.next_step
    assert not caught.value.retryable


def test_a_missing_key_of_a_model_that_looks_misspelt_asks_which_one_is_meant() -> None:
    with pytest.raises(ProviderError) as caught:
        resolve_backend("claude-sonet-5-5", environ={})
    assert caught.value.next_step.startswith("Did you mean 'claude-sonnet-5-5'? Set ANTHROPIC")
    assert "OVAGENT_API_KEY" in caught.value.next_step
    llm = LLMConfig(model="gpt-5", api_key="sk-mine", backups=("claude-opus-5-5",))  # type: ignore[arg-type]
    with pytest.raises(ProviderError) as of_backup:
        backends_of(llm, environ={})
    # The key of the settings is not sent to another provider.
    assert "OVAGENT_API_KEY" not in of_backup.value.next_step


def test_one_folder_is_one_model_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"x")
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    ways = [
        f"{start}{path}"
        for start in ("", "mlx/", "local/", "local/mlx/")
        for path in (f"{folder}", f"{folder}/", f"/{folder}".replace("/tiny", "//tiny//"),
                     "./tiny", "~/tiny", f"{folder}/../tiny")
    ] + ["mlx/tiny", "local/tiny/"]  # fmt: skip
    ways.remove(f"/{folder}".replace("/tiny", "//tiny//"))
    found = {(each.name, each.model.id) for way in ways for each in [resolve_backend(way)]}
    assert found == {(f"mlx/{folder}", str(folder))}
    hub = {resolve_backend(f"{way}").name for way in ("mlx/mlx-community/x/", "mlx-community/x")}
    assert hub == {"mlx/mlx-community/x"}
    assert resolve_backend("local/gone.gguf").name == "local/gone.gguf"


@pytest.mark.parametrize("name", ["groq", "groq/", "https://models.example.org/v1", "offline"])
def test_a_name_without_a_model_is_told(name: str) -> None:
    with pytest.raises(ProviderError) as caught:
        resolve_backend(name, environ=KEYS)
    assert caught.value.fault == "unknown_model"
    assert caught.value.next_step


def test_an_endpoint_takes_the_model_verbatim_and_gets_no_key_of_others() -> None:
    backend = resolve_backend(
        "openai/gpt-oss-120b", endpoint="https://models.example.org/v1/", environ=KEYS
    )
    assert backend.model.id == "openai/gpt-oss-120b"
    assert backend.url == "https://models.example.org/v1"
    assert backend.provider.id == "custom"
    assert backend.key.reveal() not in KEYS.values()
    assert backend.wire_api is WireAPI.CHAT_COMPLETIONS
    given = resolve_backend("m", endpoint="https://h/v1", api_key="mine", environ=KEYS)
    assert given.key.reveal() == "mine"
    known = resolve_backend("m", endpoint="https://api.groq.com/openai/v1", environ=KEYS)
    assert (known.provider.id, known.key.reveal()) == ("groq", "gsk-groq")
    by_url = resolve_backend("https://models.example.org/v1#a/b", environ=KEYS)
    assert (by_url.model.id, by_url.url) == ("a/b", "https://models.example.org/v1")
    assert by_url.key.reveal() not in KEYS.values()


@pytest.mark.parametrize("endpoint", ["models.example.org/v1", "localhost:8000", "file:///v1"])
def test_an_endpoint_without_a_scheme_is_told_with_the_remedy(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="endpoint=") as caught:
        resolve_backend("m", endpoint=endpoint, environ={})
    assert "https://host/v1" in caught.value.next_step


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        ("0.0.0.0:1234", "http://127.0.0.1:1234/v1"),
        ("far.example.org", "http://far.example.org:11434/v1"),
        (":11435", "http://127.0.0.1:11435/v1"),
        ("[::1]:11434", "http://[::1]:11434/v1"),
        ("::1", "http://[::1]:11434/v1"),
        ("::", "http://127.0.0.1:11434/v1"),
        ("http://far.example.org:99/", "http://far.example.org:99/v1"),
        ("http://far.example.org", "http://far.example.org:80/v1"),
        ("https://far.example.org", "https://far.example.org:443/v1"),
        ("https://far.example.org/ollama", "https://far.example.org:443/ollama/v1"),
        ("http://far.example.org:99/v1", "http://far.example.org:99/v1"),
    ],
)
def test_ollamas_own_variable_is_read_as_ollama_reads_it(host: str, url: str) -> None:
    assert base_url_of(PROVIDER_REGISTRY["ollama"], {"OLLAMA_HOST": host}) == url


def test_variables_override_an_address_in_their_order() -> None:
    ollama = PROVIDER_REGISTRY["ollama"]
    both = {"OLLAMA_BASE_URL": "http://a:1", "OLLAMA_HOST": "b:2"}
    assert base_url_of(ollama, both) == "http://a:1/v1"
    assert base_url_of(ollama, {}) == "http://localhost:11434/v1"
    openai = {"OPENAI_BASE_URL": "https://proxy.example.org/v1"}
    backend = resolve_backend("gpt-5", environ=KEYS | openai)
    assert (backend.url, backend.provider.id) == ("https://proxy.example.org/v1", "openai")


@pytest.mark.parametrize("text", ["proxy.example.org", "http://h:port/v1", "h\n"])
def test_a_variable_that_is_no_address_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="OPENAI_BASE_URL="):
        resolve_backend("gpt-5", environ=KEYS | {"OPENAI_BASE_URL": text})


def test_azure_needs_its_address() -> None:
    azure = {"AZURE_OPENAI_API_KEY": "k"}
    with pytest.raises(ConfigError, match="Looked at: AZURE_OPENAI_ENDPOINT"):
        resolve_backend("azure/my-deployment", environ=azure)
    for given in ("https://r.openai.azure.com", "https://r.openai.azure.com/openai/v1/"):
        environ = azure | {"AZURE_OPENAI_ENDPOINT": given}
        backend = resolve_backend("azure/my-deployment", environ=environ)
        assert backend.url == "https://r.openai.azure.com/openai/v1"
        assert backend.provider.key_header == "api-key"


@pytest.mark.parametrize(
    ("model", "variable"),
    [("claude-opus-5-5", "ANTHROPIC_AUTH_TOKEN"), ("azure/d", "AZURE_OPENAI_AD_TOKEN")],
)
def test_a_token_goes_into_the_header_of_tokens(model: str, variable: str) -> None:
    environ = {variable: "planted-token", "AZURE_OPENAI_ENDPOINT": "https://r.openai.azure.com"}
    backend = resolve_backend(model, environ=environ)
    assert backend.headers["Authorization"] == "Bearer planted-token"
    assert not backend.key
    assert backend.key.source == variable
    assert "planted" not in repr(backend)


def test_what_runs_in_this_process_needs_neither_key_nor_address() -> None:
    backend = resolve_backend("mlx//models/tiny", environ={})
    assert (backend.url, bool(backend.key), backend.wire_api) == ("", False, WireAPI.LOCAL)


def test_what_the_user_or_the_service_says_of_a_model_counts() -> None:
    told = (ModelInfo(id="qwen3:8b", window=40_960),)
    assert resolve_backend("ollama/qwen3:8b", environ={}).model.window_known is False
    assert resolve_backend("ollama/qwen3:8b", environ={}, discovered=told).model.window == 40_960
    mine = ModelInfo(id="", window=8_192)
    both = resolve_backend("ollama/qwen3:8b", environ={}, discovered=told, override=mine)
    assert (both.model.window, both.model.id) == (8_192, "qwen3:8b")


def test_settings_lead_to_the_model_and_its_backups() -> None:
    llm = LLMConfig(
        model="gpt-5",
        api_key="sk-mine",  # type: ignore[arg-type]  # text is taken in
        backups=("gpt-5-mini", "groq/x", "gpt-5"),
        headers={"X-Key": "planted"},
    )
    first, same, other = backends_of(llm, environ={"GROQ_API_KEY": "gsk-groq"})
    assert [each.name for each in (first, same, other)] == [
        "openai/gpt-5", "openai/gpt-5-mini", "groq/x",
    ]  # fmt: skip
    assert (first.key.reveal(), same.key.reveal()) == ("sk-mine", "sk-mine")
    assert other.key.reveal() == "gsk-groq"
    assert first.headers == {"X-Key": "planted"}
    assert same.headers == other.headers == {}
    assert backends_of(LLMConfig(), environ={}) == ()


def test_the_key_of_an_endpoint_goes_nowhere_else() -> None:
    llm = LLMConfig(
        model="m",
        endpoint="https://models.example.org/v1",
        api_key="sk-mine",  # type: ignore[arg-type]
        backups=("groq/x", "https://elsewhere.example.org/v1#m"),
    )
    mine, groq, elsewhere = backends_of(llm, environ={"GROQ_API_KEY": "gsk-groq"})
    assert mine.key.reveal() == "sk-mine"
    assert groq.key.reveal() == "gsk-groq"
    assert elsewhere.key.reveal() not in {"sk-mine", "gsk-groq"}
