"""What is saved: exact bytes, written once, known again without being read."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover.saved import Saved
from ovagent_jupyter.execution.handover.store import Store
from tests.execution.handover.identical import assert_identical
from tests.execution.handover.samples import ALL

ROWS = 40_000


def adata() -> Any:
    rng = np.random.default_rng(0)
    matrix = sparse.random(ROWS, 50, 0.05, format="csr", dtype="float32", random_state=rng)
    return anndata.AnnData(
        matrix,
        obs=pd.DataFrame(
            {
                "n": rng.normal(size=ROWS),
                "cluster": pd.Categorical(rng.choice(["a", "b"], ROWS)),
                "note": [f"text {i}" for i in range(ROWS)],
            },
            index=[f"cell{i}" for i in range(ROWS)],
        ),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(50)]),
        obsm={"X_pca": rng.normal(size=(ROWS, 20))},
        layers={"counts": matrix.copy()},
        uns={"log1p": {"base": None}, "colors": ["red"], "odd": {"deep": {"er": np.arange(5)}}},
    )


def save(store: Store, value: object) -> Saved:
    return store.save({"it": value})["it"]


def written(store: Store) -> int:
    gc.collect()
    return store.size.memory + store.size.disk


@pytest.mark.parametrize("value", ALL, ids=lambda value: type(value).__name__)
def test_what_is_restored_is_the_same(value: object) -> None:
    saved = save(Store(), value)
    assert not saved.left_behind
    assert_identical(saved.restore(), value)
    assert not saved.differs(value)


def test_an_anndata_is_restored_and_told_from_a_changed_one() -> None:
    store, mine = Store(), adata()
    saved = save(store, mine)
    assert_identical(saved.restore(), mine)
    assert not saved.differs(mine)
    mine.obsm["X_pca"][5, 5] += 1
    assert saved.differs(mine)
    mine.obsm["X_pca"][5, 5] = saved.restore().obsm["X_pca"][5, 5]  # type: ignore[attr-defined]
    assert not saved.differs(mine)
    mine.uns["new"] = 1
    assert saved.differs(mine)


def test_the_saved_one_does_not_follow_later_changes() -> None:
    mine = np.arange(1_000_000)
    saved = save(Store(), mine)
    mine[:] = 0
    assert_identical(saved.restore(), np.arange(1_000_000))


def test_equal_bytes_are_written_once() -> None:
    store, mine = Store(), adata()
    first = save(store, mine)
    size = written(store)
    assert size < mine.X.data.nbytes * 2 + mine.obsm["X_pca"].nbytes + 8_000_000
    again = save(store, mine.copy())
    assert written(store) == size
    assert set(first.blobs) == set(again.blobs)


def test_only_what_is_new_is_written() -> None:
    store, mine = Store(), adata()
    first = save(store, mine)
    size = written(store)
    mine.obsm["X_umap"] = np.random.default_rng(1).normal(size=(ROWS, 2))
    second = save(store, mine)
    assert written(store) - size < 1_000_000
    assert set(first.blobs) < set(second.blobs)


def test_no_two_arrays_share_memory_that_can_be_written() -> None:
    store = Store()
    one = np.arange(100_000)
    saved = save(store, {"a": one, "b": one.copy(), "c": {"d": one}})
    restored: Any = saved.restore()
    restored["a"][0] = 5
    assert restored["b"][0] == restored["c"]["d"][0] == 0
    assert_identical(saved.restore(), {"a": one, "b": one, "c": {"d": one}})


def test_an_array_on_a_clean_map_is_known_by_where_it_lies() -> None:
    store = Store()
    saved = save(store, np.arange(1_000_000))
    restored: Any = saved.restore()
    (blob,) = saved.blobs
    assert store.maps.untouched(restored.view(np.uint8)) == (blob.segment, blob.offset)
    assert list(save(store, restored).blobs) == [blob]
    restored[7] = 0
    assert store.maps.untouched(restored.view(np.uint8)) is None
    assert saved.differs(restored)
    changed = save(store, restored)
    assert list(changed.blobs) != [blob]
    assert_identical(changed.restore(), restored)


def test_a_part_of_a_clean_map_is_known_too() -> None:
    store = Store()
    saved = save(store, np.arange(1_000_000))
    restored: Any = saved.restore()
    size = written(store)
    part = save(store, restored[1000:500_000])
    assert written(store) == size
    assert_identical(part.restore(), np.arange(1000, 500_000))


def test_what_nobody_holds_is_freed() -> None:
    store = Store()
    saved = save(store, np.arange(1_000_000))
    restored: Any = saved.restore()
    del saved
    assert written(store) > 8_000_000
    del restored
    assert written(store) == 0
    assert not store.maps._placed


def test_a_large_part_goes_without_the_small_ones() -> None:
    store = Store()
    kept = save(store, {"a": np.arange(20_000)})
    both = save(store, {"a": np.arange(20_000), "big": np.arange(12_000_000)})
    assert written(store) > 96_000_000
    del both
    assert written(store) < 1_000_000
    assert_identical(kept.restore(), {"a": np.arange(20_000)})


def test_what_has_no_form_is_held_by_reference() -> None:
    lock = threading.Lock()
    mine = {"lock": lock, "x": 1}
    saved = save(Store(), mine)
    assert [notice.path for notice in saved.left_behind] == ["it['lock']"]
    assert saved.restore() == mine
    assert list(saved.restore()) == ["lock", "x"]  # type: ignore[call-overload]
    assert not saved.differs(mine)
    assert saved.differs({"lock": threading.Lock(), "x": 1})
    whole = save(Store(), lock)
    assert whole.restore() is lock
    assert not whole.differs(lock)


def test_a_table_keeps_the_columns_that_have_no_form() -> None:
    frame = pd.DataFrame({"a": [1, 2], "odd": [threading.Lock(), 2], "b": [3, 4]})
    saved = save(Store(), frame)
    restored: Any = saved.restore()
    assert list(restored.columns) == ["a", "odd", "b"]
    assert restored["odd"][0] is frame["odd"][0]
    assert not saved.differs(frame)


def test_a_value_without_typed_form_comes_back_by_its_pickle() -> None:
    value = {"when": np.random.default_rng(3), "n": 1}
    saved = save(Store(), value)
    assert [slot.pickled for slot in saved.slots.values()] == [False, True, False]
    state = value["when"].bit_generator.state  # type: ignore[attr-defined]
    value["when"].random()  # type: ignore[attr-defined]
    restored: Any = saved.restore()
    assert restored["when"].bit_generator.state == state
    assert saved.differs(value)


NAMES = [f"cell {i}" for i in range(1000)]
TEXTS: list[Any] = [
    pd.Index(NAMES),
    pd.Index(NAMES, name="barcode"),
    pd.Index([*NAMES, None, np.nan, pd.NA], dtype=object),
    np.array([*NAMES, None], object),
    np.array(NAMES * 2, object)[::2],
    pd.Series(NAMES, dtype="string[pyarrow]").array,
    pd.Index(pd.Series(NAMES, dtype="string[pyarrow]").array, name=3),
]


@pytest.mark.parametrize("texts", TEXTS, ids=lambda value: type(value).__name__)
def test_texts_are_known_by_the_objects_that_they_are(texts: Any) -> None:
    store = Store()
    first, again = save(store, texts), save(store, texts)
    assert first.slots[()].texts is not None
    assert again.slots[()] is first.slots[()]
    restored: Any = first.restore()
    assert_identical(restored, texts)
    assert save(store, restored).slots[()] is first.slots[()]
    assert_identical(Store().save({"it": texts})["it"].restore(), texts)


def test_texts_that_changed_are_seen() -> None:
    store = Store()
    column = np.array(NAMES, object)
    first = save(store, column)
    column[5] = "other"
    assert first.differs(column)
    assert save(store, column).slots[()] is not first.slots[()]
    assert first.restore()[5] == "cell 5"  # type: ignore[index]
    column[5] = "".join(["cell", " 5"])
    assert not first.differs(column), "another object of the same text"
    restored: Any = first.restore()
    restored[5] = "mine"
    assert first.restore()[5] == "cell 5"  # type: ignore[index]


def test_an_index_that_was_renamed_is_seen() -> None:
    store, index = Store(), pd.Index(NAMES)
    first = save(store, index)
    restored: Any = first.restore()
    index.name = "barcode"
    assert first.differs(index)
    assert save(store, index).restore().name == "barcode"  # type: ignore[attr-defined]
    assert restored.name is None
    restored.name = "x"
    assert first.restore().name is None  # type: ignore[attr-defined]


def test_a_column_of_things_that_can_change_is_read() -> None:
    column = np.array([*NAMES, {"a": 1}], object)
    saved = save(Store(), column)
    assert saved.slots[()].texts is None
    column[-1]["a"] = 2
    assert saved.differs(column)
    assert saved.restore()[-1] == {"a": 1}  # type: ignore[index]


def test_threads_that_save_at_a_time_write_the_same_bytes_once() -> None:
    store = Store()
    values = [np.random.default_rng(n % 3).random(200_000) for n in range(12)]
    with ThreadPoolExecutor(4) as pool:
        saved = list(pool.map(partial(save, store), values))
    assert len({blob for each in saved for blob in each.blobs}) == 3
    for each, value in zip(saved, values, strict=True):
        assert_identical(each.restore(), value)


def test_what_came_from_elsewhere_is_known_by_its_content_too() -> None:
    theirs, mine = Store(), Store()
    (blob,) = save(theirs, np.arange(1_000_000)).blobs
    mine.take_in(blob.segment)
    array = mine.maps.fresh(blob.segment, blob.offset, blob.size).view(np.int64)
    first = save(mine, array)
    assert list(save(mine, array.copy()).blobs) == list(first.blobs)
    assert mine.written == 0
    assert mine.size.memory == blob.segment.size


def test_without_room_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ovagent_jupyter.execution.handover import sealed

    monkeypatch.setattr(sealed, "available", lambda: 0)
    on_disk = Store(tmp_path)
    saved = save(on_disk, np.arange(100_000))
    assert on_disk.size.memory == 0
    assert on_disk.size.disk > 800_000
    assert list(tmp_path.iterdir()) == []
    assert_identical(saved.restore(), np.arange(100_000))
    with pytest.raises(HandoverError, match="cannot be handed"):
        save(Store(tmp_path / "missing"), np.arange(100_000))
