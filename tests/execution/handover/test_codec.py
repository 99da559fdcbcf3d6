"""Values to nodes and buffers and back: nothing about them may change."""

from __future__ import annotations

from typing import Any

import anndata
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover.codec import Encoded, decode, encode, same
from tests.execution.handover.identical import assert_identical
from tests.execution.handover.samples import ALL, annotated


def _label(value: object) -> str:
    # The order of a set differs between two runs, and so would its name.
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}-of-{len(value)}"
    return f"{type(value).__name__}-{str(value)[:20]!a}".replace("\\n", " ")


@pytest.mark.parametrize("value", ALL, ids=_label)
def test_comes_back_identical(value: object) -> None:
    encoded = encode(value)
    back = decode(encoded)
    assert_identical(value, back)
    assert same(encode(back), encoded), "what did not change would be told as changed"


@pytest.mark.parametrize("value", ALL, ids=_label)
def test_inside_a_container(value: object) -> None:
    assert_identical([value, {"k": (value,)}], decode(encode([value, {"k": (value,)}])))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(annotated())
def test_annotated_comes_back_identical(adata: anndata.AnnData) -> None:
    encoded = encode(adata)
    back = decode(encoded)
    assert_identical(adata, back)
    assert same(encode(back), encoded)


def test_one_and_true_differ() -> None:
    values: list[object] = [1, 1.0, True, "1", -0.0, 0.0]
    for i, one in enumerate(values):
        for other in values[i + 1 :]:
            assert not same(encode([one]), encode([other])), (one, other)


def test_equal_sets_look_the_same_in_any_order() -> None:
    assert same(encode({"a", 1, (2, "b")}), encode({(2, "b"), "a", 1}))


def test_arrays_do_not_share_memory() -> None:
    array = np.zeros(3)
    one, other = decode(encode([array, array]))  # type: ignore[misc]
    one[0] = 1
    assert other[0] == 0
    assert array[0] == 0


@pytest.mark.parametrize(
    "value",
    [
        lambda: 1,
        (i for i in ()),
        pytest,
        object(),
        [1, {"deep": object()}],
        pd.Series([1, object()]),
        np.array([object()]),
        pd.arrays.SparseArray(np.array([0, "a"], object)),
        pl.Series([object()], dtype=pl.Object),
        pl.LazyFrame({"a": [1]}),
        pa.array(["a"], pa.string_view()),
        type("Local", (), {}),
    ],
    ids=_label,
)
def test_what_has_no_typed_form_is_refused(value: object) -> None:
    with pytest.raises(HandoverError) as caught:
        encode(value)
    assert caught.value.why


def test_cycles_are_refused_by_name() -> None:
    ring: dict[str, Any] = {"a": 1}
    ring["self"] = [ring]
    with pytest.raises(HandoverError, match="contains itself"):
        encode(ring)


def test_too_deep_is_refused() -> None:
    nested: list[Any] = []
    for _ in range(100):
        nested = [nested]
    with pytest.raises(HandoverError, match="too deeply"):
        encode(nested)


class Plain:
    """An ordinary class that the child can import."""

    def __init__(self, data: np.ndarray) -> None:
        self.data = data


def test_pickles_only_where_they_are_allowed() -> None:
    encoded = encode([Plain(np.arange(4))], allow_pickle=True)
    assert encoded.pickled
    assert len(encoded.buffers) == 2, "the array travels out of band"
    back: Any = decode(encoded, allow_pickle=True)
    back[0].data[0] = 7
    with pytest.raises(HandoverError, match="never opened"):
        decode(encoded)
    with pytest.raises(HandoverError):
        encode([Plain(np.arange(4))])


@pytest.mark.parametrize(
    ("node", "sizes"),
    [
        ({"t": "nothing"}, []),
        ({}, []),
        ({"t": ["array"]}, []),
        ({"t": "array", "d": "|O8", "s": [1], "b": 0, "f": False, "c": ""}, [8]),
        ({"t": "array", "d": "<f8", "s": [2], "b": 0, "f": False, "c": ""}, [8]),
        ({"t": "array", "d": "<f8", "s": [-1], "b": 0, "f": False, "c": ""}, [8]),
        ({"t": "array", "d": "<f8", "s": [2**60, 0], "b": 0, "f": False, "c": "x"}, [0]),
        ({"t": "array", "d": "<f8", "s": [1], "b": 1, "f": False, "c": ""}, [8]),
        ({"t": "array", "d": "|S0", "s": [2**40], "b": 0, "f": False, "c": ""}, [0]),
        ({"t": "array", "d": "|b1", "s": [1], "b": 0, "f": False, "c": ""}, b"\x07"),
        ({"t": "array", "d": "<U1", "s": [1], "b": 0, "f": False, "c": ""}, b"\xff\xff\xff\x7f"),
        ({"t": "objects", "s": [2], "v": [1], "f": False, "c": ""}, []),
        ({"t": "tuple", "v": 5}, []),
        ({"t": "tuple", "v": [True, {"t": "pickle", "b": 0, "o": []}]}, [8]),
        ({"t": "int", "v": 5}, []),
        ({"t": "float", "v": "1e5"}, []),
        ({"t": "zone", "k": "zoneinfo", "v": "../../etc/passwd"}, []),
        ({"t": "dict", "k": [[1]], "v": [1], "o": False}, []),
    ],
)
def test_malformed_nodes_are_refused(node: object, sizes: list[int] | bytes) -> None:
    parts = [sizes] if isinstance(sizes, bytes) else [b"\0" * size for size in sizes]
    with pytest.raises((HandoverError, TypeError, ValueError)):
        decode(Encoded(node, tuple(memoryview(part) for part in parts)))
