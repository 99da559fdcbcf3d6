"""Runs all benchmarks, or those named, and writes one Markdown table."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import cast

from benchmarks.figure import HEAD, Figure
from benchmarks.page import put

FOLDER = Path(__file__).parent
NOT_FIGURES = frozenset(
    "__main__ figure model_clients model_server model_workers other_ways our_clients page".split()
)


def names() -> list[str]:
    """The benchmarks there are: every module of this folder with a function ``measure``."""
    return sorted(m.name for m in iter_modules([str(FOLDER)]) if m.name not in NOT_FIGURES)


def measure(name: str) -> list[Figure]:
    """The figures of one benchmark."""
    module = import_module(f"benchmarks.{name}")
    return list(cast("Iterable[Figure]", module.measure()))


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which ({', '.join(names())}); default: all")
    parser.add_argument("--out", type=Path, default=Path("bench-output/figures.md"))
    options = parser.parse_args()
    unknown = set(options.names) - set(names())
    if unknown:
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}")
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    lines = [f"Measured on {machine}; medians, each pair in one run.", "", HEAD]
    print("\n".join(lines), flush=True)
    for name in options.names or names():
        rows = []
        for figure in measure(name):
            print(figure.row(), flush=True)
            rows.append(figure.row())
        lines += rows
        put(name, [HEAD, *rows])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"\nWritten to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
