"""Processes for the tests of what watches and ends them: a reaper, and the guests below it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

PATIENCE = 20.0

REAPER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
guest = os.fork()
if guest == 0:
    os.setsid()
    try:
        exec(sys.argv[1], {"__name__": "guest"})
    except KeyboardInterrupt:
        pass
    os._exit(0)
while True:
    try:
        os.wait()
    except ChildProcessError:
        signal.pause()
"""
"""What the supervisor is to its guests: it inherits those whose parents have gone."""

READY = "open('ready', 'w').close()\n"
FILL = "held = bytearray(b'x') * (300 << 20)\n"
BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"
STAY = "import signal\nwhile True: signal.pause()\n"


class Family:
    """A reaper and below it a guest that runs some code; all end with the test.

    Args:
        directory: Where the guest runs.
        code: What it runs; it says that it is ready by making the file ``ready``.
    """

    def __init__(self, directory: Path, code: str) -> None:
        self._ready = directory / "ready"
        command = [sys.executable, "-I", "-S", "-c", REAPER, dedent(code)]
        self._popen = subprocess.Popen(command, cwd=directory, start_new_session=True)

    @property
    def pid(self) -> int:
        """Number of the reaper."""
        return self._popen.pid

    def wait_until_ready(self) -> None:
        """Wait until the guest is."""
        wait_for(self._ready.exists)

    def end(self) -> None:
        """End the reaper; what it leaves is the test's fault."""
        self._popen.send_signal(signal.SIGKILL)
        self._popen.wait()


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(str(condition))
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether there is such a process, other than as an entry that waits for its parent."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


Raise = Callable[[str], Family]
"""Starts a guest that runs some code, and waits until it is ready."""
