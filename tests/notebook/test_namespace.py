"""Binding results, undo and redo with the real store, bytes compared."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st

from ovagent_jupyter.notebook.undo_steps import Moved
from tests.notebook.turns import LARGE, Kernel, cells, content


def test_undo_gives_back_the_very_objects() -> None:
    old = object()
    kernel = Kernel({"adata": old, "other": 1})
    kernel.turn({"adata": object(), "markers": object()})
    assert kernel.names.undo() == (
        Moved(request="request 1", restored=("adata",), removed=("markers",)),
    )
    assert kernel.variables == {"adata": old, "other": 1}
    assert kernel.variables["adata"] is old
    assert kernel.names.undo() == ()


def test_a_name_bound_anew_by_the_user_is_left_alone() -> None:
    kernel = Kernel({"adata": "old"})
    kernel.turn({"adata": "agent's", "df": "agent's"})
    kernel.variables["adata"] = "user's"
    (moved,) = kernel.names.undo()
    assert (moved.removed, moved.kept) == (("df",), ("adata",))
    assert kernel.variables == {"adata": "user's"}
    (moved,) = kernel.names.redo()
    assert (moved.restored, moved.kept) == (("df",), ("adata",))
    assert kernel.variables == {"adata": "user's", "df": "agent's"}


def test_a_name_deleted_by_the_user_stays_deleted() -> None:
    kernel = Kernel()
    kernel.turn({"df": 1})
    del kernel.variables["df"]
    (moved,) = kernel.names.undo()
    assert moved.kept == ("df",)
    assert kernel.variables == {}


def test_a_turn_that_binds_nothing_new_is_no_step() -> None:
    kernel = Kernel({"adata": "old"})
    kernel.turn({"adata": "new"})
    kernel.turn({})
    kernel.turn({"adata": kernel.variables["adata"]})
    assert [step.turn_id for step in kernel.names.back] == ["t1"]


def test_several_steps_go_back_and_forth_to_the_very_objects() -> None:
    objects = [cells(fill) for fill in range(4)]
    kernel = Kernel({"adata": objects[0]})
    for each in objects[1:]:
        kernel.turn({"adata": each})
    assert len(kernel.names.undo(2)) == 2
    assert kernel.variables["adata"] is objects[1]
    assert len(kernel.names.undo(9)) == 1
    assert kernel.variables["adata"] is objects[0]
    assert len(kernel.names.redo(2)) == 2
    assert kernel.variables["adata"] is objects[2]
    assert (len(kernel.names.back), len(kernel.names.forward)) == (2, 1)


def test_a_new_turn_clears_what_could_be_redone() -> None:
    kernel = Kernel({"x": 0})
    kernel.turn({"x": 1})
    kernel.names.undo()
    kernel.turn({"x": 2})
    assert kernel.names.redo() == ()
    kernel.names.undo()
    assert kernel.variables == {"x": 0}


def test_an_object_changed_through_another_name_is_rebuilt_as_it_was() -> None:
    old = cells()
    before = content(old)
    kernel = Kernel({"adata": old})
    kernel.turn({"adata": cells(2)})
    old.X[0, 0] = 99
    old.uns["note"] = "mine"
    (moved,) = kernel.names.undo()
    assert (moved.restored, moved.rebuilt) == (("adata",), ("adata",))
    assert kernel.variables["adata"] is not old
    assert content(kernel.variables["adata"]) == before
    assert old.uns["note"] == "mine"


def test_what_the_user_changed_since_is_told_and_comes_back_with_redo() -> None:
    kernel = Kernel({"adata": cells()})
    new = cells(2)
    kernel.turn({"adata": new})
    new.obs["mine"] = 1
    new.X[5] = 7
    mine = content(new)
    (moved,) = kernel.names.undo()
    assert moved.changed == ("adata",)
    new.X[5] = 8  # by another reference, while it is undone
    (moved,) = kernel.names.redo()
    assert moved.rebuilt == ("adata",)
    assert content(kernel.variables["adata"]) == mine
    (moved,) = kernel.names.undo()
    assert moved.changed == ()


def test_what_the_user_changed_between_turns_is_in_the_step() -> None:
    first = cells()
    kernel = Kernel({"adata": first})
    second = cells(2)
    kernel.turn({"adata": second})
    second.obs["mine"] = 1
    mine = content(second)
    kernel.turn({"adata": cells(3)})
    kernel.names.undo()
    assert kernel.variables["adata"] is second
    assert content(second) == mine
    (moved,) = kernel.names.undo()
    assert moved.changed == ("adata",)
    assert kernel.variables["adata"] is first
    kernel.names.redo()
    assert content(kernel.variables["adata"]) == mine


def test_a_rebuilt_object_takes_the_place_of_the_old_one_in_all_steps() -> None:
    objects = [cells(fill) for fill in range(3)]
    before = [content(each) for each in objects]
    kernel = Kernel({"adata": objects[0]})
    kernel.turn({"adata": objects[1]})
    kernel.turn({"adata": objects[2]})
    for each in objects:
        each.X[:] = -1
    # The last one was changed in place while it was bound: that is what redo brings back.
    (moved,) = kernel.names.undo()
    assert content(kernel.variables["adata"]) == before[1]
    (moved,) = kernel.names.undo()
    assert (moved.kept, moved.rebuilt) == ((), ("adata",))
    assert content(kernel.variables["adata"]) == before[0]
    kernel.names.redo(2)
    assert kernel.variables["adata"] is objects[2]


def test_two_arrays_of_a_rebuilt_object_share_no_memory() -> None:
    old = cells()
    old.layers["counts"] = old.X.copy()
    kernel = Kernel({"adata": old})
    kernel.turn({"adata": cells(2)})
    old.X[0, 0] = 99
    kernel.names.undo()
    rebuilt = kernel.variables["adata"]
    assert isinstance(rebuilt, AnnData)
    rebuilt.X[0, 0] = 5
    assert rebuilt.layers["counts"][0, 0] == 1


def test_a_name_bound_anew_while_the_code_ran_is_one_undo_away() -> None:
    kernel = Kernel({"adata": cells()})
    mine, result = cells(5), cells(2)
    told = kernel.turn({"adata": result}, meanwhile=lambda: kernel.variables.update(adata=mine))
    assert "adata" in told[0]
    assert "%ovagent undo" in told[0]
    assert kernel.variables["adata"] is result
    kernel.names.undo()
    assert kernel.variables["adata"] is mine


def test_an_object_changed_while_the_code_ran_is_undone_to_the_users_version() -> None:
    old = cells()
    kernel = Kernel({"adata": old})

    def change() -> None:
        old.X[0] = 42

    kernel.turn({"adata": cells(2)}, meanwhile=change, changed_meanwhile=("adata",))
    (moved,) = kernel.names.undo()
    assert kernel.variables["adata"] is old
    assert moved.rebuilt == ()
    assert old.X[0, 0] == 42


def test_two_turns_that_began_with_the_same_object_lose_nothing() -> None:
    shared, one, other = cells(), cells(2), cells(3)
    kernel = Kernel({"adata": shared})
    kernel.turn({"adata": one}, meanwhile=lambda: kernel.turn({"adata": other}))
    assert kernel.variables["adata"] is one
    kernel.names.undo()
    assert kernel.variables["adata"] is other
    kernel.names.undo()
    assert kernel.variables["adata"] is shared


def test_a_variable_that_was_not_handed_over_is_kept_as_it_was() -> None:
    frame = pd.DataFrame({"a": np.arange(LARGE, dtype=float)})
    kernel = Kernel()
    kernel.turn({"df": 1}, meanwhile=lambda: kernel.variables.update(df=frame))
    frame.loc[0, "a"] = 9
    kernel.names.undo()
    assert kernel.variables["df"]["a"].tolist() == list(range(LARGE))


EVENTS = st.lists(
    st.sampled_from(["turn", "edit", "rebind", "undo", "redo", "restore"]), min_size=1, max_size=12
)


@settings(max_examples=40, deadline=None)
@given(events=EVENTS)
def test_any_undo_is_taken_back_by_redo_to_the_byte(events: list[str]) -> None:
    kernel = Kernel({"adata": AnnData(np.zeros((4, 3), dtype="float32"))})
    kernel.names.checkpoint("start")
    for number, event in enumerate(events, start=1):
        adata = kernel.variables["adata"]
        assert isinstance(adata, AnnData)
        if event == "turn":
            new = adata.copy()
            new.obs[f"o{number}"] = number
            kernel.turn({"adata": new})
        elif event == "edit":
            adata.X[:] = number
        elif event == "rebind":
            kernel.variables["adata"] = AnnData(np.full((4, 3), number, dtype="float32"))
        elif event == "restore":
            kernel.names.restore("start")
        else:
            before = content(adata)
            move, back = kernel.names.undo, kernel.names.redo
            if event == "redo":
                move, back = back, move
            if move():
                back()
                assert content(kernel.variables["adata"]) == before
                move()


@pytest.mark.parametrize("value", [1, "text", None, (1, 2), {"a": [1]}, np.float64(2.5), min])
def test_any_value_can_be_bound_and_undone(value: object) -> None:
    kernel = Kernel({"x": value})
    kernel.turn({"x": [value]})
    kernel.names.undo()
    assert kernel.variables["x"] is value
