"""A child that lies: whatever it writes is refused or harmless, and nothing of it is executed."""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover import Changes, child, read_changes
from tests.execution.handover.border import Border

SENT = {
    "frame": pd.DataFrame({"a": [1, 2, 3], "c": pd.Categorical(["x", "y", None])}),
    "matrix": sparse.csr_matrix(np.eye(4)),
    "settings": {"k": 1, "deep": {"a": [1, 2]}},
    "adata": anndata.AnnData(np.eye(3, dtype="f4"), pd.DataFrame(index=list("abc"))),
}
CODE = """
import numpy as np, pandas as pd
from scipy import sparse
frame["n"] = pd.array([1, None, 3], dtype="Int64")
frame["s"] = ["p", None, "é"]
frame["when"] = pd.date_range("2026", periods=3, tz="UTC")
frame["c"] = pd.Categorical(["x", "z", None], ordered=True)
matrix = sparse.csc_matrix(np.tri(4))
settings["deep"]["b"] = [(1, 2), {3}, b"x", 1j, None, {4: 5}, range(3), slice(1), 2**70]
adata.obs["leiden"] = pd.Categorical(["0", "1", "0"])
adata.obsm["X"] = np.ones((3, 2))
genes = np.array(["g", "h"], object)
adata.uns["rank"] = {"names": np.rec.fromarrays([genes, [1, 2]], names="a,b")}
markers = pd.DataFrame({"g": ["a", "b"]}, index=pd.MultiIndex.from_tuples([(1, "a"), (2, "b")]))
times = pd.period_range("2026", periods=3, freq="M")
"""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a real answer."""
    directory = tmp_path_factory.mktemp("good")
    border = Border(directory, SENT)
    exec(CODE, border.namespace)
    child.send(border.namespace, border.names, ["markers", "times"], str(directory))
    return (directory / "changes.bin").read_bytes()


@pytest.fixture
def answer(tmp_path: Path) -> Callable[[bytes], Changes]:
    """Read an answer of these bytes."""

    def read(data: bytes) -> Changes:
        (tmp_path / "changes.bin").write_bytes(data)
        return read_changes(tmp_path, SENT)

    return read


def split(data: bytes) -> tuple[Any, bytes]:
    length = struct.unpack_from("<Q", data, 8)[0]
    return json.loads(data[16 : 16 + length]), data[-(-(16 + length) // 4096) * 4096 :]


def join(header: Any, body: bytes) -> bytes:
    head = json.dumps(header).encode()
    return (b"OVAHAND1" + struct.pack("<Q", len(head)) + head).ljust(
        -(-(16 + len(head)) // 4096) * 4096, b"\0"
    ) + body


def used(changes: Changes) -> None:
    """What a user's eye would do with a result."""
    for diff in changes.diffs:
        assert diff.summary().isprintable()
        diff.lines()
    for value in changes.objects.values():
        try:
            repr(value)
        except (ValueError, OverflowError, TypeError, KeyError, IndexError, AttributeError):
            continue  # dates that no calendar knows; an error is not a crash


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


HOSTILE: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 2**31, 2**62, 2**63 - 1, 2**64, -(2**63), 0.5, 1e308,
    "", "a", "__class__", "../x", "\x1b[2J", "\ud800", "n" * 300, [], [[]], {}, [1, 2, 3], [0, 0],
    {"t": "pickle", "b": 0, "o": []}, {"t": "branch"}, {"t": "array"}, {"t": "na"}, {"t": "nat"},
    {"t": "range_index", "v": [0, 2**61, 1], "n": None}, {"t": "tree", "k": "anndata", "v": []},
    "|O8", "<f8", "|V8", "<U4", "<M8[ns]", "|S1", "csr", "lil", "dok", "dia", "coo", "anndata",
    "mudata", "value", "dict", "dataframe", "whole", "delta", "same", "removed", "stays", "k",
    "n", "s", "obs_names", "uns", "raw", "X", "D", "UTC",
]  # fmt: skip


def nodes(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The address of every node of a header."""
    yield above
    if isinstance(node, dict):
        for key, value in node.items():
            yield from nodes(value, (*above, key))
    elif isinstance(node, list):
        for position, value in enumerate(node):
            yield from nodes(value, (*above, position))


@settings(EXAMPLES, max_examples=2500)
@given(st.integers(0, 2**32))
def test_changed_headers(good: bytes, tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    chance = random.Random(seed)
    header, body = split(good)
    addresses = list(nodes(header))[1:]
    for _ in range(chance.randint(1, 3)):
        _mutate(header, chance.choice(addresses), addresses, chance)
    _try(join(header, body), tmp_path_factory)


def _find(header: Any, address: tuple[Any, ...]) -> Any:
    for step in address:
        header = header[step]
    return header


def _mutate(header: Any, address: tuple[Any, ...], others: list[Any], chance: Any) -> None:
    try:
        holder = _find(header, address[:-1])
        kind = chance.randrange(5)
        if kind == 0:
            holder[address[-1]] = copy.deepcopy(_find(header, chance.choice(others)))
        elif kind == 1:
            del holder[address[-1]]
        elif kind == 2 and isinstance(holder, list):
            holder.insert(address[-1], copy.deepcopy(holder[address[-1]]))
        elif kind == 3 and type(holder[address[-1]]) is int:
            holder[address[-1]] += chance.choice([-1, 1, 7, -8])
        else:
            holder[address[-1]] = copy.deepcopy(chance.choice(HOSTILE))
    except (KeyError, IndexError, TypeError):
        return  # an earlier change took the place away


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
