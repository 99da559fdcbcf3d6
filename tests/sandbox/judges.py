"""Who judges an attack: each looks at the machine from outside, none asks the child."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.sandbox.attack import Judge

if TYPE_CHECKING:
    from tests.sandbox.faces import Shot
    from tests.sandbox.witness import Witness


def leaked(*names: str) -> Judge:
    """One of these secrets came out in what the child printed, showed or raised."""

    def judge(witness: Witness, shot: Shot) -> str:
        return next(filter(None, (witness.leaked(name, shot.text) for name in names)), "")

    return judge


def read_of_system(path: str) -> Judge:
    """The child knows the hash of the beginning of a file of the system."""

    def judge(witness: Witness, shot: Shot) -> str:
        return witness.hashed(path, shot.text)

    return judge


def harmed(witness: Witness, shot: Shot) -> str:
    """Something the user has was changed."""
    return witness.harm(shot.tag)


def heard(witness: Witness, shot: Shot) -> str:
    """A service of the user heard the word of this attack."""
    return witness.listeners.got(shot.tag)


def victim_harmed(witness: Witness, shot: Shot) -> str:
    """The other process was signalled, changed or read."""
    time.sleep(0.03)  # its signal handlers run on its own time
    return witness.victim.harm() or witness.leaked("victim_memory", shot.text)


def holds(*patterns: str) -> Judge:
    """The child has a descriptor of that kind, as its directory in /proc shows."""

    def judge(witness: Witness, shot: Shot) -> str:
        return next(filter(None, map(witness.processes.gained, patterns)), "")

    return judge


def seen_running(witness: Witness, shot: Shot) -> str:
    """A process carries the word of this attack in its name or arguments."""
    found = witness.processes.named(shot.tag)
    return f"{len(found)} processes run" if found else ""


def other_space(kind: str) -> Judge:
    """A process of the attack is in a namespace of its own making."""

    def judge(witness: Witness, shot: Shot) -> str:
        tree = witness.tree()
        named = {process.pid for process in witness.processes.named(shot.tag)}
        usual = {witness.processes.space_of(p, kind) for p in tree if p.pid not in named}
        for process in tree:
            space = witness.processes.space_of(process, kind)
            if process.pid in named and space and space not in usual:
                return f"a new {kind} namespace was made"
        return ""

    return judge


def special_file(witness: Witness, shot: Shot) -> str:
    """A file with a set-id bit, a capability or a device lies in the child's own folders."""
    for path in marked_files(witness.base, shot.tag):
        about = path.lstat()
        if about.st_mode & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISDIR(about.st_mode):
            return f"a file of mode {stat.S_IMODE(about.st_mode):o} was made"
        if stat.S_ISBLK(about.st_mode) or (stat.S_ISCHR(about.st_mode) and about.st_rdev):
            return "a device was made"
        if stat.S_ISREG(about.st_mode) and "security.capability" in os.listxattr(path):
            return "a file with capabilities was made"
    return ""


def marked_files(base: Path, tag: str) -> list[Path]:
    """The files that an attack made in its child's own folders, by its word."""
    found = []
    for folder in (base / "tmp").glob("ovagent-child-*"):
        for place, names, files in os.walk(folder):
            found += [Path(place, name) for name in (*names, *files) if tag in name]
    return found


def flagged(name: str) -> Judge:
    """A ritual noted it."""

    def judge(witness: Witness, shot: Shot) -> str:
        return str(shot.note(name) or "")

    return judge


def any_of(*judges: Judge) -> Judge:
    """The first that finds something."""

    def judge(witness: Witness, shot: Shot) -> str:
        return next(filter(None, (one(witness, shot) for one in judges)), "")

    return judge


def unfinished(witness: Witness, shot: Shot) -> str:
    """The parent waits for ever, or got an exception where a result belongs."""
    return f"the parent {shot.status}: {shot.error}" if shot.status in {"hung", "raised"} else ""


def left_over(processes: list[psutil.Process]) -> str:
    """What a process that should be gone is."""
    return f"{len(processes)} processes are left" if processes else ""
