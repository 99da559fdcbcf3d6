"""What doctor and the list of models say of keys, addresses and proxies."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ovagent_jupyter.config.schema import AgentConfig
from ovagent_jupyter.providers.catalog import PROVIDER_REGISTRY, Providers
from ovagent_jupyter.providers.checks import HEAD, check_models, models_table
from ovagent_jupyter.providers.model_info import model_info
from ovagent_jupyter.providers.provider import ModelInfo, ProviderInfo, WireAPI
from tests.providers.service import KEY, Service, serving


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service of ours."""
    async with serving() as made:
        yield made


def lab(service: Service) -> Providers:
    """A table with the service alone in it."""
    table = Providers(built_in=False)
    table.register(
        ProviderInfo(
            id="lab",
            display_name="Lab",
            wire_api=WireAPI.CHAT_COMPLETIONS,
            base_url=f"{service.url}/v1",
            env_key="LAB_KEY",
            models=(
                ModelInfo(id="omics", window=10_000, input_price=1.5, output_price=2.0),
                ModelInfo(id="past", window=10_000, retires="2020-01-01"),
            ),
        )
    )
    return table


def settings(**flat: object) -> AgentConfig:
    return AgentConfig.from_flat_kwargs(**flat)


async def test_a_model_that_can_be_asked_is_one_good_line(service: Service) -> None:
    environ = {"LAB_KEY": KEY}
    ((mark, name, finding, remedy),) = await check_models(
        settings(model="lab/omics"), environ, providers=lab(service)
    )
    assert (mark, name, remedy) == ("✓", "model lab/omics", "")
    for part in ("key from LAB_KEY", f"{service.url}/v1", "window 10,000", "$1.5 read, $2 written"):
        assert part in finding
    assert KEY not in finding
    assert service.asked == []


async def test_what_cannot_be_asked_says_what_to_do(service: Service) -> None:
    config = settings(model="lab/omics", backups=["lap/omics", "lab/new", "lab/past"])
    rows = {row[1]: row for row in await check_models(config, {}, providers=lab(service))}
    assert rows["model lab/omics"][0] == "✗"
    assert "Looked at: LAB_KEY" in rows["model lab/omics"][2]
    assert "Set LAB_KEY" in rows["model lab/omics"][3]
    assert rows["model lap/omics"][0] == "✗"
    assert "lab/omics" in rows["model lap/omics"][3]
    keyed = await check_models(config, {"LAB_KEY": KEY}, providers=lab(service))
    by_name = {row[1]: row for row in keyed}
    assert by_name["model lab/new"][0] == "!"
    assert "(a guess)" in by_name["model lab/new"][2]
    assert "2020-01-01" in by_name["model lab/past"][2]
    assert by_name["model lab/past"][3] == "Choose another model."


async def test_what_was_not_asked_says_so_and_a_dead_port_is_noticed(service: Service) -> None:
    far = settings(model="gpt-5", api_key=KEY)
    ((mark, _, finding, _),) = await check_models(far, {})
    assert (mark, finding.rpartition("; ")[0].endswith("; not asked")) == ("✓", True)
    assert "`doctor live` asks" in finding
    dead = "http://127.0.0.1:1/v1"
    here = settings(model="claude-opus-5-5", endpoint=dead)
    ((mark, _, finding, remedy),) = await check_models(here, {"OVAGENT_ENDPOINT": dead})
    assert mark == "✗"
    assert f"{dead} (endpoint, from OVAGENT_ENDPOINT); nothing listens there" in finding
    assert "Anthropic" in remedy
    ((mark, _, finding, remedy), *_) = await check_models(
        settings(model="ollama/qwen3"), {"OLLAMA_HOST": "127.0.0.1:1"}
    )
    assert (mark, "`ollama serve" in remedy) == ("✗", True)
    assert service.asked == []


async def test_a_window_that_is_a_guess_says_how_it_can_be_known(service: Service) -> None:
    config = settings(model="omics", endpoint=f"{service.url}/v1")
    ((mark, _, finding, remedy), *_) = await check_models(config, {})
    assert (mark, "window 4,096 (a guess)" in finding) == ("!", True)
    assert remedy.startswith("Its window is a guess: `doctor live` asks for it;")
    service.answers = {"/v1/models": {"data": [{"id": "omics", "max_model_len": 9000}]}}
    ((mark, _, _, remedy), *_) = await check_models(config, {}, live=True)
    assert (mark, "a window of 9,000; calls assume 4,096" in remedy) == ("!", True)
    service.answers = {"/v1/models": {"data": [{"id": "omics"}]}}
    ((_, _, _, remedy), *_) = await check_models(config, {}, live=True)
    assert "does not tell it" in remedy
    ((_, _, _, remedy), *_) = await check_models(settings(model="gpt-5-min", api_key=KEY), {})
    assert "'gpt-5-mini'" in remedy


async def test_live_a_service_is_asked(service: Service) -> None:
    service.answers = {"/v1/models": {"data": [{"id": "omics"}, {"id": "omics-new"}]}}
    service.headers = {"server": "lab-server"}
    config = settings(model="lab/omics", backups=["lab/omicz"])
    found = await check_models(config, {"LAB_KEY": KEY}, live=True, providers=lab(service))
    first, second = found
    assert first[0] == "✓"
    assert "answers with 2 models (lab-server)" in first[2]
    assert "this one not among them" in second[2]
    assert "omics" in second[3]
    service.status = {"/v1/models": 401}
    ((mark, _, finding, remedy),) = await check_models(
        settings(model="lab/omics"), {"LAB_KEY": KEY}, live=True, providers=lab(service)
    )
    assert (mark, KEY in finding) == ("✗", False)
    assert "LAB_KEY" in remedy


async def test_a_key_alone_and_a_server_of_this_machine_have_a_line(service: Service) -> None:
    table = lab(service)
    assert await check_models(settings(), {}, providers=table) == (
        ("✓", "models", "none asked: the built-in planner needs no key", ""),
    )
    keyed = await check_models(settings(), {"LAB_KEY": KEY}, providers=table)
    assert [row[:2] for row in keyed] == [("✓", "lab")]
    bad = await check_models(settings(), {"LAB_KEY": "planted key"}, providers=table)
    assert "planted" not in str(bad)
    environ = {"OLLAMA_HOST": service.url, "VLLM_BASE_URL": "http://127.0.0.1:1/v1"}
    rows = await check_models(settings(), environ)
    names = {row[1]: row for row in rows}
    assert "something listens there" in names["ollama"][2]
    assert "vllm" not in names


async def test_proxies_and_certificates_are_told_without_a_password(service: Service) -> None:
    environ = {
        "HTTPS_PROXY": "http://me:planted@proxy.example.org:3128",
        "no_proxy": "localhost,.example.org",
        "SSL_CERT_FILE": "/not/there.pem",
    }
    rows = await check_models(settings(), environ, providers=lab(service))
    told = {row[1]: row for row in rows}
    assert told["proxy"][2] == (
        "HTTPS_PROXY=http://proxy.example.org:3128; NO_PROXY=localhost,.example.org"
    )
    assert told["certificates"][0] == "✗"
    assert "SSL_CERT_FILE" in told["certificates"][3]


def test_the_table_of_models_has_those_with_a_key_first() -> None:
    rows = models_table({"GROQ_API_KEY": KEY})
    assert rows[0].key
    assert not rows[-1].key
    assert {len(row.cells()) for row in rows} == {len(HEAD)}
    named = {row.model: row for row in rows}
    assert named["groq/openai/gpt-oss-120b"].key == "GROQ_API_KEY"
    assert named["gpt-5"].cells()[-1] == "missing"
    assert named["ollama/…"].key == "none needed"
    assert named["gpt-5"].info == model_info(PROVIDER_REGISTRY["openai"], "gpt-5")
    assert KEY not in str(rows)
