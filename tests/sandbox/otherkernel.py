"""Another kernel of the user, as JupyterLab starts one: a key in a file and five ports."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.sandbox.home import KERNEL_FILE

START = """
import sys
from ipykernel.kernelapp import IPKernelApp
app = IPKernelApp.instance()
app.initialize(sys.argv[1:] + ["--HistoryManager.enabled=False"])
app.start()
"""


class OtherKernel:
    """A plain ipykernel on the ports of this machine.

    Args:
        home: Its user's home, where its connection file lies.
    """

    def __init__(self, home: Path) -> None:
        self.file = home / KERNEL_FILE
        self.written = home / "run" / "written-by-other-kernel"
        self.written.parent.mkdir(exist_ok=True)
        self.tokens = {"kernel_key": secrets.token_hex(24)}
        self._text = json.dumps(
            {
                "transport": "tcp",
                "ip": "127.0.0.1",
                "signature_scheme": "hmac-sha256",
                "key": self.tokens["kernel_key"],
                **dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True)),
            }
        )
        self.file.write_text(self._text)
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, "-f", str(self.file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "JUPYTER_RUNTIME_DIR": str(self.file.parent)},
        )
        self.facts: dict[str, Any] = {
            "kernel_file": str(self.file),
            "kernel_pid": self.pid,
            "kernel_writes": str(self.written),
        }

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def harm(self) -> str:
        """What was done to it, or nothing."""
        if self._process.poll() is not None:
            return "the user's other kernel ended"
        return "code ran in the user's other kernel" if self.written.exists() else ""

    def restore(self) -> None:
        """Forget what it was made to do."""
        self.written.unlink(missing_ok=True)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            self.file.unlink()


_PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
