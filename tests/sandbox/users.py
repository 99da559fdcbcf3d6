"""Starts the harness as this user, or as an unprivileged one when this one is root."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.sandbox.home import drop_tree

NOBODY = 65534
ROOT = Path(__file__).parents[2]
"""The checkout: it holds the tests."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the harness."""

    reports: list[dict[str, Any]]
    code: int
    output: str
    """What it printed, for a run that failed."""


def users() -> tuple[int, ...]:
    """The users that the suite can run as here."""
    return (0, NOBODY) if os.getuid() == 0 else (os.getuid(),)


def _lock() -> Path:
    """A file that one harness at a time locks while it measures what the machine has left."""
    path = Path(f"/tmp/esc-lock-{os.getuid()}")
    path.touch(0o644)
    return path


def run_harness(
    user: int,
    setups: Sequence[str],
    attacks: Iterable[str] = (),
    *,
    limit: int = 270,
    environment: Mapping[str, str] | None = None,
) -> Run:
    """Run the harness to its end and read its results.

    Its directory lies directly in the temporary directory: sockets need short paths.
    """
    base = Path(tempfile.mkdtemp(prefix="esc-", dir="/tmp"))
    try:
        for name in ("home", "tmp", "run"):
            (base / name).mkdir()
        for path in (base, *base.iterdir()):
            os.chown(path, user, user if user else -1)
            path.chmod(0o700)
        out = base / "results.json"
        command = [
            sys.executable, "-P", "-m", "tests.sandbox.harness",
            "--base", str(base), "--out", str(out), "--limit", str(limit), "--setups", *setups,
        ]  # fmt: skip
        if attacks:
            command += ["--attacks", *attacks]
        done = subprocess.run(
            as_user(user, command),
            cwd=base,
            env=_environment(base) | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit + 30,
            check=False,
        )
        log = base / "stdio.log"
        printed = (
            done.stdout + done.stderr + (log.read_text("utf-8", "replace") if log.exists() else "")
        )
        reports = json.loads(out.read_text()) if out.exists() else []
        return Run(reports, done.returncode, printed[-8000:])
    finally:
        drop_tree(base)


def _environment(base: Path) -> dict[str, str]:
    home = base / "home"
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "HOME": str(home),
        "TMPDIR": str(base / "tmp"),
        "XDG_RUNTIME_DIR": str(base / "run"),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "OVAGENT_HOME": str(home / ".ovagent"),
        "IPYTHONDIR": str(base / "run" / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(base / "run" / "jupyter"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{home / '.local' / 'lib' / 'decoy-packages'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MPLBACKEND": "agg",
        "OPENAI_API_KEY": secrets.token_hex(12),
        "ESCAPE_LOCK": str(_lock()),
    }


def as_user(user: int, command: Sequence[str]) -> list[str]:
    """The command that runs as another user; directories closed to it are opened for it alone."""
    if user == os.getuid():
        return list(command)
    drop = [
        "setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups",
        "--inh-caps=-all", "--bounding-set=-all",
    ]  # fmt: skip
    script = "\n".join(["set -e", *_openings(needed()), shlex.join(["exec", *drop, *command])])
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]


def needed() -> set[Path]:
    """What a Python like this one reads: its prefixes and its path."""
    places = {sys.prefix, sys.base_prefix, sys.exec_prefix, str(ROOT), *sys.path}
    places.add(str(Path(sys.executable).resolve().parent.parent))
    return {Path(place).resolve() for place in places if place and Path(place).exists()}


def _openings(places: Iterable[Path]) -> list[str]:
    """Shell lines that make places below closed directories reachable, in this namespace only.

    An interpreter may lie in a home that only its owner can enter. The closed directory is
    covered by an empty one that is open, in which only the places that are needed are put back.
    """
    below: dict[Path, set[Path]] = {}
    for place in places:
        closed = [p for p in reversed(place.parents) if p.is_dir() and not p.stat().st_mode & 0o001]
        if closed:
            below.setdefault(closed[0], set()).add(place)
    lines = []
    for closed, inside in sorted(below.items()):
        # Those that lie in another of them come with it.
        tops = [shlex.quote(str(p)) for p in sorted(inside) if not inside & set(p.parents)]
        target = shlex.quote(str(closed))
        lines += ["hold=$(mktemp -d /tmp/esc-hold-XXXXXX)", "mount -t tmpfs tmpfs $hold"]
        for number, place in enumerate(tops):
            lines += [f"mkdir $hold/{number}", f"mount --bind {place} $hold/{number}"]
        lines.append(f"mount -t tmpfs -o mode=755 tmpfs {target}")
        for number, place in enumerate(tops):
            lines += [f"mkdir -p {place}", f"mount --bind $hold/{number} {place}"]
        lines += ["umount -l $hold", "rmdir $hold"]
    return lines


def can_change_user() -> bool:
    """Whether the programs for running as another user are there."""
    return os.getuid() == 0 and all(map(shutil.which, ("unshare", "setpriv", "mount")))
