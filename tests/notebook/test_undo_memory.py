"""Checkpoints, and how much undo may hold: what goes first, and that it is freed."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pandas as pd

from ovagent_jupyter.notebook.undo_memory import MOST_STEPS
from tests.notebook.turns import LARGE, Kernel, cells, content


def test_a_checkpoint_brings_the_data_back_and_that_can_be_undone() -> None:
    old = cells()
    before = content(old)
    kernel = Kernel({"adata": old, "n": 3, "_hidden": cells()})
    made, told = kernel.names.checkpoint("start")
    assert (tuple(made.held), told) == (("adata",), ())
    old.X[:] = 0
    kernel.turn({"adata": cells(2), "df": pd.DataFrame({"a": [1]})})
    last = kernel.variables["adata"]
    moved, _ = kernel.names.restore("start")
    assert moved.restored == ("adata",)
    assert content(kernel.variables["adata"]) == before
    assert "df" in kernel.variables
    assert kernel.variables["n"] == 3
    kernel.names.undo()
    assert kernel.variables["adata"] is last
    kernel.names.redo()
    assert content(kernel.variables["adata"]) == before


def test_a_checkpoint_can_be_restored_again_and_again() -> None:
    kernel = Kernel({"adata": cells()})
    before = content(kernel.variables["adata"])
    kernel.names.checkpoint("a")
    assert kernel.names.restore("a")[0].restored == ()
    for _ in range(3):
        kernel.variables["adata"].X[:] += 1
        kernel.names.restore("a")
        assert content(kernel.variables["adata"]) == before
    for times in range(3, 0, -1):
        kernel.names.undo()
        assert kernel.variables["adata"].X[0, 0] == 2, times


def test_a_deleted_variable_comes_back_from_a_checkpoint() -> None:
    kernel = Kernel({"df": pd.DataFrame({"a": [1, 2]})})
    kernel.names.checkpoint("a")
    del kernel.variables["df"]
    kernel.names.restore("a")
    assert kernel.variables["df"]["a"].tolist() == [1, 2]
    kernel.names.undo()
    assert "df" not in kernel.variables


def test_equal_content_is_kept_once() -> None:
    old = cells()
    kernel = Kernel({"adata": old})
    kernel.names.checkpoint("a")
    size = kernel.store.size.memory
    kernel.names.checkpoint("b")
    changed = old.copy()
    changed.obs["more"] = 1
    kernel.turn({"adata": changed})
    assert kernel.store.size.memory - size < old.X.nbytes / 10


def test_the_oldest_steps_go_first_and_the_last_one_stays() -> None:
    kernel = Kernel({"adata": cells()}, limit=4 * LARGE * 4 + (1 << 20))
    told = [kernel.turn({"adata": cells(fill)}) for fill in range(2, 10)]
    assert told[0] == ()
    assert "dropped" in told[-1][0]
    assert 1 <= len(kernel.names.back) < 8
    assert kernel.names.memory.size(kernel.variables) <= kernel.limit
    kernel.limit = 1
    kernel.turn({"adata": cells(11)})
    assert len(kernel.names.back) == 1
    kernel.names.undo()
    assert kernel.variables["adata"].X[0, 0] == 9


def test_a_checkpoint_goes_last_and_only_after_a_notice() -> None:
    kernel = Kernel({"adata": cells()})
    for name in ("first", "second"):
        kernel.names.checkpoint(name)
        kernel.variables["adata"] = cells(ord(name[0]))
    kernel.limit = 1 << 20
    told = kernel.turn({"adata": cells(3)})
    assert "first goes next" in told[-1]
    assert tuple(kernel.names.checkpoints) == ("first", "second")
    told = kernel.turn({"adata": cells(4)})
    assert "first was dropped" in told[-2]
    assert "second goes next" in told[-1]
    assert tuple(kernel.names.checkpoints) == ("second",)


def test_old_objects_are_left_to_others_and_come_back_to_the_byte() -> None:
    kernel = Kernel({"adata": cells(0)})
    prints, mine, others = [], [], []
    for fill in range(1, 13):
        old = kernel.variables["adata"]
        prints.append(content(old))
        (mine if fill % 2 else others).append(old if fill % 2 else weakref.ref(old))  # type: ignore[attr-defined]
        del old
        kernel.turn({"adata": cells(fill)})
    gc.collect()
    assert [ref() is None for ref in others] == [True] * 3 + [False] * 3
    for number in reversed(range(12)):
        (moved,) = kernel.names.undo()
        assert (moved.restored, moved.rebuilt) == (("adata",), ())
        assert content(kernel.variables["adata"]) == prints[number]
        if number % 2 == 0:
            assert kernel.variables["adata"] is mine[number // 2]
    kernel.names.redo(12)
    assert kernel.variables["adata"].X[0, 0] == 12


def test_a_checkpoint_holds_no_object_that_can_be_rebuilt() -> None:
    kernel = Kernel({"adata": cells(), "view": cells()[:5]})
    before = content(kernel.variables["adata"])
    kernel.names.checkpoint("a")
    gone, view = weakref.ref(kernel.variables["adata"]), kernel.variables["view"]
    del kernel.variables["adata"]
    kernel.variables["view"] = 1
    gc.collect()
    assert gone() is None
    kernel.names.restore("a")
    assert content(kernel.variables["adata"]) == before
    assert kernel.variables["view"] is view


def test_a_hundred_turns_leave_as_much_as_sixty() -> None:
    kernel = Kernel({"adata": cells()})
    left = []
    for number in range(1, 101):
        made = kernel.store.save(kernel.variables)["adata"].restore()
        made.X[0, 0] = number
        made.obsm["X_pca"] = np.full((LARGE // 100, 30), number, dtype="float32")
        told = kernel.turn({"adata": made})
        if number in (60, 100):
            gc.collect()
            descriptors = len(list(Path("/dev/fd").iterdir()))
            left.append((descriptors, len(kernel.names.back), kernel.store.size.memory))
    assert left[0] == left[1]
    assert left[0][1] == MOST_STEPS
    assert "oldest step was dropped" in told[0]
    assert kernel.names.undo(MOST_STEPS)[-1].request == "request 51"
    assert kernel.variables["adata"].X[0, 0] == 50


def test_what_is_dropped_is_freed() -> None:
    kernel = Kernel({"adata": cells()})
    for fill in range(2, 6):
        kernel.turn({"adata": cells(fill)})
    held = kernel.store.size.memory
    kernel.limit = 1
    kernel.turn({"adata": cells(7)})
    assert kernel.store.size.memory < held
