"""The page of figures in the documentation: each benchmark has its place there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


def put(name: str, lines: Iterable[str]) -> None:
    """Put lines in the place of a benchmark; one that has none there is left out."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, found, rest = PAGE.read_text("utf-8").partition(begin)
    if found:
        tail = rest.partition(end)[2]
        PAGE.write_text("\n".join([head + begin, "", *lines, "", end]) + tail, "utf-8")
