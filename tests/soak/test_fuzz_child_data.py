"""The importer of child data withstands 100,000 malformed answers: refused in words, or valid."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from ovagent_jupyter.errors import HandoverError
from tests.execution.handover.forgeries import Real, sealed, used
from tests.soak.fuzzing import tried

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]
COUNT = 100_000


def test_a_hundred_thousand_false_answers() -> None:
    ended = tried("tests.execution.handover.forgeries", COUNT)
    assert ended.total() >= COUNT
    bad = [how for how in ended if not how.endswith((": HandoverError", ": valid"))]
    assert bad == []
    assert {how.partition(":")[0] for how in ended} == {
        "changed_bytes", "changed_header", "swapped_buffers", "nested", "grown",
        "no file of its own", "sparse", "not sealed",
    }  # fmt: skip


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    real = Real.of(tmp_path)
    good = real.data
    over = threading.Event()
    # One file that is never sealed, sent again and again.
    target = sealed(good, seals=0)

    def change() -> None:
        step = 0
        while not over.is_set():
            step += 1
            if step % 3 == 0:
                os.ftruncate(target, step * 37 % len(good))
            elif step % 3 == 1:
                os.pwrite(target, os.urandom(16), step * 101 % len(good))
            else:
                os.pwrite(target, good, 0)

    changer = threading.Thread(target=change)
    changer.start()
    refused = 0
    try:
        for _ in range(2000):
            try:
                used(real.read_file(os.dup(target)))
            except HandoverError:
                refused += 1
    finally:
        over.set()
        changer.join()
        os.close(target)
    print(f"\n2,000 answers changed while they were read: {refused:,} HandoverError, others valid")
    assert refused
