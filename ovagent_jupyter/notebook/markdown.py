"""Pieces of a turn as Markdown and as plain text; all that comes from data is escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ovagent_jupyter.omics import Plan

TENTHS_BELOW = 9.95
"""Seconds from which on tenths say nothing."""
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!$&])")


def escape(text: object) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(text).split()))


def inline_code(text: object) -> str:
    """Text as inline code; back-ticks in it cannot end it."""
    flat = " ".join(str(text).split())
    longest = max((len(run) for run in re.findall("`+", flat)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{fence}{pad}{flat}{pad}{fence}"


def table_code(text: object) -> str:
    """Inline code for a table cell, where a bar would end the cell."""
    return inline_code(str(text).replace("|", "¦"))


def code_block(code: str) -> str:
    """A fenced block of Python; a fence in the code cannot end it."""
    longest = max((len(run) for run in re.findall("`{3,}", code)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}python\n{code.rstrip()}\n{fence}"


def folded(title: str, content: str) -> str:
    """Content behind a line that opens it."""
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>"


def parameters(params: Mapping[str, object]) -> str:
    """Parameters as ``name=value, …``; those without a value are left out."""
    return ", ".join(f"{k}={value!r}" for k, value in params.items() if value is not None)


def plan_table(plan: Plan, progress: Sequence[str] = ()) -> str:
    """The plan as a Markdown table: step, parameters, why, and how far it is."""
    rows = ["| | step | parameters | why |  |", "|---:|:---|:---|:---|---:|"]
    for number, step in enumerate(plan.steps):
        shown = parameters(step.settings)
        cells = [
            str(number + 1),
            escape(step.title),
            table_code(shown) if shown else "",
            escape(why(step)),
            progress[number] if number < len(progress) else "",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def why(step: object) -> str:
    """Why a step is in the plan, in a few words."""
    return str(getattr(step, "inserted_because", "") or getattr(step, "reason", ""))


def seconds(duration: float) -> str:
    """A duration as a reader wants it."""
    if duration < TENTHS_BELOW:
        return f"{duration:.1f} s"
    minutes, rest = divmod(round(duration), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
