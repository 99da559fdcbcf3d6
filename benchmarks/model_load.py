"""What the SDKs cost to import, and that ``%load_ext ovagent_jupyter`` does not pay it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from benchmarks.figure import Figure, side_by_side
from benchmarks.load_ext import LOAD, SHELL, TIMED

HEAVY = (
    "openai anthropic httpx httpx2 jiter pydantic aiolimiter cachetools genai_prices"
    " opentelemetry mlx mlx_lm"
).split()


def measure() -> Iterator[Figure]:
    """CPU time of the extension and of the SDKs, each in a fresh interpreter."""
    ours, openai = side_by_side(
        lambda: _cpu_seconds(LOAD, prepare=SHELL), lambda: _cpu_seconds("import openai")
    )
    yield Figure("%load_ext, CPU time", ours / openai, "×", "import openai", "≤ 0.15×")
    anthropic, openai = side_by_side(
        lambda: _cpu_seconds("import anthropic"), lambda: _cpu_seconds("import openai"), rounds=3
    )
    yield Figure("import anthropic, CPU time", anthropic / openai, "×", "import openai")
    loaded = _run(f"{SHELL}{LOAD}\nimport sys\nprint(sum(n in sys.modules for n in {HEAVY!r}))")
    yield Figure(
        "SDKs and their libraries that %load_ext loads", int(loaded), "packages", "", "= 0"
    )


def _cpu_seconds(action: str, *, prepare: str = "") -> float:
    return float(_run(TIMED.format(prepare=prepare, action=action)).rpartition("took")[2])


def _run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
