"""What reads a file as needed: the child reads the same file, and no number of it travels."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import anndata
import dask.array as da
import h5py
import numpy as np
import pandas as pd
import polars as pl
import pytest
from anndata.experimental import read_elem_lazy
from scipy import sparse

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover import Store, files_of
from ovagent_jupyter.execution.handover.codec import decode, encode
from tests.execution.handover.border import Border
from tests.execution.handover.identical import assert_identical
from tests.execution.handover.test_round_trip import small


def on_disk(path: Path, *, dense: bool = False, raw: bool = True) -> anndata.AnnData:
    """Write an AnnData to a file, without what a file cannot hold; it is given in memory."""
    adata = small()
    for name in ("refused by h5ad", "mixed", "delta", "names", "table"):
        adata.uns.pop(name)
    adata.obs["who"] = pd.Categorical(adata.obs["who"])
    if dense:
        adata.X = adata.X.toarray()
    if not raw:
        adata.raw = None
    adata.write_h5ad(path)
    return anndata.read_h5ad(path)


@pytest.fixture(params=["csr, raw", "dense, raw", "csr", "dense"])
def backed(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """A backed AnnData."""
    dense, raw = "dense" in request.param, "raw" in request.param
    on_disk(tmp_path / "cells.h5ad", dense=dense, raw=raw)
    return anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")


def test_the_child_opens_the_file_by_itself(tmp_path: Path, backed: Any) -> None:
    store = Store(tmp_path)
    border = Border(tmp_path, {"adata": backed}, store)
    there = border.namespace["adata"]
    assert border.left == ()
    assert there.isbacked
    assert there.filename == (tmp_path / "cells.h5ad").resolve()
    assert there.file["X"].file.mode == "r"
    assert_identical(backed.to_memory(), there.to_memory())
    assert border.run("adata.X[:3]").diffs[0].kind == "unchanged"


def test_changes_come_back_and_the_object_stays_backed(tmp_path: Path, backed: Any) -> None:
    border = Border(tmp_path, {"adata": backed})
    changes = border.run(
        "import numpy as np\nadata.obs['one'] = 1\nadata.obsm['X_umap'] = np.zeros((12, 2))\n"
        "adata.uns['found'] = {'n': 3}"
    )
    new: Any = changes.objects["adata"]
    assert changes.diffs[0].summary() == "adata: +obs/one, +obsm/X_umap (12 × 2), +uns/found"
    assert new.isbacked
    assert new.filename == backed.filename.resolve()
    assert new.uns["found"] == {"n": 3}
    expected = backed.to_memory()
    expected.obs["one"] = 1
    assert_identical(expected.X, new.to_memory().X)
    assert (new.raw is None) == (backed.raw is None)
    assert backed.isbacked
    assert "one" not in backed.obs
    # The next turn starts from it.
    assert Border(tmp_path, {"adata": new}).run("").diffs[0].kind == "unchanged"


def test_loading_it_is_no_change(tmp_path: Path, backed: Any) -> None:
    border = Border(tmp_path, {"adata": backed})
    assert border.run("adata = adata.to_memory()").diffs[0].kind == "unchanged"
    changes = border.run("adata.obs['one'] = 1")
    assert changes.diffs[0].summary() == "adata: +obs/one"
    assert changes.objects["adata"].isbacked  # type: ignore[attr-defined]


def test_what_the_code_changed_comes_into_memory(tmp_path: Path, backed: Any) -> None:
    border = Border(tmp_path, {"adata": backed})
    changes = border.run("import numpy as np; adata = adata.to_memory(); adata.X = adata.X * 2")
    new: Any = changes.objects["adata"]
    expected = backed.to_memory()
    expected.X = expected.X * 2
    assert "~X" in changes.diffs[0].summary()
    assert_identical(expected, new)
    last: Any = border.run(
        "adata.X = adata.X / np.float32(2)\n"
        "values = adata.X.data if hasattr(adata.X, 'indptr') else adata.X.reshape(-1)\n"
        "values[-1] = 7"
    ).objects["adata"]
    stored = last.X.data if sparse.issparse(last.X) else last.X.reshape(-1)
    assert stored[-1] == 7


def test_a_new_raw_brings_the_rest_into_memory(tmp_path: Path) -> None:
    on_disk(tmp_path / "cells.h5ad")
    backed: Any = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    border = Border(tmp_path, {"adata": backed})
    changes = border.run("adata = adata.to_memory(); adata.raw = adata[:, :3].copy()")
    new: Any = changes.objects["adata"]
    assert new.raw.shape == (12, 3)
    assert_identical(backed.to_memory().X, new.X)
    gone: Any = border.run("adata.raw = None").objects["adata"]
    assert gone.raw is None
    assert gone.isbacked


def test_a_part_of_it_is_loaded(tmp_path: Path, backed: Any) -> None:
    border = Border(tmp_path, {"part": backed[2:5], "adata": backed})
    assert not border.namespace["part"].isbacked
    assert_identical(backed.to_memory()[2:5].copy(), border.namespace["part"])
    new: Any = border.run("adata = adata[adata.obs.n > 5]").objects["adata"]
    assert_identical(backed.to_memory()[6:].copy(), new)


def test_a_file_that_is_open_for_writing_stays(tmp_path: Path) -> None:
    on_disk(tmp_path / "cells.h5ad")
    written = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r+")
    border = Border(tmp_path, {"adata": written})
    assert border.names == ()
    assert "backed='r'" in border.left[0].reason
    assert files_of({"adata": written}) == ()
    written.file.close()


def test_another_file_in_its_place_is_not_it(tmp_path: Path, backed: Any) -> None:
    border = Border(tmp_path, {"adata": backed})
    other = tmp_path / "other.h5ad"
    shutil.copy(tmp_path / "cells.h5ad", other)
    other.replace(tmp_path / "cells.h5ad")
    changes = border.run("adata.obs['one'] = 1")
    assert changes.objects == {}
    assert "took the place" in changes.left_behind[0].reason
    assert "took the place" in Border(tmp_path, {"adata": backed}).left[0].reason


def test_one_that_may_not_be_read_is_told(tmp_path: Path, backed: Any) -> None:
    (tmp_path / "cells.h5ad").rename(tmp_path / "elsewhere.h5ad")
    border = Border(tmp_path, {"adata": backed, "n": 5})
    assert border.names == ("n",)
    assert "No such file" in border.left[0].reason


def test_the_parent_opens_no_file_that_it_is_told(tmp_path: Path) -> None:
    on_disk(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    with pytest.raises(HandoverError, match="to_memory"):
        encode(backed)
    with pytest.raises(HandoverError, match="never opened"):
        decode(encode(backed, allow_pickle=True))


def test_a_link_is_followed(tmp_path: Path) -> None:
    on_disk(tmp_path / "cells.h5ad")
    (tmp_path / "link.h5ad").symlink_to(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "link.h5ad", backed="r")
    assert files_of({"adata": backed}) == ((tmp_path / "cells.h5ad").resolve(),)


@pytest.fixture
def lazy(tmp_path: Path) -> dict[str, Any]:
    """Arrays that are computed as needed, from memory and from files of both kinds."""
    import zarr

    adata = on_disk(tmp_path / "cells.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.write_zarr(tmp_path / "cells.zarr")
    file = h5py.File(tmp_path / "cells.h5ad", "r")
    store: Any = zarr.open(tmp_path / "cells.zarr", mode="r")
    adata.X = read_elem_lazy(file["X"])
    return {
        "memory": da.from_array(np.arange(10.0), chunks=3) * 2 + 1,
        "sparse": read_elem_lazy(file["X"]),
        "dense": da.from_array(file["obsm/X_pca"], chunks=(5, 3)),
        "zarr": read_elem_lazy(store["layers/counts"]),
        "folder": da.from_zarr(str(tmp_path / "cells.zarr/obsm/X_pca")),
        "dataset": file["obsm/X_pca"],
        "adata": adata,
    }


def test_dask_arrays_go_as_they_are(tmp_path: Path, lazy: dict[str, Any]) -> None:
    border = Border(tmp_path, lazy)
    assert border.left == ()
    there = border.namespace
    assert isinstance(there["adata"].X, da.Array)
    for name in ("memory", "dense", "folder"):
        assert isinstance(there[name], da.Array)
        assert there[name].name == lazy[name].name
        assert_identical(lazy[name].compute(), there[name].compute())
    assert {diff.kind for diff in border.run("").diffs} == {"unchanged"}


def test_using_a_dask_array_is_no_change(tmp_path: Path, lazy: dict[str, Any]) -> None:
    border = Border(tmp_path, lazy)
    changes = border.run(
        "for array in (memory, dense, folder): array.sum().compute()\n"
        "first = adata.X[:5].compute(); repr(sparse); zarr[:2].compute()\n"
        "adata.obs['one'] = 1"
    )
    assert changes.left_behind == ()
    new: Any = changes.objects["adata"]
    assert list(changes.objects) == ["adata"]
    assert isinstance(new.X, da.Array)


def test_a_changed_dask_array_stays_there(tmp_path: Path, lazy: dict[str, Any]) -> None:
    border = Border(tmp_path, lazy)
    changes = border.run("memory = memory + 1; adata.X = adata.X * 2; adata.obs['one'] = 1")
    assert [notice.path for notice in changes.left_behind] == ["memory", "adata.X"]
    assert "compute()" in changes.left_behind[0].reason
    assert changes.objects["adata"].X.name == lazy["adata"].X.name  # type: ignore[attr-defined]
    made = border.run("adata.X = adata.X.compute()").objects["adata"]
    assert sparse.issparse(made.X)  # type: ignore[attr-defined]


def test_files_behind_dask_arrays(tmp_path: Path, lazy: dict[str, Any]) -> None:
    h5ad, folder = tmp_path / "cells.h5ad", tmp_path / "cells.zarr"
    found = {name: files_of({name: value}) for name, value in lazy.items()}
    assert found == {
        "memory": (),
        "sparse": (h5ad,),
        "dense": (h5ad,),
        "zarr": (folder,),
        "folder": (folder / "obsm/X_pca",),
        "dataset": (h5ad,),
        "adata": (h5ad,),
    }
    assert files_of({"parts": {"a": lazy["dense"], "n": 5}, "view": lazy["adata"][:3]}) == (h5ad,)


class Images:
    """Holds lazy arrays, as the objects of other packages do."""

    __module__ = "spatialdata.images"

    def __init__(self, *held: object) -> None:
        self.held = held

    def __reduce__(self) -> Any:
        return list, (self.held,)


def test_files_behind_what_holds_lazy_arrays(tmp_path: Path, lazy: dict[str, Any]) -> None:
    images = Images(lazy["dense"], lazy["zarr"])
    assert files_of({"images": images}) == (tmp_path / "cells.h5ad", tmp_path / "cells.zarr")


def test_no_other_folder_is_named(tmp_path: Path) -> None:
    array = da.ones(3).map_blocks(os.path.join, tmp_path, dtype=float, meta=np.ones(0))
    assert files_of({"array": array}) == ()


def test_what_reads_from_the_network_stays(tmp_path: Path) -> None:
    import fsspec

    remote = fsspec.filesystem("webhdfs", host="localhost", user="me", password="secret")
    border = Border(tmp_path, {"remote": remote, "inside": {"a": [remote]}})
    assert border.names == ("inside",)
    assert {notice.reason for notice in border.left} == {
        "it reads from the network, which the child cannot"
    }


def test_a_broken_object_names_no_file() -> None:
    class Broken:
        __module__ = "dask.broken"

        def __reduce__(self) -> Any:
            raise RuntimeError("no")

    assert files_of({"broken": Broken(), "n": 1, "frame": pl.DataFrame()}) == ()


def test_it_can_be_restored(tmp_path: Path, backed: Any) -> None:
    saved = Store(tmp_path).save({"adata": backed})["adata"]
    expected = backed.to_memory()
    backed.obs["one"] = 1
    restored: Any = saved.restore()
    assert restored.isbacked
    assert_identical(expected, restored.to_memory())
