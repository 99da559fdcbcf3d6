"""Starts a child kernel: ``python -m ovagent_jupyter.execution.child -f <connection file>``.

Used by ``KernelExecutor`` and by the kernelspec ``ovagent-sandbox``. A Jupyter server passes its
own environment on, keys included; so unless the environment is marked as scrubbed, the process
replaces itself by one that has only the allowed variables and directories of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from ovagent_jupyter.execution.environment import (
    CACHE,
    LIFELINE,
    MARK,
    OWN_ROOT,
    ChildDirectories,
    child_environment,
)
from ovagent_jupyter.execution.rundir import RunDirectory

MODULE = "ovagent_jupyter.execution.child"


def command(python: str, connection_file: Path) -> list[str]:
    """The command that starts a child; ``-P`` keeps the working directory off ``sys.path``."""
    return [python, "-P", "-m", MODULE, "-f", str(connection_file)]


def main(arguments: list[str] | None = None) -> None:
    """Run the kernel, first in a scrubbed process if this one is not."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if MARK not in os.environ:
        replace_process(arguments)
    root = os.environ.pop(OWN_ROOT, "")
    try:
        reset_signals()
        hold_lifeline(os.environ.pop(LIFELINE, ""))
        from ovagent_jupyter.execution.child_kernel import run_kernel

        run_kernel(arguments)
    finally:
        if root:
            shutil.rmtree(root, ignore_errors=True)


def replace_process(arguments: list[str]) -> None:
    """Start over with a scrubbed environment in a private working directory."""
    run = RunDirectory(Path(tempfile.gettempdir()), "ovagent-child-")
    run.outlive_exec()
    root = run.path
    directories = ChildDirectories.below(root)
    directories.make()
    cache = Path(os.environ.get(CACHE) or user_cache())
    environment = child_environment(os.environ, directories, cache) | {OWN_ROOT: str(root)}
    absolute = [str(Path(item).absolute()) if Path(item).exists() else item for item in arguments]
    os.chdir(directories.work)
    os.execve(  # noqa: S606 - the same interpreter, no shell
        sys.executable, [sys.executable, "-P", "-m", MODULE, *absolute], environment
    )


def user_cache() -> Path:
    """Where caches of children are kept for this user."""
    from ovagent_jupyter.storage.paths import cache_dir

    return cache_dir(os.environ)


def reset_signals() -> None:
    """Undo what is inherited: a notebook kernel ignores SIGINT between its cells."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def hold_lifeline(descriptor: str) -> None:
    """Have the system end this process group when the parent's end of a pipe closes.

    Unlike a polling thread this works while native code holds the interpreter, and unlike the
    parent-death signal it does not fire when only the thread that started us ends.
    See fcntl(2), "Signaling".
    """
    if not descriptor.isdigit():
        return
    number = int(descriptor)
    # Where a pipe cannot signal, ipykernel's poller of the parent's id remains.
    with contextlib.suppress(OSError):
        os.set_inheritable(number, False)
        if sys.platform == "linux":
            fcntl.fcntl(number, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(number, fcntl.F_SETOWN, -os.getpgrp())
        flags = fcntl.fcntl(number, fcntl.F_GETFL)
        fcntl.fcntl(number, fcntl.F_SETFL, flags | os.O_ASYNC)


if __name__ == "__main__":
    main()
