"""Answers of a child that lies: a real one, changed in every place and in every way.

Run as a program, it tries many and prints how they ended, as JSON.
"""

from __future__ import annotations

import copy
import fcntl
import json
import os
import random
import resource
import socket
import struct
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from scipy import sparse

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover import Changes, Handed, Store, read_changes
from tests.execution.handover.border import Border

SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
SENT = {
    "frame": pd.DataFrame({"a": [1, 2, 3], "c": pd.Categorical(["x", "y", None])}),
    "matrix": sparse.csr_matrix(np.eye(4)),
    "settings": {"k": 1, "deep": {"a": [1, 2]}},
    "adata": anndata.AnnData(np.eye(3, dtype="f4"), pd.DataFrame(index=list("abc"))),
    "big": np.arange(10_000.0),
    "table": pa.table({"a": [1, None, 3], "b": ["x", None, "é"]}),
    "plain": pl.DataFrame({"a": [1, None, 3]}),
}
CODE = """
import numpy as np, pandas as pd, polars as pl, pyarrow as pa
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
frame["ar"] = pd.array(["x", None, "z"], dtype="string[pyarrow]")
frame["li"] = pd.Series([[1], None, []], dtype=pd.ArrowDtype(pa.list_(pa.int8())))
frame["sp"] = pd.arrays.SparseArray([0, 0, 7])
kinds = {
    "l": pa.array([[1, None], None, [2]]), "s": pa.array([{"a": 1, "b": "x"}, None, None]),
    "d": pa.array(["p", None, "q"]).dictionary_encode(),
    "f": pa.array([[1, 2]] * 3, pa.list_(pa.int8(), 2)),
    "m": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int8())), "n": pa.nulls(3),
    "t": pa.array([0, 1, None], pa.timestamp("ms", "UTC")), "o": pa.array([True, None, False]),
    "x": pa.array([b"ab", None, b"cd"], pa.binary(2)),
    "g": pa.array([1, 2, 3], pa.decimal128(5, 1)),
    "w": pa.array(["a", None, "é"], pa.large_string()), "c": pa.array([0, 1, 2], pa.time32("s")),
}
for name, array in kinds.items():
    table = table.append_column(pa.field(name, array.type, metadata={"k": name}), array)
plain = plain.with_columns(
    s=pl.Series(["x", None, "é"]), e=pl.Series(["a", None, "b"], dtype=pl.Enum(["b", "a"])),
    c=pl.Series(["a", None, "b"], dtype=pl.Categorical), l=pl.Series([[{"q": "x"}], None, []]),
    d=pl.date_range(pl.date(2026, 1, 1), pl.date(2026, 1, 3)), n=pl.Series([None] * 3),
)
big, again = {"as it came": big}, big
"""


def split(data: bytes) -> tuple[Any, bytes]:
    """Header and data of an answer."""
    length = struct.unpack_from("<Q", data, 8)[0]
    return json.loads(data[16 : 16 + length]), data[-(-(16 + length) // 4096) * 4096 :]


def join(header: Any, body: bytes) -> bytes:
    """An answer of a header and data."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (b"OVAHAND1" + struct.pack("<Q", len(head)) + head).ljust(
        -(-(16 + len(head)) // 4096) * 4096, b"\0"
    ) + body


@dataclass(frozen=True, slots=True)
class Real:
    """An answer that an honest child sends, and what it is read against."""

    data: bytes
    handed: Handed
    store: Store

    @classmethod
    def of(cls, directory: Path) -> Real:
        """Hand over, run code, and keep the answer."""
        border = Border(directory, SENT)
        exec(CODE, border.namespace)
        descriptor = border.answer(["markers", "times", "again"])
        with os.fdopen(descriptor, "rb") as file:
            return cls(file.read(), border.handed, border.store)

    def read(self, data: bytes, **how: Any) -> Changes:
        """Read other bytes as if they were the answer."""
        return self.read_file(sealed(data), **how)

    def read_file(self, descriptor: int, **how: Any) -> Changes:
        """Read an open file as if it were the answer; it is closed."""
        return read_changes(descriptor, self.handed, self.store, **how)


def sealed(data: bytes, size: int | None = None, *, seals: int = SEALS) -> int:
    """Memory with these bytes that nobody can change."""
    descriptor = os.memfd_create("forged", os.MFD_ALLOW_SEALING)
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(data)
        file.truncate(size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


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
        except pa.ArrowException:
            continue
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # polars' word for the same
                raise


HOSTILE: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 2**31, 2**62, 2**63 - 1, 2**64, -(2**63), 0.5, 1e308,
    "", "a", "__class__", "../x", "\x1b[2J", "\ud800", "n" * 300, [], [[]], {}, [1, 2, 3], [0, 0],
    {"t": "pickle", "b": 0, "o": []}, {"t": "branch"}, {"t": "array"}, {"t": "na"}, {"t": "nat"},
    {"t": "range_index", "v": [0, 2**61, 1], "n": None}, {"t": "tree", "k": "anndata", "v": []},
    "|O8", "<f8", "|V8", "<U4", "<M8[ns]", "|S1", "csr", "lil", "dok", "dia", "coo", "anndata",
    "mudata", "value", "dict", "dataframe", "whole", "delta", "same", "removed", "stays", "k",
    "n", "s", "obs_names", "uns", "raw", "X", "D", "UTC", "arrow", "polars", "string", "bool",
    "null", "int64", "large_string", "float16", ["fixed_binary", 0], ["fixed_list", 2**24, "x"],
    {"n": 2**40, "b": [], "c": []}, {"n": 3, "b": [None], "c": []}, {"n": 0, "b": [None], "c": []},
    ["struct", []], ["decimal", 128, 5, 1], ["dictionary", "int8", "string", False],
    ["timestamp", "s", "../../etc"], {"n": "x", "d": "null", "u": True, "m": None},
    {"t": "file_matrix", "p": "/etc/passwd", "e": "X", "i": [1, 2, 3]},
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


def _find(header: Any, address: tuple[Any, ...]) -> Any:
    for step in address:
        header = header[step]
    return header


def mutate(header: Any, address: tuple[Any, ...], others: list[Any], chance: Any) -> None:
    """Change one node of a header."""
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


def changed_bytes(data: bytes, chance: random.Random) -> bytes:
    """The same with bytes flipped, cut off, left out, put in or exchanged."""
    kind = chance.randrange(6)
    changed = bytearray(data)
    place, other = chance.randrange(len(data)), chance.randrange(len(data))
    if kind == 0:
        for _ in range(chance.randint(1, 8)):
            changed[chance.randrange(len(data))] = chance.randrange(256)
    elif kind == 1:
        del changed[place:]
    elif kind == 2:
        del changed[place : place + chance.randint(1, 64)]
    elif kind == 3:
        changed[place:place] = chance.randbytes(chance.randint(1, 64))
    elif kind == 4:
        part = changed[place : place + 64]
        changed[place : place + 64] = changed[other : other + 64]
        changed[other : other + 64] = part
    else:
        numbers = [0, 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1]
        struct.pack_into("<Q", changed, min(place, len(data) - 8), chance.choice(numbers))
    return bytes(changed)


def changed_header(data: bytes, chance: random.Random) -> bytes:
    """The same with some nodes of its header changed."""
    header, body = split(data)
    addresses = list(nodes(header))[1:]
    for _ in range(chance.randint(1, 3)):
        mutate(header, chance.choice(addresses), addresses, chance)
    return join(header, body)


def swapped_buffers(data: bytes, chance: random.Random) -> bytes:
    """The same with the places of its buffers exchanged, moved or stretched."""
    header, body = split(data)
    table = header["buffers"]
    for _ in range(chance.randint(1, 4)):
        one, other = chance.randrange(len(table)), chance.randrange(len(table))
        kind = chance.randrange(3)
        if kind == 0:
            table[one], table[other] = table[other], table[one]
        elif kind == 1:
            table[one][1] = table[other][1]
        else:
            table[one][chance.randrange(2)] += chance.choice([-64, -8, -1, 1, 8, 64, 2**32, 2**61])
    return join(header, body)


def nested(data: bytes, chance: random.Random) -> bytes:
    """The same with a node nested deeply."""
    header, body = split(data)
    address = chance.choice(list(nodes(header))[1:])
    before, after = chance.choice(
        [
            ("[", "]"),
            ('{"t": "tuple", "v": [', "]}"),
            ('{"t": "set", "f": true, "v": [', "]}"),
            ('{"t": "dict", "k": ["a"], "o": false, "v": [', "]}"),
            ('{"t": "index", "n": null, "f": null, "v": ', "}"),
            ('{"t": "scalar", "a": ', "}"),
            ('{"s": [2], "base": ', "}"),
        ]
    )
    depth = chance.choice([20, 60, 70, 200, 900, 3000])
    holder = _find(header, address[:-1])
    inner, holder[address[-1]] = json.dumps(holder[address[-1]]), "the place"
    text = json.dumps(header).replace('"the place"', before * depth + inner + after * depth)
    return join(text.encode(), body)


def grown(data: bytes, chance: random.Random) -> bytes:
    """The same with an index in some place that claims to be very long."""
    header, body = split(data)
    for _ in range(chance.randint(1, 2)):
        address = chance.choice(list(nodes(header))[1:])
        ends = [0, chance.choice([2**20, 2**28, 2**31, 2**40, 2**61]), 1]
        long = {"t": "range_index", "v": ends, "n": None}
        kinds = [
            long,
            {"t": "categorical", "c": 0, "l": long, "o": False},
            {"t": "intervals", "l": long, "r": long, "c": "left"},
            {"t": "multi_index", "l": [long], "c": [], "n": [None]},
            {"t": "range", "v": ["0", hex(ends[1]), "1"]},
        ]
        _find(header, address[:-1])[address[-1]] = chance.choice(kinds)
        tables = [found for node in nodes(header) if isinstance(found := _find(header, node), dict)]
        for found in tables:
            for key in {"l", "r", "i"} & found.keys():
                if chance.random() < 0.2:
                    found[key] = long
    return join(header, body)


CHANGES = (changed_bytes, changed_header, changed_header, swapped_buffers, nested, grown)


def opened(directory: Path, data: bytes, chance: random.Random) -> tuple[int, str]:
    """An open file that the child sends, and what it is."""
    kind = chance.randrange(200)
    if kind == 0:
        return os.open(__file__, os.O_RDONLY), "no file of its own"
    if kind == 1:
        ends = os.pipe()
        os.close(ends[1])
        return ends[0], "no file of its own"
    if kind == 2:
        return os.open(directory, os.O_RDONLY), "no file of its own"
    if kind == 3:
        with socket.socket(socket.AF_UNIX) as made:
            return made.detach(), "no file of its own"
    if kind == 4:
        return sealed(data, len(data) + (1 << chance.randint(21, 36))), "sparse"
    if kind < 40:
        return sealed(data, seals=fcntl.F_SEAL_SHRINK), "not sealed"
    return sealed(data), ""


def attack(count: int, seed: int) -> Counter[str]:
    """Read many false answers; how they ended, by kind of answer."""
    ended: Counter[str] = Counter()
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        real = Real.of(Path(name))
        for _ in range(count):
            change = chance.choice(CHANGES)
            descriptor, what = opened(Path(name), change(real.data, chance), chance)
            ended[f"{what or change.__name__}: {_outcome(real, descriptor)}"] += 1
    return ended


def _outcome(real: Real, descriptor: int) -> str:
    before = copy.deepcopy(SENT["settings"])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            used(real.read_file(descriptor))
    except HandoverError as error:
        # An honest refusal is made before memory is asked for.
        return "MemoryError" if "MemoryError" in str(error) else "HandoverError"
    except Exception as error:  # noqa: BLE001 - it is what this looks for
        return f"{type(error).__name__}: {error}"[:200]
    return "valid" if before == SENT["settings"] else "changed what was sent"


if __name__ == "__main__":
    number, start, room = map(int, sys.argv[1:])
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + room
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print(json.dumps(attack(number, start)))
