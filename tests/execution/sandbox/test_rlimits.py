"""Limits of single processes, set in real ones."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from ovagent_jupyter.execution.sandbox.rlimits import machine_memory, rlimits_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits differ elsewhere")

MIB = 1 << 20
GIB = 1 << 30
LIMITS = {
    "memory": GIB,
    "cpu_time": 0.0,
    "processes": 64,
    "file_size": GIB,
    "disk": GIB,
}


def run_limited(code: str, **limits: float) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter with the limits of a child."""
    wanted = rlimits_for(LIMITS | limits)
    apply = f"""
import resource
for number, soft, hard in {wanted!r}:
    present = resource.getrlimit(number)[1]
    if present != -1: soft, hard = (min(present, each) if each != -1 else present
                                    for each in (soft, hard))
    resource.setrlimit(number, (soft, hard))
"""
    return subprocess.run(
        [sys.executable, "-c", apply + code], capture_output=True, text=True, timeout=240
    )


def test_a_huge_allocation_fails_at_once() -> None:
    done = run_limited("import numpy\nnumpy.zeros(1 << 40)")
    assert "MemoryError" in done.stderr


def test_a_file_that_is_too_large_is_an_error_of_the_code(tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'big')!r}, 'wb').write(b'x' * (2 << 20))"
    done = run_limited(code, file_size=1 << 20)
    assert "File too large" in done.stderr
    assert (tmp_path / "big").stat().st_size == 1 << 20


def test_no_core_is_written_and_nothing_is_raised() -> None:
    limits = {number: (soft, hard) for number, soft, hard in rlimits_for(LIMITS)}
    assert limits[resource.RLIMIT_CORE] == (0, 0)
    assert resource.RLIMIT_CPU not in limits
    capped = {number: soft for number, soft, _ in rlimits_for(LIMITS | {"cpu_time": 60})}
    assert capped[resource.RLIMIT_CPU] > 60


@pytest.mark.slow
def test_the_real_work_runs_with_the_limits() -> None:
    code = """
import numba, numpy, joblib, multiprocessing
import scanpy
data = scanpy.AnnData(numpy.random.default_rng(0).random((200, 50), dtype="float32"))
scanpy.pp.pca(data, n_comps=10)
scanpy.pp.neighbors(data)
print(numba.njit(lambda x: x + 1)(1))
print(joblib.Parallel(2)(joblib.delayed(abs)(-i) for i in range(3)))
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(abs, [-4]))
"""
    done = run_limited(code, memory=2 * GIB)
    assert done.stdout == "2\n[0, 1, 2]\n[4]\n", done.stderr


def test_the_memory_of_the_machine() -> None:
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 64 * MIB < machine_memory() <= installed
