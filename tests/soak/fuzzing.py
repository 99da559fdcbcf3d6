"""Many malformed inputs, tried in processes of their own, so that a crash or a hang is seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORKERS = 2
ROOM = 1_500_000_000
"""Bytes of memory that a process may take beyond what it has when it begins."""


def tried(program: str, count: int, seconds: float = 3000) -> Counter[str]:
    """How so many inputs ended.

    Args:
        program: The module that tries them: its arguments are their number, a seed, and memory.
        count: How many.
        seconds: After so long a process counts as hung.
    """
    each = -(-count // WORKERS)
    running = [
        subprocess.Popen(
            [sys.executable, "-m", program, str(each), str(seed), str(ROOM)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONFAULTHANDLER": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        for seed in range(WORKERS)
    ]
    ended: Counter[str] = Counter()
    try:
        for worker in running:
            output, _ = worker.communicate(timeout=seconds)
            assert worker.returncode == 0, f"a process ended with {worker.returncode}"
            ended += Counter(json.loads(output))
    finally:
        for worker in running:
            worker.kill()
            worker.wait()
    print(f"\n{program}: {ended.total():,} inputs")
    for how, number in sorted(ended.items()):
        print(f"  {number:>9,}  {how}")
    return ended
