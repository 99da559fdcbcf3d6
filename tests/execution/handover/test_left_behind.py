"""What cannot cross is named, kept where it is, and stops nothing else."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anndata
import pandas as pd

from tests.execution.handover.border import Border
from tests.execution.handover.test_round_trip import small

LOCK = threading.Lock()


class Model:
    """Something that a user may keep in uns: a class that both sides can import."""

    def __init__(self, weight: float) -> None:
        self.weight = weight


def holding() -> anndata.AnnData:
    adata = small()
    adata.uns["lock"] = LOCK
    adata.uns["nested"] = {"fine": 1, "lambda": lambda: 1, "deeper": {"lock": LOCK}}
    adata.uns["ring"] = ring = {"a": 1}
    ring["self"] = ring  # type: ignore[assignment]
    adata.obs.insert(1, "locks", pd.Series([LOCK] * 12, dtype=object, index=adata.obs_names))
    return adata


def test_it_is_named_and_the_rest_goes(tmp_path: Path) -> None:
    border = Border(tmp_path, {"adata": holding(), "lock": LOCK, "n": 5})
    assert [notice.path for notice in border.left] == [
        "adata.obs['locks']",
        "adata.uns['lock']",
        "adata.uns['nested']['lambda']",
        "adata.uns['nested']['deeper']['lock']",
        "adata.uns['ring']['self']",
        "lock",
    ]
    assert all(notice.reason for notice in border.left)
    assert border.names == ("adata", "n")
    arrived = border.namespace["adata"]
    assert arrived.uns["nested"] == {"fine": 1, "deeper": {}}
    assert list(arrived.obs) == ["cluster", "n", "who"]


def test_it_is_still_there_after_the_round_trip(tmp_path: Path) -> None:
    adata = holding()
    border = Border(tmp_path, {"adata": adata})
    assert border.run("").diffs[0].kind == "unchanged"
    changes = border.run("adata.obs['one'] = 1; adata.uns['nested']['new'] = 2")
    assert changes.diffs[0].summary() == "adata: +obs/one, ~uns/nested"
    assert changes.left_behind == ()
    new: Any = changes.objects["adata"]
    assert new.uns["lock"] is LOCK
    assert list(new.uns["nested"]) == ["fine", "lambda", "deeper", "new"]
    assert new.uns["nested"]["deeper"]["lock"] is LOCK
    assert new.uns["ring"]["self"]["a"] == 1
    assert list(new.obs) == ["cluster", "locks", "n", "who", "one"]
    assert new.obs["locks"].iloc[0] is LOCK
    assert list(adata.obs) == ["cluster", "locks", "n", "who"]


def test_a_column_that_stayed_follows_the_cells(tmp_path: Path) -> None:
    adata = holding()
    adata.obs["who"] = pd.Series([*"abcdefghijk", LOCK], dtype=object, index=adata.obs_names)
    new: Any = Border(tmp_path, {"adata": adata}).run("adata = adata[::-2].copy()").objects["adata"]
    assert new.obs["who"].tolist()[0] is LOCK
    assert new.obs["who"].tolist()[1:] == ["j", "h", "f", "d", "b"]


def test_one_that_cannot_follow_is_told(tmp_path: Path) -> None:
    border = Border(tmp_path, {"adata": holding()})
    changes = border.run("adata = adata[:3].copy(); adata.obs_names = ['x', 'y', 'z']")
    assert [notice.path for notice in changes.left_behind] == ["adata.obs['locks']"]
    assert list(changes.objects["adata"].obs) == ["cluster", "n", "who"]  # type: ignore[attr-defined]


def test_a_pickled_object_goes_there_and_stays_there(tmp_path: Path) -> None:
    adata = small()
    adata.uns["model"] = Model(1.0)
    adata.obs["models"] = [Model(i) for i in range(12)]
    border = Border(tmp_path, {"adata": adata, "model": Model(2.0)})
    assert border.left == ()
    assert border.namespace["adata"].uns["model"].weight == 1.0
    assert {diff.kind for diff in border.run("").diffs} == {"unchanged"}
    changes = border.run("adata.uns['model'].weight = 5; adata.uns['b'] = 1; model.weight = 0")
    assert [notice.path for notice in changes.left_behind] == ["adata.uns['model']", "model"]
    new: Any = changes.objects["adata"]
    assert new.uns["model"].weight == 1.0, "the parent's own is kept"
    assert [model.weight for model in new.obs["models"]] == list(range(12))
    assert set(changes.objects) == {"adata"}
    assert changes.diffs[0].summary() == "adata: +uns/b"


def never() -> None:
    raise RuntimeError("not on this side")


class OneWay:
    """Something that can be pickled and not unpickled."""

    def __reduce__(self) -> Any:
        return never, ()


def test_what_cannot_be_unpickled_is_still_the_users(tmp_path: Path) -> None:
    adata = small()
    adata.uns["one way"] = OneWay()
    border = Border(tmp_path, {"adata": adata})
    assert "one way" not in border.namespace["adata"].uns
    changes = border.run("adata.uns['b'] = 1")
    assert [notice.path for notice in changes.left_behind] == ["adata.uns['one way']"]
    new: Any = changes.objects["adata"]
    assert new.uns["one way"] is adata.uns["one way"]
    assert new.uns["b"] == 1


def test_what_the_child_cannot_send_stays_there(tmp_path: Path) -> None:
    border = Border(tmp_path, {"adata": small(), "n": 5})
    changes = border.run(
        "adata.uns['f'] = lambda: 1\n"
        "adata.uns['c_colors'] = object()\n"
        "adata.obs['odd'] = [object() for _ in range(adata.n_obs)]\n"
        "adata.obs['fine'] = 1\n"
        "n = (i for i in ())\n"
        "gen = (i for i in ())",
        outputs=["gen", "missing"],
    )
    assert [notice.path for notice in changes.left_behind] == [
        "adata.obs['odd']",
        "adata.uns['c_colors']",
        "adata.uns['f']",
        "n",
        "gen",
        "missing",
    ]
    new: Any = changes.objects["adata"]
    assert list(new.obs) == ["cluster", "n", "who", "fine"]
    assert list(new.uns["c_colors"]) == ["#1f77b4", "#ff7f0e"]
    assert set(changes.objects) == {"adata"}


def test_a_class_of_the_notebook_is_left_with_its_reason(tmp_path: Path) -> None:
    made: dict[str, Any] = {"__name__": "__main__"}
    exec("class Mine: pass\nmine = Mine()\ndef f(): pass", made)
    border = Border(tmp_path, {"mine": made["mine"], "f": made["f"], "Mine": made["Mine"]})
    assert border.names == ()
    assert {notice.reason for notice in border.left} == {
        "it is defined in the notebook, which the child cannot import"
    }


def test_an_object_that_breaks_when_looked_at(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            raise RuntimeError("no")

    adata = small()
    adata.uns["hostile"] = Hostile()
    border = Border(tmp_path, {"adata": adata, "hostile": Hostile()})
    assert [notice.path for notice in border.left] == ["adata.uns['hostile']", "hostile"]


def test_duplicate_labels_with_one_that_cannot_travel(tmp_path: Path) -> None:
    frame = pd.DataFrame([[1, LOCK, 2.0]], columns=["a", "a", "b"])
    border = Border(tmp_path, {"frame": frame})
    assert list(border.namespace["frame"]) == ["b"]
    assert len(border.left) == 2
    new: Any = border.run("frame['c'] = 3").objects["frame"]
    assert list(new) == ["a", "a", "b", "c"]
    assert new.iloc[0, 1] is LOCK


def test_a_left_column_keeps_its_place_when_labels_are_numbers(tmp_path: Path) -> None:
    frame = pd.DataFrame({1: [1], 2: [2], 3: [3]})
    frame[2] = pd.Series([LOCK], dtype=object)
    new: Any = Border(tmp_path, {"frame": frame}).run("frame[4] = 4").objects["frame"]
    assert new.columns.tolist() == [1, 2, 3, 4]
    assert new.columns.dtype == frame.columns.dtype
    assert new[2].iloc[0] is LOCK


def test_rows_that_are_only_numbered_are_not_told_apart(tmp_path: Path) -> None:
    locks = [threading.Lock() for _ in range(3)]
    frame = pd.DataFrame({"a": [1, 2, 3], "lock": pd.Series(locks, dtype=object)})
    border = Border(tmp_path, {"frame": frame})
    changes = border.run("frame = frame[frame.a > 1].reset_index(drop=True)")
    assert list(changes.objects["frame"]) == ["a"]  # type: ignore[call-overload]
    assert [notice.path for notice in changes.left_behind] == ["frame['lock']"]
    named = Border(tmp_path, {"frame": frame.set_index(pd.Index(list("xyz")))})
    kept: Any = named.run("frame = frame[frame.a > 1]").objects["frame"]
    assert kept["lock"].tolist() == locks[1:]
