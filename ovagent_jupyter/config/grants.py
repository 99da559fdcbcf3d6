"""Which files and folders may be granted to the child, and why others are refused."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Literal

from ovagent_jupyter.config.values import bad, members
from ovagent_jupyter.errors import ConfigError

Kind = Literal["read", "write"]

_REMEDY = "Use the paths of files or folders, such as '~/data'."
_SYSTEM = ("/proc", "/sys", "/dev", "/etc", "/run", "/boot")
"""Other processes, devices, passwords, the sockets of services."""
_PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt", "/var/lib", "/Library", "/System")
"""What other programs run; readable as far as Python needs it, never to be changed."""
_SHARED = ("/tmp", "/var/tmp", "/home", "/Users")  # noqa: S108 - refused, not used
SECRETS = (
    *(".ssh", ".aws", ".azure", ".config", ".docker", ".gnupg", ".kube", ".jupyter", ".ipython"),
    *(".local/share/jupyter", ".local/share/keyrings", ".password-store", ".pki", ".mozilla"),
    *(".thunderbird", ".oci", ".databricks", ".terraform.d", ".cargo", ".npm", ".vscode-server"),
    *(".cache/huggingface", ".huggingface", ".kaggle", ".ovagent", ".local/share/ovagent"),
    *(".cache/ovagent", "Library/Keychains", "Library/Application Support", "Library/Jupyter"),
)
"""Folders in a home that hold keys, passwords, sessions of a browser or our own files."""


def parse_paths(name: Kind, value: object) -> tuple[Path, ...]:
    """Paths as they lead now, links followed, without repeats.

    Raises:
        ConfigError: One of them is no path.
    """
    found = []
    for member in members(name, value, _REMEDY):
        if not isinstance(member, str | Path) or not str(member).strip() or "\0" in str(member):
            raise bad(name, member, _REMEDY)
        try:
            found.append(Path(member).expanduser().resolve())
        except (OSError, RuntimeError) as error:  # a loop of links, a home that nobody has
            raise bad(name, str(member), _REMEDY, str(error)) from error
    return tuple(dict.fromkeys(found))


def check_path(kind: Kind, path: Path, home: Path, ours: Collection[Path], *, force: bool) -> None:
    """Refuse a path that does not exist, or that gives away more than data.

    Args:
        kind: Whether it may be read, or changed too.
        path: The path.
        home: The user's home directory.
        ours: Where our own files lie.
        force: Accept all that exists.

    Raises:
        ConfigError: It is refused.
    """
    # Followed anew: what lay there when the setting was read may be a link by now.
    if path.resolve() != path:
        raise ConfigError(
            f"{kind} is not granted for {path}.",
            why=f"Since the setting was read it has become a link to {path.resolve()}.",
            next_step="See who made the link; then set the grant again.",
        )
    if not path.exists():
        raise ConfigError(
            f"{kind} cannot be granted for {path}.",
            why="It does not exist.",
            next_step="Make it first." if kind == "write" else "Check the path.",
        )
    reason = "" if force else next(_reasons(kind, path, home.resolve(), ours), "")
    if reason:
        raise ConfigError(
            f"{kind} is not granted for {path}.",
            why=reason,
            next_step="Grant the folder with the data only; or, if you must, set sandbox_force.",
        )


def within(path: Path, folders: Collection[Path]) -> bool:
    """Whether a path is one of the folders or lies below one."""
    return any(path == folder or folder in path.parents for folder in folders)


def _reasons(kind: Kind, path: Path, home: Path, ours: Collection[Path]) -> Iterator[str]:
    if path == Path(path.anchor):
        yield "It is the whole file system."
    if path == home:
        yield "It is your home, with your keys and settings."
    if path in home.parents:
        yield "It contains your home."
    yield from _system_reasons(kind, path)
    for secret in _existing(home / each for each in SECRETS):
        yield from _around(path, secret, "which holds keys, settings or files of other programs")
    for own in _existing(ours):
        yield from _around(path, own, "where ovagent keeps its own files")
    if path.parent == home and path.name.startswith(".") and (kind == "write" or path.is_file()):
        yield "Hidden files in your home hold settings and keys of programs."
    if kind == "write" and within(path, [home]):
        top = path.relative_to(home).parts[0]
        if top.startswith("."):
            yield "Hidden folders in your home hold what programs run and trust."


def _system_reasons(kind: Kind, path: Path) -> Iterator[str]:
    for place in _existing(Path(each) for each in _SYSTEM):
        yield from _around(path, place, "which belongs to the system")
    for shared in _existing([*map(Path, _SHARED), Path(tempfile.gettempdir())]):
        if path == shared or path in shared.parents:
            yield f"It is or contains {shared}, where all programs and users have files."
    if kind == "write":
        package = Path(__file__).parents[1]
        programs = [*map(Path, _PROGRAMS), Path(sys.prefix), Path(sys.base_prefix), package]
        for place in _existing(programs):
            yield from _around(path, place, "which holds programs")
        for place in _existing(Path(entry or ".") for entry in sys.path):
            if path == place or path in place.parents:
                yield f"Your Python imports code from {place}."


def _around(path: Path, place: Path, what: str) -> Iterator[str]:
    if path == place:
        yield f"It is {place}, {what}."
    elif place in path.parents:
        yield f"It lies in {place}, {what}."
    elif path in place.parents:
        yield f"It contains {place}, {what}."


def _existing(places: Iterable[Path]) -> Iterator[Path]:
    """Those that are there, links followed, since grants are compared by where they lead."""
    for place in places:
        if os.path.lexists(place):
            yield place.resolve()
