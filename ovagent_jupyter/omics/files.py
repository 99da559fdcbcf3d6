"""Reading the user's own data files, with errors that say what is wrong with a file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ovagent_jupyter.errors import DataError

_READERS = {
    ".h5ad": "sc.read_h5ad",
    ".h5": "sc.read_10x_h5",
    ".h5mu": "__import__('mudata').read_h5mu",
}
LOOKED_INTO = frozenset({".h5ad", ".h5", ".h5mu"})
"""Endings of files that ``check_file`` opens to see that they are what they say."""
_READABLE = "Readable are .h5ad, 10x .h5, a 10x folder with matrix.mtx.gz, and .h5mu."


def check_file(path: Path) -> None:
    """Look at a file before anything is run on it; reads a few bytes.

    Raises:
        DataError: It is not there, is empty, or is no HDF5 although its name says so.
    """
    if path.is_dir():
        if not any(path.glob("matrix.mtx*")):
            raise DataError(
                f"The folder {path.name!r} holds no matrix.mtx or matrix.mtx.gz.",
                next_step=_READABLE,
            )
        return
    if not path.is_file():
        raise DataError(
            f"There is no file {str(path)!r}.",
            next_step=f"Check the path; the working folder is {str(Path.cwd())!r}.",
        )
    if path.suffix in LOOKED_INTO:
        _check_hdf5(path)


def read_data(path: Path) -> Any:
    """The AnnData (or MuData) in a file.

    Args:
        path: An .h5ad, 10x .h5 or .h5mu file, or a folder as Cell Ranger writes it.

    Raises:
        DataError: It cannot be read, with what is wrong with it.
    """
    check_file(path)
    try:
        with warnings.catch_warnings():
            # An old layout or duplicate names are no reason to stop; the plan deals with them.
            warnings.simplefilter("ignore")
            return _read(path)
    except DataError:
        raise
    except ImportError as error:
        raise DataError(
            f"{path.name} needs a package that is not installed.",
            why=str(error),
            next_step="pip install 'ovagent-jupyter[omics]'",
        ) from error
    except Exception as error:
        first = str(error).strip().splitlines()[:1]
        raise DataError(
            f"{path.name} cannot be read.",
            why=f"{type(error).__name__}: {''.join(first)[:200]}",
            next_step="The file may be damaged: copy or download it again.",
        ) from error


def reading_code(path: Path) -> str:
    """The expression by which a notebook reads the same file; scanpy is imported as ``sc``."""
    reader = "sc.read_10x_mtx" if path.is_dir() else _READERS.get(path.suffix, "sc.read")
    return f"{reader}({str(path)!r})"


def _read(path: Path) -> Any:
    if path.is_dir():
        import scanpy as sc

        return sc.read_10x_mtx(path, cache=False)
    if path.suffix == ".h5mu":
        import mudata

        return mudata.read_h5mu(path)
    if path.suffix == ".h5":
        import scanpy as sc

        return sc.read_10x_h5(path)
    if path.suffix != ".h5ad":
        raise DataError(f"{path.name} is of a kind that cannot be read here.", next_step=_READABLE)
    import anndata

    return anndata.read_h5ad(path)


def _check_hdf5(path: Path) -> None:
    import h5py

    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise DataError(f"{path.name} is empty.", next_step="Copy or download it again.")
    # Not a look at the first bytes: .h5mu has a block of its own before the HDF5 signature.
    if not h5py.is_hdf5(path):
        page = head.lstrip()[:1] == b"<"
        why = "It is a web page: the download went wrong." if page else "It is not an HDF5 file."
        raise DataError(f"{path.name} cannot be read.", why=why, next_step=_READABLE)
    _check_whole(path)


def _check_whole(path: Path) -> None:
    """HDF5 stores its own length: a shorter file was cut off."""
    import h5py

    try:
        with h5py.File(path, "r"):
            pass
    except OSError as error:
        raise DataError(
            f"{path.name} cannot be opened.",
            why=" ".join(str(error).split())[:200],
            next_step="A truncated file was not copied whole: copy or download it again.",
        ) from error
