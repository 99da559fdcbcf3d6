"""Settings of the model as options of a line."""

from __future__ import annotations

import argparse

import pytest

from ovagent_jupyter.config.options import (
    MODEL_OPTIONS,
    add_model_options,
    add_options,
    model_option_values,
)
from ovagent_jupyter.config.schema import FIELDS
from ovagent_jupyter.config.sources import resolve
from ovagent_jupyter.errors import ConfigError


def values(line: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    add_model_options(parser)
    add_options(parser, "beside the others")
    return model_option_values(parser.parse_args(line.split()))


def test_what_is_typed_becomes_settings() -> None:
    line = (
        "--backup claude-opus-5-5 --backup groq/x --endpoint http://localhost:8000/v1 "
        "--effort high --max-tokens 500 --temperature 0.5 --budget 5requests,200ktokens,$0.50"
    )
    llm = resolve(flags=values(line), notebook=True).config.llm
    assert llm.backups == ("claude-opus-5-5", "groq/x")
    assert llm.endpoint == "http://localhost:8000/v1"
    assert (llm.reasoning_effort, llm.max_output_tokens, llm.temperature) == ("high", 500, 0.5)
    assert str(llm.budget_turn) == "5 requests, 200_000 tokens, $0.50"
    assert values("") == {}


@pytest.mark.parametrize("line", ["--max-tokens many", "--temperature hot"])
def test_what_cannot_be_read_is_told(line: str) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        values(line)


def test_every_option_is_a_setting_and_none_is_a_key() -> None:
    settings = {setting for setting, *_ in MODEL_OPTIONS.values()}
    assert settings <= {row.name for row in FIELDS if row.group == "llm" and not row.hidden}
