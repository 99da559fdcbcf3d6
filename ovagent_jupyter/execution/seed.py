"""Compiled code that a child starts with: a copy of what a trusted child has compiled before.

Numba's first ``neighbors`` costs 15 s of compiling. What a child compiles stays in its own folder
and goes with it, because an index that a hostile child could write would be code in the next one.
The trusted copy is made by a child of its own, confined like any other, that ran only ``CODE``.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import stat
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path

from ovagent_jupyter.execution.environment import CACHE
from ovagent_jupyter.storage.paths import cache_dir

CODE = """
import os, warnings
os.nice(19)
warnings.simplefilter("ignore")
import anndata, numpy, scanpy
random = numpy.random.default_rng(0)
data = anndata.AnnData(random.poisson(1, (300, 200)).astype("f4"))
scanpy.pp.normalize_total(data)
scanpy.pp.log1p(data)
scanpy.pp.pca(data)
scanpy.pp.neighbors(data)
scanpy.tl.umap(data)
"""
"""The steps that compile, on numbers made up."""
COMPILERS = ("numba", "llvmlite", "scanpy", "umap-learn", "pynndescent", "numpy")
"""Packages whose version decides what is compiled."""
ROOM = 64 << 20
"""Bytes that must be free for it."""

RunIn = Callable[[str, Callable[[Path], None]], Awaitable[None]]
"""Runs code in a fresh child; if it succeeds, passes on the folder of what it compiled."""


def place_of(environment: Mapping[str, str]) -> Path | None:
    """Where the copy for this interpreter and these packages is; None without a compiler."""
    try:
        versions = [f"{name} {metadata.version(name)}" for name in COMPILERS]
    except metadata.PackageNotFoundError:
        return None
    facts = [platform.python_version(), platform.machine(), *versions, CODE]
    key = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
    named = environment.get(CACHE)
    root = Path(named) if named else cache_dir(environment)
    return root / f"compiled-{key}"


def give(environment: Mapping[str, str], folder: Path) -> None:
    """Copy it into the folder of a child, if there is one; without, the child compiles itself."""
    place = place_of(environment)
    # It may be closed to us or replaced meanwhile, or the disk be full: a child starts without it.
    with contextlib.suppress(OSError):
        if place is not None and place.is_dir():
            shutil.copytree(place, folder, dirs_exist_ok=True)


async def make(environment: Mapping[str, str], run: RunIn, *, wait: bool = False) -> bool:
    """Make the copy unless it is there; True when it is there at the end.

    Args:
        environment: Decides where it is.
        run: Runs ``CODE`` in a child.
        wait: Wait for another process that is making it; else leave it to that one.
    """
    place = place_of(environment)
    if place is None or place.is_dir():
        return place is not None
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if shutil.disk_usage(place.parent).free < ROOM:
            return False
        descriptor = os.open(place.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        how = fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)
        await asyncio.to_thread(fcntl.flock, descriptor, how)
        if not place.is_dir():
            await run(CODE, partial(_keep, place))
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return place.is_dir()


def _keep(place: Path, made: Path) -> None:
    """Put the files of a child where children get theirs from; links are left out."""
    with tempfile.TemporaryDirectory(dir=place.parent) as temporary:
        copy = Path(temporary) / "copy"
        # The child still lives: by descriptors, so that no name is a link by the time it is opened.
        for folder, _, names, place_of_folder in os.fwalk(made):
            goal = copy / Path(folder).relative_to(made)
            goal.mkdir(mode=0o700, parents=True)
            for name in names:
                with contextlib.suppress(OSError):
                    _copy_plain(name, place_of_folder, goal / name)
        copy.rename(place)


def _copy_plain(name: str, folder: int, goal: Path) -> None:
    """Copy a plain file that has one name; nothing else."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, dir_fd=folder), "rb") as source:
        about = os.fstat(source.fileno())
        if stat.S_ISREG(about.st_mode) and about.st_nlink == 1 and about.st_size <= ROOM:
            goal.write_bytes(source.read(about.st_size))
