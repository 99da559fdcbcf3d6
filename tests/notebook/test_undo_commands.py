"""``%ovagent undo``, ``redo``, ``checkpoint``, ``restore``, ``diff``: what they say."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from ovagent_jupyter.agent.turn import Turn, TurnStatus
from ovagent_jupyter.errors import ConfigError
from ovagent_jupyter.execution.handover import ObjectDiff, SlotChange, Store
from ovagent_jupyter.notebook.namespace import Namespace
from ovagent_jupyter.notebook.undo_commands import UndoCommands


class Commands(UndoCommands):
    """The commands over variables of their own."""

    def __init__(self, **variables: object) -> None:
        self.variables = variables
        store = Store()
        self.names = Namespace(self.variables, lambda: store, lambda: 1 << 30)
        self.turns: list[Turn] = []
        super().__init__(self.names, lambda: self.turns[-1] if self.turns else None)

    def turn(self, bindings: Mapping[str, object], *diff: ObjectDiff, request: str = "ask") -> None:
        number = str(len(self.turns))
        self.turns.append(
            Turn(
                request=request,
                session_id="s",
                turn_id=number,
                status=TurnStatus.FINISHED,
                answer="what changed",
                bindings=bindings,
                diff=diff,
            )
        )
        self.names.bind(self.turns[-1], dict(self.variables))


def test_undo_and_redo_say_what_they_did() -> None:
    commands = Commands(adata=1)
    assert "nothing to undo" in repr(commands.undo(""))
    assert "nothing to redo" in repr(commands.redo(""))
    commands.turn({"adata": 2}, request="cluster the cells and show them all in one figure")
    commands.turn({"adata": 3, "df": 4}, request="second")
    shown = repr(commands.undo("5"))
    assert "2 steps (there were no more than 2)" in shown
    assert "df (removed)" in shown
    assert "cluster the cells and show them all in …" in shown
    assert "%ovagent redo" in shown
    shown = repr(commands.redo(""))
    assert "Done again: cluster" in shown
    assert commands.variables == {"adata": 2}


def test_what_is_special_about_a_name_is_said() -> None:
    commands = Commands(adata=1, df=[1])
    commands.turn({"adata": [2], "df": [2]})
    commands.variables["adata"] = "mine"
    commands.variables["df"].append(3)  # type: ignore[attr-defined]
    shown = repr(commands.undo(""))
    assert "adata: left alone, as you bound it anew" in shown
    assert "df: you had changed it since, which is kept" in shown


@pytest.mark.parametrize("argument", ["0", "-1", "two", "1.5", "²"])
@pytest.mark.parametrize("command", ["undo", "redo", "diff"])
def test_a_number_that_is_none_is_refused(command: str, argument: str) -> None:
    with pytest.raises(ConfigError, match="is not a number") as caught:
        getattr(Commands(), command)(argument)
    assert command in caught.value.next_step


@pytest.mark.parametrize("name", ["two words", "1st", "a-b", "drop", "a.b"])
def test_a_checkpoint_needs_a_name_that_is_one(name: str) -> None:
    commands = Commands(adata=1)
    with pytest.raises(ConfigError, match="cannot be the name"):
        commands.checkpoint(name)
    assert commands.names.checkpoints == {}


def test_checkpoints_are_made_listed_restored_and_dropped() -> None:
    commands = Commands(df=pd.DataFrame({"a": [1, 2]}), text="no data")
    assert "no checkpoint yet" in repr(commands.checkpoint(""))
    assert "Checkpoint raw: df" in repr(commands.checkpoint("raw"))
    assert "in place of the former one" in repr(commands.checkpoint("raw"))
    assert "raw" in repr(commands.checkpoint(""))
    assert "is as in checkpoint raw" in repr(commands.restore("raw"))
    commands.variables["df"]["a"] = 0  # type: ignore[index]
    shown = repr(commands.restore("raw"))
    assert "Restored from raw: df" in shown
    assert "%ovagent undo" in shown
    assert "Dropped: raw" in repr(commands.checkpoint("drop raw"))
    assert commands.names.checkpoints == {}


def test_a_checkpoint_that_is_not_there_names_the_nearest() -> None:
    commands = Commands(df=pd.DataFrame())
    for argument in ("", "before_qc"):
        with pytest.raises(ConfigError, match="checkpoint NAME"):
            commands.restore(argument)
    commands.checkpoint("before_qc")
    with pytest.raises(ConfigError, match="Did you mean before_qc"):
        commands.restore("befor_qc")
    with pytest.raises(ConfigError, match="There are: before_qc"):
        commands.restore("zzz")
    with pytest.raises(ConfigError, match="Did you mean before_qc"):
        commands.checkpoint("drop before_q")


def test_status_counts_steps_checkpoints_and_memory() -> None:
    commands = Commands(adata=AnnData(np.ones((1000, 600), dtype="float32")))
    assert commands.state() == "0 steps back, 0 forward, 0 checkpoints, 0 of 1G"
    commands.turn({"adata": AnnData(np.zeros((1000, 600), dtype="float32"))})
    commands.turn({"adata": 1})
    commands.undo("")
    commands.checkpoint("a")
    state = commands.state()
    assert state.startswith("1 step back, 1 forward, 1 checkpoint, ")
    assert state.endswith("M of 1G")


def processed(before: AnnData) -> AnnData:
    after = AnnData(sparse.csr_matrix(np.log1p(before.X[:, :50])), obs=before.obs.copy())
    after.obs["leiden"] = pd.Categorical(["0", "1"] * 50)
    after.obsm["X_pca"] = np.zeros((100, 5), dtype="float32")
    after.uns["pca"] = {"zero_center": True}
    after.raw = before
    return after


def test_diff_shows_each_slot_before_and_after() -> None:
    rng = np.random.default_rng(0)
    before = AnnData(rng.poisson(2.0, (100, 80)).astype("float32"))
    before.obs["old"] = 1
    after = processed(before)
    changes = (
        SlotChange("var_names", "changed", "−30 genes"),
        SlotChange("X", "changed"),
        SlotChange("obs/leiden", "added", "2 levels"),
        SlotChange("obsm/X_pca", "added"),
        SlotChange("uns/pca", "added"),
        SlotChange("raw", "added"),
        SlotChange("layers/raw", "removed"),
    )
    commands = Commands(adata=before)
    commands.turn({"adata": after}, ObjectDiff("adata", "changed", changes))
    after.obs["leiden"] = "changed since"
    shown = commands.diff("")
    rows = {row[1]: row[2:] for row in shown.rows}
    assert rows["var_names"] == ("changed", "80", "50")
    assert rows["X"][1].startswith("dense float32, 100 × 80, counts")
    assert rows["X"][2].startswith("csr float32, 100 × 50, ")
    assert rows["obs/leiden"] == ("new", "", "category, 2 levels: 0, 1")
    assert rows["uns/pca"] == ("new", "", "dictionary")
    assert rows["raw"][2] == "dense float32, 100 × 80, counts"
    assert rows["obsm/X_pca"] == ("new", "", "array 100 × 5 float32")
    assert "dense float32" in repr(shown)


def test_diff_of_an_earlier_step_and_of_a_restored_checkpoint() -> None:
    commands = Commands(df=pd.DataFrame({"a": [1, 2]}))
    commands.checkpoint("raw")
    change = ObjectDiff("df", "changed", (SlotChange("b", "added"),))
    commands.turn({"df": pd.DataFrame({"a": [1, 2], "b": [0.5, 1]})}, change, request="add b")
    commands.restore("raw")
    assert commands.diff("").title.startswith("add b")
    assert commands.diff("2").rows == (("df", "b", "new", "", "float64"),)
    restored = commands.diff("1")
    assert restored.title.startswith("restore raw")
    assert ("df", "b", "gone", "float64", "") in restored.rows
    commands.variables["df"].loc[0, "a"] = 5  # type: ignore[attr-defined]
    commands.restore("raw")
    assert commands.diff("1").rows == (("df", "a", "changed", "int64", "int64"),)
    with pytest.raises(ConfigError, match="only 3 steps"):
        commands.diff("4")


def test_diff_of_a_turn_that_changed_nothing() -> None:
    commands = Commands(x=1)
    assert "No turn yet" in repr(commands.diff(""))
    commands.turn({"x": 2})
    commands.turn({})
    assert "changed nothing" in repr(commands.diff(""))
    commands.undo("")
    assert commands.diff("").title == "The last turn changed nothing"
