"""The user's own arrays laid on what was saved of them: one copy, known without being read."""

from __future__ import annotations

import mmap
import os
import resource
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from scipy import sparse

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover.annotated import quiet
from ovagent_jupyter.execution.handover.blob import ALONE, Blob
from ovagent_jupyter.execution.handover.codec import Decoder
from ovagent_jupyter.execution.handover.fields import Node
from ovagent_jupyter.execution.handover.maps import Maps
from ovagent_jupyter.execution.handover.saved import Saved, SavedSlot
from ovagent_jupyter.execution.handover.segment import Bytes
from ovagent_jupyter.execution.handover.slots import Path

_DENSE = ("layers", "obsm", "varm", "obsp", "varp")
_COMPRESSED = ("data", "indices", "indptr")
_MOST = 64
"""Arrays of one object that are adopted, the largest first."""
_PART = 1 << 20


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an array is held, and the node of what was saved of it."""

    get: Callable[[], object]
    put: Callable[[object], None]
    slot: SavedSlot
    node: Node


def adopt(value: object, saved: Saved) -> int:
    """Replace large arrays of an AnnData or a MuData by private maps of what was just saved.

    The values, the types and the layout stay as they are; the user's copy is freed, and an array
    that is not written to is known again by asking the system. Only arrays that nobody but the
    object holds are replaced: whoever has one of his own would no longer see the object change.
    An array that another thread writes to meanwhile stays where it is.

    Args:
        value: The user's object, as it was saved.
        saved: What was saved of it.

    Returns:
        Bytes that are held once now.
    """
    if saved.kind not in ("anndata", "mudata") or not _COUNTS:
        return 0
    held = 0
    # A class of somebody else's may refuse anything: it keeps what it has.
    with quiet(), suppress(Exception):
        places = sorted(_places(cast(Any, value), saved, ()), key=_size_of, reverse=True)
        for place in places[: _descriptors_to_spare()]:
            held += _replace(place, saved)
    return held


def _size_of(place: _Place) -> int:
    blob = _blob_of(place)
    return blob.size if blob is not None else 0


def _descriptors_to_spare() -> int:
    """How many maps to make: each takes a descriptor, of which the user needs some as well."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        taken = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only how many
    except OSError:
        return _MOST
    return max(0, min(_MOST, most // 2 - taken))


def _places(owner: Any, saved: Saved, at: Path) -> Iterator[_Place]:
    for name, modality in getattr(owner, "mod", {}).items():
        yield from _places(modality, saved, ("mod", name))
    if owner.is_view or owner.isbacked:
        return
    if (*at, "X") in saved.slots:
        yield from _matrix(saved.slots[*at, "X"], _attribute(owner, "X"))
    for group in _DENSE:
        held = getattr(owner, group, None) or {}
        for key in held:
            # anndata 0.13 may list X among the layers, under None
            slot = saved.slots.get((*at, group, key)) if isinstance(key, str) else None
            if slot is not None:
                yield from _matrix(slot, _item(held, key))
    if (*at, "raw", "X") in saved.slots and owner.raw is not None:
        # Only what lies in its matrix: the matrix itself cannot be set.
        yield from _parts(saved.slots[*at, "raw", "X"], owner.raw.X)


_Access = tuple[Callable[[], object], Callable[[object], None]]


def _attribute(owner: object, name: str) -> _Access:
    return (lambda: getattr(owner, name)), (lambda new: setattr(owner, name, new))


def _item(owner: Any, key: object) -> _Access:
    def put(new: object) -> None:
        owner[key] = new

    return (lambda: owner[key]), put


def _matrix(slot: SavedSlot, access: _Access) -> Iterator[_Place]:
    get, put = access
    if type(get()) is np.ndarray:
        yield _Place(get, put, slot, slot.node)
    else:
        yield from _parts(slot, get())


def _parts(slot: SavedSlot, matrix: Any) -> Iterator[_Place]:
    if sparse.issparse(matrix) and matrix.format in ("csr", "csc") and slot.node["t"] == "sparse":
        for name, node in zip(_COMPRESSED, slot.node["v"], strict=True):
            yield _Place(*_attribute(matrix, name), slot, node)


def _replace(place: _Place, saved: Saved) -> int:
    checked: Any = place.get()
    if not _fits(checked, place, saved.maps):
        return 0
    blob = _blob_of(place)
    if blob is None or blob.size != checked.nbytes or not blob.segment.in_memory:
        return 0
    if saved.maps.place(_in_order(checked)) == (blob.segment, blob.offset):
        return 0  # it lies there since an earlier time, and holds what was saved
    layout, alive = _layout(checked), weakref.ref(checked)
    del checked
    if _owners(place.get) != _ONCE:
        return 0
    try:
        new = Decoder(_OneMap(blob, saved.maps), trusted=True).value(place.node)
    except (HandoverError, OSError):
        return 0  # the system has no more maps to give
    old: Any = place.get()
    unlike = _layout(new) != layout or old is not alive()
    if unlike or not saved.contents.same(blob, _bytes_of(old).data):
        return 0  # it was written to since, or is another one by now
    place.put(new)
    try:
        if sys.getrefcount(old) == _LOCAL and saved.contents.same(blob, _bytes_of(old).data):
            return blob.size
        # Somebody took it or wrote to it in this very moment.
        _carry_over(new, old, blob)
    except BaseException:
        place.put(old)
        raise
    if place.get() is new:
        place.put(old)
    return 0


def _carry_over(source: Any, target: Any, blob: Blob) -> None:
    """Write to an array what somebody has written to another one since it was saved."""
    was = np.frombuffer(blob.read(), np.uint8)
    there, here = _bytes_of(source), _bytes_of(target)
    for start in range(0, len(was), _PART):
        part = slice(start, start + _PART)
        if not np.array_equal(there[part], was[part]):
            np.copyto(here[part], there[part], where=there[part] != was[part])


def _blob_of(place: _Place) -> Blob | None:
    if not isinstance(place.node, dict) or place.node["t"] != "array":
        return None
    blob = place.slot.blobs[place.node["b"]]
    return blob if isinstance(blob, Blob) else None


def _in_order(value: Any) -> Any:
    """A contiguous array, so that its elements follow each other as in memory."""
    return value if value.flags.c_contiguous else value.T


def _bytes_of(value: Any) -> Bytes:
    return cast(Bytes, _in_order(value).reshape(-1).view(np.uint8))


def _fits(value: Any, place: _Place, maps: Maps) -> bool:
    return (
        type(value) is np.ndarray
        and value.nbytes >= ALONE
        and bool(value.flags.c_contiguous or value.flags.f_contiguous)
        and _owns(value, maps)
        and bool(value.flags.writeable)
        and not value.dtype.hasobject
        and value.dtype.metadata is None
        and isinstance(place.node, dict)
        and place.node["t"] == "array"
    )


def _owns(value: Any, maps: Maps) -> bool:
    """Whether nobody else's array lies on its memory: its own, or a map that is its alone."""
    below: Any = value.base
    if below is None:
        return True
    if type(below) is not np.ndarray or below.nbytes != value.nbytes:
        return False
    under: Any = below.base
    # A map of the user's may be of a file of theirs, or shared with another process.
    if under is not None and (not _is_map(under) or maps.place(_in_order(value)) is None):
        return False
    del below
    return _owners(lambda: value.base) == _ONCE


def _is_map(under: Any) -> bool:
    return isinstance(under, memoryview) and isinstance(under.obj, mmap.mmap)


def _layout(value: Any) -> tuple[object, ...]:
    return type(value), value.dtype, value.shape, value.strides, value.flags.writeable


def _owners(get: Callable[[], object]) -> int:
    return sys.getrefcount(get())


_COUNTS: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether Python knows at each moment how often an object is held."""


def _count_of_local() -> int:
    """What ``getrefcount`` gives for an object that one local variable holds."""
    value = np.empty(0)
    return sys.getrefcount(value)


_LOCAL = _count_of_local()


def _count_of_one() -> int:
    """What ``_owners`` gives for an object that is held once."""
    held = {"": np.empty(0)}
    return _owners(lambda: held[""])


_ONCE = _count_of_one()


class _OneMap:
    """A buffer on a map of its own, for a decoder.

    Args:
        blob: The buffer.
        maps: Remembers where it lies.
    """

    def __init__(self, blob: Blob, maps: Maps) -> None:
        self._blob = blob
        self._maps = maps

    def take(self, index: int) -> Bytes:
        """The bytes."""
        del index
        return self._maps.fresh(self._blob.segment, self._blob.offset, self._blob.size)

    def claim(self, rows: int) -> None:
        """What this process wrote is believed."""
