"""What a kernelspec may set, what the user grants, and that it never starts unconfined."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ovagent_jupyter.errors import ConfigError, SandboxUnavailableError
from tests.execution.kernelspec.kernels import (
    CONFINED,
    KERNEL,
    PATIENCE,
    SPECS,
    STATUS,
    Client,
    provisioner_of,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(autouse=True)
def _specs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JUPYTER_PATH", str(SPECS))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Makes a kernelspec with settings of its own."""

    def make(argv: list[str] | None = None, **config: object) -> str:
        text = (SPECS / "kernels" / KERNEL / "kernel.json").read_text()
        made = json.loads(text)
        made["metadata"]["kernel_provisioner"]["config"] = config
        if argv is not None:
            made["argv"] = argv
        folder = tmp_path / "specs" / "kernels" / "own"
        folder.mkdir(parents=True)
        (folder / "kernel.json").write_text(json.dumps(made))
        monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "specs"))
        return "own"

    return make


def test_a_kernelspec_may_tighten(spec: Callable[..., str]) -> None:
    client = Client(spec(sandbox_processes=64, sandbox_fallback_policy="raise"))
    try:
        client.start()
        ours = provisioner_of(client.manager).kernel
        assert ours.config.sandbox.processes == 64
        assert client.run(STATUS)[1] == CONFINED
    finally:
        client.close()


@pytest.mark.parametrize(
    "config",
    [
        {"sandbox_read": ["/"]},
        {"sandbox_write": ["/srv"]},
        {"sandbox_network": ["example.org"]},
        {"sandbox_memory": "1000000G"},
        {"sandbox_level": "process"},
        {"fallback_floor": "process"},
        {"sandbox_force": True},
        {"no_such_setting": 1},
    ],
    ids=lambda config: next(iter(config)),
)
def test_a_kernelspec_that_loosens_starts_nothing(
    spec: Callable[..., str], config: dict[str, object]
) -> None:
    client = Client(spec(**config))
    with pytest.raises(ConfigError, match="has a setting that is refused"):
        client.manager.start_kernel()
    assert not client.manager.has_kernel


def test_the_users_own_settings_grant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = tmp_path / "data.csv", tmp_path / "out"
    data.write_text("a,b\n1,2\n")
    out.mkdir()
    monkeypatch.setenv("OVAGENT_SANDBOX_READ", str(data))
    monkeypatch.setenv("OVAGENT_SANDBOX_WRITE", str(out))
    client = Client()
    try:
        client.start()
        assert client.run(f"print(open({str(data)!r}).read())")[1] == "a,b\n1,2\n\n"
        client.run(f"open({str(out / 'x')!r}, 'w').write('made')")
        assert (out / "x").read_text() == "made"
        assert client.run(f"open({str(data)!r}, 'w')")[0]["status"] == "error"
        banner = client.client.kernel_info(reply=True, timeout=PATIENCE)["content"]["banner"]
        assert str(data) in banner
    finally:
        client.close()
    assert (out / "x").exists()


@pytest.mark.parametrize("level", ["process", "in_process"])
def test_it_never_starts_unconfined(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVAGENT_SANDBOX_LEVEL", level)
    monkeypatch.setenv("OVAGENT_FALLBACK_FLOOR", level)
    client = Client()
    with pytest.raises(SandboxUnavailableError, match="ask for no confinement"):
        client.manager.start_kernel()
    assert not client.manager.has_kernel


def test_a_kernelspec_of_another_program_is_refused(spec: Callable[..., str]) -> None:
    client = Client(spec([sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]))
    with pytest.raises(ConfigError, match="starts another program"):
        client.manager.start_kernel()
    assert not client.manager.has_kernel


def test_without_the_provisioner_it_refuses(tmp_path: Path) -> None:
    """A client that knows no provisioners runs the command itself."""
    argv = json.loads((SPECS / "kernels" / KERNEL / "kernel.json").read_text())["argv"]
    argv = [sys.executable, *argv[1:-1], str(tmp_path / "c.json")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=SPECS.parent)
    assert done.returncode != 0
    assert "runs only below its supervisor" in done.stderr


def test_a_cap_that_is_passed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVAGENT_SANDBOX_MEMORY", "600M")
    client = Client()
    try:
        client.start()
        message_id = client.client.execute("held = [bytes([1]) * 10**8 for _ in range(30)]")
        texts = []
        while True:
            message = client.client.get_iopub_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") != message_id:
                continue
            texts.append(str(message["content"].get("text", "")))
            texts.append(str(message["content"].get("evalue", "")))
            if message["content"].get("execution_state") == "idle":
                break
        assert "memory" in "".join(texts)
        client.manager.restart_kernel(now=True)
        client.client.wait_for_ready(timeout=PATIENCE)
        assert client.run(STATUS)[1] == CONFINED
    finally:
        client.close()
