"""The state card as text: what comes first, what is never in it, and how long it gets."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from ovagent_jupyter.omics.state_card import describe
from ovagent_jupyter.omics.summary import MAX_LENGTH, MAX_LEVELS, MIN_ROWS, summarize


def told(n: int, **columns: object) -> str:
    """What is said of the columns of obs of n cells."""
    obs = pd.DataFrame(columns, index=[f"c{i}" for i in range(n)])
    text = summarize(describe(ad.AnnData(sp.csr_matrix((n, 1), dtype="float32"), obs=obs)))
    (line,) = (line for line in text.splitlines() if line.startswith("obs: "))
    return line.removeprefix("obs: ")


def turns(n: int, levels: int, word: str = "") -> list[str]:
    """Levels one after the other, again and again."""
    return [f"{word}{i % levels}" for i in range(n)]


def test_summary_says_what_matters(lognorm: Any) -> None:
    text = summarize(describe(lognorm))
    assert text.startswith("adata: 700 cells x 765 genes (human) · X holds lognorm")
    assert "layers: counts (counts)" in text
    assert "bulk_labels (10 levels: CD4+/CD25 T Reg: 68, " in text


def test_columns_that_group_cells_come_first() -> None:
    n = 100
    line = told(
        n,
        **{f"qc{i}": np.linspace(0, i, n) for i in range(20)},
        age=np.arange(n) % 7,
        barcode=turns(n, n, "AAC"),
        kept=np.arange(n) < 30,
        leiden=pd.Categorical(turns(n, 2)),
    )
    assert line.startswith(
        "leiden (2 levels: 0: 50, 1: 50) · kept (bool, True in 30) "
        "· barcode (100 different texts) · age (int, 7 different) · qc0 (float) · "
    )


def test_levels_are_named_up_to_a_number() -> None:
    n = 1_000
    few = told(n, kind=pd.Categorical(turns(n, MAX_LEVELS, "type")))
    assert few.startswith(f"kind ({MAX_LEVELS} levels: type0: 34, ")
    many = told(n, kind=pd.Categorical(turns(n, MAX_LEVELS + 1, "type")))
    assert many == f"kind ({MAX_LEVELS + 1} different texts)"


@pytest.mark.parametrize("make", [pd.Categorical, list])
def test_levels_of_few_rows_are_not_named(make: Any) -> None:
    assert told(9, who=make(turns(9, 3, "Ann"))) == "who (3 different texts)"
    rare = ["Ann"] * (MIN_ROWS - 1) + ["b"] * 100
    assert told(109, who=make(rare)).endswith("2 levels: b: 100, and 1 of fewer than 10 rows each)")


def test_a_level_that_no_row_has_is_not_named() -> None:
    kept = pd.Categorical(["b"] * 100, categories=["b", "Ann"])
    assert "Ann" not in told(100, who=kept)


def test_small_clusters_are_named_by_their_numbers() -> None:
    column = pd.Categorical(["0"] * 90 + ["1"] * 9 + ["2"])
    assert told(100, leiden=column) == "leiden (3 levels: 0: 90, 1: 9, 2: 1)"


@pytest.mark.parametrize(
    "name",
    ["patient_name", "PatientID", "donor", "name", "mrn", "full_name", "E-mail", "date_of_birth"],
)
def test_people_are_not_named_however_many_cells_they_have(name: str) -> None:
    column = pd.Categorical(["Ann"] * 60 + ["Bob"] * 40)
    assert told(100, **{name: column}) == f"{name} (2 levels of 40 to 60 rows, not named)"


@pytest.mark.parametrize("name", ["cell_type_name", "sample", "renamed", "leiden", "condition"])
def test_other_groups_are_named(name: str) -> None:
    assert told(100, **{name: ["treated"] * 100}) == f"{name} (text, 1 level: treated: 100)"


def test_long_columns_of_text_are_told_by_a_part_of_their_rows() -> None:
    n = 30_000
    line = told(n, barcode=turns(n, n, "AAC"), ward=turns(n, 3, "ward"))
    assert line == "ward (text: ward0, ward1, ward2, perhaps others) · barcode (text, not named)"


def test_long_names_are_cut() -> None:
    line = told(20, **{"c" * 100: ["l" * 100] * 20})
    assert line == f"{'c' * 39}… (text, 1 level: {'l' * 39}…: 20)"


@pytest.mark.parametrize("length", [MAX_LENGTH, 700])
def test_summary_is_bounded(length: int, counts: Any) -> None:
    adata = counts[:20].copy()
    for number in range(300):
        adata.uns[f"key{number}"] = number
        adata.obsm[f"{'y' * 50}{number}"] = np.zeros((20, 2))
    adata.obs = pd.DataFrame(
        {f"{'x' * 100} {i}": 1.0 if i % 2 else "group" for i in range(300)}, index=adata.obs_names
    )
    state = describe(adata, "a" * 200)
    text = summarize(state, length)
    assert length / 3 < len(text) <= length <= 4_000
    assert "obs: xxx" in text
    assert text.count(" more") >= 3


def test_levels_do_not_take_the_room_of_other_columns() -> None:
    n = 600
    wordy = {f"kind{i}": pd.Categorical(turns(n, 30, "t" * 35)) for i in range(8)}
    line = told(n, **wordy, total=np.linspace(0, 1, n))
    assert "kind0 (30 levels: t" in line
    assert " more) · kind1 (30 levels" in line
    assert "kind7 (30 levels)" in line
    assert line.endswith("total (float)")
