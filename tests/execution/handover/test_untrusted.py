"""A child that lies: whatever it writes is refused or harmless, and nothing of it is executed."""

from __future__ import annotations

import copy
import fcntl
import os
import pickle
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovagent_jupyter.errors import HandoverError
from tests.execution.handover.border import Border
from tests.execution.handover.forgeries import (
    SEALS,
    SENT,
    Real,
    join,
    mutate,
    nodes,
    sealed,
    split,
    used,
)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Real:
    """A real answer."""
    return Real.of(tmp_path_factory.mktemp("real"))


def test_the_real_one_is_read(real: Real) -> None:
    changes = real.read(real.data)
    assert set(changes.objects) == {*SENT, "markers", "times", "again"}
    header, body = split(real.data)
    assert set(real.read(join(header, body)).objects) == set(changes.objects)
    used(changes)


EXAMPLES = settings(
    max_examples=800,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@EXAMPLES
@given(st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=8))
def test_flipped_bytes(real: Real, flips: list[tuple[int, int]]) -> None:
    data = bytearray(real.data)
    for position, value in flips:
        data[position % len(data)] = value
    _try(real, bytes(data))


def _try(real: Real, data: bytes) -> None:
    before = copy.deepcopy(SENT["settings"])
    try:
        changes = real.read(data)
    except HandoverError:
        pass
    else:
        used(changes)
    assert SENT["settings"] == before


@settings(EXAMPLES, max_examples=2500)
@given(st.integers(0, 2**32))
def test_changed_headers(real: Real, seed: int) -> None:
    chance = random.Random(seed)
    header, body = split(real.data)
    addresses = list(nodes(header))[1:]
    for _ in range(chance.randint(1, 3)):
        mutate(header, chance.choice(addresses), addresses, chance)
    _try(real, join(header, body))


def test_a_pickle_is_never_opened(real: Real, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "pwned"),))

    data = pickle.dumps(Attack())
    header = {
        "objects": [{"name": "x", "state": "whole", "kind": "value", "slots": []}],
        "left": [],
        "buffers": [[0, len(data)]],
        "blobs": [],
    }
    slot = [[], "n", {"t": "pickle", "b": 0, "o": []}, 0, 1, False]
    for entry in (slot, [*slot[:5], True], [[], "n", [slot[2]], 0, 1, False]):
        header["objects"][0]["slots"] = [entry]  # type: ignore[index]
        with pytest.raises(HandoverError):
            real.read(join(header, data))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["__class__", "_x", "a b", "for", "", "x" * 300, "é-1"])
def test_names_that_cannot_be(name: str, real: Real) -> None:
    node = {"name": name, "state": "whole", "kind": "value", "slots": [[[], "n", 1, 0, 0, False]]}
    with pytest.raises(HandoverError):
        real.read(join({"objects": [node], "left": [], "buffers": [], "blobs": []}, b""))


def test_only_names_that_were_asked_for(real: Real) -> None:
    with pytest.raises(HandoverError, match="not asked for"):
        real.read(real.data, outputs=["markers"])


def pipe() -> int:
    near, far = os.pipe()
    os.close(far)
    return near


def folder() -> int:
    return os.open("/", os.O_RDONLY)


def named() -> int:
    return os.open(__file__, os.O_RDONLY)


def lacking_seals() -> int:
    return sealed(b"x" * 100, seals=fcntl.F_SEAL_WRITE)


def write_only() -> int:
    descriptor = sealed(b"x" * 100_000)
    with os.fdopen(descriptor):
        return os.open(f"/proc/self/fd/{descriptor}", os.O_PATH)


@pytest.mark.parametrize("make", [pipe, folder, named, lacking_seals, write_only, os.eventfd])
def test_what_is_no_file_of_a_child(real: Real, make: Callable[..., int]) -> None:
    descriptor = make(0) if make is os.eventfd else make()
    with pytest.raises(HandoverError) as caught:
        real.read_file(descriptor)
    assert caught.value.why
    assert caught.value.next_step
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)


Make = Callable[[bytes, int], int]


def resized(size: int) -> Make:
    return lambda data, seals: sealed(data, size, seals=seals)


def buffers(places: Any, blobs: Any = ()) -> Make:
    header = {"objects": [], "left": [], "buffers": places, "blobs": list(blobs)}
    return lambda _, seals: sealed(join(header, b"\0" * 64), seals=seals)


def head(text: bytes) -> Make:
    data = b"OVAHAND1" + struct.pack("<Q", len(text)) + text
    return lambda _, seals: sealed(data.ljust(8192, b"\0"), seals=seals)


@pytest.mark.parametrize(
    "make",
    [
        resized(1 << 40),
        resized(100),
        resized(10),
        resized(0),
        buffers([[0, 2**62]]),
        buffers([[2**62, 1]]),
        buffers([[0, 32], [16, 32]]),
        buffers([[0, -1]]),
        buffers([[0]]),
        buffers({}),
        buffers([[0, 0]], [[0, 99]]),
        buffers([[0, 0]], [[0, -1]]),
        buffers([[0, 0]], [[1, 0]]),
        buffers([[0, 0]], [[0, 0], [0, 0]]),
        buffers([[0, 8]], [[0, 0]]),
        buffers([[0, 0]], [[0]]),
        buffers([[0, 0]], [["0", 0]]),
        buffers([[0, 0]] * 9, [[number, 0] for number in range(9)]),
        head(b"[" * 100_000),
        head(b"[]"),
        head(b'{"objects": [], "left": [], "buffers": [], "blobs": [], "x": NaN}'),
        head(b'{"objects": [' + b"1" * 5000 + b'], "left": [], "buffers": [], "blobs": []}'),
        head(b"\xff\xfe"),
        head(b'{"objects": []}'),
    ],
)
@pytest.mark.parametrize("seals", [SEALS, fcntl.F_SEAL_SHRINK])
def test_what_is_not_an_answer(real: Real, make: Make, seals: int) -> None:
    with pytest.raises(HandoverError) as caught:
        real.read_file(make(real.data, seals))
    assert caught.value.why
    assert caught.value.next_step


def test_memory_that_is_not_there(real: Real) -> None:
    with pytest.raises(HandoverError, match="not there"):
        real.read_file(sealed(real.data, 1 << 30))


def test_the_size_cap(real: Real) -> None:
    with pytest.raises(HandoverError):
        real.read(real.data, size_cap=len(real.data) - 1)


def matrix_node(indices: list[int], pointers: list[int]) -> tuple[Any, bytes]:
    def array(dtype: str, count: int, index: int) -> Any:
        return {"t": "array", "d": dtype, "s": [count], "b": index, "f": False, "c": ""}

    parts = [np.ones(len(indices)), np.array(indices, "i4"), np.array(pointers, "i4")]
    body, places = b"", []
    for part in parts:
        places.append([len(body), part.nbytes])
        body += part.tobytes().ljust(-(-part.nbytes // 64) * 64, b"\0")
    node = {
        "t": "sparse", "k": "csr", "a": False, "s": [2, 3],
        "v": [array(p.dtype.str, len(p), i) for i, p in enumerate(parts)],
    }  # fmt: skip
    slot = [[], "n", node, 0, 3, False]
    return {
        "objects": [{"name": "m", "state": "whole", "kind": "value", "slots": [slot]}],
        "left": [],
        "buffers": places,
        "blobs": [],
    }, body


@pytest.mark.parametrize(
    ("indices", "pointers"),
    [
        ([0, 3], [0, 1, 2]),
        ([0, -1], [0, 1, 2]),
        ([0, 1], [0, 2, 1]),
        ([0, 1], [0, 1, 9]),
        ([0, 1], [1, 1, 2]),
        ([0, 1], [0, 1]),
        ([0, 1], [-5, 0, 2]),
    ],
)
def test_sparse_indices_that_would_read_elsewhere(
    real: Real, indices: list[int], pointers: list[int]
) -> None:
    assert real.read(join(*matrix_node([0, 2], [0, 1, 2]))).objects["m"].nnz == 2  # type: ignore[attr-defined]
    with pytest.raises(HandoverError):
        real.read(join(*matrix_node(indices, pointers)))


def test_texts_are_made_safe_to_print(real: Real) -> None:
    slots = [[[], "n", {"t": "branch"}, 0, 0, False], [["\x1b[31m"], "n", 1, 0, 0, False]]
    node = {"name": "settings", "state": "delta", "kind": "dict", "slots": slots, "gone": []}
    left = [["x\x1b[2J" * 500, "why\n\x07"]]
    changes = real.read(join({"objects": [node], "left": left, "buffers": [], "blobs": []}, b""))
    assert changes.diffs[0].summary().isprintable()
    assert str(changes.left_behind[0]).isprintable()
    assert len(str(changes.left_behind[0])) < 500


@pytest.mark.parametrize(
    "slots",
    [
        [[["obs_names"], "n", {"t": "range_index", "v": [0, 2**61, 1], "n": None}, 0, 0, False]],
        [[["obs_names"], "n", 5, 0, 0, False]],
        [[["obs"], "n", 5, 0, 0, False]],
        [[["X"], "n", "text", 0, 0, False]],
        [[["uns"], "n", 5, 0, 0, False]],
        [[["nowhere"], "k"]],
        [[["X"], "k"], [["X"], "k"]],
        [[["X"], "?"]],
        [[[{}], "k"]],
        [[["obsm", "a"], "n", [1, 2], 0, 0, False]],
        [[["obsm"], "n", {"t": "branch"}, 0, 0, False], [["obsm", "a", "b"], "n", 1, 0, 0, False]],
    ],
)
def test_changes_that_do_not_fit(real: Real, slots: Any) -> None:
    node = {"name": "adata", "state": "delta", "kind": "anndata", "slots": slots, "gone": []}
    with pytest.raises(HandoverError):
        real.read(join({"objects": [node], "left": [], "buffers": [], "blobs": []}, b""))


@pytest.mark.parametrize("rows", [2**27, 2**40, 2**61])
@pytest.mark.parametrize("kind", ["index", "categories", "intervals", "columns"])
def test_few_bytes_that_claim_very_many_rows(real: Real, rows: int, kind: str) -> None:
    long = {"t": "range_index", "v": [0, rows, 1], "n": None}
    codes = {"t": "array", "d": "|i1", "s": [1], "b": 0, "f": False, "c": ""}
    value = {
        "index": long,
        "columns": long,
        "categories": {"t": "categorical", "c": codes, "l": long, "o": False},
        "intervals": {"t": "intervals", "l": long, "r": long, "c": "left"},
    }[kind]
    whole = {"name": "x", "state": "whole", "kind": "value", "slots": []}
    whole["slots"] = [[[], "n", value, 0, 1, False]]
    if kind == "columns":
        whole |= {"name": "frame", "state": "delta", "kind": "dataframe", "gone": []}
        whole["slots"] = [[["index"], "k"], [["columns"], "n", long, 0, 0, False]]
    with pytest.raises(HandoverError, match="claim"):
        real.read(
            join({"objects": [whole], "left": [], "buffers": [[0, 1]], "blobs": []}, b"\0" * 64)
        )


def test_a_long_table_may_be_numbered_anew(tmp_path: Path) -> None:
    border = Border(tmp_path, {"frame": pd.DataFrame({"a": np.zeros(3_000_000, "i1")[::-1]})})
    border.namespace["frame"].index = border.namespace["frame"].index[::-1]
    changes = border.run("frame = frame.reset_index(drop=True); frame.index += 1")
    assert len(changes.objects["frame"].index) == 3_000_000  # type: ignore[attr-defined]
