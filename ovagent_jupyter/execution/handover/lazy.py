"""Objects that read a file as needed: how they travel, and which files the child needs for it."""

from __future__ import annotations

import copyreg
import io
import pickle
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, cast

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover.fields import unsendable
from ovagent_jupyter.execution.handover.file_stamp import open_stamp, stamp_of

_REMOTE = frozenset(
    "adlfs aiobotocore aiohttp boto3 botocore gcsfs httpx obstore requests s3fs".split()
)
"""Packages whose objects reach the network, often with the user's keys in them."""
_LOCAL = frozenset(("file", "local", "memory"))
_LAZY = frozenset(("anndata", "dask", "h5py", "spatialdata", "xarray", "zarr"))
"""Packages of what reads a file as needed."""
_CACHING = frozenset(("anndata", "dask", "scipy", "zarr"))
"""Packages whose objects note what they found out about themselves."""
_FOUND_OUT = ("_cached", "_dims", "_has_")
"""How the names of such notes begin."""
_PICKLING = ("__reduce__", "__reduce_ex__", "__getstate__", "__new__")
_OWN_PICKLING = ("__setstate__", "__getnewargs__", "__getnewargs_ex__")
"""Methods by which a class is pickled in its own way: where they differ, and where they are."""
_STORE_MARKS = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
_DEEPEST = 8
"""Dictionaries in dictionaries that are looked into for files."""
_GROUPS = ("layers", "obsm", "varm", "obsp", "varp")


@dataclass(frozen=True, slots=True)
class StorePath:
    """Where a SpatialData was read from or written to: its elements are written there too.

    It has no typed form: the child cannot make the parent write somewhere else.
    """

    path: str | Path


def pickled(value: object, buffers: Callable[[pickle.PickleBuffer], object]) -> bytes:
    """A pickle of a value; what it reads from a file goes as the file's name.

    Args:
        value: What to pickle.
        buffers: Takes the large parts, which are not in the pickle.

    Raises:
        HandoverError: It reads what the child cannot.
    """
    return _pickle(value, buffers, lambda _: None)


def files_of(objects: Mapping[str, object]) -> tuple[Path, ...]:
    """The files that objects read as needed, and that the child must be allowed to read.

    Nothing is loaded or computed. What cannot be told names no file.

    Args:
        objects: Name → object.
    """
    found: dict[Path, None] = {}
    for value in objects.values():
        try:
            for part in _parts(value):
                found |= dict.fromkeys(_read_by(part))
        except Exception:  # noqa: BLE001, S112 - a broken object; the hand-over says what is wrong
            continue
    return tuple(found)


def open_element(path: str, name: str, stamp: tuple[int, ...]) -> Any:
    """An element of an HDF5 file, for reading; called where a pickle is opened.

    Raises:
        HandoverError: The file is another now, or may not be read.
    """
    import h5py

    if stamp_of(Path(path)) != tuple(stamp):
        raise unsendable(f"{path} was changed since it was opened")
    return h5py.File(path, "r")[name]


def _pickle(
    value: object,
    buffers: Callable[[pickle.PickleBuffer], object],
    note: Callable[[Path], object],
) -> bytes:
    out = io.BytesIO()
    _Pickler(out, buffers, note).dump(value)
    return out.getvalue()


class _Pickler(pickle.Pickler):
    """Names files in the place of what is open, and keeps the user's keys here.

    Args:
        out: Takes the pickle.
        buffers: Takes the large parts.
        note: Takes each file that is named.
    """

    def __init__(
        self,
        out: io.BytesIO,
        buffers: Callable[[pickle.PickleBuffer], object],
        note: Callable[[Path], object],
    ) -> None:
        super().__init__(out, protocol=5, buffer_callback=buffers)
        self._note = note

    def reducer_override(self, value: Any) -> Any:
        """How one object is pickled, where the usual way will not do."""
        kind = type(value)
        root = kind.__module__.partition(".")[0]
        if root == "h5py" and hasattr(value, "file") and hasattr(value, "name"):
            path, stamp = open_stamp(value)
            self._note(path)
            return open_element, (str(path), value.name, stamp)
        if not isinstance(value, type) and _reaches_out(value, root):
            raise unsendable("it reads from the network, which the child cannot")
        if isinstance(value, PurePath):
            self._note(Path(value))
        elif root == "dask" and kind.__name__.startswith("ReadParquet"):
            for path in value.path if isinstance(value.path, list) else [value.path]:
                self._note(Path(path))
        elif root == "zarr" and type(getattr(value, "path", None)) is str:
            self._note(Path(value.path))
        if root in _CACHING and _is_plain(value):
            return _without_caches(value)
        return NotImplemented


def _is_plain(value: object) -> bool:
    """Whether an object is pickled as its class and its attributes."""
    kind: Any = type(value)
    return (
        hasattr(value, "__dict__")
        and not isinstance(value, type | dict | list | tuple)
        and all(getattr(kind, name) is getattr(object, name) for name in _PICKLING)
        and not any(hasattr(kind, name) for name in _OWN_PICKLING)
    )


def _without_caches(value: Any) -> Any:
    """How an object is pickled so that merely using it does not change the pickle."""
    kind: Any = type(value)
    state = {
        name: part
        for name, part in vars(value).items()
        if not name.startswith(_FOUND_OUT)
        if not isinstance(getattr(kind, name, None), cached_property)
    }
    return cast(Any, copyreg).__newobj__, (kind,), state


def _reaches_out(value: Any, root: str) -> bool:
    if root != "fsspec":
        return root in _REMOTE
    spoken = getattr(value, "protocol", ())
    return not {spoken} <= _LOCAL if isinstance(spoken, str) else not set(spoken) <= _LOCAL


def _parts(value: Any, depth: int = 0) -> Iterator[object]:
    """What an object holds that may read a file."""
    module = _root(value)
    if module == "mudata":
        for modality in getattr(value, "mod", {}).values():
            yield from _parts(modality)
    elif module == "spatialdata" and hasattr(value, "gen_elements"):
        yield StorePath(value.path or "")
        for _, _, element in value.gen_elements():
            yield from _parts(element)
    elif module == "anndata" and hasattr(value, "isbacked"):
        # Parts of a view would be copied to look at them.
        whole = value._adata_ref if value.is_view else value
        if whole is not value and whole.isbacked:
            return  # it is loaded on its way
        yield whole.X
        if whole.raw is not None:
            yield whole.raw.X
        for name in _GROUPS:
            yield from (part for key, part in getattr(whole, name).items() if key is not None)
    elif type(value) is dict and depth < _DEEPEST:
        for item in value.values():
            yield from _parts(item, depth + 1)
    else:
        yield value


def _root(value: object) -> str:
    return type(value).__module__.partition(".")[0]


def _read_by(value: object) -> list[Path]:
    root = _root(value)
    if isinstance(value, StorePath):
        return [path for path in (_resolved(Path(value.path)),) if path is not None and value.path]
    # Of anndata's, only its sparse datasets; its arrays are in memory.
    if root not in _LAZY or (root == "anndata" and not hasattr(value, "group")):
        return []
    noted: list[Path] = []
    try:
        _pickle(value, lambda _: None, noted.append)
    except HandoverError:
        return []
    except Exception:  # noqa: BLE001 - a foreign object; if it cannot travel, the hand-over says so
        return []
    return [path for path in map(_resolved, noted) if path is not None]


def _resolved(path: Path) -> Path | None:
    """A file, or a folder that is a store: no other folder is opened to the child."""
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError):
        return None
    is_store = real.suffix == ".parquet" or any((real / mark).is_file() for mark in _STORE_MARKS)
    return real if stat.S_ISREG(mode) or is_store else None
