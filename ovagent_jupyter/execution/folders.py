"""The folders that are made for one child: its sockets and its private root."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ovagent_jupyter.errors import ChildStartError, OVAgentError
from ovagent_jupyter.execution.rundir import RunDirectory
from ovagent_jupyter.storage.paths import runtime_dir

LONGEST_SOCKET_PATH = 103
"""Bytes of a socket's path: sun_path of unix(7) has 108, that of macOS 104."""


class ChildFolders:
    """The folders that are made for one child and go with it.

    Args:
        base: Where its sockets are made.

    Raises:
        OSError: One cannot be made.
        ChildStartError: The path is too long for sockets.
    """

    def __init__(self, base: Path) -> None:
        self._made: list[RunDirectory] = []
        try:
            self.run = self._make(base, "k-")
            """Sockets and connection file; a child reads in it and writes nothing."""
            _check_length(self.run)
            self.root = self._make(Path(tempfile.gettempdir()), "ovagent-child-")
            """What the child writes to lies below it."""
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Remove them all; safe to call twice."""
        for directory in self._made:
            directory.remove()

    def _make(self, base: Path, prefix: str) -> Path:
        self._made.append(RunDirectory(base, prefix))
        return self._made[-1].path


def make_folders(run_dir: Path | None, environment: Mapping[str, str]) -> ChildFolders:
    """The folders of a new child.

    Args:
        run_dir: Where its sockets are made; None is the user's runtime directory.
        environment: Says where that is.

    Raises:
        ChildStartError: There is no place for its sockets.
        OSError: One cannot be made.
    """
    try:
        base = run_dir or runtime_dir(environment)
    except OVAgentError as error:
        raise ChildStartError(error.what, why=error.why, next_step=error.next_step) from error
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    return ChildFolders(base)


def _check_length(run: Path) -> None:
    longest = len(os.fsencode(run)) + len("/k-5")
    if longest > LONGEST_SOCKET_PATH:
        raise ChildStartError(
            f"The path {run.parent} is too long for sockets.",
            why=f"They would have {longest} bytes; the system allows {LONGEST_SOCKET_PATH}.",
            next_step="Choose a shorter run_dir.",
        )
