"""What a model is told of the user's variables, and what it is not told."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from ovagent_jupyter.agent.data_description import MAX_LENGTH, MAX_OBJECTS, describe_data
from ovagent_jupyter.agent.turn import TurnRequest
from ovagent_jupyter.errors import DataError
from tests.omics import cells


def told(text: str, *inputs: str, **variables: object) -> str:
    """What goes along with this question."""
    return describe_data(
        TurnRequest(text=text, mode="ask", namespace=variables, inputs=inputs),
    )


@pytest.fixture(scope="module")
def cohort() -> Any:
    """Cells with columns that say whose they are."""
    adata = cells.counts()
    n = adata.n_obs
    adata.obs["patient_name"] = pd.Categorical([f"Anna Smith {i}" for i in range(n)])
    adata.obs["mrn"] = [f"mrn-{i}" for i in range(n)]
    adata.obs["donor"] = np.where(np.arange(n) % 2, "Bob Jones", "Eve Brown")
    adata.obs["leiden"] = pd.Categorical((np.arange(n) % 8).astype(str))
    return adata


def patients() -> pd.DataFrame:
    """A table of people."""
    return pd.DataFrame({"name": ["Anna Smith", "Bob Jones"], "age": [30, 40]}, index=["p1", "p2"])


def test_nothing_is_told_without_data() -> None:
    assert told("what is a doublet?") == ""
    assert told("what is a doublet?", patients=patients(), number=3) == ""


def test_groups_are_told_and_people_are_not(cohort: Any) -> None:
    text = told("what is cluster 7?", adata=cohort)
    assert "leiden (8 levels: 0: 88, 1: 88, " in text
    assert "patient_name (700 different texts)" in text
    assert "mrn (700 different texts)" in text
    assert "donor (text, 2 levels of 350 to 350 rows, not named)" in text
    for word in ("Anna", "mrn-", "Bob", "Eve", cohort.obs_names[0], cohort.var_names[0]):
        assert word not in text


def test_a_table_that_is_named_is_told_by_its_columns(cohort: Any) -> None:
    text = told("what is in @patients?", adata=cohort, patients=patients())
    assert text.startswith("patients: DataFrame, 2 rows x 2 columns: name (")
    assert "age (int64)" in text
    assert "adata" not in text
    for value in ("Anna", "Bob", "p1", "30"):
        assert value not in text


def test_each_kind_that_is_named_gets_its_line() -> None:
    variables: dict[str, object] = {
        "ages": pd.Series([30, 40], index=["Anna", "Bob"]),
        "names": pd.Index(["Anna", "Bob"], dtype=object),
        "weights": np.ones((4, 2)),
        "links": sp.csr_matrix((1_500, 3), dtype="float32"),
        "chart": {"Anna": 1, "Bob": patients()},
        "few": ["Anna", 1, 2],
        "none": [],
        "many": [1] * 5_000,
        "secret": "Anna",
        "act": patients,
        "left": 1,
        "over": 2,
    }
    text = told(" ".join(f"@{name}" for name in variables), **variables)
    assert text.split("\n\n") == [
        "ages: Series, 2 values of int64",
        "names: Index, 2 values of object",
        "weights: ndarray, 4 x 2 values of float64",
        "links: csr_matrix, 1,500 x 3 values of float32",
        "chart: dict, 2 entries: 1 int · 1 DataFrame",
        "few: list, 3 entries: 1 str · 2 int",
        "none: list, empty",
        "many: list, 5,000 entries, of the first 1,000: 1,000 int",
        "secret: str; what it holds is not told",
        "act: function; what it holds is not told",
        "Also there, but not described: left · over",
    ]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_mudata_is_told_by_its_parts() -> None:
    mudata: Any = pytest.importorskip("mudata")
    rna = ad.AnnData(np.ones((20, 3)))
    adt = ad.AnnData(np.ones((20, 4)), var=pd.DataFrame(index=["p0", "p1", "p2", "p3"]))
    text = told("what is in @both?", both=mudata.MuData({"rna": rna, "adt": adt}))
    assert text == "both: MuData, 20 cells x 7 variables; parts: rna (20 x 3) · adt (20 x 4)"


def test_named_objects_are_all_told_and_no_others(cohort: Any) -> None:
    variables = {"adata": cohort, "b": cohort[:50], "markers": patients()}
    text = told("does @markers fit @b?", **variables)
    assert [part.split(":")[0] for part in text.split("\n\n")] == ["markers", "b"]
    text = told("does @markers fit?", "adata", **variables)
    assert [part.split(":")[0] for part in text.split("\n\n")] == ["adata", "markers"]


@pytest.mark.parametrize("inputs", [(), ("adata",)])
def test_a_name_that_is_not_there_is_an_error(inputs: tuple[str, ...], cohort: Any) -> None:
    with pytest.raises(DataError, match="no variable named 'adatta'") as caught:
        told("what is @adatta?", *inputs, adata=cohort)
    assert "'adata'" in caught.value.next_step


def test_of_several_none_of_them_named_up_to_three_are_told_briefly(cohort: Any) -> None:
    several = {name: cohort[: 100 + i] for i, name in enumerate(("a", "b", "c", "d", "e"))}
    text = told("what is a doublet?", **several, again=several["a"])
    parts = text.split("\n\n")
    assert [part.split(":")[0] for part in parts[:3]] == ["a", "b", "c"]
    assert parts[3:] == ["Also there, but not described: d · e"]
    assert all(len(part) <= 1_000 for part in parts)


def test_of_several_the_one_that_is_written_is_told(cohort: Any) -> None:
    text = told("how many cells has treated?", control=cohort, treated=cohort[:50])
    assert text.startswith("treated: 50 cells")
    assert text.endswith("\n\nAlso there, but not described: control")


def test_what_is_told_is_bounded() -> None:
    n = 100
    wide = pd.DataFrame({f"{'x' * 100} {i}": ["group"] * n for i in range(300)})
    wide.index = wide.index.astype(str)
    variables: dict[str, object] = {
        f"{'v' * 60}{i}": ad.AnnData(np.ones((n, 2)), obs=wide) if i % 2 else wide
        for i in range(2 * MAX_OBJECTS)
    }
    text = told(" ".join(f"@{name}" for name in variables), **variables)
    assert MAX_LENGTH / 2 < len(text) <= MAX_LENGTH == 8_000
    assert len(told("what?", **variables)) <= 3_600
