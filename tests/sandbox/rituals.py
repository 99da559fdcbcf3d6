"""How attacks are carried out that are more than one cell."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tests.sandbox import guest
from tests.sandbox.faces import PATIENCE, Shot
from tests.sandbox.gauge import Gauge

if TYPE_CHECKING:
    from tests.sandbox.attack import Stage

GROWTH = 60 << 20
"""Bytes by which the parent may grow while a child floods it."""
GONE = 10.0
"""Seconds until what was ended must be gone."""
STEP = 0.05


async def fire(stage: Stage) -> Shot:
    """Run the attack's cell."""
    shot: Shot = await stage.face.run(stage.cell, stage.attack.timeout, stage.tag)
    shot.notes = {}
    return shot


async def with_next_cell(stage: Stage) -> Shot:
    """Then another cell, to see whether the first one changed what comes after it."""
    shot = await fire(stage)
    assert shot.notes is not None
    if shot.status in {"hung", "dead", "limit"}:
        return shot
    if not stage.face.alive:
        await stage.face.start()
    after: Shot = await stage.face.run("print('second', 40 + 2)", 4)
    if after.status in {"hung", "raised"}:
        shot.notes["broken"] = f"the next cell {after.status}: {after.error}"
    if after.status != "ok" or after.text.strip() != "second 42":
        shot.notes["after"] = f"the next cell: {after.status} {after.error} {after.text[:80]!r}"
    return shot


async def weighed(stage: Stage) -> Shot:
    """Look how much the parent grew."""
    own = psutil.Process()
    before = own.memory_info().rss
    shot = await fire(stage)
    assert shot.notes is not None
    grown = own.memory_info().rss - before
    if grown > GROWTH:
        shot.notes["grew"] = f"the parent grew by {grown >> 20} MiB"
    return shot


async def with_what_is_taken(stage: Stage) -> Shot:
    """Look what else the client took from the child."""
    shot = await fire(stage)
    assert shot.notes is not None
    await asyncio.sleep(0.1)
    if stage.tag in stage.face.taken():
        shot.notes["taken"] = "the client took what is no output"
    return shot


async def counted(stage: Stage) -> Shot:
    """Then look how often the cell ran: it writes a line each time, which the child can only add.

    A parent that sends a cell again because of what the child said has run it twice.
    """
    shot = await with_next_cell(stage)
    assert shot.notes is not None
    lines = 0
    for path in Path(stage.witness.base, "tmp").glob("ovagent-child-*/**/runs.txt"):
        lines = max(lines, path.read_text().count(stage.tag))
    if lines > 1:
        shot.notes["runs"] = f"the cell ran {lines} times"
    return shot


async def then_ended(stage: Stage) -> Shot:
    """Then shut the child down, and see what is left of it."""
    shot = await fire(stage)
    assert shot.notes is not None
    shot.notes["before"] = len(stage.witness.processes.named(stage.tag))
    folders = _folders_of(stage.face)
    try:
        await stage.face.stop()
    except Exception as error:
        shot.notes["left"] = f"the shutdown: {type(error).__name__}: {error}"
        return shot
    left = await _gone(lambda: stage.witness.processes.named(stage.tag) or stage.witness.tree())
    if left:
        shot.notes["left"] = f"{len(left)} processes live on"
        return shot
    remaining = [path for path in folders if path.exists()]
    if remaining:
        shot.notes["left"] = f"the child's folder is left: {_inside(remaining[0])}"
    return shot


async def then_next_child(stage: Stage) -> Shot:
    """Then start another child, as after a crash, and see what it is like."""
    before = dict(getattr(stage.face, "protections", {}))
    shot = await fire(stage)
    assert shot.notes is not None
    with contextlib.suppress(Exception):
        await stage.face.stop()
    try:
        await asyncio.wait_for(stage.face.start(), 2 * PATIENCE)
        after: Shot = await stage.face.run(
            "print('fresh', owned if 'owned' in dir() else 'clean')", 20
        )
    except Exception as error:
        shot.notes["refused"] = f"{type(error).__name__}: {error}"[:200]
        return shot
    now = dict(getattr(stage.face, "protections", {}))
    if now != before:
        shot.notes["weaker"] = f"the next child has {now}, the first had {before}"
    if stage.tag in after.text or "clean" not in after.text:
        shot.notes["poisoned"] = f"the next child: {after.text[:100]!r}"
    return shot


async def with_objects(stage: Stage) -> Shot:
    """Hand an object over, run the cell, and fetch what changed, as each turn does."""
    import numpy as np

    from ovagent_jupyter.errors import HandoverError

    executor = stage.face.executor
    await executor.put({"x": np.arange(10)})
    shot = await fire(stage)
    assert shot.notes is not None
    try:
        changes = await asyncio.wait_for(executor.changes(("y",)), PATIENCE)
        shot.text += repr({name: _content(value) for name, value in changes.objects.items()})
        strange = sorted(set(changes.objects) - {"x", "y"})
        if strange:
            shot.notes["fetched"] = f"objects came that nobody asked for: {strange}"
    except HandoverError:
        shot.notes["refused"] = "yes"
    except TimeoutError:
        shot.notes["fetched"] = "the parent waits for ever"
    except Exception as error:
        shot.notes["fetched"] = f"{type(error).__name__}: {error}"
    return shot


async def with_a_file(stage: Stage) -> Shot:
    """Run the cell, then fetch the file that it made for the user."""
    from ovagent_jupyter.errors import HandoverError
    from ovagent_jupyter.execution.files import fetch_file

    shot = await fire(stage)
    assert shot.notes is not None
    target = stage.witness.base / f"fetched-{stage.tag}"
    fetch = asyncio.to_thread(
        fetch_file, stage.face.executor.work_dir, "out/result.csv", target, size_cap=1 << 20
    )
    try:
        await asyncio.wait_for(fetch, PATIENCE)
        content = target.read_text("utf-8", "replace")
        if content != "a,b\n1,2\n":
            shot.text += content
            shot.notes["fetched"] = f"what is no result was fetched: {len(content)} characters"
    except HandoverError:
        shot.notes["refused"] = "yes"
    except TimeoutError:
        shot.notes["fetched"] = "the parent waits for ever"
    except Exception as error:
        shot.notes["fetched"] = f"{type(error).__name__}: {error}"
    finally:
        target.unlink(missing_ok=True)
    return shot


def _content(value: object) -> object:
    """The bytes of an array as text, to look for secrets in them."""
    raw = getattr(value, "tobytes", None)
    return raw().decode("latin-1")[:100_000] if raw is not None else value


async def parent_killed(stage: Stage) -> Shot:
    """Have another parent run the cell, kill that parent, and see what lives on."""
    await stage.face.stop()
    file = stage.witness.base / "doomed.json"
    file.write_text(
        json.dumps({"setup": stage.setup, "attack": stage.attack.id, "cell": stage.cell})
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "tests.sandbox.doomed", str(file),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert parent.stdout is not None
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(parent.stdout.readline(), 2 * PATIENCE)
    before = stage.witness.tree()
    seen = len(stage.witness.processes.named(stage.tag))
    with contextlib.suppress(ProcessLookupError):
        parent.kill()
    await parent.wait()
    left = await _gone(stage.witness.tree)
    shot = Shot(stage.tag, "ok", notes={"before": seen, "processes": len(before)})
    assert shot.notes is not None
    if not before:
        said = (await parent.stderr.read())[-600:] if parent.stderr is not None else b""
        raise RuntimeError(f"The parent that is to be killed has started no child: {said!r}")
    if left:
        shot.notes["left"] = f"{len(left)} processes live on without the parent"
    return shot


async def measured(stage: Stage) -> Shot:
    """Watch what the child uses while it tries to use up the machine."""
    # Others that measure wait: part of what is measured is the machine's.
    lock = os.open(os.environ["ESCAPE_LOCK"], os.O_RDONLY | os.O_CLOEXEC)
    try:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        with Gauge(stage.witness.processes, stage.witness.base) as gauge:
            shot = await fire(stage)
    finally:
        os.close(lock)
    assert shot.notes is not None
    shot.notes["peak"] = gauge.peak
    try:
        await stage.face.stop()
    except Exception as error:
        shot.notes["left"] = f"the shutdown: {type(error).__name__}: {error}"
        return shot
    left = await _gone(stage.witness.tree)
    if left:
        shot.notes["left"] = f"{len(left)} processes live on"
    return shot


def _folders_of(face: Any) -> list[Path]:
    """The private folder of the child that runs, if it has one that is known."""
    executor = getattr(face, "executor", None)
    return [executor.work_dir.parent] if executor is not None and executor.alive else []


async def _gone(look: Any) -> list[psutil.Process]:
    """What is still there after a while."""
    left = look()
    for _ in range(round(GONE / STEP)):
        if not left:
            break
        await asyncio.sleep(STEP)
        left = look()
    return list(left)


def _inside(folder: Path) -> str:
    entries = [os.path.relpath(path, folder) for path in sorted(folder.rglob("*"))[:3]]
    return f"{folder.name}: {entries}"[:120]


async def boot_poisoned(stage: Stage) -> Shot:
    """Start a child whose packages are hostile, with weaker executors behind it.

    The attack's code runs as the ``sitecustomize`` of a directory on the child's path. The child
    may fail to start; what may not happen is that a weaker one is taken for it.
    """
    from ovagent_jupyter.config.schema import SandboxFallbackPolicy
    from ovagent_jupyter.errors import OVAgentError
    from ovagent_jupyter.execution.executor import Isolation
    from ovagent_jupyter.execution.inprocess import InProcessExecutor
    from ovagent_jupyter.execution.kernel import KernelExecutor
    from ovagent_jupyter.execution.policy import choose_executor

    await stage.face.stop()
    first = stage.face.executor
    chain = [first]
    weaker = [level for level in Isolation if Isolation.PROCESS <= level < first.isolation]
    options = stage.face.options
    chain += [KernelExecutor(isolation=level, options=options) for level in reversed(weaker)]
    place = Path(stage.witness.home.facts["package"]).with_name("sitecustomize.py")
    # Only in the child's own process: this one and its other programs have the path as well.
    guard = "import os, sys\nif 'OVAGENT_CHILD' in os.environ:\n"
    body = f"exec(compile({_boot_code(stage)!r}, 'sitecustomize', 'exec'), {{'__name__': 'boot'}})"
    place.write_text(f"{guard}    {body}\n")
    stage.witness.home.accept()
    shot = Shot(stage.tag, "ok", notes={})
    assert shot.notes is not None
    taken = None
    try:
        taken = await asyncio.wait_for(
            choose_executor(
                [*chain, InProcessExecutor()],
                SandboxFallbackPolicy.WARN_AND_FALLBACK,
                Isolation.IN_PROCESS,
            ),
            3 * PATIENCE,
        )
    except OVAgentError as error:
        shot.error = f"{type(error).__name__}: {error.what}"
    except Exception as error:
        shot.notes["broken"] = f"{type(error).__name__}: {error}"
    finally:
        harm = stage.witness.home.harm()
        place.unlink()
        if harm:
            shot.notes["weaker"] = f"outside of the child: {harm}"
        stage.witness.home.restore()
        for executor in chain:
            await executor.shutdown()
    if taken is not None and taken.executor is not first:
        shot.notes["weaker"] = f"level {taken.executor.isolation.name} was taken"
    return shot


def _boot_code(stage: Stage) -> str:
    """The attack's own cell with what it needs, as a module."""
    prelude = Path(guest.__file__).read_text("utf-8")
    return f"{prelude}\n{stage.cell}"
