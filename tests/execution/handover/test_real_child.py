"""Every type, and an object that stays in its file, by way of a real child."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import dask.array as da
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from tests.execution.conftest import Kernel
from tests.execution.handover.identical import assert_identical
from tests.execution.handover.real_child import changed_in_a_child
from tests.execution.handover.samples import ALL
from tests.execution.handover.test_backed import on_disk
from tests.execution.handover.test_round_trip import small

CODE = """
import pandas as pd, polars as pl, pyarrow as pa
adata.obs["leiden"] = pd.Categorical(list("abc") * 4)
adata.uns["nested"] = {"deep": {"index": [1, (2,)]}}
frame["index"] = pd.array(["x", None, "z"], dtype="string[pyarrow]")
table = table.append_column("c", pa.array([[1], None]))
plain = plain.with_columns(c=pl.Series(["x", "y"], dtype=pl.Categorical))
"""


async def test_every_type_there_and_back(kernel: Kernel) -> None:
    own: dict[str, Any] = {f"v{position}": value for position, value in enumerate(ALL)}
    report = await kernel.put(own)
    assert report.left_behind == ()
    assert {diff.kind for diff in (await kernel.changes()).diffs} == {"unchanged"}
    assert (await kernel.run(f"made = [{', '.join(own)}]")).ok
    made: Any = (await kernel.changes(["made"])).objects["made"]
    assert_identical(list(own.values()), made)


async def test_changes_there_are_the_changes_here(kernel: Kernel) -> None:
    own: dict[str, Any] = {
        "adata": small(),
        "frame": pd.DataFrame({"index": [1, 2, 3]}, index=list("abc")),
        "table": pa.table({"a": [1, 2], "b": ["x", None]}),
        "plain": pl.DataFrame({"a": [1, 2]}),
    }
    await kernel.put(own)
    result = await kernel.run(CODE)
    assert result.ok, result.error
    here = {**own, "adata": own["adata"].copy(), "frame": own["frame"].copy()}
    exec(CODE, here)
    changes = await kernel.changes()
    assert changes.left_behind == ()
    assert_identical({name: here[name] for name in own}, dict(changes.objects))
    assert [diff.summary() for diff in changes.diffs[2:]] == ["table: +c", "plain: +c"]


async def test_a_backed_object_is_read_by_the_child(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir(mode=0o700)
    on_disk(tmp_path / "private" / "cells.h5ad")
    backed: Any = anndata.read_h5ad(tmp_path / "private" / "cells.h5ad", backed="r")
    lazy = da.from_array(backed.file["obsm/X_pca"], chunks=(5, 3))
    own: dict[str, Any] = {"adata": backed, "lazy": lazy}
    code = (
        "assert adata.isbacked\n"
        "adata.obs['total'] = adata.X[:].sum(axis=1)\n"
        "pca = lazy.sum(axis=0).compute()"
    )
    changes = await changed_in_a_child(own, code, ["pca"])
    new: Any = changes.objects["adata"]
    assert changes.left_behind == ()
    assert new.isbacked
    np.testing.assert_allclose(new.obs["total"], np.ravel(backed.X[:].sum(axis=1)))
    np.testing.assert_allclose(changes.objects["pca"], backed.obsm["X_pca"].sum(axis=0))  # type: ignore[call-overload]
