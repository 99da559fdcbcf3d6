"""The files of a plan: what the code may read, what it writes, and where that goes."""

from __future__ import annotations

from pathlib import Path

import pytest
from anndata import AnnData

from ovagent_jupyter.agent.prepare import SavedFile, with_files
from ovagent_jupyter.errors import ConfigError, DataError
from ovagent_jupyter.omics import describe, plan
from ovagent_jupyter.omics.planner.plan import Plan
from tests.omics.cells import counts


@pytest.fixture(scope="module")
def adata() -> AnnData:
    return counts()


@pytest.fixture
def folder(tmp_path: Path, adata: AnnData) -> Path:
    """A folder with a file of data, a link to it, and a folder as Cell Ranger writes it."""
    place = tmp_path / "my data"
    place.mkdir()
    adata.write_h5ad(place / "cells.h5ad")
    (place / "link.h5ad").symlink_to("cells.h5ad")
    (place / "raw").mkdir()
    (place / "raw" / "matrix.mtx").write_text("")
    return place


def saving(adata: AnnData, *targets: str) -> Plan:
    request = " and ".join(f"save to '{target}'" for target in targets)
    return plan(request, describe(adata, "adata"), name="adata")


def loading(path: str) -> Plan:
    return plan(f"load '{path}'", None, name="adata")


def test_a_file_that_is_read_is_granted_and_nothing_beside_it(folder: Path) -> None:
    prepared = with_files(loading("cells.h5ad"), folder)
    assert prepared.read == (folder / "cells.h5ad",)
    assert str(folder / "cells.h5ad") in prepared.plan.code
    assert prepared.saved == ()


def test_a_link_is_resolved_in_the_grant_and_in_the_code(folder: Path) -> None:
    prepared = with_files(loading("link.h5ad"), folder)
    assert prepared.read == (folder / "cells.h5ad",)
    assert "link.h5ad" not in prepared.plan.steps[0].code


def test_a_10x_folder_is_granted_as_that_folder(folder: Path) -> None:
    request = "read the 10x folder raw/"
    prepared = with_files(plan(request, None, name="adata"), folder)
    assert prepared.read == (folder / "raw",)


def test_a_folder_that_holds_more_than_data_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder / "raw"))
    with pytest.raises(ConfigError, match="home"):
        with_files(plan("read the 10x folder raw/", None, name="adata"), folder)


def test_code_writes_a_bare_name_and_the_reader_sees_where_it_goes(
    folder: Path, adata: AnnData
) -> None:
    (folder / "out").mkdir()
    prepared = with_files(saving(adata, "out/done.h5ad"), folder)
    assert prepared.saved == (SavedFile("done.h5ad", folder / "out" / "done.h5ad"),)
    (step,) = prepared.plan.steps
    assert step.code == 'adata.write_h5ad("done.h5ad", compression="gzip")'
    assert step.params["path"] == str(folder / "out" / "done.h5ad")
    assert prepared.read == ()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("cells.h5ad", "exists already"),
        ("link.h5ad", "exists already"),
        ("dangling.h5ad", "exists already"),
        ("nowhere/x.h5ad", "does not exist"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_runs(
    folder: Path, adata: AnnData, target: str, words: str
) -> None:
    (folder / "dangling.h5ad").symlink_to("absent")
    with pytest.raises(DataError, match=words):
        with_files(saving(adata, target), folder)


def test_two_files_of_one_name_do_not_meet(folder: Path, adata: AnnData) -> None:
    steps = saving(adata, "x.h5ad").steps + saving(adata, "raw/x.h5ad").steps
    both = Plan("save twice", steps, 1.0)
    prepared = with_files(both, folder)
    assert [file.target for file in prepared.saved] == [folder / "x.h5ad", folder / "raw/x.h5ad"]
    assert len({file.name for file in prepared.saved}) == 2
    with pytest.raises(DataError, match="exists already"):
        with_files(Plan("save twice", steps[:1] * 2, 1.0), folder)


def test_a_plan_without_files_is_left_as_it_is(folder: Path, adata: AnnData) -> None:
    made = plan("normalise", describe(adata, "adata"), name="adata")
    assert with_files(made, folder).plan == made
