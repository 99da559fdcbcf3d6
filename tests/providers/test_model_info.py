"""What is known of a model: which place wins, and what nobody is taken for."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from ovagent_jupyter.providers.catalog import PROVIDER_REGISTRY, split_model
from ovagent_jupyter.providers.model_info import (
    DEFAULT_LOCAL_WINDOW,
    DEFAULT_WINDOW,
    known_model,
    model_info,
)
from ovagent_jupyter.providers.provider import ModelInfo, ProviderInfo, WireAPI

OPENAI = PROVIDER_REGISTRY["openai"]
LAB = ProviderInfo(
    id="lab",
    display_name="Lab",
    wire_api=WireAPI.CHAT_COMPLETIONS,
    base_url="https://lab.example.org/v1",
    models=(
        ModelInfo(id="omics", window=10_000, max_output=100, quirks={"think_tags": True}),
        ModelInfo(id="omics-large", window=20_000, input_price=1.0, output_price=2.0),
        ModelInfo(id="claude-opus-5", window=30_000),
    ),
)


def info_of(name: str) -> ModelInfo:
    return model_info(*split_model(name))


def test_the_first_place_that_has_a_figure_wins() -> None:
    told = ModelInfo(
        id="omics-large", window=15_000, max_output=300, abilities=frozenset({"tools"})
    )
    mine = ModelInfo(id="", max_output=50, quirks={"supports_temperature": False})
    alone = model_info(LAB, "omics-large")
    assert (alone.window, alone.max_output, alone.input_price) == (20_000, None, 1.0)
    asked = model_info(LAB, "omics-large", discovered=(told,))
    assert (asked.window, asked.max_output, asked.output_price) == (15_000, 300, 2.0)
    both = model_info(LAB, "omics-large", discovered=(told,), override=mine)
    assert (both.window, both.max_output, both.id) == (15_000, 50, "omics-large")
    assert both.quirks == {"supports_temperature": False}
    free = replace(mine, input_price=0.0, output_price=0.0)
    assert model_info(LAB, "omics-large", override=free).input_price == 0.0


def test_what_a_service_does_not_tell_is_taken_from_elsewhere() -> None:
    silent = ModelInfo(id="gpt-5", window=0, window_known=False)
    assert model_info(OPENAI, "gpt-5", discovered=(silent,)).window == 400_000
    other = ModelInfo(id="gpt-5-mini", window=7)
    assert model_info(OPENAI, "gpt-5", discovered=(other,)).window == 400_000


@pytest.mark.parametrize(
    ("model_id", "row"),
    [
        ("omics", "omics"),
        ("OMICS", "omics"),
        ("omics-2026-08-07", "omics"),
        ("omics-20260807", "omics"),
        ("omics@20260807", "omics"),
        ("omics-large-2026-08-07", "omics-large"),
        ("omics-large-preview", "omics-large"),
        ("omics-small", "omics"),
        ("omics:latest", "omics"),
        ("omics2", None),
        ("omics.5", None),
        ("omics-5", None),
        ("omics-5-large", None),
        ("my-omics", None),
        ("claude-opus-5-5", None),
        ("claude-opus-5-20260807", "claude-opus-5"),
    ],
)
def test_a_row_is_found_by_the_beginning_and_never_in_the_middle(
    model_id: str, row: str | None
) -> None:
    found = known_model(LAB, model_id)
    assert (found.id if found else None) == row


def test_exactly_leaves_only_the_date_aside() -> None:
    assert known_model(LAB, "omics-2026-08-07", exactly=True) is not None
    assert known_model(LAB, "omics-small", exactly=True) is None


@pytest.mark.parametrize(
    ("name", "window"),
    [
        ("gpt-4.1", 1_047_576),
        ("gpt-4.1-mini-2025-04-14", 1_047_576),
        ("gpt-6-astra", 1_050_000),
        ("gpt-5-mini", 400_000),
        ("claude-sonnet-4-5-20250929", 200_000),
        ("claude-opus-5-5", 1_000_000),
        ("gemini-2.5-pro", 1_048_576),
        ("glm-5.1", 200_000),
        ("qwen3.8-max", 991_808),
        ("groq/openai/gpt-oss-120b", 131_072),
        ("kimi-k3", 1_048_576),
        ("minimax-cn/MiniMax-M3", 1_000_000),
        ("azure/gpt-35-turbo", 16_385),
        ("openrouter/anthropic/claude-sonnet-5.5", 1_000_000),
        ("github/openai/gpt-4.1", 1_047_576),
    ],
)
def test_windows_of_models_that_are_known(name: str, window: int) -> None:
    info = info_of(name)
    assert (info.window, info.window_known) == (window, True)


@pytest.mark.parametrize("name", ["gpt-99", "groq/unheard-of", "https://models.example.org/v1#m"])
def test_an_unknown_model_gets_a_stated_guess(name: str) -> None:
    info = info_of(name)
    assert (info.window, info.window_known) == (DEFAULT_WINDOW, False)
    assert info.abilities == frozenset()
    assert (info.max_output, info.input_price, info.output_price) == (None, None, None)


@pytest.mark.parametrize("name", ["ollama/qwen3", "mlx/x", "http://localhost:8000/v1#m"])
def test_a_local_model_costs_nothing_and_is_taken_to_have_little(name: str) -> None:
    info = info_of(name)
    assert (info.window, info.window_known) == (DEFAULT_LOCAL_WINDOW, False)
    assert (info.input_price, info.output_price) == (0.0, 0.0)


def test_prices_come_with_the_data_package() -> None:
    """Not typed by hand, so compared with the package itself."""
    import genai_prices

    for name in ("gpt-5", "claude-haiku-5-5", "xai/grok-4.7", "kimi-k3", "cerebras/gpt-oss-120b"):
        provider, model_id = split_model(name)
        info = info_of(name)
        for usage, price in (
            (genai_prices.Usage(input_tokens=1_000), info.input_price),
            (genai_prices.Usage(output_tokens=1_000), info.output_price),
        ):
            listed = genai_prices.calc_price(
                usage, model_id, provider_id=provider.price_list or provider.id
            )
            assert price == pytest.approx(float(listed.total_price) * 1_000)
    assert not [row.id for row in OPENAI.models if row.input_price is not None]


def test_what_another_service_resells_has_no_price_of_its_maker() -> None:
    resold = info_of("github/openai/gpt-5")
    assert (resold.input_price, resold.max_output) == (None, 128_000)
    assert resold.abilities >= {"images"}
    assert resold.wire_api is None
    free = info_of("openrouter/openai/gpt-6-sol:free")
    assert (free.input_price, free.output_price, free.window) == (0.0, 0.0, 1_050_000)


def test_the_model_behind_a_deployment() -> None:
    azure = PROVIDER_REGISTRY["azure"]
    assert not model_info(azure, "our-model").window_known
    named = model_info(azure, "our-model", deployment_of="gpt-4o")
    assert (named.id, named.window, named.window_known) == ("our-model", 128_000, True)


def test_a_model_that_ends_says_when() -> None:
    assert info_of("claude-sonnet-4-5").retires == "2026-11-30"
    assert info_of("deepseek-chat").retires == "2026-07-24"


def test_nothing_is_fetched_for_it() -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise SystemExit('it reached out')\n"
        "sys.addaudithook(lambda event, args: event in ('socket.connect', 'socket.getaddrinfo')"
        " and refuse())\n"
        "from ovagent_jupyter.providers.catalog import split_model\n"
        "from ovagent_jupyter.providers.model_info import model_info\n"
        "print(model_info(*split_model('gpt-5')).window)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "400000\n"
