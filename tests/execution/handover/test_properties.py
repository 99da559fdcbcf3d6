"""What holds for all data: it arrives as it is, changes come back as made, nothing is shared."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from polars.exceptions import PolarsError
from scipy import sparse

from ovagent_jupyter.execution.handover.codec import decode, encode, same
from tests.execution.handover.border import Border
from tests.execution.handover.identical import GROUPS, assert_identical
from tests.execution.handover.strategies import (
    adatas,
    frames,
    polars_frames,
    tables,
    values,
)

BRIEF = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
LONG = settings(BRIEF, max_examples=1000)


@contextmanager
def quiet() -> Iterator[None]:
    """Advice of anndata and pandas about odd data is not what is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@st.composite
def objects(draw: Any) -> dict[str, Any]:
    """Variables of a user: an AnnData, tables of three kinds, and something else."""
    return {
        "adata": draw(adatas()),
        "frame": draw(frames()),
        "table": draw(tables()),
        "plain": draw(polars_frames()),
        "value": draw(values()),
    }


def arrives_as_it_is(directory: Path, own: dict[str, Any]) -> None:
    with quiet():
        border = Border(directory, own)
        assert border.left == ()
        for name, value in own.items():
            assert_identical(value, border.namespace[name], name)
        changes = border.run("", outputs=["adata"])
        assert changes.objects == {}
        assert {diff.kind for diff in changes.diffs} == {"unchanged"}


def comes_back_as_it_is(directory: Path, made: dict[str, Any]) -> None:
    with quiet():
        border = Border(directory, {})
        border.namespace.update(made)
        changes = border.run("", outputs=list(made))
        assert changes.left_behind == ()
        for name, value in made.items():
            assert_identical(value, changes.objects[name], name)


@BRIEF
@given(objects())
def test_it_arrives_as_it_is(tmp_path_factory: pytest.TempPathFactory, own: dict[str, Any]) -> None:
    arrives_as_it_is(tmp_path_factory.mktemp("border"), own)


@BRIEF
@given(objects())
def test_it_comes_back_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, made: dict[str, Any]
) -> None:
    comes_back_as_it_is(tmp_path_factory.mktemp("border"), made)


HEAD = """
import anndata, warnings
import numpy as np, pandas as pd, polars as pl, pyarrow as pa
from scipy import sparse
n, m = adata.shape
k = len(frame)
"""
STEPS = [
    "adata.obs['new'] = pd.Categorical(['p', 'q'] * n)[:n]",
    "adata.obs['text'] = pd.array(['é', None] * n, dtype='string')[:n]",
    "adata.obs = adata.obs.iloc[:, ::-1]",
    "adata.obs = adata.obs.iloc[:, 1:]",
    "adata.var['index'] = np.arange(m)",
    "adata.var.attrs['note'] = {'a': 1}",
    "adata.X = np.asfortranarray(np.ones((n, m), 'f4'))",
    "adata.X = sparse.csc_matrix(np.eye(n, m))",
    "if sparse.issparse(adata.X): adata.X.data[:] = 7",
    "if sparse.issparse(adata.X): adata.X.sort_indices(); adata.X.eliminate_zeros()",
    "if isinstance(adata.X, np.ndarray): adata.X[...] = 3",
    "adata.X = None",
    "adata.layers['new'] = np.full((n, m), 2)",
    "adata.layers.clear()",
    "adata.obsm['X_umap'] = np.zeros((n, 2))",
    "adata.obsm['frame'] = pd.DataFrame({'index': np.arange(n)}, index=adata.obs_names)",
    "adata.obsp['d'] = sparse.csr_matrix((n, n))",
    "adata.uns['rank'] = {'index': np.rec.fromarrays([np.array(['g'], object)], names='0')}",
    "adata.uns.setdefault('X', {}).update({'raw': {'params': [1, (2,)]}})",
    "adata.uns = {}",
    "adata.uns = dict(reversed(adata.uns.items()))",
    "adata.raw = adata.copy() if adata.X is not None else None",
    "adata.raw = None",
    "adata = adata[::2].copy()",
    "adata = adata[:, 1:]",
    "adata = adata[::-1].copy()",
    "adata.obs_names = [f'x{i}' for i in range(n)]",
    "adata = anndata.concat([adata, adata], index_unique='-', merge='first')",
    "frame.insert(0, 'index', np.arange(k))",
    "frame['rows'] = pd.array(['x', None] * k, dtype='str')[:k]",
    "frame = frame.iloc[::-1]",
    "frame = frame.iloc[1:, ::-1]",
    "frame = frame.reset_index()",
    "frame.index = pd.Index(np.arange(k) * 2, name='half')",
    "frame.columns = range(frame.shape[1])",
    "frame.attrs = {'other': 1}",
    "frame = frame.T",
    "frame = pd.concat([frame, frame])",
    "table = table.slice(1)",
    "table = table.append_column('new', pa.array([[1, None]] * len(table), pa.list_(pa.int8())))",
    "table = table.select(range(table.num_columns - 1, 0, -1))",
    "table = table.replace_schema_metadata({'other': 'note'})",
    "table = pa.concat_tables([table, table])",
    "plain = plain.head(1)",
    "plain = plain.with_columns(new=pl.lit('x', dtype=pl.Categorical))",
    "plain = plain.select(plain.columns[::-1])",
    "plain = pl.concat([plain, plain])",
    "value = [value, {'index': value}]",
    "value = {'a': 1, 'rows': [1]} if not isinstance(value, dict) else {**value, 'new': value}",
    "if isinstance(value, dict): value.popitem() if value else None",
    "if isinstance(value, list): value.append(value[:])",
    "if isinstance(value, np.ndarray): value[:1] = value[-1:]",
]


def changes_are_as_made(directory: Path, own: dict[str, Any], steps: list[str]) -> None:
    # One mutation a line; the sizes are told anew before each.
    code = "".join(HEAD + step + "\n" for step in steps)
    with quiet():
        before, here = (decode(encode(own)) for _ in range(2))
        assert isinstance(here, dict)
        try:
            exec(code, here)
        except (TypeError, ValueError, KeyError, NotImplementedError, AttributeError, PolarsError):
            reject()  # some steps do not fit the data, in pandas or anndata
        expected = {name: here[name] for name in own}
        if expected["adata"].is_view:
            expected["adata"] = expected["adata"].copy()
        changes = Border(directory, own).run(code)
        result = {name: changes.objects.get(name, own[name]) for name in own}
    assert changes.left_behind == ()
    assert_identical(before, own, "the parent's own")
    assert_identical(expected, result)
    for diff in changes.diffs:
        assert (diff.kind == "unchanged") == (diff.name not in changes.objects)
        assert diff.summary().isprintable()
    for name in changes.objects:
        nothing_is_shared(own[name], result[name])


def nothing_is_shared(one: Any, other: Any) -> None:
    """Fail when a change of one could show in the other."""
    for left in memory(one):
        for right in memory(other):
            assert not np.shares_memory(left, right)


def memory(value: Any) -> Iterator[np.ndarray]:
    """The arrays of a value that can be written to."""
    if isinstance(value, np.ndarray):
        if value.flags.writeable and value.dtype != object:
            yield value
    elif sparse.issparse(value):
        yield from (getattr(value, name) for name in ("data", "indices", "indptr"))
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from memory(item)
    elif isinstance(value, pd.DataFrame):
        yield from memory([value.iloc[:, position].array for position in range(value.shape[1])])
    elif isinstance(value, pd.api.extensions.ExtensionArray):
        yield from _column_memory(value)
    elif isinstance(value, anndata.AnnData):
        yield from memory([value.X, value.obs, value.var, dict(value.uns)])
        yield from memory([dict(getattr(value, name)) for name in GROUPS])
        if value.raw is not None:
            yield from memory([value.raw.X, value.raw.var])


def _column_memory(value: Any) -> Iterator[np.ndarray]:
    if isinstance(value, pd.arrays.NumpyExtensionArray):
        yield from memory(value.to_numpy())
    elif isinstance(value, pd.Categorical):
        yield from memory(value._ndarray)  # its codes are shown as read-only
    elif isinstance(value, pd.arrays.IntegerArray | pd.arrays.BooleanArray):
        yield from memory([value._data, value._mask])


@settings(BRIEF, max_examples=40)
@given(objects(), st.lists(st.sampled_from(STEPS), min_size=1, max_size=5))
def test_changes_are_as_made(
    tmp_path_factory: pytest.TempPathFactory, own: dict[str, Any], steps: list[str]
) -> None:
    changes_are_as_made(tmp_path_factory.mktemp("border"), own, steps)


@settings(BRIEF, max_examples=50)
@given(values() | frames() | tables() | polars_frames())
def test_the_same_looks_the_same_again(value: Any) -> None:
    with quiet():
        there = decode(encode(value))
        assert same(encode(value), encode(there))


@pytest.mark.soak
@LONG
@given(objects())
def test_it_arrives_as_it_is_for_long(
    tmp_path_factory: pytest.TempPathFactory, own: dict[str, Any]
) -> None:
    arrives_as_it_is(tmp_path_factory.mktemp("border"), own)


@pytest.mark.soak
@LONG
@given(objects(), st.lists(st.sampled_from(STEPS), min_size=1, max_size=5))
def test_changes_are_as_made_for_long(
    tmp_path_factory: pytest.TempPathFactory, own: dict[str, Any], steps: list[str]
) -> None:
    changes_are_as_made(tmp_path_factory.mktemp("border"), own, steps)
