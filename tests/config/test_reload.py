"""Settings that change while we run: read once they have, kept when they are broken."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from ovagent_jupyter.config.reload import SettingsWatch
from ovagent_jupyter.config.sources import resolve
from ovagent_jupyter.errors import ConfigError


def read(path: Path) -> bool:
    """The setting ``verbose`` of a file, as the real reader finds it."""
    return resolve(file=path, env={}).config.verbose


class Listener:
    """Hears changes and notices."""

    def __init__(self) -> None:
        self.changes: list[tuple[bool, bool]] = []
        self.notices: list[str] = []

    def change(self, before: bool, after: bool) -> None:
        """Take a change."""
        self.changes.append((before, after))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A settings file."""
    path = tmp_path / "config.toml"
    path.write_text("verbose = false\n")
    return path


@pytest.fixture
def heard() -> Listener:
    """Somebody who listens."""
    return Listener()


@pytest.fixture
def watch(file: Path, heard: Listener) -> SettingsWatch[bool]:
    """A watch of the file, with a listener."""
    watch = SettingsWatch(file, read, heard.notices.append)
    watch.subscribe(heard.change)
    return watch


def test_a_change_is_read_at_the_next_use_and_told_once(
    watch: SettingsWatch[bool], file: Path, heard: Listener
) -> None:
    assert watch.current() is False
    file.write_text("verbose = true\n")
    assert watch.settings is False
    assert watch.current() is True
    assert watch.current() is True
    assert heard.changes == [(False, True)]


def test_a_file_put_in_its_place_is_seen_with_the_same_time_and_size(
    watch: SettingsWatch[bool], file: Path
) -> None:
    before = file.stat()
    new = file.with_name("new.toml")
    new.write_text("verbose = true \n")
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert new.stat().st_size == before.st_size
    new.replace(file)
    assert watch.current() is True


@pytest.mark.parametrize(
    "broken", ["verbose = ", "verbose = 3", "verboze = true", "\x00", "[llm]\nmodel ="]
)
def test_a_broken_file_changes_nothing_and_says_so_once(
    watch: SettingsWatch[bool], file: Path, heard: Listener, broken: str
) -> None:
    file.write_text("verbose = true\n")
    assert watch.current() is True
    file.write_text(broken)
    for _ in range(3):
        assert watch.current() is True
    assert len(heard.notices) == 1
    assert "stay as they were" in heard.notices[0]
    file.write_text("verbose = false\n")
    assert watch.current() is False
    assert heard.changes == [(False, True), (True, False)]


def test_a_file_that_goes_and_comes(
    watch: SettingsWatch[bool], file: Path, heard: Listener
) -> None:
    file.write_text("verbose = true\n")
    watch.current()
    file.unlink()
    assert watch.current() is False
    file.write_text("verbose = true\n")
    assert watch.current() is True
    assert heard.notices == []


def test_the_same_settings_written_anew_are_no_change(
    watch: SettingsWatch[bool], file: Path, heard: Listener
) -> None:
    file.write_text("# a comment\nverbose = false\n")
    assert watch.current() is False
    assert heard.changes == []


def test_a_listener_that_fails_keeps_nobody_from_it(file: Path, heard: Listener) -> None:
    watch = SettingsWatch(file, read, heard.notices.append)

    def fails(before: bool, after: bool) -> None:
        raise RuntimeError("no")

    watch.subscribe(fails)
    end = watch.subscribe(heard.change)
    file.write_text("verbose = true\n")
    assert watch.current() is True
    assert heard.changes == [(False, True)]
    assert "RuntimeError" in heard.notices[0]
    end()
    end()
    file.write_text("verbose = false\n")
    watch.current()
    assert len(heard.changes) == 1


def test_the_first_reading_has_to_work(file: Path) -> None:
    file.write_text("verbose = ")
    with pytest.raises(ConfigError):
        SettingsWatch(file, read)


async def test_a_change_is_told_while_nobody_asks(watch: SettingsWatch[bool], file: Path) -> None:
    told = asyncio.Event()
    watch.subscribe(lambda before, after: told.set())
    task = asyncio.create_task(watch.watch(poll=0.01))
    await asyncio.sleep(0.05)
    file.write_text("verbose = true\n")
    await asyncio.wait_for(told.wait(), 60)
    assert watch.settings is True
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
