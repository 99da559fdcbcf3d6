"""Compiled code for children: made by a child of its own, copied, never shared."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from ovagent_jupyter.execution import seed
from ovagent_jupyter.execution.environment import CACHE


def made(root: Path) -> dict[str, str]:
    return {CACHE: str(root)}


async def compiles(root: Path) -> bool:
    """Make a copy from a folder with a file, a folder and links in it."""
    source = root / "source"
    (source / "inner").mkdir(parents=True)
    (source / "inner" / "index.nbi").write_text("index")
    (source / "stolen").symlink_to("/etc/passwd")
    (source / "loop").symlink_to(source)

    async def run(code: str, keep: Callable[[Path], None]) -> None:
        compile(code, "seed", "exec")
        keep(source)

    return await seed.make(made(root / "cache"), run)


async def test_what_a_trusted_child_compiled_is_given_as_a_copy(tmp_path: Path) -> None:
    assert await compiles(tmp_path)
    place = seed.place_of(made(tmp_path / "cache"))
    assert place is not None
    child = tmp_path / "child"
    child.mkdir()
    seed.give(made(tmp_path / "cache"), child)
    assert (child / "inner" / "index.nbi").read_text() == "index"
    assert not os.path.lexists(child / "stolen")
    (child / "inner" / "index.nbi").write_text("poisoned")
    assert (place / "inner" / "index.nbi").read_text() == "index"


async def test_it_is_made_once(tmp_path: Path) -> None:
    assert await compiles(tmp_path)

    async def never(_code: str, _keep: Callable[[Path], None]) -> None:
        raise AssertionError

    assert await seed.make(made(tmp_path / "cache"), never)


async def test_a_child_that_fails_leaves_nothing(tmp_path: Path) -> None:
    async def fails(_code: str, _keep: Callable[[Path], None]) -> None:
        return

    assert not await seed.make(made(tmp_path), fails)
    child = tmp_path / "child"
    child.mkdir()
    seed.give(made(tmp_path), child)
    assert list(child.iterdir()) == []


async def test_another_process_at_it_is_left_alone(tmp_path: Path) -> None:
    place = seed.place_of(made(tmp_path))
    assert place is not None
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        async def never(_code: str, _keep: Callable[[Path], None]) -> None:
            raise AssertionError

        assert not await seed.make(made(tmp_path), never)


async def test_two_of_one_process_make_it_one_after_the_other(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").touch()
    runs: list[str] = []

    async def run(code: str, keep: Callable[[Path], None]) -> None:
        runs.append(code)
        await asyncio.sleep(0.1)
        keep(source)

    both = [seed.make(made(tmp_path), run, wait=True) for _ in range(2)]
    assert await asyncio.gather(*both) == [True, True]
    assert len(runs) == 1
