"""What the tests of the kernel ``ovagent-sandbox`` share: where it is, and what is left of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

from ovagent_jupyter.execution.kernelspec.provisioner import SandboxProvisioner

KERNEL = "ovagent-sandbox"
PATIENCE = 60
SPECS = Path(__file__).parents[3] / "jupyter-config"
"""As an entry of JUPYTER_PATH: the kernelspec of this checkout, not the one installed last."""
STATUS = (
    "print({k: v.strip() for k, v in (line.split(':', 1) for line in open('/proc/self/status'))"
    " if k in {'Seccomp', 'NoNewPrivs', 'CapEff'}})"
)
CONFINED = "{'CapEff': '0000000000000000', 'NoNewPrivs': '1', 'Seccomp': '2'}\n"


@dataclass(frozen=True)
class Traces:
    """All that one kernel has outside of itself."""

    places: tuple[Path, ...]
    supervisor: int

    def left(self, seconds: float = 20) -> list[str]:
        """What does not go away."""
        deadline = time.monotonic() + seconds
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def _left(self) -> list[str]:
        found = [str(path) for path in self.places if path.exists()]
        # Every process of it has the path of its connection file or of a folder on its command
        # line, but for what its code starts; that is below the supervisor and goes with it.
        marks = [os.fsencode(path) for path in self.places]
        for process in Path("/proc").glob("[0-9]*"):
            try:
                line = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if any(mark in line for mark in marks):
                found.append(f"{process.name}: {line!r}")
        if Path(f"/proc/{self.supervisor}").exists():
            found.append(f"supervisor {self.supervisor}")
        return found


def provisioner_of(manager: KernelManager) -> SandboxProvisioner:
    """The manager's provisioner, which must be ours."""
    provisioner = manager.provisioner
    assert isinstance(provisioner, SandboxProvisioner)
    return provisioner


def traces_of(manager: KernelManager) -> Traces:
    """What a running kernel has."""
    kernel = provisioner_of(manager).kernel
    assert kernel.process is not None
    folders = kernel.folders
    places = [folders.run, folders.root, Path(manager.connection_file)]
    assert all(path.exists() for path in places)
    return Traces(tuple(places), kernel.process.pid)


class Client:
    """A manager with its client, as a notebook server or ``jupyter console`` has them."""

    def __init__(self, spec: str = KERNEL) -> None:
        self.manager = KernelManager(kernel_name=spec)
        self._client: BlockingKernelClient | None = None

    def start(self) -> None:
        self.manager.start_kernel()
        self._client = self.manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=PATIENCE)

    @property
    def client(self) -> BlockingKernelClient:
        assert self._client is not None
        return self._client

    def run(
        self, code: str, at: Callable[[str], object] | None = None
    ) -> tuple[dict[str, object], str]:
        """The reply's content, and all text that was shown; ``at`` hears it while it comes."""
        texts: list[str] = []

        def hear(message: dict[str, dict[str, object]]) -> None:
            content = message["content"]
            data = content.get("data", {})
            texts.append(str(content.get("text", "")))
            texts.append(data.get("text/plain", "") if isinstance(data, dict) else "")
            texts.extend(map(str, content.get("traceback", []) or []))  # type: ignore[call-overload]
            if at is not None:
                at(str(content.get("text", "")))

        reply = self.client.execute_interactive(code, timeout=PATIENCE, output_hook=hear)
        return reply["content"], "".join(texts)

    def close(self) -> None:
        if self._client is not None:
            self._client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=True)
