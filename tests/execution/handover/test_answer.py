"""The memory of an answer: sealed and mapped, or copied; each part of it for one array."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovagent_jupyter.errors import HandoverError
from tests.execution.handover.forgeries import SENT, Real, join, sealed, split


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Real:
    """A real answer."""
    return Real.of(tmp_path_factory.mktemp("real"))


def test_what_was_sent_may_be_named_but_never_shared(real: Real) -> None:
    changes = real.read(real.data)
    header, _ = split(real.data)
    assert len(header["blobs"]) == 2
    one, other = changes.objects["again"], changes.objects["big"]
    assert isinstance(one, np.ndarray)
    assert isinstance(other, dict)
    assert not np.shares_memory(one, other["as it came"])
    one[:] = 0
    assert np.array_equal(other["as it came"], SENT["big"])
    assert np.array_equal(real.read(real.data).objects["again"], SENT["big"])


def test_a_buffer_is_used_once(real: Real) -> None:
    array = {"t": "array", "d": "<f8", "s": [10_000], "b": 0, "f": False, "c": ""}
    slot = [[], "n", [array, array], 0, 1, False]
    node = {"name": "x", "state": "whole", "kind": "value", "slots": [slot]}
    header = {"objects": [node], "left": [], "buffers": [[0, 80_000]], "blobs": []}
    with pytest.raises(HandoverError, match="twice"):
        real.read(join(header, b"\0" * 80_000))
    header |= {"buffers": [[0, 0]], "blobs": [[0, 0]]}
    with pytest.raises(HandoverError, match="twice"):
        real.read(join(header, b""))


def test_memory_that_begins_at_odd_places(real: Real) -> None:
    array = {"t": "array", "d": "<f8", "s": [10_000], "b": 0, "f": False, "c": ""}
    slot = [[], "n", array, 0, 1, False]
    node = {"name": "x", "state": "whole", "kind": "value", "slots": [slot]}
    header = {"objects": [node], "left": [], "buffers": [[3, 80_000]], "blobs": []}
    with pytest.raises(HandoverError, match="begins"):
        real.read(join(header, b"\0" * 80_064))


def test_an_answer_that_changes_while_it_is_read(real: Real, tmp_path: Path) -> None:
    """Not sealed: what is checked is a copy, whatever is written meanwhile."""
    size = 4 << 20
    array = {"t": "array", "d": "|b1", "s": [size], "b": 0, "f": False, "c": ""}
    slot = [[], "n", array, 0, 1, False]
    node = {"name": "x", "state": "whole", "kind": "value", "slots": [slot]}
    header = {"objects": [node], "left": [], "buffers": [[0, size]], "blobs": []}
    descriptor = sealed(join(header, b"\0" * size), seals=fcntl.F_SEAL_SHRINK)
    own = os.dup(descriptor)
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            for value in (b"\2", b"\0"):
                os.pwrite(own, value * size, 4096)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        flags: Any = real.read_file(descriptor).objects["x"]
        assert flags.view("u1").max() <= 1
    except HandoverError:
        pass  # it was false when it was copied
    finally:
        over.set()
        writer.join()
        os.close(own)


def test_an_answer_that_becomes_shorter(real: Real) -> None:
    descriptor = sealed(real.data, seals=fcntl.F_SEAL_GROW)
    os.ftruncate(descriptor, len(real.data) - 5000)
    with pytest.raises(HandoverError):
        real.read_file(descriptor)


def test_arrays_of_sealed_memory_are_laid_on_it(real: Real) -> None:
    array = {"t": "array", "d": "<f8", "s": [10_000], "b": 0, "f": False, "c": ""}
    slot = [[], "n", array, 0, 1, False]
    node = {"name": "x", "state": "whole", "kind": "value", "slots": [slot]}
    header = {"objects": [node], "left": [], "buffers": [[0, 80_000]], "blobs": []}
    value = real.read(join(header, np.arange(10_000.0).tobytes())).objects["x"]
    assert isinstance(value, np.ndarray)
    assert real.store.maps.untouched(memoryview(value).cast("B"))
    value[0] = 5
    assert not real.store.maps.untouched(memoryview(value).cast("B"))


def test_a_small_part_does_not_hold_a_large_one(real: Real) -> None:
    def entry(number: int, size: int) -> Any:
        array = {"t": "array", "d": "|u1", "s": [size], "b": number, "f": False, "c": ""}
        return [["small", "large"][number : number + 1], "n", array, 0, 2, False]

    sizes = [100_000, 2_000_000]
    slots = [[[], "n", {"t": "branch"}, 0, 0, False], *map(entry, range(2), sizes)]
    node = {"name": "x", "state": "whole", "kind": "dict", "slots": slots}
    places = [[0, sizes[0]], [102_400, sizes[1]]]
    header = {"objects": [node], "left": [], "buffers": places, "blobs": []}
    value: Any = real.read(join(header, b"\7" * 2_102_400)).objects["x"]
    for name, size in zip(("small", "large"), sizes, strict=True):
        assert value[name].tobytes() == b"\7" * size
        assert bool(real.store.maps.untouched(memoryview(value[name]))) == (name == "large")
