"""Arrow and polars: slices, chunks and notes; and what a child may forge of them."""

from __future__ import annotations

import copy
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import ovagent_jupyter
from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover.codec import Decoder, Encoded, decode, encode, same
from ovagent_jupyter.execution.handover.fields import malformed
from ovagent_jupyter.execution.handover.segment import MemorySource
from tests.execution.handover.border import Border
from tests.execution.handover.forgeries import mutate, nodes
from tests.execution.handover.identical import assert_identical
from tests.execution.handover.samples import ARROW, POLARS, SERIES


def test_only_what_a_slice_shows_travels() -> None:
    long = pa.array([f"text {number}" for number in range(10_000)])
    encoded = encode(long.slice(5000, 3))
    assert sum(buffer.nbytes for buffer in encoded.buffers) < 100
    assert_identical(long.slice(5000, 3), decode(encoded))
    nested = pa.array([[number] for number in range(10_000)]).slice(17, 2)
    assert sum(buffer.nbytes for buffer in encode(nested).buffers) < 100


def test_a_column_of_pandas_shows_no_chunks() -> None:
    parts = [pd.Series(texts, dtype="string[pyarrow]") for texts in (["a", None], ["b"])]
    whole = pd.Series(["a", None, "b"], dtype="string[pyarrow]")
    assert same(encode(pd.concat(parts, ignore_index=True)), encode(whole))


def test_no_array_shares_memory_with_the_sent_one() -> None:
    array = pa.array(np.arange(1000))
    back: Any = decode(encode(array))
    assert back.buffers()[1].address != array.buffers()[1].address


@pytest.mark.parametrize(
    "value",
    [
        pa.array(["a"], pa.string_view()),
        pa.UnionArray.from_dense(
            pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])]
        ),
        pa.table([[1]], schema=pa.schema([pa.field("a", pa.int64(), metadata={"ARROW:x": "y"})])),
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16], pa.binary(16))),
        pa.array([-(2**62)], pa.timestamp("s", "Asia/Tokyo")),
        pl.Series([2**100], dtype=pl.Int128),
    ],
    ids=str,
)
def test_what_has_no_typed_form_is_refused(value: object) -> None:
    with pytest.raises(HandoverError) as caught:
        encode(value)
    assert caught.value.why


def test_what_lies_under_a_missing_moment_does_not_count() -> None:
    moments = np.array([0, 2**62], "i8")
    array = pa.Array.from_buffers(
        pa.timestamp("s", "UTC"), 2, [pa.py_buffer(b"\x01"), pa.py_buffer(moments)]
    )
    assert decode(encode(array)).to_pylist()[1] is None  # type: ignore[attr-defined]


def test_a_table_in_parts(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2], "b": ["x", None]}).replace_schema_metadata({"k": "v"})
    frame = pl.DataFrame({"a": [1, 2], "b": ["x", None]})
    border = Border(tmp_path, {"table": table, "frame": frame, "none": pa.table({})})
    changes = border.run(
        "import pyarrow as pa, polars as pl\n"
        "table = table.append_column('c', pa.array([[1], None]))\n"
        "frame = frame.with_columns(c=pl.col('a') * 2).drop('b')"
    )
    assert [diff.summary() for diff in changes.diffs] == [
        "table: +c",
        "frame: +c, −b",
        "none: unchanged",
    ]
    assert_identical(table.append_column("c", pa.array([[1], None])), changes.objects["table"])
    assert_identical(frame.with_columns(c=pl.col("a") * 2).drop("b"), changes.objects["frame"])
    fewer = border.run("table = table.slice(1); frame = frame.head(1)")
    assert fewer.diffs[0].summary().startswith("table: −1 row")
    assert fewer.objects["table"].schema.metadata == {b"k": b"v"}  # type: ignore[attr-defined]


def test_a_column_that_stayed_is_left_when_rows_go(tmp_path: Path) -> None:
    thing = object()
    frame = pl.DataFrame([pl.Series("a", [1, 2]), pl.Series("o", [thing, thing], dtype=pl.Object)])
    border = Border(tmp_path, {"frame": frame})
    assert [notice.path for notice in border.left] == ["frame['o']"]
    kept: Any = border.run("import polars as pl; frame = frame.with_columns(b=pl.lit(1))")
    assert kept.objects["frame"].columns == ["a", "o", "b"]
    fewer = border.run("frame = frame.head(1)")
    assert fewer.objects["frame"].columns == ["a", "b"]  # type: ignore[attr-defined]
    assert [notice.path for notice in fewer.left_behind] == ["frame['o']"]


def array_node(kind: Any, size: int, buffers: list[Any], parts: list[Any] | None = None) -> Any:
    body = {"n": size, "b": buffers, "c": parts or []}
    return {"t": "arrow_array", "d": kind, "v": body}


def plain(name: str, kind: Any = "int8", notes: Any = None) -> Any:
    return {"n": name, "d": kind, "u": True, "m": notes}


ONE = {"n": 1, "b": [None, 0], "c": []}
NOTES = {
    "t": "dict", "k": [{"t": "bytes", "b": 1, "m": False}],
    "v": [{"t": "bytes", "b": 2, "m": False}], "o": False,
}  # fmt: skip
TEXT = {"n": 2, "b": [None, 0, 1], "c": []}
MOMENTS = np.array([-(2**62)], "i8").tobytes()
ZONED = {
    "t": "zoned", "u": "s", "z": {"t": "zone", "k": "pytz", "v": "Asia/Tokyo"},
    "v": {"t": "array", "d": "<i8", "s": [1], "b": 0, "f": False, "c": ""},
}  # fmt: skip


def ends(*places: int) -> bytes:
    return np.array(places, "i4").tobytes()


@pytest.mark.parametrize(
    ("node", "buffers"),
    [
        (array_node("nothing", 1, [None, 0]), [b"\0"]),
        (array_node("int8", 2, [None, 0]), [b"\0"]),
        (array_node("int8", 1, [None, 0]), [b"\0\0"]),
        (array_node("int8", 1, [None, None]), []),
        (array_node("int8", 1, [None]), []),
        (array_node("int8", 1, [None, 0, 1]), [b"\0", b"\0"]),
        (array_node("int8", 9, [1, 0]), [b"\0" * 9, b"\xff"]),
        (array_node("int8", 1, [None, 0], [TEXT]), [b"\0", b""]),
        (array_node("bool", 9, [None, 0]), [b"\0"]),
        (array_node("string", 1, [None, 0, 1]), [ends(0, 2), b"\xff\xfe"]),
        (array_node("string", 1, [None, 0, 1]), [ends(0, 9), b"x"]),
        (array_node("string", 1, [None, 0, 1]), [ends(1, 1), b"x"]),
        (array_node("string", 2, [None, 0, 1]), [ends(0, 1, 0), b""]),
        (array_node("string", 1, [None, 0, 1]), [ends(0), b""]),
        (array_node("string", 2**62, [None, 0, 1]), [ends(0, 0), b""]),
        (array_node(["fixed_binary", -1], 1, [None, 0]), [b""]),
        (array_node(["fixed_binary", 2**40], 1, [None, 0]), [b""]),
        (array_node(["fixed_binary", 0], 2**62, [None, 0]), [b""]),
        (array_node(["list", plain("x")], 1, [None, 0], [{"n": 1, "b": [None, 1], "c": []}]),
         [ends(0, 2), b"\0"]),
        (array_node(["list", plain("x")], 1, [None, 0]), [ends(0, 0)]),
        (array_node(["fixed_list", 2, plain("x")], 2, [None], [{"n": 3, "b": [None, 0], "c": []}]),
         [b"\0" * 3]),
        (array_node(["fixed_list", 0, plain("x")], 2**62, [None], [{**ONE, "n": 0}]), [b""]),
        (array_node(["struct", [plain("x")]], 2, [None], [ONE]), [b"\0"]),
        (array_node(["struct", []], 2**62, [None]), []),
        (array_node("null", 2**62, []), []),
        (array_node(["map", {**plain("k"), "u": False}, plain("v"), False], 1, [None, 0],
                    [{"n": 1, "b": [2, 1], "c": []}, {"n": 1, "b": [None, 3], "c": []}]),
         [ends(0, 1), b"\0", b"\0", b"\0"]),
        (array_node(["dictionary", "int8", "string", False], 1, [],
                    [{"n": 1, "b": [None, 2], "c": []}, TEXT]), [ends(0, 0, 0), b"", b"\x07"]),
        (array_node(["dictionary", "int8", "string", False], 1, [],
                    [{"n": 1, "b": [None, 2], "c": []}, TEXT]), [ends(0, 0, 0), b"", b"\xff"]),
        (array_node(["dictionary", "string", "string", False], 2, [], [TEXT, TEXT]), []),
        (array_node(["decimal", 128, 99, 0], 1, [None, 0]), [b"\0" * 16]),
        (array_node(["decimal", 128, 2, 0], 1, [None, 0]), [b"\xff" * 8 + b"\0" * 8]),
        (array_node(["timestamp", "s", "../../etc/passwd"], 1, [None, 0]), [b"\0" * 8]),
        (array_node(["timestamp", "s", "Nowhere"], 1, [None, 0]), [b"\0" * 8]),
        (array_node(["timestamp", "s", "UTC"], 1, [None, 0]), [MOMENTS]),
        (array_node(["list", plain("x", notes=NOTES)], 0, [None, 0],
                    [{"n": 0, "b": [None, 3], "c": []}]),
         [ends(0), b"ARROW:extension:name", b"arrow.py_extension_type", b""]),
        ({"t": "arrow_table", "n": 2**62, "f": [], "m": None, "v": []}, []),
        ({"t": "arrow_table", "n": 1, "f": [plain("x")], "m": None, "v": []}, []),
        ({"t": "polars_series", "n": "x", "v": [1], "e": None}, []),
        ({"t": "polars_series", "n": "x", "v": array_node("int8", 1, [None, 0]), "e": [5]},
         [b"\0"]),
        ({"t": "polars_frame", "n": 1, "v": [[1]]}, []),
        ({"t": "arrow_strings", "nan": True, "v": array_node("int8", 1, [None, 0])}, [b"\0"]),
        ({"t": "arrow_column", "v": [1]}, []),
        ({"t": "file_matrix", "p": "/etc/passwd", "e": "X", "i": [1, 2, 3]}, []),
        (ZONED, [MOMENTS]),
        ({"t": "timestamp", "v": -(2**62), "u": "s", "z": ZONED["z"]}, []),
        ({"t": "sparse_column", "s": 2, "b": False, "f": 0, "v": {**ZONED["v"], "b": 0},
          "i": {**ZONED["v"], "d": "<i4", "b": 1}}, [b"\0" * 8, ends(5)]),
    ],
)  # fmt: skip
def test_forged_ones_are_refused(node: Any, buffers: list[bytes]) -> None:
    # An error of a library's is made one of ours by whoever reads an answer.
    with pytest.raises(
        (HandoverError, ValueError, pa.ArrowException, KeyError, TypeError, ImportError)
    ):
        read(node, buffers)


class Bounded(MemorySource):
    """Buffers in memory, with a bound on rows that have no byte of their own."""

    def claim(self, rows: int) -> None:
        """Refuse very many."""
        if rows > 1 << 26:
            raise malformed("it claims more rows than there can be")


def read(node: Any, buffers: list[bytes]) -> object:
    return Decoder(Bounded([memoryview(buffer) for buffer in buffers])).value(node)


@pytest.mark.parametrize("seed", range(4))
def test_changed_ones_are_refused_or_sound(seed: int) -> None:
    chance = random.Random(seed)
    values = ARROW + POLARS + SERIES[-9:]
    ended = {"refused": 0, "sound": 0}
    for _ in range(500):
        encoded = encode(chance.choice(values))
        try:
            got = read(*forged(encoded, chance))
        except Exception:  # noqa: BLE001 - the reader makes one of ours of it
            ended["refused"] += 1
            continue
        ended["sound"] += 1
        if isinstance(got, pa.Array | pa.ChunkedArray | pa.Table | pa.RecordBatch):
            got.validate(full=True)
    assert all(count > 50 for count in ended.values())


def forged(encoded: Encoded, chance: random.Random) -> tuple[Any, list[bytes]]:
    """The same with some nodes and bytes changed."""
    header = {"node": copy.deepcopy(encoded.node)}
    buffers = [bytearray(buffer) for buffer in encoded.buffers]
    addresses = list(nodes(header))[1:]
    for _ in range(chance.randint(0, 2)):
        mutate(header, chance.choice(addresses), addresses, chance)
    for buffer in chance.choices(buffers, k=chance.randint(1, 3)) if buffers else ():
        kind = chance.randrange(4)
        if kind == 0 and buffer:
            buffer[chance.randrange(len(buffer))] = chance.randrange(256)
        elif kind == 1:
            del buffer[chance.randrange(len(buffer) + 1) :]
        elif kind == 2:
            buffer += chance.randbytes(chance.choice([1, 4, 8, 64]))
        else:
            buffer[:] = chance.randbytes(len(buffer))
    return header.get("node"), [bytes(buffer) for buffer in buffers]


def test_other_types_go_there_as_a_pickle_and_not_back(tmp_path: Path) -> None:
    views = pa.array(["a", None], pa.string_view())
    own: dict[str, Any] = {
        "views": views,
        "table": pa.table({"a": [1, 2], "v": views}),
        "wide": pl.DataFrame({"w": pl.Series([2**100, 1], dtype=pl.Int128), "a": [1, 2]}),
        "column": pd.DataFrame({"c": pd.Series(["a"], dtype=pd.ArrowDtype(pa.string_view()))}),
    }
    border = Border(tmp_path, own)
    assert border.left == ()
    assert border.namespace["table"].equals(own["table"])
    assert_identical(own["wide"], border.namespace["wide"])
    assert {diff.kind for diff in border.run("").diffs} == {"unchanged"}
    changes = border.run("views = views.slice(1); wide = wide.with_columns(b=wide['a'] * 2)")
    assert [notice.path for notice in changes.left_behind] == ["views"]
    assert "string_view" in changes.left_behind[0].reason
    assert changes.objects["wide"].columns == ["w", "a", "b"]  # type: ignore[attr-defined]


def test_polars_without_pyarrow_names_what_to_install() -> None:
    code = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pyarrow":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import polars as pl
from ovagent_jupyter.execution.handover import Store
saved = Store().save({"frame": pl.DataFrame({"a": [1]}), "n": 5})
assert saved["n"].slots and "install pyarrow" in saved["frame"].left_behind[0].reason
"""
    root = str(Path(ovagent_jupyter.__file__).parents[1])
    command = [sys.executable, "-W", "ignore", "-c", code]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": root})
