"""A bounded sample of a matrix, dense or sparse, in memory or on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

MAX_ROWS = 300
"""Rows looked at, spread over the matrix."""
MAX_DENSE = 1_000_000
"""Values looked at in a dense matrix; fewer rows are taken of wide ones."""
MAX_SCANNED = 5_000_000
"""Values up to which a whole matrix is searched for NaN: a few milliseconds."""
MAX_COLUMNS = 50
"""Columns looked at where rows are out of reach: sparse columns on disk."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The values of some rows, with the row of each; zeros of sparse rows are left out."""

    values: Floats
    row: Integers
    """Position of the value's row in the sample, from 0."""
    n_rows: int
    dense: Floats | None = None
    """The rows as a matrix, where it was dense."""
    whole_rows: bool = True
    """False when only some columns were read, so that sums of rows mean nothing."""

    def sums(self, values: Floats) -> Floats:
        """Sum of some values, parallel to ``self.values``, in each row."""
        totals = np.bincount(self.row, weights=values, minlength=self.n_rows)
        return np.asarray(totals, dtype=np.float64)


def has_gaps(matrix: Any) -> bool:
    """Whether a matrix of moderate size in memory holds NaN or infinite values anywhere."""
    values = matrix if isinstance(matrix, np.ndarray) else getattr(matrix, "data", None)
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        return False
    return values.size <= MAX_SCANNED and not bool(np.isfinite(values).all())


def take_sample(matrix: Any) -> Sample | None:
    """A sample of the matrix; None when looking into it is not cheap or not possible."""
    n_rows, n_columns = matrix.shape
    kind = getattr(matrix, "format", None)
    if kind == "csc":
        return _from_csc(matrix)
    if kind == "csr":
        return _from_csr(matrix[_spread(n_rows, MAX_ROWS)])
    if kind is not None:
        return None
    part = matrix[_spread(n_rows, min(MAX_ROWS, MAX_DENSE // max(1, n_columns)))]
    if hasattr(part, "compute"):
        part = part.compute()
    if hasattr(part, "tocsr"):
        return _from_csr(part.tocsr())
    return _from_dense(part)


def _spread(length: int, wanted: int) -> Integers:
    """Positions evenly spread over a length, ascending."""
    take = max(1, min(wanted, length))
    return np.unique(np.linspace(0, length - 1, take).astype(np.int64))


def _from_dense(part: Any) -> Sample | None:
    try:
        rows = np.asarray(part, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if rows.ndim != 2:  # noqa: PLR2004 - a matrix has two
        return None
    if not rows.size or rows.min() < 0:
        row = np.repeat(np.arange(len(rows)), rows.shape[1])
        return Sample(rows.ravel(), row, len(rows), dense=rows)
    row, column = np.nonzero(rows)
    return Sample(rows[row, column], row, len(rows), dense=rows)


def _from_csr(rows: Any) -> Sample:
    row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    return Sample(np.asarray(rows.data, dtype=np.float64), row, rows.shape[0])


def _from_csc(matrix: Any) -> Sample:
    """One block of rows from the middle, found by bisecting all columns at once.

    Slicing rows of a CSC matrix would read every value; bisection reads a few of each column.
    """
    indices = getattr(matrix, "indices", None)
    if not isinstance(indices, np.ndarray) or not _sorted(matrix):
        return _columns(matrix)
    n_rows = matrix.shape[0]
    first = max(0, (n_rows - MAX_ROWS) // 2)
    last = min(n_rows, first + MAX_ROWS)
    pointers = np.asarray(matrix.indptr, dtype=np.int64)
    start = _bisect(indices, pointers[:-1], pointers[1:], first)
    stop = _bisect(indices, start, pointers[1:], last)
    lengths = stop - start
    offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    at = np.repeat(start, lengths) + offsets
    values = np.asarray(matrix.data[at], dtype=np.float64)
    return Sample(values, indices[at].astype(np.int64) - first, last - first)


def _bisect(indices: Any, low: Integers, high: Integers, row: int) -> Integers:
    """For each column, the first position whose row index is at least ``row``."""
    low, high = low.copy(), high.copy()
    while (open_ := low < high).any():
        middle = (low + high) // 2
        smaller = np.zeros(len(low), dtype=bool)
        smaller[open_] = indices[middle[open_]] < row
        low = np.where(smaller, middle + 1, low)
        high = np.where(open_ & ~smaller, middle, high)
    return low


def _sorted(matrix: Any) -> bool:
    """Whether row indices ascend in a few columns: asking scipy would read all of them."""
    for column in _spread(matrix.shape[1], 20):
        part = matrix.indices[matrix.indptr[column] : matrix.indptr[column + 1]]
        if (np.diff(part[:10_000].astype(np.int64)) <= 0).any():
            return False
    return True


def _columns(matrix: Any) -> Sample:
    part = matrix[:, _spread(matrix.shape[1], MAX_COLUMNS)]
    part = part[: MAX_ROWS * 10].tocsr()
    return Sample(
        np.asarray(part.data, dtype=np.float64),
        np.repeat(np.arange(part.shape[0]), np.diff(part.indptr)),
        part.shape[0],
        whole_rows=False,
    )
