"""There and back: what the child did to its copy is done to the parent's, and nothing else."""

from __future__ import annotations

import copy
import os
import secrets
import subprocess
import sys
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from scipy import sparse

import ovagent_jupyter
from ovagent_jupyter.execution.handover import Handed, Store, read_changes
from ovagent_jupyter.execution.handover.codec import decode, encode
from ovagent_jupyter.execution.handover.exchange import TOKEN, Exchange
from ovagent_jupyter.execution.handover.export import compose
from tests.execution.handover.border import Border
from tests.execution.handover.identical import assert_identical
from tests.execution.handover.samples import ALL, UNS, annotated


def small() -> anndata.AnnData:
    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(12)]
    obs = pd.DataFrame(
        {"cluster": pd.Categorical(list("abab") * 3), "n": np.arange(12.0), "who": ["x", None] * 6},
        index=names,
    )
    matrix = sparse.random(12, 6, 0.5, "csr", "f4", rng=rng)
    adata = anndata.AnnData(matrix, obs, pd.DataFrame(index=[f"g{i}" for i in range(6)]))
    adata.raw = adata.copy()
    adata.layers["counts"] = matrix.copy()
    adata.obsm["X_pca"] = rng.random((12, 3))
    adata.uns.update(deepcopy(UNS))  # some tests change it in place
    return adata


def there(tmp_path: Path, objects: dict[str, Any]) -> dict[str, Any]:
    return Border(tmp_path, objects).namespace


def test_all_types_arrive_and_are_unchanged(tmp_path: Path) -> None:
    border = Border(tmp_path, {f"v{i}": value for i, value in enumerate(ALL)})
    assert border.left == ()
    for name, value in border.objects.items():
        assert_identical(value, border.namespace[name], name)
    changes = border.run("")
    assert changes.objects == {}
    assert {diff.kind for diff in changes.diffs} == {"unchanged"}
    assert changes.left_behind == ()


def test_all_types_come_back_as_new_variables(tmp_path: Path) -> None:
    border = Border(tmp_path, {})
    border.namespace.update({f"v{i}": value for i, value in enumerate(ALL)})
    changes = border.run("", outputs=[f"v{i}" for i in range(len(ALL))])
    for i, value in enumerate(ALL):
        assert_identical(value, changes.objects[f"v{i}"], f"v{i}")


EXAMPLES = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


@EXAMPLES
@given(annotated())
def test_annotated_arrives_unchanged(
    tmp_path_factory: pytest.TempPathFactory, adata: anndata.AnnData
) -> None:
    border = Border(tmp_path_factory.mktemp("border"), {"adata": adata})
    assert border.left == ()
    assert_identical(adata, border.namespace["adata"])
    changes = border.run("")
    assert changes.objects == {}
    assert changes.diffs[0].kind == "unchanged"


MUTATIONS = {
    "new obs": "adata.obs['new'] = pd.Categorical(['p', 'q'] * n)[:n]",
    "new text": "adata.obs['text'] = ['é'] * n",
    "change obs": "adata.obs['float'] = np.arange(n) * 2.0",
    "drop obs": "adata.obs = adata.obs.iloc[:, :-1] if adata.obs.shape[1] else adata.obs",
    "reorder obs": "adata.obs = adata.obs.iloc[:, ::-1]",
    "int column": "adata.var[9] = np.arange(m)",
    "X": "adata.X = np.ones((n, m), 'f4')",
    "X in place": "if adata.X is not None and not sparse.issparse(adata.X): adata.X[...] = 5",
    "X sparse": "adata.X = sparse.csc_matrix(np.eye(n, m))",
    "X gone": "adata.X = None",
    "layer": "adata.layers['new'] = np.full((n, m), 2)",
    "layers gone": "adata.layers.clear()",
    "obsm": "adata.obsm['X_umap'] = np.zeros((n, 2))",
    "obsm in place": "if 'a' in adata.obsm and isinstance(adata.obsm['a'], np.ndarray): "
    "adata.obsm['a'][...] = 3",
    "obsm gone": "adata.obsm.pop('a', None)",
    "obsp": "adata.obsp['d'] = sparse.csr_matrix((n, n))",
    "uns": "adata.uns['rank'] = {'names': np.rec.fromarrays([np.array(['g'], object)], names='0')}",
    "uns nested": "adata.uns.setdefault('neighbors', {}).setdefault('params', {})['n'] = 99",
    "uns gone": "adata.uns.pop('mixed', None)",
    "uns replaced": "adata.uns['mixed'] = 5",
    "uns empty": "adata.uns = {}",
    "raw": "adata.raw = adata.copy() if adata.X is not None else None",
    "raw gone": "adata.raw = None",
    "filter cells": "adata = adata[::2].copy()",
    "filter genes": "adata = adata[:, : max(m - 1, 0)].copy()",
    "view": "adata = adata[1:]",
    "reverse": "adata = adata[::-1].copy()",
    "names": "adata.obs_names = [f'x{i}' for i in range(n)]",
    "unique": "adata.obs_names_make_unique()",
    "concat": "adata = anndata.AnnData(obs=pd.DataFrame(index=[f'k{i}' for i in range(n + 2)]))",
}
HEAD = """
import anndata, warnings
import numpy as np, pandas as pd
from scipy import sparse
"""


@EXAMPLES
@given(annotated(), st.lists(st.sampled_from(sorted(MUTATIONS)), min_size=1, max_size=4))
def test_changes_equal_the_same_done_here(
    tmp_path_factory: pytest.TempPathFactory, adata: anndata.AnnData, steps: list[str]
) -> None:
    code = HEAD + "".join(f"n, m = adata.shape\n{MUTATIONS[step]}\n" for step in steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before: Any = decode(encode(adata))
        here: dict[str, Any] = {"adata": decode(encode(adata))}
        try:
            exec(code, here)
        except (TypeError, ValueError):
            reject()  # some steps do not follow each other, in anndata
        expected = here["adata"].copy() if here["adata"].is_view else here["adata"]
        changes = Border(tmp_path_factory.mktemp("border"), {"adata": adata}).run(code)
    assert changes.left_behind == ()
    result = changes.objects.get("adata", adata)
    assert_identical(before, adata, "the parent's own")
    assert_identical(expected, result)
    assert (changes.diffs[0].kind == "unchanged") == ("adata" not in changes.objects)
    assert changes.diffs[0].summary()


def test_a_second_process(tmp_path: Path) -> None:
    adata = small()
    code = """
import sys
from ovagent_jupyter.execution.handover.receiving import receive
from ovagent_jupyter.execution.handover.sending import send
end, there, back, count, disk = sys.argv[1:]
receive(globals(), int(end), there, int(count))
adata.obs["leiden"] = adata.obs["cluster"].cat.rename_categories(["0", "1"])
adata.X.data *= 2
adata_mean = adata.X.mean()
send(globals(), ["adata"], ["adata_mean"], int(end), back, disk=disk)
"""
    root = str(Path(ovagent_jupyter.__file__).parents[1])
    store, exchange = Store(), Exchange()
    try:
        saved = store.save({"adata": adata})
        message = compose(saved.values(), {}, tmp_path)
        there, back = secrets.token_bytes(TOKEN), secrets.token_bytes(TOKEN)
        exchange.give(there, message.descriptors)
        count = str(len(message.descriptors))
        arguments = [str(exchange.end), there.hex(), back.hex(), count, str(tmp_path)]
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, *arguments],
            check=True,
            env={**os.environ, "PYTHONPATH": root},
            pass_fds=[exchange.end],
        )
        answer = exchange.fetch(back)
    finally:
        exchange.close()
    changes = read_changes(answer, Handed(saved, message.blobs, {"adata": adata}), store)
    new: Any = changes.objects["adata"]
    assert (new.X != adata.X * 2).nnz == 0
    assert new.obs["leiden"].tolist() == ["0", "1"] * 6
    assert changes.objects["adata_mean"] == pytest.approx(new.X.mean())
    assert changes.diffs[0].summary() == "adata: ~X, +obs/leiden (2 levels)"
    assert list(tmp_path.iterdir()) == []


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    adata = small()
    adata.layers["big"] = np.zeros((12, 6), "f8").repeat(1, axis=0)
    border = Border(tmp_path, {"big": np.zeros(1_000_000), "adata": adata})
    border.namespace["adata"].obs["one"] = 1
    answer = border.answer()
    try:
        assert os.fstat(answer).st_size < 20_000
    finally:
        os.close(answer)


def test_old_and_new_share_nothing(tmp_path: Path) -> None:
    adata = small()
    changes = Border(tmp_path, {"adata": adata}).run("adata.obs['one'] = 1")
    new: Any = changes.objects["adata"]
    for victim, other in ((new, adata), (adata, new)):
        expected = copy.deepcopy(other)
        victim.X.data[:] = -1
        victim.layers["counts"].data[:] = -1
        victim.obsm["X_pca"][:] = -1
        victim.raw.X.data[:] = -1
        victim.obs.loc[victim.obs_names[0], "n"] = -1
        victim.obs["cluster"] = victim.obs["cluster"].cat.rename_categories(["z", "y"])
        victim.uns["neighbors"]["params"]["n"] = -1
        victim.uns["c_colors"][0] = "red"
        victim.uns["refused by h5ad"].append(1)
        victim.uns["table"].loc[0, "q"] = -1
        assert_identical(expected, other)


def test_arrays_in_the_child_are_writable_and_apart(tmp_path: Path) -> None:
    shared = np.zeros(100_000)
    objects = {"a": shared, "b": shared, "adata": small()}
    border = Border(tmp_path, objects)
    changes = border.run("a[0] = 1; adata.X.data[0] = 9")
    assert changes.objects["a"][0] == 1  # type: ignore[index]
    assert "b" not in changes.objects
    assert shared[0] == 0
    assert changes.diffs[2].summary() == "adata: ~X"


def test_asking_twice_gives_the_same_answer(tmp_path: Path) -> None:
    border = Border(tmp_path, {"adata": small()})
    first = border.run("adata.obs['one'] = 1")
    second = border.run("")
    assert first.diffs == second.diffs
    assert_identical(first.objects["adata"], second.objects["adata"])


def test_the_next_turn_starts_from_the_new_object(tmp_path: Path) -> None:
    border = Border(tmp_path, {"adata": small()})
    border.put({"adata": border.run("adata.obs['one'] = 1").objects["adata"]})
    changes = border.run("adata.obs['two'] = 2")
    assert changes.diffs[0].summary() == "adata: +obs/two"


def test_the_next_turn_sends_only_what_is_new(tmp_path: Path) -> None:
    adata = small()
    adata.layers["big"] = np.zeros((12, 60_000))[:, :6].copy()
    adata.uns["big"] = np.arange(1_000_000)
    border = Border(tmp_path, {"adata": adata})
    border.put({"adata": adata})
    assert border.message.new == ()
    new: Any = border.run(f"{HEAD}adata.uns['more'] = np.arange(500_000)").objects["adata"]
    border.put({"adata": new})
    (segment,) = border.message.new
    assert segment.size < 5_000_000
    border.put({"adata": adata})
    assert border.message.new == ()
    border.put({"adata": new})
    assert border.message.new == (segment,), "what was not part of the last one was let go"
    assert_identical(new, border.namespace["adata"])


def test_what_stands_in_the_child_is_not_built_again(tmp_path: Path) -> None:
    objects = {"adata": small(), "numbers": [1, 2], "one": np.arange(100_000)}
    border = Border(tmp_path, objects)
    built = dict(border.namespace)
    border.put(objects)
    assert all(border.namespace[name] is built[name] for name in objects)
    changes = border.run("other = adata; adata = adata.copy(); adata.obs['one'] = 1")
    assert list(changes.objects) == ["adata"]
    border.put(objects)
    assert border.namespace["adata"] is not built["adata"]
    assert_identical(objects["adata"], border.namespace["adata"])
    for code in ("numbers.append(3)", "one[5] = 0", "del numbers", "adata.X.data[0] = 9"):
        exec(code, border.namespace)
        border.put(objects)
        for name, value in objects.items():
            assert_identical(value, border.namespace[name])
    assert border.run("").objects == {}
    border.put({"adata": border.run("adata.obs['one'] = 1").objects["adata"]})
    assert border.namespace["adata"].obs["one"].tolist() == [1] * 12
    border.put(objects)
    assert "one" not in border.namespace["adata"].obs


def test_a_hand_over_that_failed_half_way_is_built_again(tmp_path: Path) -> None:
    border = Border(tmp_path, {"a": 1, "b": 2})

    class Full(dict[str, Any]):
        def __setitem__(self, name: str, value: object) -> None:
            if name == "b":
                raise MemoryError
            super().__setitem__(name, value)

    ours, border.namespace = border.namespace, Full(border.namespace)
    with pytest.raises(MemoryError):
        border.put({"a": 3, "b": 4})
    border.namespace = dict(border.namespace)
    border.put({"a": 3, "b": 4})
    assert (border.namespace["a"], border.namespace["b"]) == (3, 4)
    assert ours["a"] == 1


def test_a_namespace_that_was_reset(tmp_path: Path) -> None:
    border = Border(tmp_path, {"adata": small()})
    kept = border.namespace["adata"]
    border.namespace.clear()
    border.namespace["adata"] = kept
    changes = border.run("")
    assert_identical(border.objects["adata"], changes.objects["adata"])


@pytest.mark.parametrize("kind", ["view", "backed"])
def test_views_and_backed_objects(tmp_path: Path, kind: str) -> None:
    adata = small()
    expected = adata[::2, :4].copy()
    if kind == "view":
        given_object = adata[::2, :4]
    else:
        for name in ("refused by h5ad", "mixed", "delta", "names", "table"):
            expected.uns.pop(name)
        expected.obs["who"] = pd.Categorical(expected.obs["who"])
        expected.write_h5ad(tmp_path / "x.h5ad")
        given_object = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")
    border = Border(tmp_path, {"adata": given_object})
    assert border.left == ()
    assert border.namespace["adata"].shape == (6, 4)
    assert border.run("").objects == {}, "what did not change stays a view, or backed"
    new: Any = border.run("adata.obs['one'] = 1").objects["adata"]
    assert not new.is_view
    assert new.isbacked == (kind == "backed"), "a file that was not changed is not loaded"
    loaded = new.to_memory() if new.isbacked else new
    assert (loaded.X != expected.X).nnz == 0
    assert given_object.is_view == (kind == "view")


def test_mudata(tmp_path: Path) -> None:
    mudata: Any = pytest.importorskip("mudata")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rna, adt = small(), small()[:8, :3].copy()
        adt.var_names = ["p0", "p1", "p2"]
        mdata = mudata.MuData({"rna": rna, "adt": adt})
        mdata.obs["batch"] = pd.Categorical(["x"] * 12)
        mdata.uns["note"] = {"a": 1}
        border = Border(tmp_path, {"mdata": mdata})
        assert border.left == ()
        assert border.run("").objects == {}
        changes = border.run("mdata.mod['rna'].obs['leiden'] = 'a'; mdata.uns['note']['b'] = 2")
    new: Any = changes.objects["mdata"]
    assert type(new) is mudata.MuData
    assert list(new.mod) == ["rna", "adt"]
    assert_identical(mdata.mod["adt"], new.mod["adt"])
    assert new.mod["rna"].obs["leiden"].tolist() == ["a"] * 12
    assert new.uns["note"] == {"a": 1, "b": 2}
    assert new.obs["batch"].dtype == "category"
    assert "mod/rna/obs/leiden" in changes.diffs[0].summary()
