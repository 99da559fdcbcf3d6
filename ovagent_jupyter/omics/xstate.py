"""Detecting what a matrix holds: counts, normalised, logged, scaled or residuals."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from ovagent_jupyter.omics.sample import Sample, take_sample
from ovagent_jupyter.omics.state import XState
from ovagent_jupyter.omics.step import XKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LARGEST_LOG = 20.0
"""No log1p of a normalised count is larger: expm1 of it is 485 million."""
LARGEST_TWICE_LOGGED = 3.1
"""log1p of the largest log1p."""
SPREAD = 0.01
"""Relative spread up to which sums of rows count as equal; float32 rounding is far below."""
ODD_ROWS = 0.02
"""Share of rows whose sum may differ: cells without counts stay empty when normalised."""
MULTIPLE_ROWS = 60
"""Rows looked at when values are tested to be multiples of one unit."""


def detect(matrix: Any, hints: Collection[str] = ()) -> XState:
    """What the matrix holds, with a confidence and the evidence.

    Args:
        matrix: Dense, sparse or backed, cells x genes; or None.
        hints: Slots of its AnnData (``uns/log1p``, ``var/std``): they support, never decide alone.
    """
    if matrix is None:
        return XState(XKind.UNKNOWN, 1.0, "There is no matrix.")
    if 0 in matrix.shape:
        return XState(XKind.UNKNOWN, 1.0, "The matrix is empty.")
    sample = take_sample(matrix)
    if sample is None:
        return XState(XKind.UNKNOWN, 0.5, f"A {type(matrix).__name__} is not looked into.")
    return classify(sample, hints)


def classify(sample: Sample, hints: Collection[str] = ()) -> XState:
    """What a sample of rows says about its matrix."""
    values = sample.values
    finite = np.isfinite(values)
    if not finite.all():
        clean = Sample(
            values[finite],
            sample.row[finite],
            sample.n_rows,
            None if sample.dense is None else np.nan_to_num(sample.dense, posinf=0, neginf=0),
            sample.whole_rows,
        )
        state = classify(clean, hints)
        evidence = f"{state.evidence} Some values are NaN or infinite."
        return XState(state.kind, min(state.confidence, 0.8), evidence)
    if not values.any():
        return XState(XKind.UNKNOWN, 0.5, f"All values {_seen(sample)} are zero.")
    if values.min() < 0:
        return _signed(sample, hints)
    if not np.mod(values, 1).any():
        return _whole(sample)
    return _fractional(sample, hints)


def _seen(sample: Sample) -> str:
    return f"in {sample.n_rows:,} sampled {'cells' if sample.n_rows != 1 else 'cell'}"


def _whole(sample: Sample) -> XState:
    high = sample.values.max()
    if high <= 1:
        evidence = f"Only 0 and 1 {_seen(sample)}: counts, or a detected-or-not mask."
        return XState(XKind.COUNTS, 0.6, evidence)
    sums = sample.sums(sample.values)
    if sample.whole_rows and len(sums) > 1 and sums.max() == sums.min():
        evidence = f"Whole numbers, yet every cell sums to {sums[0]:,.0f} {_seen(sample)}."
        return XState(XKind.COUNTS, 0.7, evidence)
    return XState(XKind.COUNTS, 0.99, f"Only whole numbers up to {high:,.0f} {_seen(sample)}.")


def _fractional(sample: Sample, hints: Collection[str]) -> XState:
    values, seen = sample.values, _seen(sample)
    high = float(values.max())
    if (total := _common_sum(sample, values)) is not None:
        return XState(XKind.NORM, 0.97, f"Every cell sums to about {total:,.5g} {seen}.")
    if high <= LARGEST_LOG:
        back = np.expm1(values)
        if (total := _common_sum(sample, back)) is not None:
            evidence = f"exp(x) - 1 sums to about {total:,.5g} in every cell {seen}."
            return XState(XKind.LOGNORM, 0.98, evidence)
        if _multiples(sample, back):
            evidence = f"exp(x) - 1 gives multiples of one unit in each cell {seen}."
            return XState(XKind.LOGNORM, 0.96, evidence)
        if high <= LARGEST_TWICE_LOGGED and _normalised(sample, np.expm1(back)):
            evidence = f"exp(exp(x) - 1) - 1 looks normalised {seen}: logged twice."
            return XState(XKind.UNKNOWN, 0.95, evidence)
    if _multiples(sample, values):
        return XState(XKind.NORM, 0.95, f"Multiples of one unit in each cell {seen}.")
    return _by_range(high, seen, hints)


def _by_range(high: float, seen: str, hints: Collection[str]) -> XState:
    if high > LARGEST_LOG:
        return XState(XKind.NORM, 0.6, f"Fractional values run up to {high:,.5g} {seen}.")
    evidence = f"Fractional values run from 0 to {high:.3g} {seen}"
    if "uns/log1p" in hints:
        return XState(XKind.LOGNORM, 0.92, f"{evidence}, and uns['log1p'] is there.")
    return XState(XKind.LOGNORM, 0.7, f"{evidence}, as after a logarithm.")


def _signed(sample: Sample, hints: Collection[str]) -> XState:
    """Negative values: scaled genes have mean 0 and variance 1; other residuals need not."""
    low, high = sample.values.min(), sample.values.max()
    evidence = f"Values run from {low:.3g} to {high:.3g} {_seen(sample)}"
    if "uns/pearson_residuals_normalization" in hints and "layers/scaled" not in hints:
        note = "uns['pearson_residuals_normalization'] is there"
        return XState(XKind.RESIDUAL, 0.95, f"{evidence}, and {note}.")
    rows = sample.dense
    if rows is None or len(rows) < 20:  # noqa: PLR2004 - too few for a variance
        return XState(XKind.SCALED, 0.6, f"{evidence}: scaled, or residuals.")
    spread = rows.std(axis=0)
    if not (spread > 0).any():
        return XState(XKind.UNKNOWN, 0.5, f"{evidence}, the same in every cell.")
    centre = float(np.median(np.abs(rows.mean(axis=0))))
    typical = float(np.median(spread[spread > 0]))
    shape = f"{evidence}; a gene varies by {typical:.2f} around {centre:.2f}"
    if centre > 0.25 or not 0.6 < typical < 1.4:  # noqa: PLR2004 - wide bounds around 0 and 1
        return XState(XKind.RESIDUAL, 0.7, f"{shape}: residuals or batch-corrected values.")
    sure = _zeros_in_one_place(rows) or "var/std" in hints
    return XState(XKind.SCALED, 0.95 if sure else 0.8, f"{shape}, as after scaling.")


def _zeros_in_one_place(rows: Floats) -> bool:
    """Whether the lowest value of most genes repeats: scaling moves all zeros to one value.

    In residuals it depends on the cell's depth where a zero lands.
    """
    repeats = (rows == rows.min(axis=0)).mean(axis=0)
    return bool((repeats > 0.1).mean() > 0.5)  # noqa: PLR2004 - sparse data: most genes, clearly


def _normalised(sample: Sample, values: Floats) -> bool:
    return _common_sum(sample, values) is not None or _multiples(sample, values)


def _common_sum(sample: Sample, values: Floats) -> float | None:
    """The sum that all rows, but for a few, have in common."""
    sums = sample.sums(values)
    if not sample.whole_rows or len(sums) < 3:  # noqa: PLR2004 - two rows can agree by chance
        return None
    middle = float(np.median(sums))
    if not np.isfinite(middle) or middle <= 0:
        return None
    off = np.abs(sums - middle) > SPREAD * middle
    return middle if off.mean() <= ODD_ROWS else None


def _multiples(sample: Sample, values: Floats) -> bool:
    """Whether the values of each row are whole multiples of its smallest, as scaled counts are.

    This holds for a subset of the genes as well, where sums of rows tell nothing.
    """
    near = looked_at = 0
    present = values > 0
    values, row = values[present], sample.row[present]
    for number in np.unique(row)[:MULTIPLE_ROWS]:
        mine = values[row == number]
        ratio = mine / mine.min()
        ratio = ratio[(ratio > 1.01) & (ratio < 200)]  # noqa: PLR2004 - float32 holds up to there
        if len(ratio) < 5:  # noqa: PLR2004 - fewer fit by chance
            continue
        looked_at += 1
        near += bool((np.abs(ratio - ratio.round()) < 0.02).mean() > 0.95)  # noqa: PLR2004
    return looked_at >= 3 and near >= 0.8 * looked_at  # noqa: PLR2004 - min count may exceed 1
