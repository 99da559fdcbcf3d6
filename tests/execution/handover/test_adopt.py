"""The user's arrays on what was saved of them: nothing a user can see changes."""

from __future__ import annotations

import gc
import mmap
import sys
import threading
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from ovagent_jupyter.execution.handover.adopt import adopt
from ovagent_jupyter.execution.handover.annotated import quiet
from ovagent_jupyter.execution.handover.blob import ALONE
from ovagent_jupyter.execution.handover.saved import Saved
from ovagent_jupyter.execution.handover.store import Store
from tests.execution.handover.identical import assert_identical

ROWS, GENES = 4_000, 1_000


def matrix(kind: str = "csr") -> Any:
    return sparse.random(
        ROWS, GENES, 0.1, format=kind, dtype="float32", random_state=np.random.default_rng(0)
    )


def adata(x: object) -> Any:
    made = anndata.AnnData(
        x,
        obs=pd.DataFrame(index=[f"c{i}" for i in range(ROWS)]),
        var=pd.DataFrame(index=[f"g{i}" for i in range(GENES)]),
    )
    rng = np.random.default_rng(1)
    made.layers["counts"] = matrix("csc")
    made.layers["dense"] = np.asfortranarray(rng.normal(size=(ROWS, GENES)))
    made.obsm["X_pca"] = rng.normal(size=(ROWS, 50))
    made.obsm["small"] = rng.normal(size=(ROWS, 2))
    made.obsp["graph"] = sparse.random(ROWS, ROWS, 0.05, format="csr", random_state=rng)
    made.raw = made
    made.X = made.X.copy()  # the raw one had the same
    return made


def save(store: Store, value: object) -> Saved:
    return store.save({"it": value})["it"]


def facts(array: Any) -> tuple[object, ...]:
    flags = (array.flags.c_contiguous, array.flags.f_contiguous, array.flags.writeable)
    return type(array), array.dtype, array.shape, array.strides, flags


def arrays(value: Any) -> dict[str, Any]:
    """The large arrays of an AnnData."""
    layers = {name: held for name, held in value.layers.items() if name is not None}
    matrices = {"X": value.X, **layers, **value.obsm, **value.obsp, "raw": value.raw.X}
    found = {}
    for name, held in matrices.items():
        if sparse.issparse(held):
            found |= {f"{name}.{part}": getattr(held, part) for part in ("data", "indices")}
        else:
            found[name] = held
    return found


@pytest.mark.parametrize("x", [matrix("csr"), matrix("csc"), matrix().toarray()], ids=type)
def test_large_arrays_are_adopted_and_stay_as_they_were(x: Any) -> None:
    store, mine, copy = Store(), adata(x.copy()), adata(x.copy())
    before = {name: facts(array) for name, array in arrays(mine).items()}
    size = adopt(mine, save(store, mine))
    large = [a.nbytes for n, a in arrays(mine).items() if n != "raw" and a.nbytes >= ALONE]
    assert size >= sum(large)
    assert {name: facts(array) for name, array in arrays(mine).items()} == before
    assert_identical(mine, copy)
    for name, array in arrays(mine).items():
        if array.nbytes >= ALONE and (name != "raw" or sparse.issparse(x)):
            data = array.T if array.flags.f_contiguous else array
            assert store.maps.untouched(data.reshape(-1).view(np.uint8)), name


def test_an_adopted_object_is_saved_again_without_being_read() -> None:
    store, mine = Store(), adata(matrix())
    first = save(store, mine)
    adopt(mine, first)
    written = store.written
    again = save(store, mine)
    assert store.written == written
    assert set(again.blobs) == set(first.blobs)
    assert not first.differs(mine)


def test_changes_of_an_adopted_object_are_seen_and_stay_its_own() -> None:
    store, mine, copy = Store(), adata(matrix()), adata(matrix())
    first = save(store, mine)
    adopt(mine, first)
    mine.X.data[5] = 100
    mine.layers["dense"][3, 3] = 100
    assert first.differs(mine)
    assert_identical(first.restore(), copy)
    second: Any = save(store, mine).restore()
    assert second.X.data[5] == 100
    assert second.layers["dense"][3, 3] == 100


def test_an_adopted_object_needs_no_memory_twice() -> None:
    store, mine = Store(), adata(matrix())
    adopt(mine, save(store, mine))
    mine.X = mine.X.copy()
    replaced = save(store, mine)
    adopt(mine, replaced)
    del replaced
    gc.collect()
    held = sum(a.nbytes for a in arrays(mine).values())
    assert store.size.memory < held + ROWS * 2000


def test_a_changed_one_is_adopted_anew() -> None:
    store, mine = Store(), adata(matrix())
    adopt(mine, save(store, mine))
    mine.obsm["X_pca"][3, 3] = 100
    view = mine.layers["dense"][5:]
    mine.layers["dense"][5, 5] = 100
    second = save(store, mine)
    assert adopt(mine, second) == mine.obsm["X_pca"].nbytes
    assert store.maps.untouched(mine.obsm["X_pca"])
    view[0, 0] = 7
    assert mine.layers["dense"][5, 0] == 7
    assert mine.obsm["X_pca"][3, 3] == 100


def test_what_somebody_else_holds_stays() -> None:
    store, mine = Store(), adata(matrix())
    data, dense = mine.X.data, mine.layers["dense"]
    part = mine.obsm["X_pca"][5:]
    adopt(mine, save(store, mine))
    assert mine.X.data is data
    assert mine.layers["dense"] is dense
    assert mine.obsm["X_pca"] is part.base
    assert mine.X.indices.base is not None
    data[0] = 7
    assert mine.X[0].data[0] == 7


def test_a_matrix_that_the_user_holds_is_the_same_matrix_still() -> None:
    mine = adata(matrix())
    held = mine.X
    adopt(mine, save(Store(), mine))
    assert mine.X is held
    held.data[0] = 7
    assert mine.X.data[0] == 7


def test_views_small_ones_and_other_things_stay() -> None:
    store, mine = Store(), adata(matrix())
    small = mine.obsm["small"]
    view = mine[:100]
    assert adopt(view, save(store, view)) == 0
    assert view.is_view
    frame = pd.DataFrame({"a": np.zeros(1_000_000)})
    assert adopt(frame, save(store, frame)) == 0
    assert adopt(np.zeros(1_000_000), save(store, np.zeros(1_000_000))) == 0
    adopt(mine, save(store, mine))
    assert mine.obsm["small"] is small


def test_read_only_arrays_stay_read_only() -> None:
    mine = adata(matrix().toarray())
    mine.X.flags.writeable = False
    adopt(mine, save(Store(), mine))
    assert not mine.X.flags.writeable


def test_one_that_refuses_keeps_what_it_has() -> None:
    class Stubborn(anndata.AnnData):  # type: ignore[misc]
        def __setattr__(self, name: str, value: object) -> None:
            if name == "X" and getattr(self, "closed", False):
                raise TypeError("no")
            super().__setattr__(name, value)

    mine = Stubborn(adata(matrix().toarray()))
    saved = save(Store(), mine)
    mine.closed = True
    x = id(mine.X)
    assert adopt(mine, saved) == 0
    assert id(mine.X) == x


def test_a_backed_object_stays_in_its_file(tmp_path: Any) -> None:
    adata(matrix()).write_h5ad(tmp_path / "a.h5ad")
    mine = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    adopt(mine, save(Store(), mine))
    assert mine.isbacked
    mine.file.close()


def test_mudata_is_adopted_by_modality() -> None:
    mudata = pytest.importorskip("mudata")
    other = adata(matrix())
    other.var_names = [f"p{i}" for i in range(GENES)]
    with quiet():
        mine = mudata.MuData({"rna": adata(matrix()), "other": other})
    assert adopt(mine, save(Store(), mine)) > 2 * mine.mod["rna"].X.data.nbytes
    assert mine.mod["rna"].X.data.base is not None
    assert sys.getrefcount(mine.mod["rna"].X.data) == sys.getrefcount(mine.mod["other"].X.data)


def test_what_is_written_between_saving_and_adopting_stays() -> None:
    store, value = Store(), adata(matrix().toarray())
    saved = save(store, value)
    value.X[3, 5] = 77
    value.layers["dense"][7] = 8
    value.obsm["X_pca"] = np.ones((ROWS, 50))
    value.layers["counts"].data[-1] = 9
    expected = {name: array.copy() for name, array in arrays(value).items()}
    assert adopt(value, saved) > 0
    for name, array in arrays(value).items():
        assert np.array_equal(array, expected[name]), name
    assert save(store, value).differs(value) is False


def test_another_thread_may_write_meanwhile() -> None:
    store, value = Store(), adata(matrix().toarray())
    stop, written = threading.Event(), []

    def write() -> None:
        while not stop.is_set():
            row = len(written) % ROWS
            value.X[row, 0] += 1
            written.append(row)

    thread = threading.Thread(target=write)
    before = value.X[:, 0].sum(dtype="f8")
    thread.start()
    try:
        for _ in range(5):
            adopt(value, save(store, value))
    finally:
        stop.set()
        thread.join()
    assert value.X[:, 0].sum(dtype="f8") - before == pytest.approx(len(written))


def test_a_map_of_the_users_own_stays_theirs() -> None:
    shared = mmap.mmap(-1, 4 * ROWS * GENES)
    x = np.frombuffer(shared, "f4").reshape(ROWS, GENES)
    value = anndata.AnnData(x)
    del x
    adopt(value, save(Store(), value))
    value.X[0, 0] = 5
    assert np.frombuffer(shared, "f4", 1)[0] == 5


def test_descriptors_are_left_for_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    value = adata(matrix())
    monkeypatch.setattr("ovagent_jupyter.execution.handover.adopt._MOST", 2)
    largest = sorted((array.nbytes for array in arrays(value).values()), reverse=True)[:2]
    assert adopt(value, save(Store(), value)) == sum(largest)
    monkeypatch.setattr("resource.getrlimit", lambda _which: (8, 8))
    assert adopt(value, save(Store(), value)) == 0
