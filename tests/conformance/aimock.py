"""aimock: a model server that is not ours, installed once, started for a session of tests."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.packaging.environments import cache_folder

VERSION = "1.43.0"
OLDEST_NODE = (20, 15)
OTHER_NODE = "20.20.2"
"""From npm, where the system's own is older, as Debian 12's is."""
FIXTURES = Path(__file__).with_name("aimock_fixtures")
PLANTED = f"sk-planted-{uuid4().hex}"
"""The only key that the server takes; it must be found nowhere but in its header."""
START = 60.0
"""Seconds after which a server that does not listen is given up."""


@dataclass(frozen=True, slots=True)
class Aimock:
    """The running server."""

    url: str
    """Where it is, without a path."""
    key: str = field(repr=False)

    def journal(self, test_id: str) -> list[dict[str, Any]]:
        """What clients that sent this ``X-Test-Id`` have sent, oldest first.

        The bodies are as aimock understood them: all wires in the form of chat completions.
        """
        request = urllib.request.Request(
            f"{self.url}/__aimock/journal?testId={test_id}",
            headers={"Authorization": f"Bearer {self.key}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            entries: list[dict[str, Any]] = json.load(answer)
        return entries


@pytest.fixture(scope="session")
def aimock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aimock]:
    """A server with our fixtures, ended with the session."""
    _require_npm()
    node, program = _installed()
    log = tmp_path_factory.mktemp("aimock") / "log"
    with _running(node, program, log) as url:
        yield Aimock(url, PLANTED)


def _require_npm() -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        if os.environ.get("OVAGENT_REQUIRE_NODE"):
            pytest.fail("node and npm are required here and are not installed")
        pytest.skip("node and npm are not installed (apt-get install nodejs npm)")


def _installed() -> tuple[Path, Path]:
    """Node and the program, fetched once by npm into the cache of test environments."""
    folder = cache_folder() / f"aimock-{VERSION}"
    modules = folder / "node_modules"
    stamp = folder / ".installed"
    packages = [f"@copilotkit/aimock@{VERSION}"]
    node = Path(shutil.which("node") or "")
    if _version(node) < OLDEST_NODE:
        machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), "")
        packages.append(f"node-{sys.platform}-{machine}@{OTHER_NODE}")
        node = modules / f"node-{sys.platform}-{machine}" / "bin" / "node"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != " ".join(packages):
            (folder / "package.json").write_text('{"private": true}')
            done = subprocess.run(
                ["npm", "install", *packages, "--no-audit", "--no-fund", "--no-package-lock",
                 "--ignore-scripts"],
                cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"npm ended with {done.returncode}:\n{done.stdout}"
            stamp.write_text(" ".join(packages))
    return node, modules / "@copilotkit" / "aimock" / "dist" / "cli.js"


def _version(node: Path) -> tuple[int, ...]:
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(number) for number in told.strip().removeprefix("v").split("."))


@contextmanager
def _running(node: Path, program: Path, log: Path) -> Iterator[str]:
    command = [node, program, "--port", "0", "--host", "127.0.0.1", "--fixtures", FIXTURES,
               "--validate-on-load", "--strict", "--log-level", "info"]  # fmt: skip
    with log.open("w") as out:
        process = subprocess.Popen(
            [str(part) for part in command],
            env={"PATH": os.environ["PATH"], "AIMOCK_API_KEYS": PLANTED},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield _address(process, log)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    given_up = time.monotonic() + START
    while time.monotonic() < given_up and process.poll() is None:
        found = re.search(r"listening on (http://[\d.:]+)", log.read_text())
        if found:
            return found[1]
        time.sleep(0.05)
    pytest.fail(f"aimock does not listen:\n{log.read_text()}")
