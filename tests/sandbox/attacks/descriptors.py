"""Attacks by what a child is born with: descriptors, a terminal, standard streams."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tests.sandbox.attack import Category, attack
from tests.sandbox.faces import Shot
from tests.sandbox.guest import Scene, hold, show
from tests.sandbox.judges import holds, leaked
from tests.sandbox.witness import Witness

DESCRIPTORS = Category.DESCRIPTORS


def parent_stdio_written(witness: Witness, shot: Shot) -> str:
    """The word is in what the parent's own output goes to."""
    return "it wrote to the parent's output" if shot.tag in witness.stdio_text() else ""


@attack(DESCRIPTORS, "reads what is open in descriptors it inherited", leaked("inherited"))
def read_inherited(s: Scene) -> None:
    for number in range(3, 400):
        try:
            if stat.S_ISREG(os.fstat(number).st_mode):
                show(os.pread(number, 200, 0))
        except OSError:
            pass


@attack(DESCRIPTORS, "goes up from an inherited directory", leaked("ssh_key"))
def climb_inherited_directory(s: Scene) -> None:
    for number in range(3, 400):
        try:
            if stat.S_ISDIR(os.fstat(number).st_mode):
                show(open(os.open(".ssh/id_ed25519", os.O_RDONLY, dir_fd=number)).read())
        except OSError:
            pass


@attack(DESCRIPTORS, "reads the parent's standard input", leaked("stdin"))
def read_standard_input(s: Scene) -> None:
    os.set_blocking(0, False)
    try:
        show(os.read(0, 1000) or b"end of file")
    finally:
        os.set_blocking(0, True)


@attack(DESCRIPTORS, "reads the parent's standard input by its directory", leaked("stdin"))
def read_parent_input(s: Scene) -> None:
    for pid in (s.harness, os.getppid()):
        try:
            found = os.open(f"/proc/{pid}/fd/0", os.O_RDONLY | os.O_NONBLOCK)
            show(os.pread(found, 1000, 0))
        except OSError as error:
            print(error)


@attack(DESCRIPTORS, "writes to standard output below Python", parent_stdio_written)
def write_standard_output(s: Scene) -> None:
    for number in (1, 2):
        os.write(number, s.tag.encode())


@attack(DESCRIPTORS, "writes to the parent's output by its directory", parent_stdio_written)
def write_parent_output(s: Scene) -> None:
    for pid in (s.harness, os.getppid()):
        for number in (1, 2):
            try:
                os.write(
                    os.open(f"/proc/{pid}/fd/{number}", os.O_WRONLY | os.O_APPEND), s.tag.encode()
                )
            except OSError as error:
                print(error)


@attack(DESCRIPTORS, "opens the terminal it was started from", holds("/dev/tty for"))
def open_own_terminal(s: Scene) -> None:
    hold(os.open("/dev/tty", os.O_RDWR))


@attack(DESCRIPTORS, "opens files that the parent has open", leaked("inherited"))
def open_parent_files(s: Scene) -> None:
    for pid in (s.harness, os.getppid()):
        try:
            entries = os.listdir(f"/proc/{pid}/fd")
        except OSError as error:
            print(error)
            continue
        for entry in entries:
            path = Path(f"/proc/{pid}/fd/{entry}")
            try:
                if path.is_file():
                    show(path.read_bytes()[:200])
            except OSError:
                pass
