"""Where files lie, and which directories are refused."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovagent_jupyter.errors import StorageError
from ovagent_jupyter.storage import paths


def mode(path: Path) -> int:
    """Permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def test_history_is_in_the_home_by_default() -> None:
    assert paths.history_file({}) == Path.home() / ".ovagent" / "history.jsonl"


def test_all_is_below_the_override(tmp_path: Path) -> None:
    env = {"OVAGENT_HOME": str(tmp_path)}
    found = [
        paths.history_file(env),
        paths.sessions_dir(env),
        paths.cache_dir(env),
        paths.config_file(env),
    ]
    assert all(path.is_relative_to(tmp_path) for path in found)
    assert len(set(found)) == 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["", "  "])
def test_empty_override_is_none(value: str) -> None:
    assert paths.home_dir({"OVAGENT_HOME": value}) == paths.home_dir({})


def test_override_may_begin_with_a_tilde() -> None:
    assert paths.home_dir({"OVAGENT_HOME": "~/ov"}) == Path.home() / "ov"


def test_without_override_the_platforms_places_are_used() -> None:
    for place in (paths.sessions_dir({}), paths.cache_dir({}), paths.config_dir({})):
        assert place.is_absolute()
        assert paths.APP in place.parts


def test_storage_dir_wins_over_the_override(tmp_path: Path) -> None:
    env = {"OVAGENT_HOME": str(tmp_path)}
    assert paths.sessions_dir(env, Path("/mine")) == Path("/mine")


def test_made_directory_is_private_and_an_old_one_is_left_alone(tmp_path: Path) -> None:
    made = paths.ensure_dir(tmp_path / "a" / "b")
    assert mode(made) == 0o700
    made.chmod(0o755)
    assert mode(paths.ensure_dir(made)) == 0o755


def test_directory_that_cannot_be_made_is_named(under_a_file: Path) -> None:
    with pytest.raises(StorageError, match="a file is in its way") as caught:
        paths.ensure_dir(under_a_file)
    assert str(under_a_file) in caught.value.what
    assert "OVAGENT_HOME" in caught.value.next_step
    assert len(caught.value.lines()) <= 6


def test_runtime_directory_is_private_and_short(tmp_path: Path) -> None:
    for env in ({}, {"OVAGENT_HOME": str(tmp_path)}, {"XDG_RUNTIME_DIR": str(tmp_path)}):
        place = paths.runtime_dir(env)
        assert mode(place) == 0o700
        assert place.stat().st_uid == os.getuid()
        assert len(os.fsencode(place)) <= paths.RUNTIME_PATH_LIMIT


def test_runtime_directory_is_below_a_short_override(short_path: Path) -> None:
    assert paths.runtime_dir({"OVAGENT_HOME": str(short_path)}) == short_path / "run"
    env = {"XDG_RUNTIME_DIR": str(short_path)}
    assert paths.runtime_dir(env) == short_path / "ovagent"


def test_runtime_directory_falls_back_when_the_override_is_long(tmp_path: Path) -> None:
    long = tmp_path / ("x" * paths.RUNTIME_PATH_LIMIT)
    assert paths.runtime_dir({"OVAGENT_HOME": str(long)}) == Path(f"/tmp/ovagent-{os.getuid()}")
    assert not long.exists()


def test_missing_xdg_directory_is_not_made(tmp_path: Path) -> None:
    missing = tmp_path / "u"
    paths.runtime_dir({"XDG_RUNTIME_DIR": str(missing)})
    assert not missing.exists()


def test_runtime_directory_open_to_others_is_closed(short_path: Path) -> None:
    (short_path / "run").mkdir(mode=0o777)
    (short_path / "run").chmod(0o777)
    assert mode(paths.runtime_dir({"OVAGENT_HOME": str(short_path)})) == 0o700


def test_runtime_directory_that_is_a_link_is_not_used(short_path: Path) -> None:
    (short_path / "elsewhere").mkdir()
    (short_path / "run").symlink_to(short_path / "elsewhere")
    assert paths.runtime_dir({"OVAGENT_HOME": str(short_path)}).parent == Path("/tmp")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_runtime_directory_of_another_user_is_not_used(short_path: Path) -> None:
    (short_path / "run").mkdir(mode=0o700)
    os.chown(short_path / "run", 12345, 12345)
    assert paths.runtime_dir({"OVAGENT_HOME": str(short_path)}).parent == Path("/tmp")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A temporary directory with a path of few characters."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ov") as place:
        yield Path(place)
