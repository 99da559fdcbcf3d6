"""Matrices that stay in their file: named to the child, which opens the file by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover.codec import Decoder, Encoder
from ovagent_jupyter.execution.handover.fields import Node, items, malformed, text, unsendable
from ovagent_jupyter.execution.handover.file_stamp import Stamp, open_stamp, stamp_of

_BLOCK = 8 << 20
"""Bytes that are compared at a time."""


@dataclass(frozen=True, slots=True)
class FileMatrix:
    """The X of a backed AnnData, or that of its raw: not the numbers, but where they are."""

    path: Path
    """The file, absolute and without links."""
    element: str
    """``X`` or ``raw/X``."""
    stamp: Stamp
    """Another file in its place is not this one."""

    def read(self) -> object:
        """The numbers.

        Raises:
            HandoverError: The file is another now, or may not be read.
        """
        import h5py
        from anndata.io import read_elem

        self.check()
        with h5py.File(self.path, "r") as file:
            return cast(object, read_elem(file[self.element]))

    def check(self) -> None:
        """Make sure that the file still is the one that was meant.

        Raises:
            HandoverError: It is another now, or may not be read.
        """
        if stamp_of(self.path) != self.stamp:
            raise unsendable(f"{self.path} was changed since it was opened")

    def holds(self, value: object) -> bool:
        """Whether a matrix in memory is the one in the file: loaded, and not changed since."""
        import h5py

        try:
            self.check()
            with h5py.File(self.path, "r") as file:
                return _same(file[self.element], value)
        except (HandoverError, OSError, KeyError):
            return False


def _same(stored: Any, value: Any) -> bool:
    if isinstance(value, np.ndarray):
        dense = hasattr(stored, "dtype") and stored.dtype == value.dtype
        return dense and stored.shape == value.shape and _same_blocks(stored, value)
    if not sparse.issparse(value) or value.format not in ("csr", "csc"):
        return False
    kind = f"{value.format}_matrix"
    if stored.attrs.get("encoding-type") != kind or "data" not in stored:
        return False
    shape = tuple(int(extent) for extent in stored.attrs.get("shape", ()))
    if shape != value.shape or stored["data"].dtype != value.dtype:
        return False
    parts = [(stored[name], getattr(value, name)) for name in ("indptr", "data", "indices")]
    return all(one.shape == other.shape and _same_blocks(one, other) for one, other in parts)


def _same_blocks(stored: Any, value: NDArray[Any]) -> bool:
    """Whether rows in the file are those in memory; stops at the first that differ."""
    step = max(1, _BLOCK // max(1, value[:1].nbytes))
    return all(
        np.array_equal(stored[start : start + step], value[start : start + step], equal_nan=True)
        for start in range(0, len(value), step)
    )


def file_matrix(dataset: Any, element: str) -> FileMatrix:
    """Where a matrix lies that a backed AnnData reads.

    Args:
        dataset: The element of the open file: a dataset or a group of h5py's.
        element: Its name.

    Raises:
        HandoverError: The child could not read the same there.
    """
    path, stamp = open_stamp(dataset)
    return FileMatrix(path, element, stamp)


def encode(encoder: Encoder, value: object) -> Node:
    """The node of a matrix in a file, for the child alone: the parent opens no file it is told."""
    if not isinstance(value, FileMatrix):
        return None
    if not encoder.allow_pickle:
        raise unsendable("it is read from its file as needed: load it with to_memory()")
    encoder.pickled = True  # marks what only a child opens
    return {
        "t": "file_matrix",
        "p": str(value.path),
        "e": value.element,
        "i": list(value.stamp),
    }


def _read(decoder: Decoder, node: Node) -> FileMatrix:
    if not decoder.allow_pickle:
        raise malformed("it names a file, which is never opened on this side")
    stamp = tuple(items(node, "i"))
    return FileMatrix(Path(text(node, "p")), text(node, "e"), stamp)


def open_backed(
    matrix: FileMatrix, parts: Mapping[str, object], raw: Mapping[str, object] | None
) -> Any:
    """An AnnData with these parts that reads its X from a file.

    Args:
        matrix: Where X is.
        parts: Arguments of the constructor: obs, var, obsm, uns, …
        raw: X, var and varm of the raw, of which X is in the same file; None when there is none.

    Raises:
        HandoverError: The file is another now, or may not be read.
    """
    from anndata import AnnData

    matrix.check()
    # A raw that only the file has must be named too, or anndata does not open it.
    about = {key: part for key, part in (raw or {}).items() if key != "X"}
    adata = AnnData(
        filename=matrix.path, filemode="r", raw=cast(Any, about), **cast(Any, dict(parts))
    )
    if raw is None and adata.raw is not None:
        del adata.raw
    return adata


DECODERS: dict[str, Callable[[Decoder, Node], object]] = {"file_matrix": _read}
