"""What a cap that was gone over is called, in words and numbers a reader knows."""

from __future__ import annotations

from ovagent_jupyter.execution.executor import CodeError, LimitHit

NAME = "ResourceLimitExceeded"
SIZES = frozenset({"memory", "disk", "file_size", "output"})
SECONDS = frozenset({"cpu_time", "wall_time"})
KIB = 1024


def limit_error(hit: LimitHit) -> CodeError:
    """The error of a cell that was ended for a cap; names the cap and the use."""
    return CodeError(NAME, f"{describe(hit)} The child was ended; its variables are lost.")


def describe(hit: LimitHit) -> str:
    """One sentence: what was used, and what is allowed."""
    name = hit.limit.replace("_", " ")
    return f"{name}: {amount(hit.limit, hit.used)} used, {amount(hit.limit, hit.cap)} allowed."


def amount(limit: str, value: float) -> str:
    """A value of a limit with its unit: ``2.0 GiB``, ``60 s``, ``256``."""
    if limit in SECONDS:
        return f"{value:.3g} s" if value < 1000 else f"{value:.0f} s"  # noqa: PLR2004 - readability
    if limit not in SIZES:
        return f"{value:,.0f}"
    for unit in ("B", "KiB", "MiB"):
        if value < KIB:
            return f"{value:.4g} {unit}"
        value /= KIB
    return f"{value:.1f} GiB"
