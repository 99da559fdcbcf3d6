"""The lists of models and of what they have cost."""

from __future__ import annotations

import pytest

from ovagent_jupyter.agent.model_report import known_models, model_names


@pytest.mark.parametrize(
    ("part", "title"),
    [
        ("claude-sonnet-5-5", "1 model"),
        ("openrouter", "1 provider of any model"),
        ("no such", "No model is known that has 'no such' in its name"),
    ],
)
def test_the_title_counts_what_is_listed(part: str, title: str) -> None:
    assert known_models(part, {}).title == title


def test_providers_are_not_counted_as_models() -> None:
    names = model_names({})
    report = known_models("", {})
    assert report.title.startswith(f"{len(names)} models and ")
    assert len(report.rows) > len(names)
    assert set(names) < {row[0] for row in report.rows}
