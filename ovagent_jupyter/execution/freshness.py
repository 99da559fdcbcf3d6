"""What a child that waits was made from: when any of it is different now, it is stale."""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ovagent_jupyter.execution import seed
from ovagent_jupyter.execution.environment import ALLOWED, CACHE

if TYPE_CHECKING:
    from ovagent_jupyter.execution.launch import LaunchOptions

PLACES = ("HOME", "TMPDIR", "XDG_RUNTIME_DIR", "OVAGENT_HOME", CACHE)
"""Variables that a child does not get, but that say where its folders are made."""
OF_ONE_CHILD = frozenset({"JPY_SESSION_NAME"})
"""Variables that a child gets and that what it imports does not depend on."""
MOST = 2_000
"""Entries of one folder that are looked at."""

Stamp = tuple[int, ...]
"""What tells a file from its successor at the same path; empty when there is none."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What the modules depend on that are imported before there is a child."""

    python: str
    warm: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]
    packages: tuple[tuple[str, Stamp], ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """What a waiting child depends on; two that are equal make the same child."""

    imported: Imported
    options: tuple[object, ...]
    """What is granted to it, and where its folders are."""
    granted: tuple[Stamp, ...]
    """The files behind the granted paths: a child holds the file, not the name."""
    compiled: bool
    """Whether it was given compiled code."""


def origin_of(options: LaunchOptions, warm: Sequence[str]) -> Origin:
    """What a child made now would depend on."""
    source = options.environment
    spec = options.spec
    place = seed.place_of(source)
    return Origin(
        imported=imported_by(options, warm),
        options=(
            options.isolation,
            spec,
            options.layers,
            options.run_dir,
            options.work_dir,
            options.on_denied,
            *(source.get(name) for name in (*PLACES, *sorted(OF_ONE_CHILD))),
        ),
        granted=tuple(_stamp(path, with_time=False) for path in (*spec.read, *spec.write)),
        compiled=place is not None and place.is_dir(),
    )


def imported_by(options: LaunchOptions, warm: Sequence[str]) -> Imported:
    """What the imports of a child made now would depend on."""
    source = options.environment
    names = sorted((ALLOWED & source.keys()) - OF_ONE_CHILD)
    return Imported(
        python=options.python,
        warm=tuple(warm),
        variables=tuple((name, source[name]) for name in names),
        packages=tuple(_packages(options.python, source)),
    )


def _packages(python: str, environment: Mapping[str, str]) -> Iterator[tuple[str, Stamp]]:
    """The interpreter and the folders of its packages; an installation changes one of them."""
    binary = Path(python)
    yield python, _stamp(binary)
    prefix = binary.parent.parent
    yield "pyvenv.cfg", _stamp(prefix / "pyvenv.cfg")
    holy = {str(each) for each in prefix.glob("lib/python*/site-packages")}
    if python == sys.executable:
        holy |= {*site.getsitepackages(), site.getusersitepackages()}
    for folder in sorted(holy):
        yield folder, _stamp(Path(folder))
        # What such a file adds to the path; edited in place, the folder stays as it was.
        yield from ((str(path), _stamp(path)) for path in sorted(Path(folder).glob("*.pth")))
    for entry in environment.get("PYTHONPATH", "").split(os.pathsep):
        if entry:
            yield from _importable(entry)


def _importable(folder: str) -> Iterable[tuple[str, Stamp]]:
    """What can be imported from a folder that may hold much else."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for _, entry in zip(range(MOST), entries, strict=False):
                package = entry.is_dir() and Path(entry.path, "__init__.py").is_file()
                if package or entry.name.endswith((".py", ".so")):
                    found.append((entry.path, _stamp(Path(entry.path))))
    except OSError:
        return ()
    return sorted(found)


def _stamp(path: Path, *, with_time: bool = True) -> Stamp:
    try:
        about = path.stat()
    except OSError:
        return ()
    same = (about.st_dev, about.st_ino)
    return (*same, about.st_size, about.st_mtime_ns) if with_time else same
