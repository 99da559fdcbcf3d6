"""What runs as a zygote: imports once, then forks a supervisor with a child for each request.

``python -P -m ovagent_jupyter.execution.zygote_process CONTROL MODULE …``, started by ``zygote.py``
with a scrubbed environment. It never forks the user's kernel and holds nothing of the user's: no
plan of a child is read in here, only in the fork that becomes its supervisor. It imports and does
nothing else, so that there is one thread at each fork; where an import starts another, or leaves
a file open, it says so and ends.
"""

from __future__ import annotations

import builtins
import contextlib
import fcntl
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from ovagent_jupyter.execution import after_fork
from ovagent_jupyter.execution.sandbox import launcher

if TYPE_CHECKING:
    from ovagent_jupyter.execution.sandbox.launcher import Plan

MODULE = "ovagent_jupyter.execution.zygote_process"
OWN = (
    "ovagent_jupyter.execution.child_kernel",
    "ovagent_jupyter.execution.sandbox.landlock",
    "ovagent_jupyter.execution.sandbox.linux",
    "ovagent_jupyter.execution.sandbox.namespaces",
    "ovagent_jupyter.execution.sandbox.seccomp",
    "ipykernel.debugger",
)
"""What every child and its supervisor need; it loads libzmq, but makes no context of it."""
MOST_DESCRIPTORS = 64
LOOK = 1000
"""Milliseconds between two looks at whether the parent is there: a fork of it would keep the
channel open."""


class Current:
    """A standard stream that is whichever one there is at the time of the call.

    A module may keep the stream that it finds at its import; the kernel puts others in place.

    Args:
        name: ``stdout`` or ``stderr``.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._first: TextIO = getattr(sys, name)

    def __getattr__(self, name: str) -> Any:
        stream = getattr(sys, self._name)
        return getattr(self._first if stream is self else stream, name)


def main(arguments: list[str]) -> int:
    """Import, say that all is ready, and serve until the other end is closed."""
    parent = os.getppid()
    control = socket.socket(fileno=int(arguments[0]))
    before = dict(os.environ)
    try:
        load(arguments[1:])
        why = unfit({0, 1, 2, control.fileno()})
    except Exception as error:  # noqa: BLE001 - told to the parent, which starts children itself
        why = f"{type(error).__name__}: {error}"
    _tell(control, refused=why)
    if why:
        return 1
    loaded = after_fork.Loaded(
        {name: value for name, value in os.environ.items() if before.get(name) != value},
        after_fork.cached_functions(),
    )
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # or each fork would write it
    # What is in memory now stays: the collector of a fork would touch every page of it.
    gc.collect()
    gc.freeze()
    poll = select.poll()
    poll.register(control, select.POLLIN | select.POLLHUP)
    while os.getppid() == parent:
        if not poll.poll(LOOK):
            continue
        try:
            request, descriptors, _, _ = socket.recv_fds(control, 4096, MOST_DESCRIPTORS)
        except OSError:
            break
        if not request:
            break
        _answer(control, json.loads(request), descriptors, loaded)
    return 0


def load(modules: list[str]) -> None:
    """Import as the child would, whose streams and shell are not there yet."""
    builtins.__dict__["__IPYTHON__"] = True
    with _lasting_streams():
        for name in OWN:
            importlib.import_module(name)
        for name in modules:
            # One that fails here fails in the child's own warm-up too, where it does no harm.
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def unfit(wanted: set[int]) -> str:
    """Why this process cannot be forked safely; empty when it can."""
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        return f"the imports have started {threads - 1} threads"
    listed = {int(each.name) for each in Path("/proc/self/fd").iterdir()}
    left = [each for each in listed - wanted if _is_open(each)]
    if left:
        return f"the imports have left {len(left)} files open"
    if sys.modules["zmq"].Context._instance is not None:
        return "the imports have made a context of zmq"
    return ""


def _is_open(descriptor: int) -> bool:
    """Not the one of the listing that named it."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _lasting_streams() -> Iterator[None]:
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Current("stdout"), Current("stderr")
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _answer(
    control: socket.socket,
    request: dict[str, Any],
    descriptors: list[int],
    loaded: after_fork.Loaded,
) -> None:
    if "gone" in request:
        os.waitpid(request["gone"], 0)
        return
    try:
        pid = os.fork()
        if pid == 0:
            _become_supervisor(control, request["numbers"], descriptors, loaded)
        handle = os.pidfd_open(pid)
    except OSError as error:
        # The children that there are must not end for that.
        _tell(control, failed=str(error))
        return
    finally:
        for each in descriptors:
            os.close(each)
    socket.send_fds(control, [json.dumps({"pid": pid}).encode()], [handle])
    os.close(handle)


def _become_supervisor(
    control: socket.socket,
    numbers: list[int],
    descriptors: list[int],
    loaded: after_fork.Loaded,
) -> NoReturn:
    code = launcher.INIT_FAILED
    try:
        os.close(control.detach())
        os.setsid()
        signal.set_wakeup_fd(-1)
        _place(descriptors, numbers)
        plan, lifeline, status, output = numbers[:4]
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)

        def program(read: Plan) -> NoReturn:
            after_fork.become_kernel(read, loaded)

        code = launcher.main([str(each) for each in (plan, lifeline, status)], program)
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:  # noqa: BLE001 - as a program ends; nothing above may run in here
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _place(descriptors: list[int], numbers: list[int]) -> None:
    """Give descriptors the numbers that they have in the parent: the plan names those."""
    above = max(*numbers, *descriptors) + 1
    moved = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, above) for each in descriptors]
    for each in descriptors:
        os.close(each)
    for each, number in zip(moved, numbers, strict=True):
        os.dup2(each, number, inheritable=False)
        os.close(each)


def _tell(control: socket.socket, **what: object) -> None:
    control.sendall(json.dumps(what).encode())


if __name__ == "__main__":
    # Nothing in here needs to be put away, and taking it apart takes long.
    os._exit(main(sys.argv[1:]))
