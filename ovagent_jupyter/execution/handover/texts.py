"""Many texts known again by being the very same objects, without being read or encoded."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import xxhash
from numpy.typing import NDArray

from ovagent_jupyter.execution.handover.segment import Buffer

_LEAST = 512
"""Shorter ones are read as fast."""
_FIXED = (str, type(None), float, type(pd.NA))
"""Types of elements that cannot change; a column may hold one of them in the place of a text."""


@dataclass(frozen=True, slots=True)
class _Sight:
    """What is seen of a value at a glance."""

    key: Hashable
    """The same for two values only if all their elements are the same objects."""
    elements: NDArray[Any] | None
    """The array of the elements; None where pandas keeps them in one object of Arrow's."""


class Texts:
    """The texts of a column or an index, kept as they are.

    Args:
        key: What they are known by; holds as long as this does, which keeps the elements alive.
        value: A copy that nobody else can change.
    """

    def __init__(self, key: Hashable, value: object) -> None:
        self.key = key
        self._value: Any = value

    def again(self) -> object | None:
        """The value: what can be changed of it is a copy.

        None when it is not what it was: the memory of an index is shared by all that are given
        out, and code can write to it although pandas says that nobody does.
        """
        if key_of(self._value) != self.key:
            return None
        return cast(
            object, self._value.view() if isinstance(self._value, pd.Index) else self._value.copy()
        )


def key_of(value: object) -> Hashable | None:
    """What texts are known by; None for anything else."""
    sight = _sight(value)
    return None if sight is None else sight.key


def keep(value: object) -> Texts | None:
    """Keep the texts of a value; None when it is something else, or holds what can change."""
    sight = _sight(value)
    if sight is None:
        return None
    if sight.elements is None:
        kept = value.view() if isinstance(value, pd.Index) else cast(Any, value).copy()
        return Texts(sight.key, kept)
    elements = sight.elements.copy()
    if not set(map(type, elements.tolist())) <= set(_FIXED):
        return None
    if isinstance(value, pd.Index):
        kind: Any = pd.Index
        return Texts(sight.key, kind(elements, dtype=object, name=value.name))
    return Texts(sight.key, elements)


def _sight(value: object) -> _Sight | None:
    if type(value) is pd.Index:
        inner = _sight(value.array if value.dtype != object else value.to_numpy())
        if inner is None or type(value.name) not in (*_FIXED, int):
            return None
        return _Sight(("index", type(value.name), value.name, inner.key), inner.elements)
    if type(value) is np.ndarray:
        return _sight_of_objects(value)
    arrow = getattr(value, "_pa_array", None)
    if arrow is None or not isinstance(value, pd.api.extensions.ExtensionArray):
        return None
    return _Sight(("arrow", id(arrow), str(value.dtype), len(value)), None) if len(value) else None


def _sight_of_objects(value: NDArray[Any]) -> _Sight | None:
    if value.dtype != object or value.ndim != 1 or len(value) < _LEAST:
        return None
    elements = value if value.flags.c_contiguous else np.ascontiguousarray(value)
    # Equal numbers mean equal objects as long as one of the two arrays is alive.
    digest = xxhash.xxh3_128_digest(_Pointers(elements).read())
    return _Sight(("objects", len(elements), digest), elements)


class _Pointers:
    """The addresses in an array of objects, as numbers.

    Args:
        array: The objects; contiguous.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    @property
    def __array_interface__(self) -> dict[str, object]:
        """See numpy's array interface: the same memory with another type."""
        address = self._array.__array_interface__["data"][0]
        kind = np.dtype(np.intp).str
        return {"shape": self._array.shape, "typestr": kind, "data": (address, True), "version": 3}

    def read(self) -> Buffer:
        """The numbers, while the array is alive."""
        return memoryview(cast(Any, np.asarray(self)))
