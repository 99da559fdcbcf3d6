"""Keys do not get through; ordinary text does."""

from __future__ import annotations

import json

import pytest

from ovagent_jupyter.storage.redaction import REDACTED, Redactor

ENV = {
    "OPENAI_API_KEY": "planted-value-1",
    "MY_TOKEN": "planted-value-1-and-more",
    "DB_PASSWORD": "planted+value(2)",
    "AWS_SECRET_ACCESS_KEY": "planted/value/3",
    "SERVICE_KEY": "planted-value-4",
    "SHORT_TOKEN": "on",
    "TOKENIZERS_PARALLELISM": "disabled-here",
    "MAX_TOKENS": "100000000",
    "HOME": "/home/somebody",
}
SHAPES = [
    "sk-" + "a1B2" * 6,
    "sk-ant-api03-" + "x_-9" * 8,
    "AIza" + "b" * 35,
    "ghp_" + "c" * 36,
    "github_pat_" + "d" * 30,
    "hf_" + "e" * 30,
    "xoxb-123456789-abcdef",
    *(mark + "f" * 30 for mark in ("gsk_", "xai-", "pplx-", "nvapi-", "r8_", "tgp_", "fw_")),
    *(mark + "f" * 30 for mark in ("gho_", "ghs_", "ghu_", "ghr_", "glpat-")),
    "AKIA" + "ABCD1234" * 2,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjMifQ.SflKxwRJSMeKKF2",
]
ORDINARY = [
    "cluster and show markers",
    "sc.pp.neighbors(adata, n_neighbors=15)",
    "task-force-one-two-three-four-five",
    "adata.obs['token_count'] > 5; secret_santa = True",
    "https://scanpy.readthedocs.io/en/stable/?a=b@c",
    "token = tokens[0]",
    "CD3D, CD8A, MS4A1, NKG7, HLA-DRA",
    "",
]


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "MY_TOKEN", "DB_PASSWORD", "SERVICE_KEY"])
def test_value_of_the_environment_is_replaced(name: str) -> None:
    assert Redactor(ENV).text(f"a {ENV[name]} b") == f"a {REDACTED} b"


@pytest.mark.parametrize("name", ["SHORT_TOKEN", "TOKENIZERS_PARALLELISM", "MAX_TOKENS", "HOME"])
def test_other_values_stay(name: str) -> None:
    assert Redactor(ENV).text(ENV[name]) == ENV[name]


@pytest.mark.parametrize("key", SHAPES)
@pytest.mark.parametrize("around", ["{}", "key={}", "'{}'", "see {}."])
def test_known_shape_is_replaced(key: str, around: str) -> None:
    text = Redactor({}).text(around.format(key))
    assert key not in text
    assert REDACTED in text


@pytest.mark.parametrize(
    "text",
    [
        'client(api_key="planted-value")',
        "token = 'planted-value'",
        '{"password": "planted-value"}',
        "SECRET_KEY='planted-value'",
        "Authorization: Bearer planted-value-longer",
        "postgresql://me:planted-value@host/db",
    ],
)
def test_key_written_out_is_replaced(text: str) -> None:
    assert "planted" not in Redactor({}).text(text)


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_left_as_it_is(text: str) -> None:
    assert Redactor(ENV).text(text) == text


def test_values_are_cleaned_at_any_depth_and_in_names() -> None:
    value = {
        "list": ["planted-value-1", 7, None, 1.5, True],
        "planted-value-1": {"deep": ("planted-value-4",)},
        "api_key": "short",
        "input_tokens": 12,
        "token_count": "12",
    }
    clean = Redactor(ENV).value(value)
    assert "planted" not in json.dumps(clean)
    assert clean == {
        "list": [REDACTED, 7, None, 1.5, True],
        REDACTED: {"deep": [REDACTED]},
        "api_key": REDACTED,
        "input_tokens": 12,
        "token_count": REDACTED,
    }
    assert value["api_key"] == "short"


@pytest.mark.parametrize(
    "flood", ["eyJ" + "a" * 200_000, "://" * 70_000, "token " * 30_000, "Bearer" + " " * 200_000]
)
def test_flood_that_nearly_matches_is_left_as_it_is(flood: str) -> None:
    assert Redactor(ENV).text(flood) == flood
