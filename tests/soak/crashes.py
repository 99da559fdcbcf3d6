"""Ways in which code ends its child, and what a reader must be told of each."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import dedent

from ovagent_jupyter.config.sandbox import SandboxSpec
from ovagent_jupyter.execution.executor import ExecutionStatus

OK, ERROR, TIMEOUT = ExecutionStatus.OK, ExecutionStatus.ERROR, ExecutionStatus.TIMEOUT
DEAD, LIMIT = ExecutionStatus.DEAD, ExecutionStatus.LIMIT

MIB = 1 << 20
SMALL = SandboxSpec(memory=600 * MIB, processes=24, disk=64 * MIB)
"""Caps that a crash reaches soon."""
SOON = 2.0
"""Seconds after which code that hangs is stopped."""
PATIENT = 60.0
SEGMENT = 123_456
"""Bytes of the System V shared memory that one of them makes."""


@dataclass(frozen=True, slots=True)
class Crash:
    """One way to end."""

    name: str
    code: str
    says: str
    """What the error's name and text must match."""
    ends: frozenset[ExecutionStatus] = frozenset({DEAD})
    timeout: float = PATIENT

    def __str__(self) -> str:
        return self.name


def _crash(
    name: str, code: str, says: str, *ends: ExecutionStatus, timeout: float = PATIENT
) -> Crash:
    return Crash(name, dedent(code).strip(), says, frozenset(ends or {DEAD}), timeout)


def _signal(name: str) -> Crash:
    code = f"import os, signal; os.kill(os.getpid(), signal.{name})"
    return _crash(name, code, f"ChildDied: .* was killed by {name}")


HANGS = "TimeoutError: .*killed"
SILENT = "TimeoutError: .*killed|ChildDied: .*stopped answering"

CRASHES = (
    _signal("SIGKILL"),
    _signal("SIGTERM"),
    _signal("SIGBUS"),
    _crash(
        "SIGSTOP", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", HANGS, TIMEOUT,
        timeout=SOON,
    ),
    _crash("os._exit", "import os; os._exit(3)", "ChildDied: .*ended with exit code 3"),
    _crash("os._exit(0)", "import os; os._exit(0)", "ChildDied: .*ended with exit code 0"),
    _crash("segfault", "import ctypes; ctypes.string_at(0)", "ChildDied: .*SIGSEGV"),
    _crash("abort", "import os; os.abort()", "ChildDied: .*SIGABRT"),
    _crash(
        "stack overflow",
        """
        import ctypes, sys
        sys.setrecursionlimit(10**9)
        again = ctypes.CFUNCTYPE(None)(lambda: again())
        again()
        """,
        "ChildDied: .*SIGSEGV",
    ),
    _crash(
        "memory bomb",
        "held = []\nwhile True: held.append(bytearray(b'x') * (20 << 20))",
        "ResourceLimitExceeded: memory: .* used, 600 MiB allowed|MemoryError",
        LIMIT, ERROR,
    ),
    _crash(
        "memory bomb of many",
        """
        import os, time
        for _ in range(6):
            if os.fork() == 0:
                held = bytearray(b'x') * (150 << 20)
                time.sleep(600)
        time.sleep(600)
        """,
        "ResourceLimitExceeded: memory: .* used, 600 MiB allowed",
        LIMIT,
    ),
    _crash(
        "memory bomb in a descriptor",
        """
        import os
        held = os.memfd_create("held")
        while True: os.write(held, b"x" * (1 << 20))
        """,
        "ResourceLimitExceeded: memory: .* used, 600 MiB allowed",
        LIMIT,
    ),
    _crash("one huge allocation", "import numpy; numpy.ones(1 << 40)", "MemoryError", ERROR),
    _crash(
        "fork bomb",
        """
        import os, time
        while True:
            try:
                os.fork()
            except OSError:
                time.sleep(0.01)
            time.sleep(0.01)
        """,
        "ResourceLimitExceeded: processes: .* used, 24 allowed",
        LIMIT,
    ),
    _crash(
        "fork bomb of daemons",
        """
        import os, time
        while True:
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    time.sleep(600)
                os._exit(0)
            time.sleep(0.01)
        """,
        # On a busy machine the system's own bound on tasks can come before the watchdog's look.
        "ResourceLimitExceeded: processes: .* used, 24 allowed|BlockingIOError",
        LIMIT, ERROR,
    ),
    _crash(
        "thread bomb",
        """
        import threading, time
        while True: threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        """,
        "can't start new thread|ResourceLimitExceeded|ChildDied",
        ERROR, LIMIT, DEAD,
    ),
    _crash(
        "disk bomb",
        "file = open('big', 'wb')\nwhile True: file.write(b'x' * (1 << 20))",
        "ResourceLimitExceeded: disk: .* used, 64 MiB allowed",
        LIMIT,
    ),
    _crash(
        "disk bomb without a name",
        """
        import os
        file = open('big', 'wb')
        os.unlink('big')
        while True: file.write(b'x' * (1 << 20))
        """,
        "ResourceLimitExceeded: disk: .* used, 64 MiB allowed",
        LIMIT,
    ),
    _crash(
        "many files",
        "i = 0\nwhile True:\n    open(f'file{i}', 'w').close()\n    i += 1",
        "ResourceLimitExceeded: files: .* used, 10,000 allowed",
        LIMIT,
    ),
    _crash(
        "output flood",
        "while True: print('x' * 1000)",
        "TimeoutError|ResourceLimitExceeded: output", TIMEOUT, LIMIT, timeout=SOON,
    ),
    _crash(
        "display flood",
        "from IPython.display import display\nwhile True: display('x' * 1000)",
        "TimeoutError|ResourceLimitExceeded: output", TIMEOUT, LIMIT, timeout=SOON,
    ),
    _crash(
        "closed descriptors",
        "import os; os.closerange(0, 4096)\nwhile True: pass",
        "TimeoutError|ChildDied", TIMEOUT, DEAD, timeout=SOON,
    ),
    _crash(
        "closed sockets",
        """
        import gc, zmq
        for each in gc.get_objects():
            if isinstance(each, zmq.Socket):
                each.close(0)
        """,
        "TimeoutError|ChildDied", TIMEOUT, DEAD, timeout=SOON,
    ),
    _crash(
        "stopped event loop",
        "import asyncio; asyncio.get_event_loop().stop(); import os; os.close(1)",
        "TimeoutError|ChildDied|.*", TIMEOUT, DEAD, OK, timeout=SOON,
    ),
    _crash(
        "deaf loop",
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        HANGS, TIMEOUT, timeout=SOON,
    ),
    _crash("native hang", "sum(range(10**13))", HANGS, TIMEOUT, timeout=SOON),
    _crash(
        "exit in a thread",
        """
        import os, threading, time
        threading.Thread(target=os._exit, args=(4,)).start()
        time.sleep(600)
        """,
        "ChildDied: .*ended with exit code 4",
    ),
    _crash(
        "another program", "import os; os.execv('/bin/sh', ['sh', '-c', 'exit 5'])",
        "ChildDied: .*ended with exit code 5",
    ),
    _crash(
        "another program that stays",
        "import os; os.execv('/bin/sh', ['sh', '-c', 'sleep 600'])",
        SILENT, TIMEOUT, DEAD, timeout=SOON,
    ),
    _crash(
        "daemons",
        """
        import os, time
        for _ in range(3):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    time.sleep(600)
                os._exit(0)
            os.wait()
        print("left")
        """,
        "", OK,
    ),
    _crash(
        "two kernels", "import os; os.fork()",
        "TimeoutError|ChildDied|.*", OK, ERROR, TIMEOUT, DEAD, timeout=SOON,
    ),
    _crash(
        "killing the parent",
        """
        import os, signal
        for pid in (os.getppid(), 1):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError as error:
                print(type(error).__name__)
        """,
        "", OK,
    ),
    _crash(
        "raising at the exit",
        """
        import atexit, os
        def fail():
            raise RuntimeError("at the exit")
        atexit.register(fail)
        get_ipython().kernel.do_shutdown(False)
        """,
        "", OK, DEAD,
    ),
    _crash(
        "no descriptor left",
        "held = []\nwhile True: held.append(open('/dev/null'))",
        "OSError: .*Too many open files|ChildDied", ERROR, DEAD,
    ),
    _crash(
        "a shared segment",
        f"""
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.shmget(0, {SEGMENT}, 0o1600) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        """,
        "|PermissionError", OK, ERROR,
    ),
    _crash(
        "no work directory",
        "import os, shutil; shutil.rmtree(os.getcwd(), ignore_errors=True); os.getcwd()",
        "FileNotFoundError|.*", OK, ERROR,
    ),
    _crash(
        "a map that shrinks",
        """
        import mmap
        file = open("shrinking", "w+b")
        file.truncate(1 << 20)
        held = mmap.mmap(file.fileno(), 1 << 20)
        file.truncate(0)
        held[1 << 19]
        """,
        "ChildDied: .*SIGBUS",
    ),
)  # fmt: skip
