"""Keys: where they are looked for, and that none is shown."""

from __future__ import annotations

import pickle
from copy import copy, deepcopy
from dataclasses import dataclass, field, replace

import pytest

from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.providers.catalog import PROVIDER_REGISTRY
from ovagent_jupyter.providers.credentials import (
    SERVICE,
    Secret,
    find_key,
    missing_key,
    needs_key,
    variables_of,
)

GOOGLE = PROVIDER_REGISTRY["google"]
KEY = "planted-key-value"


@dataclass
class KeptKeys:
    """A keyring in memory."""

    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    locked: bool = False

    def get_password(self, service_name: str, username: str) -> str | None:
        if self.locked:
            raise RuntimeError(f"locked: {KEY}")
        return self.keys.get((service_name, username))


def test_keys_are_found_in_their_order() -> None:
    assert variables_of(GOOGLE) == ("GOOGLE_API_KEY", "GEMINI_API_KEY")
    ring = KeptKeys({(SERVICE, "google"): "from-ring"})
    environ = {"GOOGLE_API_KEY": "first", "GEMINI_API_KEY": "second"}
    found = find_key(GOOGLE, environ=environ, explicit="given", keyring=ring)
    assert (found.reveal(), found.source) == ("given", "an argument")
    found = find_key(GOOGLE, environ=environ, keyring=ring)
    assert (found.reveal(), found.source) == ("first", "GOOGLE_API_KEY")
    found = find_key(GOOGLE, environ=environ | {"GOOGLE_API_KEY": " "}, keyring=ring)
    assert (found.reveal(), found.source) == ("second", "GEMINI_API_KEY")
    found = find_key(GOOGLE, environ={}, keyring=ring)
    assert (found.reveal(), found.source) == ("from-ring", "the keyring")
    assert not find_key(GOOGLE, environ={})
    assert not find_key(GOOGLE, environ={}, explicit=Secret(""))


def test_a_given_secret_keeps_its_source() -> None:
    given = Secret(KEY, "OVAGENT_API_KEY")
    assert find_key(GOOGLE, environ={}, explicit=given) is given


def test_a_key_is_taken_without_the_line_end_that_was_copied_with_it() -> None:
    assert find_key(GOOGLE, environ={"GOOGLE_API_KEY": f"{KEY}\n"}).reveal() == KEY


def test_servers_that_need_none_get_their_default() -> None:
    ollama = PROVIDER_REGISTRY["ollama"]
    assert find_key(ollama, environ={}).reveal() == "ollama"
    assert find_key(ollama, environ={"OLLAMA_API_KEY": KEY}).reveal() == KEY
    assert not needs_key(ollama)
    assert not needs_key(PROVIDER_REGISTRY["mlx"])
    assert needs_key(GOOGLE)


def test_a_keyring_that_is_locked_has_no_key() -> None:
    assert not find_key(GOOGLE, environ={}, keyring=KeptKeys(locked=True))


@pytest.mark.parametrize("value", ["planted key", "planted\nkey", "planted–key", "planted\x00key"])
def test_what_cannot_be_a_key_is_told_without_its_value(value: str) -> None:
    for given in ({"environ": {"GOOGLE_API_KEY": value}}, {"environ": {}, "explicit": value}):
        with pytest.raises(ProviderError) as caught:
            find_key(GOOGLE, **given)  # type: ignore[arg-type]
        assert caught.value.fault == "key"
        assert "planted" not in f"{caught.value} {caught.value!r} {caught.value.__dict__}"
        assert caught.value.next_step


def test_a_missing_key_names_the_places() -> None:
    error = missing_key(GOOGLE, keyring=True)
    assert error.why == "Looked at: GOOGLE_API_KEY, GEMINI_API_KEY, the keyring."
    local = "Local models need none: 'ollama/NAME', 'mlx/FOLDER'."
    assert error.next_step == f"Set GOOGLE_API_KEY or OVAGENT_API_KEY. {local}"
    backup = missing_key(GOOGLE, own=False, meant="gemini-2.5-pro")
    assert backup.next_step == f"Did you mean 'gemini-2.5-pro'? Set GOOGLE_API_KEY. {local}"
    nameless = replace(GOOGLE, env_key="", alt_env_keys=())
    assert missing_key(nameless).next_step.startswith("Set OVAGENT_API_KEY.")
    assert missing_key(nameless, own=False).next_step.startswith("Give it as api_key.")


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret(KEY, "OPENAI_API_KEY")
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>40}",
        f"{[secret]}",
        f"{ {1: secret} }",
    ]
    assert not any(KEY in text for text in shown)
    assert repr(secret) == "Secret(from OPENAI_API_KEY)"
    assert (repr(Secret("")), repr(Secret(KEY))) == ("Secret(none)", "Secret(from an argument)")
    assert copy(secret) is deepcopy(secret) is secret
    for act in (pickle.dumps, vars, dict):
        with pytest.raises(TypeError) as caught:
            act(secret)  # type: ignore[operator]
        assert KEY not in str(caught.value)
    with pytest.raises(TypeError):
        sorted([secret, Secret("other")])  # type: ignore[type-var]
    assert secret == Secret(KEY, "elsewhere")
    assert secret != Secret("other")
    assert (bool(secret), bool(Secret(""))) == (True, False)
