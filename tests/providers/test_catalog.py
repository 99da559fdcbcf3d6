"""The table of providers: what leads to whom, what a row must be, and the views of it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ovagent_jupyter.errors import ConfigError, ProviderError, RegistryError
from ovagent_jupyter.providers import views
from ovagent_jupyter.providers.catalog import (
    PROVIDER_REGISTRY,
    Providers,
    get_provider,
    misspelt,
    model_ref,
    nearest,
    provider_at,
    register_provider,
    split_model,
)
from ovagent_jupyter.providers.provider import ModelInfo, ProviderInfo, Quirks, WireAPI

LAB = ProviderInfo(
    id="lab",
    display_name="The lab's own",
    wire_api=WireAPI.CHAT_COMPLETIONS,
    base_url="https://models.lab.example.org/v1",
    env_key="LAB_KEY",
    alt_env_keys=("LAB_TOKEN",),
    models=(ModelInfo(id="omics-large", window=50_000),),
    prefixes=("omics-",),
    aliases=("laboratory",),
)

BUILT_IN = """openai anthropic google xai groq deepseek dashscope moonshot zhipu zai mistral
openrouter together fireworks github azure minimax cerebras ollama vllm lmstudio llamacpp mlx
mlx-server local""".split()


def test_the_table_has_the_providers_of_the_field_and_is_for_reading() -> None:
    assert set(BUILT_IN) <= set(PROVIDER_REGISTRY)
    assert PROVIDER_REGISTRY["groq"].base_url == "https://api.groq.com/openai/v1"
    assert PROVIDER_REGISTRY.get("nobody") is None
    assert "nobody" not in PROVIDER_REGISTRY
    with pytest.raises(KeyError):
        PROVIDER_REGISTRY["nobody"]
    with pytest.raises(TypeError):
        PROVIDER_REGISTRY["x"] = LAB  # type: ignore[index]
    assert not hasattr(PROVIDER_REGISTRY, "clear")


@pytest.mark.parametrize("info", PROVIDER_REGISTRY.values(), ids=lambda info: info.id)
def test_every_row_can_be_used(info: ProviderInfo) -> None:
    assert info.display_name
    served = info.wire_api is not WireAPI.LOCAL
    assert bool(info.base_url or info.base_url_env) is served
    assert info.local or info.base_url.startswith("https://") or info.id == "azure"
    assert bool(info.env_key) or info.local
    assert bool(info.default_key) is (info.local and served)
    assert len({model.id.lower() for model in info.models}) == len(info.models)
    names = [name for row in PROVIDER_REGISTRY.values() for name in (row.id, *row.aliases)]
    assert len(names) == len(set(names))
    for model in info.models:
        assert split_model(model_ref(info, model.id)) == (info, model.id)
        Quirks(**dict(model.quirks))  # type: ignore[arg-type]
        assert model.abilities
    for prefix in info.prefixes:
        assert split_model(f"{prefix}of-tomorrow") == (info, f"{prefix}of-tomorrow")


@pytest.mark.parametrize(
    ("name", "provider", "model"),
    [
        ("groq", "groq", ""),
        ("GROQ/llama", "groq", "llama"),
        (" groq/openai/gpt-oss-120b ", "groq", "openai/gpt-oss-120b"),
        ("claude-opus-5-5", "anthropic", "claude-opus-5-5"),
        ("claude/claude-opus-5-5", "anthropic", "claude-opus-5-5"),
        ("gpt-7-of-next-year", "openai", "gpt-7-of-next-year"),
        ("GPT-5", "openai", "GPT-5"),
        ("o3", "openai", "o3"),
        ("gemini-2.5-pro", "google", "gemini-2.5-pro"),
        ("gemini/gemini-2.5-pro", "google", "gemini-2.5-pro"),
        ("grok-4.7", "xai", "grok-4.7"),
        ("qwen3-max", "dashscope", "qwen3-max"),
        ("dashscope-intl/qwen3-max", "dashscope-intl", "qwen3-max"),
        ("openrouter/anthropic/claude-x", "openrouter", "anthropic/claude-x"),
        ("ollama/qwen3:8b", "ollama", "qwen3:8b"),
        ("mlx//models/tiny", "mlx", "/models/tiny"),
        ("mlx-community/Qwen3-4B", "mlx", "mlx-community/Qwen3-4B"),
        ("/models/tiny", "local", "/models/tiny"),
        ("./tiny", "local", "./tiny"),
        ("~/tiny", "local", "~/tiny"),
        ("https://api.groq.com/openai/v1#openai/gpt-oss-20b", "groq", "openai/gpt-oss-20b"),
        ("http://localhost:8000/v1#Qwen/Qwen3", "custom", "Qwen/Qwen3"),
        ("https://models.example.org/v1", "custom", ""),
    ],
)
def test_a_name_leads_to_its_provider_and_the_model_passes_verbatim(
    name: str, provider: str, model: str
) -> None:
    info, model_id = split_model(name)
    assert (info.id, model_id) == (provider, model)
    assert get_provider(name) == info


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("gtp-5", "gpt-5"),
        ("cluade-opus-5-5", "claude-opus-5-5"),
        ("gemni-2.5-pro", "gemini-2.5-pro"),
        ("olama/qwen3", "ollama/qwen3"),
        ("groqq/llama", "groq/llama"),
        ("antropic", "anthropic"),
        ("groc/foo", "groq/foo"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ProviderError) as caught:
        get_provider(name)
    assert caught.value.fault == "unknown_model"
    assert near in nearest(name)
    assert repr(near) in caught.value.next_step


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("claude-sonet-5-5", "claude-sonnet-5-5"),
        ("gpt-5-min", "gpt-5-mini"),
        ("groq/openai/gtp-oss-120b", "groq/openai/gpt-oss-120b"),
        ("claude-sonnet-5-5", ""),
        ("Claude-Sonnet-5-5", ""),
        ("claude-opus-9-9", ""),  # may come next year
        ("gemini-2.5-flash-tts", ""),
        ("gpt-of-tomorrow", ""),
        ("ollama/qwen3", ""),
    ],
)
def test_a_misspelling_is_seen_where_the_provider_is_known(name: str, meant: str) -> None:
    assert misspelt(*split_model(name)) == meant


def test_a_name_that_is_near_nothing_is_told_who_there_is() -> None:
    with pytest.raises(ProviderError, match="zzzz") as caught:
        get_provider("zzzz")
    assert "openai, anthropic" in caught.value.next_step


def test_the_wire_of_an_address() -> None:
    custom = provider_at("https://models.example.org/v1/")
    assert custom.wire_api is WireAPI.CHAT_COMPLETIONS
    assert (custom.base_url, custom.local) == ("https://models.example.org/v1", False)
    assert provider_at("http://127.0.0.1:9/v1").local
    imitating = provider_at("https://models.example.org/anthropic")
    assert imitating.wire_api is WireAPI.ANTHROPIC_MESSAGES
    assert imitating.headers == {"anthropic-version": "2023-06-01"}
    deepseek = provider_at("https://api.deepseek.com/anthropic")
    assert (deepseek.id, deepseek.wire_api) == ("deepseek", WireAPI.ANTHROPIC_MESSAGES)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.groq.com.example.org/openai/v1",
        "https://example.org/api.groq.com/openai/v1",
        "https://api.groq.com:8443/openai/v1",
        "http://api.groq.com/openai/v1",
        "https://api.groq.com/openai/v12",
        "https://api.groq.com/elsewhere",
    ],
)
def test_an_address_that_looks_like_a_known_one_is_not_it(url: str) -> None:
    assert provider_at(url).id == "custom"


@pytest.mark.parametrize("url", ["groq.com://", "ftp://host/v1", "https://", "http://me:pw@h/v1"])
def test_an_address_that_cannot_be_used_is_told(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        get_provider(url)
    assert caught.value.next_step
    assert "pw" not in str(caught.value)


def test_registering_is_seen_everywhere() -> None:
    table = Providers()
    windows = views.View(views.model_context_windows, table)
    models = views.View(views.available_models, table)
    keys = views.View(views.provider_api_keys, table)
    before = dict(models)
    table.register(LAB)
    assert table["lab"] is LAB
    assert table.named("Laboratory") is LAB
    assert split_model("omics-large", table) == (LAB, "omics-large")
    assert dict(models) == before | {"omics-large": "The lab's own omics-large"}
    assert keys["omics-large"] == "LAB_KEY"
    assert windows["omics-large"] == 50_000
    assert views.View(views.provider_endpoints, table)["lab"] == LAB.base_url
    assert views.View(views.provider_default_keys, table)["lab"] == "LAB_KEY"
    assert "lab" not in PROVIDER_REGISTRY


def test_the_longest_beginning_wins_and_of_equal_ones_the_first() -> None:
    table = Providers()
    for name, prefix in (
        ("a", "omics-large-"),
        ("b", "omics-"),
        ("c", "omics-"),
        ("d", "gpt-5-lab"),
    ):
        table.register(replace(LAB, id=name, aliases=(), models=(), prefixes=(prefix,)))
    found = [split_model(name, table)[0].id for name in ("omics-large-2", "omics-2", "gpt-5-lab-1")]
    assert found == ["a", "b", "d"]
    assert split_model("gpt-5", table)[0].id == "openai"


def test_the_same_row_again_is_no_error_and_another_is() -> None:
    table = Providers()
    table.register(LAB, owner="one")
    table.register(replace(LAB), owner="two")
    with pytest.raises(RegistryError, match="registered twice") as caught:
        table.register(replace(LAB, display_name="Other"), owner="two")
    assert "by one and by two" in str(caught.value)
    for taken in ({"id": "claude"}, {"id": "x", "aliases": ("groq",)}, {"id": "laboratory"}):
        with pytest.raises(RegistryError, match="is taken by"):
            table.register(replace(LAB, **{"aliases": (), **taken}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"id": "My Lab"}, "small letters"),
        ({"id": ""}, "small letters"),
        ({"wire_api": "telepathy"}, "Its wire_api is one of"),
        ({"base_url": "models.example.org"}, "begins with https"),
        ({"base_url": ""}, "needs a base_url"),
        ({"models": (ModelInfo(id="a", quirks={"shouts": True}),)}, "no quirk 'shouts'"),
    ],
)
def test_a_row_that_cannot_work_is_refused(changed: dict[str, object], complaint: str) -> None:
    with pytest.raises(RegistryError, match=complaint):
        Providers(built_in=False).register(replace(LAB, **changed))  # type: ignore[arg-type]
    with pytest.raises(RegistryError, match="not a dict"):
        Providers(built_in=False).register({"id": "lab"})  # type: ignore[arg-type]


def test_the_public_call_names_its_caller_as_the_owner() -> None:
    with pytest.raises(RegistryError, match=f"by {__name__}"):
        register_provider(replace(LAB, id="groq", aliases=()))


def test_the_views_have_the_names_that_omicverse_knows() -> None:
    assert views.PROVIDER_ENDPOINTS["deepseek"] == "https://api.deepseek.com"
    assert views.PROVIDER_DEFAULT_KEYS["openai"] == "OPENAI_API_KEY"
    assert views.PROVIDER_API_KEYS["gpt-5"] == "OPENAI_API_KEY"
    assert "claude-opus-5-5" in views.AVAILABLE_MODELS
    assert "groq/openai/gpt-oss-120b" in views.AVAILABLE_MODELS
    assert set(views.MODEL_CONTEXT_WINDOWS) == set(views.AVAILABLE_MODELS)
    assert min(views.MODEL_CONTEXT_WINDOWS.values()) >= 100_000
    for name in views.AVAILABLE_MODELS:
        assert model_ref(*split_model(name)) == name
    with pytest.raises(TypeError):
        views.AVAILABLE_MODELS["x"] = "y"  # type: ignore[index]


def test_a_plugin_adds_providers_and_a_broken_one_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "labplugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: labplugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[ovagent_jupyter.provider]\nplugged = labplugin:ROW\nbroken = labplugin_missing:ROW\n"
    )
    (tmp_path / "labplugin.py").write_text(
        "from ovagent_jupyter.providers.provider import ProviderInfo, WireAPI\n"
        "ROW = ProviderInfo(id='plugged', display_name='P', wire_api=WireAPI.CHAT_COMPLETIONS,"
        " base_url='https://plugged.example.org/v1')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    table = Providers()
    assert split_model("plugged/m", table)[0].base_url == "https://plugged.example.org/v1"
    assert split_model("gpt-5", table)[0].id == "openai"
    with pytest.raises(RegistryError, match="labplugin"):
        table["broken"]
    sys.modules.pop("labplugin", None)


def test_finding_a_provider_loads_no_sdk_and_no_prices() -> None:
    code = (
        "import sys; from ovagent_jupyter.providers.catalog import get_provider;"
        "get_provider('groq/x'); get_provider('gpt-5');"
        "heavy = {'openai', 'anthropic', 'httpx2', 'genai_prices', 'pydantic', 'rapidfuzz'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
