"""A file of the child reaches the user whole, or not at all; nothing of the user's is replaced."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.files import fetch_file

SECRET = "the user's own"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The child's directory."""
    (tmp_path / "work" / "figures").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "secret").write_text(SECRET)
    return tmp_path / "work"


@pytest.fixture
def target(work: Path) -> Path:
    """Where the user wants the file."""
    return work.parent / "home" / "umap.png"


def home(work: Path) -> list[str]:
    return sorted(path.name for path in (work.parent / "home").iterdir())


def test_a_file_is_copied(work: Path, target: Path) -> None:
    content = os.urandom(3_000_000)
    (work / "figures" / "umap.png").write_bytes(content)
    (work / "figures" / "umap.png").chmod(0o6777)
    assert fetch_file(work, "figures/umap.png", target) == target
    assert target.read_bytes() == content
    assert target.stat().st_mode & 0o7111 == 0
    assert home(work) == ["umap.png"]
    assert (work / "figures" / "umap.png").exists()


def test_a_descriptor_of_the_directory_will_do(work: Path, target: Path) -> None:
    (work / "empty").touch()
    directory = os.open(work, os.O_RDONLY)
    try:
        work.rename(work.with_name("elsewhere"))
        fetch_file(directory, "empty", target)
        os.fstat(directory)
    finally:
        os.close(directory)
    assert target.read_bytes() == b""


def test_what_is_there_is_never_replaced(work: Path, target: Path) -> None:
    (work / "new").write_text("new")
    target.write_text(SECRET)
    with pytest.raises(HandoverError, match="kept as it is"):
        fetch_file(work, "new", target)
    target.unlink()
    target.symlink_to("nowhere")
    with pytest.raises(HandoverError, match="kept as it is"):
        fetch_file(work, "new", target)
    assert target.is_symlink()
    assert home(work) == ["umap.png"]


def _link(work: Path) -> None:
    (work / "f").symlink_to(work.parent / "secret")


def _hard_link(work: Path) -> None:
    (work / "f").hardlink_to(work.parent / "secret")


def _folder(work: Path) -> None:
    (work / "f").mkdir()


def _pipe(work: Path) -> None:
    os.mkfifo(work / "f")


def _socket(work: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(work / "f"))


def _large(work: Path) -> None:
    with (work / "f").open("wb") as file:
        file.truncate(1 << 40)


def _nothing(_: Path) -> None:
    """There is no file."""


@pytest.mark.parametrize("make", [_link, _hard_link, _folder, _pipe, _socket, _large, _nothing])
def test_what_is_no_plain_file(work: Path, target: Path, make: Callable[[Path], None]) -> None:
    make(work)
    with pytest.raises(HandoverError) as caught:
        fetch_file(work, "f", target)
    assert caught.value.why
    assert str(target) in caught.value.next_step
    assert home(work) == []


@pytest.mark.parametrize(
    "name",
    ["", ".", "/etc/passwd", "../secret", "figures/../../secret", "a\0b", "x" * 2000, "a/" * 90,
     "figures", "figures/../f", "\x1b[2J"],
)  # fmt: skip
def test_names_that_lead_elsewhere(work: Path, target: Path, name: str) -> None:
    with pytest.raises(HandoverError) as caught:
        fetch_file(work, name, target)
    assert str(caught.value).replace("\n", "").isprintable()
    assert home(work) == []


def test_a_folder_on_the_way_is_no_link(work: Path, target: Path) -> None:
    (work / "out").symlink_to(work.parent)
    with pytest.raises(HandoverError, match="link"):
        fetch_file(work, "out/secret", target)
    (work.parent / "work2").symlink_to(work)
    (work / "f").touch()
    with pytest.raises(HandoverError):
        fetch_file(work.parent / "work2", "f", target)


def test_the_size_cap(work: Path, target: Path) -> None:
    (work / "f").write_bytes(b"12345")
    with pytest.raises(HandoverError, match="cap"):
        fetch_file(work, "f", target, size_cap=4)
    fetch_file(work, "f", target, size_cap=5)


def test_more_than_the_disk_has(work: Path, target: Path) -> None:
    room = os.statvfs(work)
    with (work / "f").open("wb") as file:
        file.truncate(room.f_bavail * room.f_frsize)
    with pytest.raises(HandoverError, match="space"):
        fetch_file(work, "f", target, size_cap=1 << 62)
    assert home(work) == []


def test_a_file_that_is_written_meanwhile(work: Path, target: Path) -> None:
    """Refused when it is noticed; nothing half is left in either case."""
    file = work / "f"
    file.write_bytes(b"a" * 5_000_000)
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            file.write_bytes(b"b" * 5_000_000)

    writer = threading.Thread(target=write)
    writer.start()
    refused = 0
    try:
        for _ in range(30):
            try:
                fetch_file(work, "f", target)
            except HandoverError:
                refused += 1
            else:
                target.unlink()
            assert home(work) == []
    finally:
        over.set()
        writer.join()
    assert refused
