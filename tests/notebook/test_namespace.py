"""Binding results and putting the old variables back."""

from __future__ import annotations

from ovagent_jupyter.notebook.namespace import Namespace, Undone


def test_undo_gives_back_the_very_objects() -> None:
    old = object()
    variables: dict[str, object] = {"adata": old, "other": 1}
    names = Namespace(variables)
    names.bind("t1", {"adata": object(), "markers": object()})
    assert names.can_undo == "t1"
    assert names.undo() == Undone(restored=("adata",), removed=("markers",))
    assert variables == {"adata": old, "other": 1}
    assert variables["adata"] is old
    assert names.can_undo == ""
    assert names.undo() == Undone()


def test_a_name_bound_anew_by_the_user_is_left_alone() -> None:
    variables: dict[str, object] = {"adata": "old"}
    names = Namespace(variables)
    names.bind("t1", {"adata": "agent's", "df": "agent's"})
    variables["adata"] = "user's"
    assert names.undo() == Undone(removed=("df",), kept=("adata",))
    assert variables == {"adata": "user's"}


def test_a_name_deleted_by_the_user_stays_deleted() -> None:
    variables: dict[str, object] = {}
    names = Namespace(variables)
    names.bind("t1", {"df": 1})
    del variables["df"]
    assert names.undo() == Undone(kept=("df",))
    assert variables == {}


def test_a_turn_that_binds_nothing_keeps_the_undo_of_the_one_before() -> None:
    variables: dict[str, object] = {"adata": "old"}
    names = Namespace(variables)
    names.bind("t1", {"adata": "new"})
    names.bind("t2", {})
    assert names.can_undo == "t1"
