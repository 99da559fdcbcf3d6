"""Each step of the registry, run on real cells that hold just what it declares to read."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ovagent_jupyter.omics.checks import missing_after
from ovagent_jupyter.omics.rendering import PRELUDE
from ovagent_jupyter.omics.slots import slots
from ovagent_jupyter.omics.step import STEPS, Step, XKind
from ovagent_jupyter.omics.xstate import detect
from tests.omics import cells

GENES = ["CD3D", "CD79A", "LYZ", "NKG7"]
GROUPS = {"T": ["CD3D", "CD3E"], "Monocyte": ["LYZ", "S100A8"], "B": ["CD79A", "MS4A1"]}

VARIANTS: dict[str, tuple[Mapping[str, object], ...]] = {
    "annotate_signatures": ({}, {"signatures": GROUPS, "key_added": "kind"}),
    "combat": ({"batch_key": "batch"},),
    "composition": ({"sample": "batch"},),
    "concat": ({"adatas": ["one", "two"]}, {"adatas": {"x": "one", "y": "two"}, "join": "outer"}),
    "de_two_groups": ({"group": "0", "reference": "1"}, {"group": "0"}),
    "doublets": ({}, {"batch_key": "batch"}),
    "dpt": ({"root_cell": 0}, {"root_cluster": "1"}, {"root_gene": ["LYZ"]}),
    "embedding_density": ({}, {"groupby": "batch"}),
    "filter_cells": ({"min_genes": 110}, {"min_counts": 100, "max_counts": 900}),
    "harmony": ({"batch_key": "batch"},),
    "hvg": ({"n_top_genes": 300}, {"flavor": "cell_ranger", "batch_key": "batch"}),
    "label_transfer": ({"ref": "ref", "label": "bulk_labels"},),
    "leiden": ({}, {"resolution": 0.5, "key_added": "coarse"}),
    "load_10x_h5": ({"path": "cells.h5"},),
    "load_10x_mtx": ({"path": "matrix"},),
    "load_h5ad": ({"path": "cells.h5ad"},),
    "marker_table": ({}, {"group": "0", "n_top": 5}, {"group": ["0", "1"]}),
    "neighbors": ({}, {"n_neighbors": 10, "n_pcs": 200, "metric": "cosine"}),
    "normalize": ({}, {"target_sum": None}),
    "pca": ({}, {"n_comps": 10, "svd_solver": "arpack"}),
    "plot_dotplot": ({"genes": GENES}, {"genes": GROUPS}, {}),
    "plot_heatmap": ({"genes": GENES}, {"style": "matrixplot"}, {"style": "stacked_violin"}, {}),
    "plot_qc_violin": ({}, {"groupby": "batch"}),
    "plot_umap": ({}, {"color": ["leiden", "CD3D"]}),
    "pseudobulk": ({"sample": "batch"}, {"sample": "batch", "groupby": "leiden"}),
    "rename_clusters": ({"mapping": {"0": "T", "1": "T", "2": "B"}},),
    "save_h5ad": ({"path": "saved.h5ad"},),
    "scale": ({}, {"zero_center": False}),
    "score_genes": ({"genes": GENES, "score_name": "mine"},),
    "subsample": ({"n": 200}, {"fraction": 0.5}),
}
"""Parameters beyond the defaults, where a step needs or deserves some."""

BEYOND_READS = {
    "plot_hvg": ("var/dispersions", "var/dispersions_norm"),
    "plot_paga": ("obs/leiden",),
    "plot_markers": ("obs/leiden",),
    "umap": ("obsm/X_pca",),
}
"""Slots that the declared ones point to from inside (``uns['neighbors']`` names a PCA)."""

CASES = [(name, params) for name in STEPS for params in VARIANTS.get(name, ({},))]

pytestmark = [
    # what scanpy and its libraries say about themselves is not ours to fix
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module")
def analysed() -> Any:
    """Cells that hold whatever a step may read."""
    return cells.analysed()


@pytest.fixture(autouse=True)
def _figures_closed() -> Iterator[None]:
    import matplotlib.pyplot as plt

    plt.close("all")
    yield
    plt.close("all")


def prepared(step: Step, params: Mapping[str, object], analysed: Any) -> Any:
    """Cells with X in a state that the step takes and with the slots that it reads."""
    order = (XKind.COUNTS, XKind.NORM, XKind.LOGNORM)
    kind = next((kind for kind in order if kind in step.needs_x), XKind.LOGNORM)
    reads = [slot for slot in step.read_slots(params) if slot.partition("/")[2] not in GENES]
    held = dict.fromkeys([*reads, *BEYOND_READS.get(step.id, ())])
    return cells.holding(analysed, cells.matrices(analysed)[kind], held)


def around(step_id: str, analysed: Any) -> dict[str, object]:
    """Files in the working folder, and variables beside the data, that some steps need."""
    if step_id in ("load_h5ad", "save_h5ad"):
        analysed.write_h5ad("cells.h5ad")
    if step_id == "load_10x_mtx":
        write_10x_mtx(analysed, Path("matrix"))
    if step_id == "load_10x_h5":
        write_10x_h5(analysed, Path("cells.h5"))
    halves = {"one": analysed[:300].copy(), "two": analysed[300:].copy()}
    return {"ref": analysed, **halves}


def write_10x_mtx(adata: Any, folder: Path) -> None:
    """A folder as Cell Ranger writes it."""
    import gzip

    import scipy.io

    folder.mkdir()
    genes = "".join(f"ENSG{i:011}\t{g}\tGene Expression\n" for i, g in enumerate(adata.var_names))
    (folder / "features.tsv.gz").write_bytes(gzip.compress(genes.encode()))
    names = "".join(f"{name}\n" for name in adata.obs_names)
    (folder / "barcodes.tsv.gz").write_bytes(gzip.compress(names.encode()))
    with gzip.open(folder / "matrix.mtx.gz", "wb") as file:
        scipy.io.mmwrite(file, adata.layers["counts"].T.astype("int64"))


def write_10x_h5(adata: Any, path: Path) -> None:
    """A file as Cell Ranger writes it."""
    import h5py
    import numpy as np

    matrix = adata.layers["counts"].tocsr()
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.asarray(adata.obs_names, dtype="S")
        group["data"] = matrix.data.astype("int32")
        group["indices"], group["indptr"] = matrix.indices, matrix.indptr
        group["shape"] = np.asarray(matrix.shape[::-1], dtype="int32")
        features = group.create_group("features")
        names = np.asarray(adata.var_names, dtype="S")
        features["name"], features["id"] = names, names
        features["feature_type"] = np.full(len(names), b"Gene Expression")
        features["genome"] = np.full(len(names), b"GRCh38")


@pytest.mark.parametrize(("step_id", "params"), CASES, ids=[name for name, _ in CASES])
def test_step_does_what_it_declares(
    step_id: str,
    params: Mapping[str, object],
    analysed: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = STEPS.get(step_id)
    for package in step.requires:
        pytest.importorskip(package, reason=f"{step_id} requires {package}")
    monkeypatch.chdir(tmp_path)
    data = prepared(step, params, analysed)
    before = detect(data.X, slots(data))
    names = around(step_id, analysed) | ({"adata": data} if step.needs_data else {})

    namespace = cells.run(step_id, params, names)

    after = namespace["adata"]
    assert missing_after(step, params, slots(after)) == ()
    assert set(step.outputs) <= set(namespace)
    assert_x_as_declared(step, before, after)
    if "cells" in step.writes:
        assert 0 < after.n_obs <= analysed.n_obs
    if "fig" in step.writes:
        assert_figure_drawn()
    if step_id == "save_h5ad":
        assert Path("saved.h5ad").stat().st_size > 0


def assert_x_as_declared(step: Step, before: Any, after: Any) -> None:
    """The detector, where it is sure, sees what the step declares to leave."""
    seen = detect(after.X, slots(after))
    if seen.confidence < 0.9 or not step.needs_data:
        return
    assert seen.kind == (step.leaves_x or before.kind), seen.evidence


def assert_figure_drawn() -> None:
    """A figure with axes is open, as an inline notebook will show it, and can be drawn."""
    import matplotlib.pyplot as plt

    assert plt.get_fignums()
    for number in plt.get_fignums():
        assert plt.figure(number).axes
        plt.figure(number).canvas.draw()


@pytest.mark.parametrize("step_id", STEPS)
def test_record_is_complete(step_id: str) -> None:
    step = STEPS.get(step_id)
    assert step.id == step_id
    assert step.title
    assert step.aliases
    assert step.title[0].isupper()
    names = [param.name for param in step.params]
    assert len(set(names)) == len(names)
    for param in step.params:
        assert param.words, param.name
        assert param.default is None or not param.required
        assert param.kind != "choice" or param.choices
    for package in step.requires:
        assert package.isidentifier()
    if step.group == "plot":
        assert "fig" in step.writes
        assert step.render("adata", {}).endswith(";"), "or the axes are listed below the figure"


@pytest.mark.parametrize("step_id", STEPS)
def test_code_survives_hostile_text(step_id: str) -> None:
    hostile = 'x"]); import os; os.abort()  # \'\'\'"""\n\\'
    step = STEPS.get(step_id)
    texts = {p.name: hostile for p in step.params if p.kind in ("str", "path", "obs_column")}
    known: dict[str, object] = {
        "adatas": ["one"], "ref": "ref", "mapping": {hostile: hostile}, "signatures": {hostile: []}
    }  # fmt: skip
    rest = {
        p.name: [hostile] if p.kind == "genes" else hostile if p.kind == "level" else known[p.name]
        for p in step.params
        if p.kind in ("genes", "level", "mapping", "name")
    }
    tree = ast.parse(step.render("adata", {**texts, **rest}))
    called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert "abort" not in called


def test_code_uses_the_name_of_the_variable() -> None:
    params = {
        "path": "p", "adatas": ["one"], "batch_key": "b", "genes": ["g"], "group": "0",
        "sample": "s", "ref": "ref", "label": "l", "mapping": {"0": "T"},
    }  # fmt: skip
    for step_id in STEPS:
        code = STEPS.get(step_id).render("my_cells", params)
        assert "adata" not in code.replace("read_h5ad", "").replace("ad.AnnData", ""), step_id


def test_prelude_imports_what_the_code_takes_for_granted() -> None:
    imported = {
        alias.asname or alias.name
        for node in ast.parse(PRELUDE).body
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert imported == {"ad", "np", "pd", "plt", "sc"}


def test_optional_packages_are_known_here() -> None:
    needed = {package for name in STEPS for package in STEPS.get(name).requires}
    assert needed == {"harmonypy", "igraph", "skimage", "skmisc"}
    assert importlib.util.find_spec("scanpy") is not None
