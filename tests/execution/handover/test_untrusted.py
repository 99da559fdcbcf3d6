"""A child that lies: whatever it writes is refused or harmless, and nothing of it is executed."""

from __future__ import annotations

import copy
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
from ovagent_jupyter.execution.handover import Changes, read_changes
from tests.execution.handover.border import Border
from tests.execution.handover.forgeries import (
    SENT,
    join,
    mutate,
    nodes,
    real_answer,
    split,
    used,
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a real answer."""
    directory = tmp_path_factory.mktemp("good")
    return real_answer(directory)


@pytest.fixture
def answer(tmp_path: Path) -> Callable[[bytes], Changes]:
    """Read an answer of these bytes."""

    def read(data: bytes) -> Changes:
        (tmp_path / "changes.bin").write_bytes(data)
        return read_changes(tmp_path, SENT)

    return read


def test_the_real_one_is_read(good: bytes, answer: Callable[[bytes], Changes]) -> None:
    changes = answer(good)
    assert set(changes.objects) == {*SENT, "markers", "times"}
    header, body = split(good)
    assert set(answer(join(header, body)).objects) == set(changes.objects)
    used(changes)


EXAMPLES = settings(
    max_examples=800,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@EXAMPLES
@given(st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=8))
def test_flipped_bytes(
    good: bytes, tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(good)
    for position, value in flips:
        data[position % len(data)] = value
    _try(bytes(data), tmp_path_factory)


def _try(data: bytes, factory: pytest.TempPathFactory) -> None:
    directory = factory.getbasetemp() / "fuzz"
    directory.mkdir(exist_ok=True)
    (directory / "changes.bin").write_bytes(data)
    before = copy.deepcopy(SENT["settings"])
    try:
        changes = read_changes(directory, SENT)
    except HandoverError:
        assert not (directory / "changes.bin").exists()
    else:
        used(changes)
    assert SENT["settings"] == before


@settings(EXAMPLES, max_examples=2500)
@given(st.integers(0, 2**32))
def test_changed_headers(good: bytes, tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    chance = random.Random(seed)
    header, body = split(good)
    addresses = list(nodes(header))[1:]
    for _ in range(chance.randint(1, 3)):
        mutate(header, chance.choice(addresses), addresses, chance)
    _try(join(header, body), tmp_path_factory)


def test_a_pickle_is_never_opened(
    good: bytes, answer: Callable[[bytes], Changes], tmp_path: Path
) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "pwned"),))

    data = pickle.dumps(Attack())
    header = {
        "objects": [{"name": "x", "state": "whole", "kind": "value", "slots": []}],
        "left": [],
        "buffers": [[0, len(data)]],
    }
    slot = [[], "n", {"t": "pickle", "b": 0, "o": []}, 0, 1, False]
    for entry in (slot, [*slot[:5], True], [[], "n", [slot[2]], 0, 1, False]):
        header["objects"][0]["slots"] = [entry]  # type: ignore[index]
        with pytest.raises(HandoverError):
            answer(join(header, data))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["__class__", "_x", "a b", "for", "", "x" * 300, "é-1"])
def test_names_that_cannot_be(name: str, answer: Callable[[bytes], Changes]) -> None:
    node = {"name": name, "state": "whole", "kind": "value", "slots": [[[], "n", 1, 0, 0, False]]}
    with pytest.raises(HandoverError):
        answer(join({"objects": [node], "left": [], "buffers": []}, b""))


def test_only_names_that_were_asked_for(tmp_path: Path, good: bytes) -> None:
    (tmp_path / "changes.bin").write_bytes(good)
    with pytest.raises(HandoverError, match="not asked for"):
        read_changes(tmp_path, SENT, outputs=["markers"])


def _symlink(outbox: Path, good: bytes) -> None:
    (outbox / "real").write_bytes(good)
    (outbox / "changes.bin").symlink_to(outbox / "real")


def _hardlink(outbox: Path, good: bytes) -> None:
    (outbox / "real").write_bytes(good)
    (outbox / "changes.bin").hardlink_to(outbox / "real")


def _fifo(outbox: Path, _: bytes) -> None:
    os.mkfifo(outbox / "changes.bin")


def _folder(outbox: Path, _: bytes) -> None:
    (outbox / "changes.bin").mkdir()


def _claims(size: int) -> Callable[[Path, bytes], None]:
    def write(outbox: Path, good: bytes) -> None:
        with (outbox / "changes.bin").open("wb") as file:
            file.write(good)
            file.truncate(size)

    return write


def _buffers(places: list[Any]) -> Callable[[Path, bytes], None]:
    def write(outbox: Path, _: bytes) -> None:
        header = {"objects": [], "left": [], "buffers": places}
        (outbox / "changes.bin").write_bytes(join(header, b"\0" * 64))

    return write


def _head(head: bytes) -> Callable[[Path, bytes], None]:
    def write(outbox: Path, _: bytes) -> None:
        data = b"OVAHAND1" + struct.pack("<Q", len(head)) + head
        (outbox / "changes.bin").write_bytes(data.ljust(8192, b"\0"))

    return write


@pytest.mark.parametrize(
    "make",
    [
        _symlink,
        _hardlink,
        _fifo,
        _folder,
        lambda _, __: None,
        _claims(1 << 40),
        _claims(100),
        _claims(10),
        _claims(0),
        _buffers([[0, 2**62]]),
        _buffers([[2**62, 1]]),
        _buffers([[0, 32], [16, 32]]),
        _buffers([[0, -1]]),
        _buffers([[0]]),
        _buffers({}),  # type: ignore[arg-type]
        _head(b"[" * 100_000),
        _head(b"[]"),
        _head(b'{"objects": [], "left": [], "buffers": [], "x": NaN}'),
        _head(b'{"objects": [' + b"1" * 5000 + b'], "left": [], "buffers": []}'),
        _head(b"\xff\xfe"),
        _head(b'{"objects": []}'),
    ],
)
def test_what_is_not_an_answer(
    tmp_path: Path, good: bytes, make: Callable[[Path, bytes], None]
) -> None:
    make(tmp_path, good)
    with pytest.raises(HandoverError) as caught:
        read_changes(tmp_path, SENT)
    assert caught.value.why
    assert caught.value.next_step
    assert not (tmp_path / "changes.bin").is_symlink()


def test_the_size_cap(tmp_path: Path, good: bytes) -> None:
    (tmp_path / "changes.bin").write_bytes(good)
    with pytest.raises(HandoverError):
        read_changes(tmp_path, SENT, size_cap=len(good) - 1)


def test_a_descriptor_of_the_directory_will_do(tmp_path: Path, good: bytes) -> None:
    (tmp_path / "changes.bin").write_bytes(good)
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert read_changes(directory, SENT).objects
        with pytest.raises(HandoverError):
            read_changes(directory, SENT)  # an answer is read once
    finally:
        os.close(directory)
    link = tmp_path.parent / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(HandoverError):
        read_changes(link, SENT)


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
    answer: Callable[[bytes], Changes], indices: list[int], pointers: list[int]
) -> None:
    assert answer(join(*matrix_node([0, 2], [0, 1, 2]))).objects["m"].nnz == 2  # type: ignore[attr-defined]
    with pytest.raises(HandoverError):
        answer(join(*matrix_node(indices, pointers)))


def test_texts_are_made_safe_to_print(answer: Callable[[bytes], Changes]) -> None:
    slots = [[[], "n", {"t": "branch"}, 0, 0, False], [["\x1b[31m"], "n", 1, 0, 0, False]]
    node = {"name": "settings", "state": "delta", "kind": "dict", "slots": slots, "gone": []}
    left = [["x\x1b[2J" * 500, "why\n\x07"]]
    changes = answer(join({"objects": [node], "left": left, "buffers": []}, b""))
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
def test_changes_that_do_not_fit(answer: Callable[[bytes], Changes], slots: Any) -> None:
    node = {"name": "adata", "state": "delta", "kind": "anndata", "slots": slots, "gone": []}
    with pytest.raises(HandoverError):
        answer(join({"objects": [node], "left": [], "buffers": []}, b""))


@pytest.mark.parametrize("rows", [2**27, 2**40, 2**61])
@pytest.mark.parametrize("kind", ["index", "categories", "intervals", "columns"])
def test_few_bytes_that_claim_very_many_rows(
    answer: Callable[[bytes], Changes], rows: int, kind: str
) -> None:
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
        answer(join({"objects": [whole], "left": [], "buffers": [[0, 1]]}, b"\0" * 64))


def test_a_long_table_may_be_numbered_anew(tmp_path: Path) -> None:
    border = Border(tmp_path, {"frame": pd.DataFrame({"a": np.zeros(3_000_000, "i1")[::-1]})})
    border.namespace["frame"].index = border.namespace["frame"].index[::-1]
    changes = border.run("frame = frame.reset_index(drop=True); frame.index += 1")
    assert len(changes.objects["frame"].index) == 3_000_000  # type: ignore[attr-defined]
