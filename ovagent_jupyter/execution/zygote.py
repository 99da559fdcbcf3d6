"""Forks children from a process that has imported everything already: the parent's side.

The zygote is a program of its own with a scrubbed environment, never a fork of the user's kernel.
Imports run in it before any confinement, so it imports only what this process, which is trusted,
has imported itself: no package gets to run outside of the sandbox that did not already. The rest
is imported by each child, confined. Where code of a child may write, nothing is imported from.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from ovagent_jupyter.execution.environment import ChildDirectories, child_environment
from ovagent_jupyter.execution.rundir import RunDirectory
from ovagent_jupyter.execution.supervised import Forked

MODULE = "ovagent_jupyter.execution.zygote_process"
ALSO = (
    "anndata",
    "igraph",
    "leidenalg",
    "pandas",
    "sklearn.decomposition",
    "sklearn.neighbors",
)
"""Modules that steps load late; imported beforehand if they are imported here.

Not those that load compiled code with their import: a confined child has made it, and nothing that
came out of one may run here.
"""
ONE_THREAD = {
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
"""Keeps libraries from starting threads when they are loaded; undone in each child."""
START = 120.0
"""Seconds that the imports may take."""
ANSWER = 5.0
"""Seconds that a fork may take; it takes milliseconds."""


def modules_for(warm: Sequence[str], python: str) -> tuple[str, ...]:
    """Those modules that may be imported outside of the sandbox: what is imported here already."""
    if python != sys.executable:
        return ()
    return tuple(name for name in dict.fromkeys([*warm, *ALSO]) if name in sys.modules)


class Zygote:
    """One such process. Must be made, used and closed on one event loop.

    Args:
        python: The interpreter.
        environment: Where the allowed variables are taken from.
        modules: What it imports.
        semaphores: Whether its children can have some.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(
        self,
        python: str,
        environment: Mapping[str, str],
        modules: Sequence[str],
        *,
        semaphores: bool,
    ) -> None:
        self._folder = RunDirectory(Path(tempfile.gettempdir()), "ovagent-child-")
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            directories = ChildDirectories.below(self._folder.path)
            directories.make()
            variables = child_environment(environment, directories, semaphores=semaphores)
            self._popen = subprocess.Popen(
                [python, "-P", "-m", MODULE, str(far.fileno()), *modules],
                env=variables | ONE_THREAD,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(far.fileno(),),
                start_new_session=True,
            )
        except BaseException:
            near.close()
            self._folder.remove()
            raise
        finally:
            far.close()
        near.settimeout(ANSWER)
        self._control = near
        self.modules = tuple(modules)
        self.broken = ""
        """Why it forks no more; empty while it does."""
        self._ready = False
        self._retired = False
        self._children: set[int] = set()
        self._finalizer = weakref.finalize(self, _end, self._popen, near, self._folder, os.getpid())

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def usable(self) -> bool:
        """Whether it can fork."""
        return self._ready and not self.broken and not self._retired

    async def start(self) -> None:
        """Wait until it has imported; ``broken`` says why it cannot be used, if so."""
        loop = asyncio.get_running_loop()
        self._control.setblocking(False)
        try:
            async with asyncio.timeout(START):
                answer = await loop.sock_recv(self._control, 4096)
            self.broken = str(json.loads(answer)["refused"]) if answer else "it ended"
        except (OSError, ValueError, KeyError) as error:
            self.broken = str(error) or "its imports take too long"
        self._control.settimeout(ANSWER)
        self._ready = not self.broken

    def fork(self, descriptors: Sequence[int]) -> Forked | None:
        """A supervisor with these descriptors, by the same numbers; None when it forks no more.

        Args:
            descriptors: Its plan, lifeline and line to us, where it writes, and the child's.

        Raises:
            OSError: It was asked and did not answer. It may still do it: these descriptors are
                for nothing else, and their other ends must be closed.
        """
        if not self.usable:
            return None
        request = json.dumps({"numbers": list(descriptors)}).encode()
        try:
            socket.send_fds(self._control, [request], list(descriptors))
            answer, handles, _, _ = socket.recv_fds(self._control, 4096, 1)
            told = json.loads(answer or b"{}")
            if "pid" not in told or not handles:
                raise OSError(told.get("failed", "it ended"))
        except (OSError, ValueError) as error:
            self.broken = f"the process that forks them: {error}"
            raise OSError(self.broken) from error
        os.set_inheritable(handles[0], False)
        self._children.add(told["pid"])
        return Forked(told["pid"], handles[0], self._gone)

    def retire(self) -> None:
        """Have it end as soon as none of its children lives; it forks no more."""
        self._retired = True
        if not self._children:
            self._finalizer()

    def _gone(self, pid: int) -> None:
        with contextlib.suppress(OSError):
            self._control.send(json.dumps({"gone": pid}).encode())
        self._children.discard(pid)
        if self._retired:
            self.retire()


def _end(
    popen: subprocess.Popen[bytes], control: socket.socket, folder: RunDirectory, owner: int
) -> None:
    if os.getpid() != owner:
        # A fork of this process ends; the zygote is not the fork's.
        return
    control.close()
    # It holds nothing, and may be in the middle of its imports.
    popen.kill()
    popen.wait()
    folder.remove()
