"""Environments that tests make, each once: cached by what goes into it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def cache_folder() -> Path:
    """Where environments are kept; OVAGENT_TEST_ENVS overrides it."""
    return Path(os.environ.get("OVAGENT_TEST_ENVS") or ROOT / ".cache" / "test-envs")


def run(
    *command: str | Path,
    cwd: Path | None = None,
    home: Path | None = None,
    codes: Sequence[int] = (0,),
) -> str:
    """Run a program to its end and return what it printed; both streams, in order.

    Args:
        command: The program and its arguments.
        cwd: Where it runs.
        home: Its OVAGENT_HOME.
        codes: Exit codes that are no failure.
    """
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=_outside() | ({"OVAGENT_HOME": str(home)} if home else {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode in codes, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)


def _outside() -> dict[str, str]:
    """Our environment without what would lead a program back into this checkout."""
    dropped = ("COV_", "COVERAGE_", "PYTEST_")
    named = {"PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME", "JUPYTER_PATH"}
    return {k: v for k, v in os.environ.items() if not k.startswith(dropped) and k not in named}


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def program(self, name: str) -> Path:
        """A console script of it."""
        return self.folder / "bin" / name


def build_wheel(out: Path) -> Path:
    """The project's wheel, built as a release would be."""
    run(sys.executable, "-m", "build", "--wheel", "--outdir", out, "--installer", "uv", ROOT)
    (wheel,) = out.glob("*.whl")
    return wheel


def environment(name: str, wheel: Path, extras: str = "", pins: Sequence[str] = ()) -> Environment:
    """An environment with the wheel in it.

    Args:
        name: What it is called, for a reader of the cache.
        wheel: The wheel to install; another build replaces only the package itself.
        extras: Extras to install, comma-separated.
        pins: Requirements that override the constraints file ("ipykernel==6.31.0").
    """
    constraints = _constraints(pins)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = json.dumps([project["dependencies"], project["optional-dependencies"]])
    key = _digest(constraints, declared, extras, *pins, sys.version, str(cache_folder()))
    made = Environment(cache_folder() / f"{name}-{key}")
    made.folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(made.folder.with_suffix(".lock")):
        stamp = made.folder / ".wheel"
        current = _digest(wheel.read_bytes().hex())
        if not stamp.exists():
            _make(made, wheel, extras, constraints, pins)
        elif stamp.read_text() != current:
            _install(made, "--no-deps", "--reinstall", str(wheel))
        stamp.write_text(current)
    return made


def _make(made: Environment, wheel: Path, extras: str, pinned: str, pins: Sequence[str]) -> None:
    run(sys.executable, "-m", "uv", "venv", "--quiet", "--clear", "--python", sys.executable,
        made.folder)  # fmt: skip
    constraints = made.folder / "constraints.txt"
    constraints.write_text(pinned)
    requirement = f"ovagent-jupyter[{extras}] @ {wheel.as_uri()}"
    _install(made, "--constraint", str(constraints), requirement, *pins)


def _install(made: Environment, *arguments: str) -> None:
    run(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", made.python,
        *arguments)  # fmt: skip


def _constraints(pins: Sequence[str]) -> str:
    """The constraints file without the packages that are pinned otherwise."""
    pinned = {pin.partition("==")[0] for pin in pins}
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return "".join(f"{line}\n" for line in lines if line.partition("==")[0] not in pinned)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file lock: two test workers must not make the same environment at once."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
