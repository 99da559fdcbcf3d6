"""How a change is told: short, exact, and without what merely followed from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from ovagent_jupyter.execution import handover
from ovagent_jupyter.execution.handover import ObjectDiff, SlotChange
from ovagent_jupyter.execution.handover.baseline import border_of
from ovagent_jupyter.execution.handover.sending import new_names
from tests.execution.handover.border import Border
from tests.execution.handover.test_round_trip import HEAD, small


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("", "unchanged"),
        ("adata.obs['leiden'] = pd.Categorical(list('abc') * 4)", "+obs/leiden (3 levels)"),
        ("adata.obs['one'] = pd.Categorical(['a'] * 12)", "+obs/one (1 level)"),
        ("adata.obs['n'] += 1", "~obs/n"),
        ("del adata.obs['n']", "−obs/n"),
        ("adata.var['gene'] = 1", "+var/gene"),
        ("adata.X = adata.X * 2", "~X"),
        ("adata.X = adata.X.toarray()", "~X csr float32 → dense float32"),
        ("adata.X = adata.X.toarray().astype('f8')", "~X csr float32 → dense float64"),
        ("adata.layers['log'] = adata.X.copy()", "+layers/log (csr float32)"),
        ("adata.obsm['X_umap'] = np.zeros((12, 2))", "+obsm/X_umap (12 × 2)"),
        ("adata.obsm['X_pca'] = np.zeros((12, 5))", "~obsm/X_pca (12 × 5)"),
        ("adata.uns['rank'] = {'a': {'b': 1}, 'c': 2}", "+uns/rank"),
        ("adata.uns['neighbors']['params']['n'] = 3", "~uns/neighbors"),
        ("adata.uns['neighbors']['more'] = {'x': 1}", "~uns/neighbors"),
        ("del adata.uns['neighbors']", "−uns/neighbors"),
        ("adata.raw = None", "−raw"),
        ("adata.raw = adata[:, :3].copy()", "~raw (12 × 3 csr float32)"),
        ("adata = adata[:9].copy()", "−3 cells"),
        ("adata = adata[::-1].copy()", "cells reordered"),
        ("adata.obs_names = [f'x{i}' for i in range(12)]", "cells renamed"),
        ("adata = adata[:, :4].copy()", "−2 genes"),
        ("adata = adata[2:, 1:]", "−2 cells, −1 gene"),
        ("adata.obs = adata.obs[['who', 'n', 'cluster']]", "~obs (columns in another order)"),
        (
            "adata = adata[adata.obs.n > 5].copy(); adata.X = adata.X * 2; adata.uns['q'] = 1",
            "−6 cells, ~X, +uns/q",
        ),
        ("adata = adata.to_df()", "AnnData 12 × 6 → DataFrame 12 × 6"),
        ("adata = 5", "AnnData 12 × 6 → int 5"),
        ("del adata", "deleted by the code; yours is kept"),
    ],
)
def test_annotated_in_one_line(tmp_path: Path, code: str, told: str) -> None:
    changes = Border(tmp_path, {"adata": small()}).run(HEAD + code)
    assert changes.diffs[0].summary() == f"adata: {told}"
    assert changes.left_behind == ()
    removed_or_same = code in ("", "del adata")
    assert ("adata" in changes.objects) != removed_or_same


@pytest.mark.parametrize(
    ("value", "code", "told"),
    [
        (pd.DataFrame({"a": [1, 2]}), "x['b'] = pd.Categorical(['p', 'q'])", "+b (2 levels)"),
        (pd.DataFrame({"a": [1, 2]}), "x = x.iloc[:1]", "−1 row"),
        (pd.DataFrame({"a": [1, 2]}), "x.attrs['s'] = 1", "+attrs"),
        (pd.DataFrame({"a": [1, 2]}, index=["p", "q"]), "x = x.iloc[::-1]", "rows reordered"),
        (np.zeros((2, 3)), "x = x.astype('f4')", "array 2 × 3 float64 → array 2 × 3 float32"),
        (np.zeros((2, 3)), "x[0] = 1", "changed"),
        ({"a": 1, "b": {"c": 2}}, "x['b']['c'] = 3; x['d'] = 4; del x['a']", "~b/c, +d, −a"),
        ([1, 2], "x.append(3)", "list of 2 → list of 3"),
        (5, "x = 6", "int 5 → int 6"),
    ],
)
def test_other_objects_in_one_line(tmp_path: Path, value: Any, code: str, told: str) -> None:
    changes = Border(tmp_path, {"x": value}).run(HEAD + code)
    assert changes.diffs[0].summary() == f"x: {told}"


def test_new_variables_are_described(tmp_path: Path) -> None:
    border = Border(tmp_path, {"adata": small()})
    changes = border.run(
        HEAD + "import math\nmarkers = pd.DataFrame({'g': ['a']})\nscore = 0.5\n"
        "def f(): pass\n_hidden = 1\nclass C: pass\nnames = ['a']\nc = C()",
        discover=True,
    )
    assert set(changes.objects) == {"markers", "score", "names"}
    assert [diff.summary() for diff in changes.diffs[1:]] == [
        "markers: new, DataFrame 1 × 1",
        "score: new, float 0.5",
        "names: new, list of 1",
    ]
    known = border_of(border.namespace).known
    assert new_names(border.namespace, known) == ("markers", "score", "names")


def test_only_what_was_asked_for_comes_back(tmp_path: Path) -> None:
    changes = Border(tmp_path, {}).run("a = 1\nb = 2", outputs=["b"])
    assert changes.objects == {"b": 2}


def test_many_changes_are_counted() -> None:
    slots = tuple(SlotChange(f"obs/c{i}", "added") for i in range(14))
    diff = ObjectDiff("adata", "changed", slots)
    assert diff.summary() == "adata: +14 obs (c0, c1, c2, …)"
    assert len(diff.lines()) == 15


def test_changes_in_one_text(tmp_path: Path) -> None:
    border = Border(tmp_path, {"a": 1, "b": 2, "c": 3})
    changes = border.run("a = 2; del b")
    assert changes.summary() == "a: int 1 → int 2\nb: deleted by the code; yours is kept"


def test_cells_added(tmp_path: Path) -> None:
    code = HEAD + "adata = anndata.concat([adata, adata], index_unique='-')"
    changes = Border(tmp_path, {"adata": small()}).run(code)
    assert changes.diffs[0].slots[0] == SlotChange("obs_names", "changed", "+12 cells")
    new: Any = changes.objects["adata"]
    assert isinstance(new, anndata.AnnData)
    assert new.shape == (24, 6)


def test_the_package_is_light() -> None:
    code = (
        "import sys, ovagent_jupyter.execution.handover as h; h.LeftBehind\n"
        "heavy = {'numpy', 'pandas', 'anndata', 'scipy'} & set(sys.modules); assert not heavy\n"
        "h.Store, h.Saved, h.read_changes, h.Handed; assert 'anndata' not in sys.modules"
    )
    root = str(Path(handover.__file__).parents[3])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": root})
    with pytest.raises(AttributeError):
        getattr(handover, "nothing")  # noqa: B009


@pytest.mark.filterwarnings("ignore")
def test_a_modality_that_came_or_went_is_told_as_one(tmp_path: Path) -> None:
    mudata: Any = pytest.importorskip("mudata")
    own = mudata.MuData({"rna": small(), "protein": small()})
    own["rna"].uns["var_columns"] = own["rna"].uns["obs_columns"] = 1  # names of slots elsewhere
    border = Border(tmp_path, {"mdata": own})
    assert border.run("").diffs[0].kind == "unchanged"
    changes = border.run("mdata.mod['atac'] = mdata['rna'].copy(); del mdata.mod['protein']")
    told = {str(slot) for slot in changes.diffs[0].slots}
    assert {"+mod/atac", "−mod/protein"} <= told
    assert not any(slot.startswith(("+mod/atac/", "−mod/protein/")) for slot in told)
    assert list(changes.objects["mdata"].mod) == ["rna", "atac"]  # type: ignore[attr-defined]
