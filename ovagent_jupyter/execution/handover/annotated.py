"""AnnData and MuData in parts, and built from parts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import pandas as pd

from ovagent_jupyter.execution.handover.backed import FileMatrix, open_backed
from ovagent_jupyter.execution.handover.fields import malformed, unsendable
from ovagent_jupyter.execution.handover.slots import (
    BRANCH,
    Path,
    Slots,
    below,
    build_dict,
    inside,
    open_dict,
)
from ovagent_jupyter.execution.handover.table import OBS, VAR, Place, build_frame, open_frame

ALIGNED = ("layers", "obsm", "varm", "obsp", "varp")
_RAW: Path = ("raw",)
_PLACES = {"obs": OBS, "var": VAR}


@contextmanager
def quiet() -> Iterator[None]:
    """Advice about names that are not unique was given when the object was made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def open_anndata(slots: Slots, value: object, at: Path = ()) -> None:
    """Add the parts of an AnnData; a view is materialised, a backed one's X stays in its file."""
    adata = _whole(value)
    open_frame(slots, OBS.under(at), adata.obs)
    open_frame(slots, VAR.under(at), adata.var)
    slots[*at, "X"] = _matrix(adata, adata.X, "X")
    for name in ALIGNED:
        for key, item in getattr(adata, name).items():
            if key is not None:  # anndata 0.13 may list X among the layers
                slots[*at, name, str(key)] = item
    if adata.raw is not None:
        slots[*at, "raw"] = BRANCH
        slots[*at, "raw", "X"] = _matrix(adata, adata.raw.X, "raw/X")
        open_frame(slots, VAR.under((*at, *_RAW)), adata.raw.var)
        for key, item in adata.raw.varm.items():
            slots[*at, "raw", "varm", str(key)] = item
    _open_uns(slots, (*at, "uns"), adata.uns)


def _whole(value: object) -> Any:
    adata = cast(Any, value)
    lazy = [name for name in _PLACES if not isinstance(getattr(adata, name), pd.DataFrame)]
    if lazy:
        raise unsendable(f"its {lazy[0]} is read as needed: load it with to_memory()")
    if not adata.is_view:
        return adata
    with quiet():
        return adata.to_memory() if adata.isbacked else adata.copy()


def _matrix(adata: Any, matrix: object, element: str) -> object:
    """What lies in the slot of X: the numbers, or where they are."""
    if not adata.isbacked or isinstance(matrix, np.ndarray):
        return matrix
    from ovagent_jupyter.execution.handover.backed import file_matrix

    return file_matrix(adata.file[element], element)


def _open_uns(slots: Slots, at: Path, uns: Mapping[Any, object]) -> None:
    if all(type(key) in (str, int) for key in uns):
        open_dict(slots, at, uns)
    else:
        slots[at] = dict(uns)


def _build_uns(slots: Slots, at: Path) -> dict[object, object]:
    uns = slots.get(at, BRANCH)
    if uns is BRANCH:
        return build_dict({at: BRANCH, **slots}, at)
    if not isinstance(uns, dict):
        raise malformed("uns is not a dictionary")
    return uns


def _group(slots: Slots, at: Path) -> dict[str, object]:
    group: dict[str, object] = {}
    for path, value in below(slots, at):
        if len(path) != len(at) + 1 or value is BRANCH:
            raise malformed("a slot lies where nothing can be")
        group[str(path[-1])] = value
    return group


_STEPS = {"X": (1,), "obs": (2, 3), "var": (2, 3), **dict.fromkeys(ALIGNED, (2,))} | {
    step: (1,) for place in (OBS, VAR) for (step,) in (place.index, place.columns, place.attrs)
}
"""How many steps the path of a slot may have, by its first one."""


def _check_paths(slots: Slots, at: Path) -> None:
    for path, _ in below(slots, at):
        inside = path[len(at) :]
        if inside[0] == "raw" and len(inside) > 1:
            inside = inside[1:]
        if inside[0] in ("uns", "raw", "mod", "axis"):
            continue
        if len(inside) not in _STEPS.get(str(inside[0]), ()):
            raise malformed("a slot lies where nothing can be")


def build_anndata(slots: Slots, at: Path = ()) -> object:
    """The AnnData of its parts; its constructor checks that they fit together."""
    from anndata import AnnData

    _check_paths(slots, at)
    frames = {name: build_frame(slots, place.under(at)) for name, place in _PLACES.items()}
    _check_names(frames)
    parts = {name: _group(slots, (*at, name)) for name in ALIGNED}
    uns = _build_uns(slots, (*at, "uns"))
    raw = _raw(slots, (*at, *_RAW))
    matrix = slots.get((*at, "X"))
    with quiet():
        rest = {**frames, **parts, "uns": uns}
        if isinstance(matrix, FileMatrix) and (raw is None or isinstance(raw["X"], FileMatrix)):
            adata = open_backed(matrix, rest, raw)
        else:
            # Either both are in the file or none is: anndata knows nothing between.
            raw = raw and {**raw, "X": _in_memory(raw["X"])}
            adata = AnnData(X=_in_memory(matrix), raw=cast(Any, raw), **cast(Any, rest))
    for name, frame in frames.items():
        _as_it_was(getattr(adata, name), frame)
    return adata


def _in_memory(matrix: object) -> Any:
    return matrix.read() if isinstance(matrix, FileMatrix) else matrix


def _raw(slots: Slots, at: Path) -> dict[str, object] | None:
    if at not in slots:
        return None
    var = build_frame(slots, VAR.under(at))
    return {"X": slots.get((*at, "X")), "var": var, "varm": _group(slots, (*at, "varm"))}


def _check_names(frames: Mapping[str, pd.DataFrame]) -> None:
    # anndata would write out each number of a range as text: there may be 2^60.
    if any(isinstance(frame.index, pd.RangeIndex) and len(frame) for frame in frames.values()):
        raise malformed("cells or genes have no names")


def _as_it_was(frame: pd.DataFrame, wanted: pd.DataFrame) -> None:
    """Undo what the constructor does to names: it turns numbers into text."""
    if not frame.index.identical(wanted.index):
        frame.index = wanted.index
    if not frame.columns.identical(wanted.columns):
        frame.columns = wanted.columns
    frame.attrs = wanted.attrs


def open_mudata(slots: Slots, value: object) -> None:
    """Add the parts of a MuData; each modality's lie under ``("mod", name)``."""
    mdata = cast(Any, value)
    if mdata.isbacked:
        raise unsendable("it is read from its file as needed: read it without backed=")
    with quiet():
        mdata = mdata.copy() if mdata.is_view else mdata
    slots["axis",] = int(mdata.axis)
    for name, modality in mdata.mod.items():
        slots["mod", name] = BRANCH
        open_anndata(slots, modality, ("mod", name))
    open_frame(slots, OBS, mdata.obs)
    open_frame(slots, VAR, mdata.var)
    for name in ALIGNED[1:]:
        for key, item in getattr(mdata, name).items():
            if key not in mdata.mod:  # which cells a modality has; computed from the names
                slots[name, str(key)] = item
    _open_uns(slots, ("uns",), mdata.uns)


def build_mudata(slots: Slots) -> object:
    """The MuData of its parts."""
    from mudata import MuData

    _check_paths(slots, ())
    names = [path[1] for path, value in below(slots, ("mod",)) if len(path) == len(("mod", "name"))]
    modalities = {name: build_anndata(slots, ("mod", name)) for name in names}
    with quiet():
        mdata: Any = MuData(cast(Any, modalities), axis=cast(Any, slots.get(("axis",), 0)))
        for name, place in _PLACES.items():
            setattr(mdata, name, build_frame(slots, place))
        for name in ALIGNED[1:]:
            for key, item in _group(slots, (name,)).items():
                getattr(mdata, name)[key] = item
        mdata.uns = _build_uns(slots, ("uns",))
    return mdata


def places(slots: Slots, kind: str) -> list[Place]:
    """All frames that an object of a kind holds in parts."""
    from ovagent_jupyter.execution.handover.table import FRAME

    if kind == "dataframe":
        return [FRAME]
    found: list[Place] = []
    for path in slots:
        match inside(path):
            case ("var_columns",) | ("raw", "var_columns"):
                found.append(VAR.under(path[:-1]))
            case ("obs_columns",):
                found.append(OBS.under(path[:-1]))
    return found
