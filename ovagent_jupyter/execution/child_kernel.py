"""The IPython kernel in a child: no history, bounded text, and ``quit()`` ends only the cell."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from typing import Any, NoReturn

import zmq
from ipykernel.heartbeat import Heartbeat
from ipykernel.iostream import OutStream
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from ipykernel.zmqshell import ZMQInteractiveShell
from traitlets import Type

from ovagent_jupyter.execution.environment import BROKER, EXCHANGE, SOCKETS

LONGEST_CELL = 8_000_000
"""Characters that one cell may print; far more than the parent passes on."""


class BoundedStream(OutStream):
    """Standard output or error that takes so much of each cell and drops the rest.

    A parent cannot do this: one print of 200 MB is one message, and ten million lines cost a
    minute when each of them goes the whole way.
    """

    other: BoundedStream | None = None
    """The other of the two; what it holds back goes first, so that the order is kept."""
    _left = LONGEST_CELL
    _holds = False

    def set_parent(self, parent: dict[str, object]) -> None:
        """Begin the count anew: another request is being answered."""
        self._left = LONGEST_CELL
        super().set_parent(parent)  # type: ignore[no-untyped-call]

    def write(self, string: str) -> int:
        """Write as much of it as is left to this cell."""
        if self._left <= 0:
            return len(string)
        kept = string[: self._left]
        self._left -= len(kept)
        self._holds = True
        if self.other is not None and self.other._holds:
            self.other.pub_thread.schedule(self.other._flush)
        if not kept.isascii():
            # A lone surrogate would make the message impossible to send.
            kept = kept.encode("utf-8", "replace").decode("utf-8")
        super().write(kept)
        if self._left <= 0:
            super().write(f"\n[output cut: more than {LONGEST_CELL:,} characters were printed]\n")
        return len(string)

    def _flush(self) -> None:
        self._holds = False
        super()._flush()  # type: ignore[no-untyped-call]


class ChildShell(ZMQInteractiveShell):
    """A shell whose ``exit()`` and ``quit()`` end the cell, not the kernel with all variables."""

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)  # type: ignore[no-untyped-call]
        try:
            for end in os.openpty():
                os.close(end)
        except OSError:
            # Where the confinement has no terminals to give.
            self.system = self._system_through_pipe  # type: ignore[method-assign]

    def _system_through_pipe(self, cmd: str) -> None:
        """Run ``!cmd`` without a terminal."""
        with subprocess.Popen(  # noqa: S602 - a shell line is what ``!`` asks for, in here
            self.var_expand(cmd, depth=1),  # type: ignore[no-untyped-call]
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            for line in process.stdout or ():
                sys.stdout.write(line)
        self.user_ns["_exit_code"] = process.returncode

    def ask_exit(self) -> NoReturn:
        """End the running cell."""
        raise SystemExit("exit() ends this cell; your variables are kept.")


class ChildKernel(IPythonKernel):
    """The kernel with our shell."""

    shell_class = Type(ChildShell)


class InheritedHeartbeat(Heartbeat):
    """A heartbeat on a socket that the parent has bound."""

    listeners: dict[int, int]

    def _try_bind_socket(self) -> Any:
        inherit(self.socket, self.listeners, self.port)
        return super()._try_bind_socket()  # type: ignore[no-untyped-call]


class ChildApp(IPKernelApp):
    """The application whose output waits for a slow reader instead of being dropped.

    By default a publisher drops what a reader has not fetched in time: a loop that prints with
    ``flush=True`` loses hundreds of lines on a busy machine, and nobody is told.
    """

    listeners: dict[int, int]
    """Port → descriptor of the socket that was bound for it; empty to bind them here."""

    def _try_bind_socket(self, s: zmq.Socket[bytes], port: int) -> Any:
        inherit(s, self.listeners, port)
        return super()._try_bind_socket(s, port)  # type: ignore[no-untyped-call]

    def init_heartbeat(self) -> None:
        """Start the heartbeat."""
        address = (self.transport, self.ip, self.hb_port)
        self.heartbeat = InheritedHeartbeat(zmq.Context(), address)  # type: ignore[no-untyped-call]
        self.heartbeat.listeners = self.listeners
        self.hb_port = self.heartbeat.port
        self.heartbeat.start()

    def init_iopub(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """Open the output channel."""
        super().init_iopub(context)  # type: ignore[no-untyped-call]
        publisher = self.iopub_thread.socket
        # On the thread that owns the socket.
        self.iopub_thread.schedule(partial(publisher.setsockopt, zmq.XPUB_NODROP, 1))


def inherit(socket: zmq.Socket[bytes], listeners: dict[int, int], port: int) -> None:
    """Have a socket listen where the parent has bound it; a confined child can bind nowhere."""
    if port in listeners:
        socket.setsockopt(zmq.USE_FD, listeners[port])


def run_kernel(arguments: list[str]) -> None:
    """Serve the connection file named in the arguments until told to shut down."""
    # The supervisor ends us when the parent is gone; its number means nothing in here.
    os.environ.pop("JPY_PARENT_PID", None)
    numbers = os.environ.pop(SOCKETS, "").split()
    app = ChildApp.instance(
        kernel_class=ChildKernel,
        outstream_class=f"{__name__}.{BoundedStream.__name__}",
    )
    app.listeners = {port: int(number) for port, number in enumerate(numbers, 1)}
    _use_broker(os.environ.pop(BROKER, ""))
    _keep_exchange(os.environ.pop(EXCHANGE, ""))
    app.initialize([*arguments, "--HistoryManager.enabled=False"])  # type: ignore[no-untyped-call]
    if isinstance(sys.stdout, BoundedStream) and isinstance(sys.stderr, BoundedStream):
        sys.stdout.other, sys.stderr.other = sys.stderr, sys.stdout
    app.start()  # type: ignore[no-untyped-call]


def _keep_exchange(number: str) -> None:
    """Keep the way of the hand-over for this process; programs that it starts do not get it."""
    if number:
        os.set_inheritable(int(number), False)


def _use_broker(number: str) -> None:
    """Reach granted hosts through the parent, if there are any."""
    if number:
        from ovagent_jupyter.execution.child_network import install

        install(int(number))
