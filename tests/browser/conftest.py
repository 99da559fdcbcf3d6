"""A real JupyterLab in a real browser, with every directory of its own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

START_TIMEOUT = 120
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
LAB_FLAGS = [
    "--no-browser",
    "--port=0",
    "--ServerApp.port_retries=0",
    "--LabApp.expose_app_in_browser=True",
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
]
QUIET_PAGE = {
    "disabledExtensions": {
        "@jupyterlab/apputils-extension:announcements": True,
        "@jupyterlab/extensionmanager-extension": True,
    }
}


@dataclass
class Lab:
    """A running JupyterLab."""

    url: str
    token: str
    work: Path


def _chromium() -> str:
    path = shutil.which("chromium")
    if path is None:
        if os.environ.get("OVAGENT_REQUIRE_BROWSER"):
            pytest.fail("chromium is required here and is not installed")
        pytest.skip("Debian's chromium is not installed (apt-get install chromium)")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's chromium, driven by Playwright.

    Playwright keeps an event loop running in this thread; no later test could run its own.
    """
    path = _chromium()
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield made
        made.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A JupyterLab that knows nothing of the user's."""
    root = tmp_path_factory.mktemp("lab")
    work, runtime = root / "work", root / "runtime"
    settings = root / "settings"
    for directory in (work, runtime, settings, root / "config" / "labconfig"):
        directory.mkdir(parents=True)
    (root / "config" / "labconfig" / "page_config.json").write_text(json.dumps(QUIET_PAGE))
    token = secrets.token_hex(16)
    # JUPYTER_NO_CONFIG counts as set even when it is 0, so it must not be there at all.
    env = {name: value for name, value in os.environ.items() if name != "JUPYTER_NO_CONFIG"}
    env |= {
        "JUPYTER_TOKEN": token,
        "JUPYTER_RUNTIME_DIR": str(runtime),
        "JUPYTER_CONFIG_DIR": str(root / "config"),
        "JUPYTER_DATA_DIR": str(root / "data"),
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(root / "workspaces"),
        "OVAGENT_HOME": str(root / "ovagent"),
        "IPYTHONDIR": str(root / "ipython"),
    }
    log = (root / "lab.log").open("wb")
    command = [sys.executable, "-m", "jupyterlab", *LAB_FLAGS, "--allow-root"]
    process = subprocess.Popen(command, cwd=work, env=env, stdout=log, stderr=log)
    try:
        yield Lab(_url(runtime, process, root / "lab.log"), token, work)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def _url(runtime: Path, process: subprocess.Popen[bytes], log: Path) -> str:
    """The real address, from the file that the server writes when it listens."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        for found in runtime.glob("jpserver-*.json"):
            try:
                return str(json.loads(found.read_text())["url"])
            except (ValueError, KeyError):
                continue
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")
