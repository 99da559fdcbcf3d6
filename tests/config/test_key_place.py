"""The key of the settings goes where its user meant it to, whatever a notebook names."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ovagent_jupyter.config.llm import is_loopback
from ovagent_jupyter.config.sources import resolve
from ovagent_jupyter.errors import OVAgentError
from ovagent_jupyter.providers.resolve import backends_of

KEY = "planted-key-of-the-settings"
OF_CLAUDE = {"OVAGENT_MODEL": "claude-sonnet-5", "OVAGENT_API_KEY": KEY}
OF_A_SERVER = {"OVAGENT_ENDPOINT": "https://models.example.org/v1", "OVAGENT_API_KEY": KEY}
OTHERS = {"OPENAI_API_KEY": "openai", "ANTHROPIC_API_KEY": "anthropic", "GROQ_API_KEY": "groq"}


def keys(
    env: Mapping[str, str], flags: Mapping[str, object], *, notebook: bool = True
) -> dict[str, str]:
    """Address → the key that is sent there."""
    llm = resolve(env=env, flags=flags, notebook=notebook).config.llm
    return {each.url: each.key.reveal() for each in backends_of(llm, environ=OTHERS)}


@pytest.mark.parametrize(
    ("env", "flags", "key"),
    [
        (OF_CLAUDE, {}, KEY),
        (OF_CLAUDE, {"model": "claude-opus-5"}, KEY),
        (OF_CLAUDE, {"model": "gpt-5"}, "openai"),
        (OF_CLAUDE, {"model": "groq/x"}, "groq"),
        (OF_CLAUDE, {"model": "http://127.0.0.1:9/v1#m"}, "none"),
        (OF_CLAUDE, {"endpoint": "http://127.0.0.1:9/v1"}, "none"),
        (OF_A_SERVER, {"model": "any"}, KEY),
        (OF_A_SERVER, {"model": "any", "endpoint": "http://localhost:1/v1"}, "none"),
        (OF_A_SERVER, {"model": "claude-opus-5", "endpoint": ""}, "anthropic"),
        ({"OVAGENT_API_KEY": KEY}, {"model": "claude-opus-5"}, "anthropic"),
    ],
)
def test_a_key_goes_to_its_own_service(
    env: Mapping[str, str], flags: Mapping[str, object], key: str
) -> None:
    assert list(keys(env, flags).values()) == [key]


def test_headers_stay_with_the_key() -> None:
    env = {**OF_CLAUDE, "OVAGENT_HEADERS": "X-Corp: planted-header"}
    for model, sent in (("claude-opus-5", True), ("gpt-5", False)):
        llm = resolve(env=env, flags={"model": model}, notebook=True).config.llm
        (backend,) = backends_of(llm, environ=OTHERS)
        assert ("planted-header" in backend.headers.values()) is sent


def test_a_program_may_send_its_key_where_it_says() -> None:
    sent = keys({"OVAGENT_API_KEY": KEY}, {"model": "claude-opus-5"}, notebook=False)
    assert list(sent.values()) == [KEY]


@pytest.mark.parametrize("url", ["http://127.example.org/v1", "http://127.0.0.1.example.org/v1"])
@pytest.mark.parametrize("setting", ["endpoint", "model"])
def test_a_name_that_looks_like_this_machine_is_none(url: str, setting: str) -> None:
    assert not is_loopback(url)
    value = f"{url}#m" if setting == "model" else url
    with pytest.raises(OVAgentError, match="not accepted from a notebook"):
        keys(OF_CLAUDE, {setting: value})
