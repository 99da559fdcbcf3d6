"""A directory that a hostile process has filled is removed all the same."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ovagent_jupyter.execution.rundir import LOCK, RunDirectory, remove_tree

NOBODY = 65534


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The directory to remove, and beside it what must stay."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("kept")
    return tmp_path / "tree"


def precious(tree: Path) -> str:
    return (tree.parent / "precious" / "file").read_text()


def deep(tree: Path, levels: int) -> None:
    """Folders in folders, deeper than a path can be long."""
    current = os.open(tree, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d" * 50, dir_fd=current)
        below = os.open("d" * 50, os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = below
    os.mkfifo("end", dir_fd=current)
    os.close(current)


def test_folders_nested_thousands_deep(tree: Path) -> None:
    deep(tree, 5000)
    remove_tree(tree)
    assert not tree.exists()


def test_links_are_removed_and_not_followed(tree: Path) -> None:
    (tree / "out").symlink_to(tree.parent / "precious")
    (tree / "file").hardlink_to(tree.parent / "precious" / "file")
    (tree / "loop").symlink_to(tree / "loop")
    (tree / "up").symlink_to("..")
    (tree / "inner").mkdir()
    (tree / "inner" / "out").symlink_to(tree.parent / "precious", target_is_directory=True)
    remove_tree(tree)
    assert not tree.exists()
    assert precious(tree) == "kept"


def test_a_link_in_the_place_of_the_directory_stays(tree: Path) -> None:
    link = tree.parent / "link"
    link.symlink_to(tree.parent / "precious")
    remove_tree(link)
    assert link.is_symlink()
    assert precious(tree) == "kept"


def test_names_pipes_and_sockets(tree: Path) -> None:
    for name in (b"new\nline", b"\xff\xfe", b"-rf", b"*", b" ", b"\x1b[2J", b"n" * 255):
        (tree / os.fsdecode(name)).mkdir()
        (tree / os.fsdecode(name) / os.fsdecode(name)).write_text("x")
    os.mkfifo(tree / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tree / "s"))
        remove_tree(tree)
    assert not tree.exists()


def test_very_many_files(tree: Path) -> None:
    for folder in range(20):
        (tree / str(folder)).mkdir()
    for number in range(100_000):
        os.close(os.open(tree / f"{number % 20}/{number}", os.O_CREAT | os.O_WRONLY))
    remove_tree(tree)
    assert not tree.exists()


SHUT = """
import ctypes, os, sys
from pathlib import Path
from ovagent_jupyter.execution.rundir import remove_tree
tree = Path(sys.argv[1])
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # dumpable again, as a user's process is
for mode in (0o000, 0o100, 0o200, 0o400, 0o500):
    inner = tree / f"{mode:o}" / "inner"
    inner.mkdir(parents=True)
    (inner / "file").write_text("x")
    (inner / "file").chmod(0)
    inner.chmod(mode)
    inner.parent.chmod(mode)
tree.chmod(0)
try:
    os.listdir(tree)
except PermissionError:
    print("shut")
remove_tree(tree)
print(tree.exists())
"""


def test_folders_that_are_shut_for_their_owner(tmp_path: Path) -> None:
    """As root nothing is shut, so another user does it."""
    place = Path(f"/tmp/ovagent-test-{os.getpid()}")
    place.mkdir(mode=0o777)
    try:
        if os.geteuid() == 0:
            os.chown(place, NOBODY, NOBODY)
        done = subprocess.run(
            [sys.executable, "-B", "-c", SHUT, str(place / "tree")],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
    finally:
        remove_tree(place)
    assert done.stdout.split() == ["shut", "False"]
    assert not place.exists()


def test_what_is_not_there_is_no_failure(tmp_path: Path) -> None:
    remove_tree(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    remove_tree(tmp_path / "file")
    assert (tmp_path / "file").exists()


def test_a_run_directory_goes_with_what_a_child_left(tmp_path: Path) -> None:
    used = RunDirectory(tmp_path, "k-")
    assert (used.path / LOCK).exists()
    deep(used.path, 1500)
    used.remove()
    used.remove()
    assert list(tmp_path.iterdir()) == []
