"""What ``%load_ext ovagent_jupyter`` costs, against the kernel's own import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from benchmarks.figure import Figure, side_by_side

TIMED = """
import time
{prepare}
began = time.process_time()
{action}
print("took", time.process_time() - began)
"""
SHELL = """
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
import ipykernel.kernelapp
shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
"""
LOAD = "shell.run_line_magic('load_ext', 'ovagent_jupyter')"


def measure() -> Iterator[Figure]:
    """CPU time of the extension and of the kernel's import, each in a fresh interpreter."""
    ours, kernel = side_by_side(
        lambda: _cpu_seconds(LOAD, prepare=SHELL),
        lambda: _cpu_seconds("import ipykernel.kernelapp"),
    )
    yield Figure("%load_ext, CPU time", ours / kernel, "×", "import of ipykernel", "≤ 0.1×")
    count = "import sys; before = len(sys.modules)"
    modules = _run(f"{SHELL}{count}\n{LOAD}\nprint(len(sys.modules) - before)")
    yield Figure("%load_ext, new modules", int(modules), "modules", "an IPython shell", "≤ 25")


def _cpu_seconds(action: str, *, prepare: str = "") -> float:
    return float(_run(TIMED.format(prepare=prepare, action=action)).rpartition("took")[2])


def _run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
