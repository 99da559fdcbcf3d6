"""A supervisor that was started, and its end: as a program of its own, or forked by a zygote."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

LAUNCHER = Path(__file__).parent / "sandbox" / "launcher.py"
PASSED = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""Variables without which an interpreter may not start; the supervisor needs no others."""


class Supervised(Protocol):
    """A supervisor from its start to its burial."""

    @property
    def pid(self) -> int:
        """Its number, which is also that of its group."""
        ...

    @property
    def buried(self) -> bool:
        """Whether its end was taken note of; its number may be another's."""
        ...

    def has_ended(self) -> bool:
        """Whether it has ended; asking does not bury it."""
        ...

    def send(self, number: int, *, group: bool = False) -> None:
        """Send it a signal, or its whole group, unless its number may be another's by now."""
        ...

    def bury(self, seconds: float) -> bool:
        """Wait for its end and take note of it; False when it did not end in time."""
        ...

    def end(self) -> tuple[str, int] | None:
        """How it ended, by ``"signal"`` or with ``"code"``; None while it runs."""
        ...


class Spawned:
    """One that runs as a program of its own, below this process.

    Args:
        descriptors: Where it finds its plan, its lifeline and its line to us.
        output: Where it writes what nobody reads.
        environment: Where variables that the interpreter needs are taken from.
        keep: Descriptors for the child.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(
        self,
        descriptors: Sequence[int],
        output: int,
        environment: Mapping[str, str],
        keep: Sequence[int],
    ) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-I", "-S", str(LAUNCHER), *map(str, descriptors)],
            env={name: environment[name] for name in PASSED if name in environment},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(*descriptors, *keep),
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._popen.pid

    @property
    def buried(self) -> bool:
        """Whether its end was taken note of."""
        return self._popen.returncode is not None

    def has_ended(self) -> bool:
        """Whether it has ended."""
        if self.buried:
            return True
        if not hasattr(os, "waitid"):
            return self._popen.poll() is not None
        try:
            how = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self.pid, how) is not None
        except ChildProcessError:
            # Somebody else in this process reaped it; Popen then reports 0.
            return self._popen.poll() is not None

    def send(self, number: int, *, group: bool = False) -> None:
        """Send a signal."""
        if not self.buried:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                (os.killpg if group else os.kill)(self.pid, number)

    def bury(self, seconds: float) -> bool:
        """Wait for its end and take note of it."""
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self) -> tuple[str, int] | None:
        """How it ended."""
        code = self._popen.poll()
        if code is None:
            return None
        return ("signal", -code) if code < 0 else ("code", code)


class Forked:
    """One that a zygote has forked, and buries when it is told to.

    Args:
        pid: Its number.
        handle: A descriptor of the process; it is closed here.
        gone: Called with the number when it has ended.
    """

    def __init__(self, pid: int, handle: int, gone: Callable[[int], None]) -> None:
        self.pid = pid
        self.buried = False
        self._handle = handle
        self._gone = gone

    def has_ended(self) -> bool:
        """Whether it has ended."""
        return self._ends_within(0)

    def send(self, number: int, *, group: bool = False) -> None:
        """Send a signal; one that has ended has nobody left in its group."""
        if self.has_ended():
            # If the zygote is gone as well, somebody else has buried it.
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if group:
                os.killpg(self.pid, number)
            elif sys.platform == "linux":
                signal.pidfd_send_signal(self._handle, number)

    def bury(self, seconds: float) -> bool:
        """Wait for its end and take note of it."""
        if not self.buried:
            if not self._ends_within(seconds):
                return False
            self.buried = True
            os.close(self._handle)
            self._gone(self.pid)
        return True

    def end(self) -> tuple[str, int] | None:
        """How it ended: only its parent is told, but one that ends by itself says so before."""
        return ("signal", signal.SIGKILL) if self.has_ended() else None

    def _ends_within(self, seconds: float) -> bool:
        if self.buried:
            return True
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
