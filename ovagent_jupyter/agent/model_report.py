"""What there is to read about models: which are known, and what they have cost."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from ovagent_jupyter.errors import ConfigError
from ovagent_jupyter.storage.usage import By, UsageRow, read_uses, usage_report


@dataclass(frozen=True, slots=True)
class Report:
    """A table with a line above and below."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def known_models(part: str = "", environ: Mapping[str, str] | None = None) -> Report:
    """The models whose name or provider has this part, those with a key first.

    Args:
        part: Letters of a name; empty is all.
        environ: Where keys are; None is this process's environment.
    """
    from ovagent_jupyter.providers.checks import HEAD, models_table

    rows = [row.cells() for row in models_table(os.environ if environ is None else environ)]
    wanted = part.lower()
    found = tuple(cells for cells in rows if wanted in " ".join(cells[:2]).lower())
    title = _counted(found) or f"No model is known that has {part!r} in its name"
    note = (
        "Prices are US dollars for a million tokens. Any other id of a provider is passed on as it "
        "is: groq/…, ollama/…, mlx/<folder>."
    )
    return Report(title, HEAD, found, note)


def model_names(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The models that are known by name, as ``-m`` takes them, those with a key first.

    Args:
        environ: Where keys are; None is this process's environment.
    """
    from ovagent_jupyter.providers.checks import models_table

    rows = models_table(os.environ if environ is None else environ)
    return tuple(row.model for row in rows if row.info is not None)


def _counted(rows: tuple[tuple[str, ...], ...]) -> str:
    """How many models are listed, and how many providers of which none is; empty for none."""
    providers = sum(row[0].endswith("/…") for row in rows)
    models = len(rows) - providers
    parts = [f"{models} model{'s' * (models != 1)}"] if models else []
    if providers:
        parts.append(f"{providers} provider{'s' * (providers != 1)} of any model")
    return " and ".join(parts)


def used_models(directory: Path, by: str = "") -> Report:
    """What models have cost, as the session logs of a directory tell it.

    Args:
        directory: Where sessions are kept.
        by: ``model``, ``day`` or ``session``; empty is by model.

    Raises:
        ConfigError: It is something else.
        StorageError: A log cannot be read.
    """
    kind = by or "model"
    if kind not in get_args(By):
        raise ConfigError(
            f"Usage cannot be shown by {by!r}.", next_step="Use model, day or session."
        )
    report = usage_report(read_uses(directory), cast(By, kind))
    head = (kind, "calls", "failed", "tokens read", "written", "cost")
    rows = tuple(map(_cells, report.rows))
    if len(rows) > 1:
        rows = (*rows, _cells(report.total))
    note = "A cost with a + lacks calls whose price is not known." if report.total.unpriced else ""
    return Report("What models have cost" if rows else "No model was asked yet", head, rows, note)


def _cells(row: UsageRow) -> tuple[str, ...]:
    from ovagent_jupyter.messages import dollars

    return (
        row.name,
        f"{row.calls:,}",
        f"{row.failures:,}",
        f"{row.usage.input_tokens:,}",
        f"{row.usage.output_tokens:,}",
        dollars(row.cost) + ("+" if row.unpriced else ""),
    )
