"""Starts one child kernel, confines it before it runs anything, and ends all of it with us.

Run as a script by the parent: ``python -I -S launcher.py PLAN LIFELINE STATUS``, three numbers
of descriptors. It reads the plan (JSON, see ``confinement.py``) from the first, ends the child when
the second does, and writes what happens to the third, one JSON object a line.

This process is the supervisor. It is trusted, imports nothing but the standard library, and
stays outside of what it puts on the child. At the highest level a second trusted process is
number 1 of the child's pid namespace, so that the kernel ends whatever lives there with it.

A zygote (``zygote_process.py``) calls ``main`` in a fork instead; there the guest's program is a
function, for what it would load is in memory already.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, NoReturn

if not __package__:
    # Started by its path and isolated: the package is found beside this file and nowhere else.
    _ROOT = os.path.dirname(os.path.abspath(__file__))
    for _ in range(3):
        _ROOT = os.path.dirname(_ROOT)
    sys.path.append(_ROOT)

from ovagent_jupyter.errors import ConfinementError
from ovagent_jupyter.execution.sandbox import confine
from ovagent_jupyter.execution.sandbox.cgroup import open_cgroup
from ovagent_jupyter.execution.sandbox.process_tree import kill_tree
from ovagent_jupyter.execution.sandbox.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ovagent_jupyter.execution.sandbox.cgroup import Cgroup

    Plan = dict[str, Any]
    Program = Callable[[Plan], NoReturn]
    """What the guest becomes once it is confined."""

INIT_FAILED = 70
"""Exit code of a process that could not set up its level; what failed was told before."""


class Status:
    """The line to the parent.

    Args:
        descriptor: Where to write.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def tell(self, **what: object) -> None:
        """Write one line; a parent that is gone does not matter here."""
        try:
            os.write(self.descriptor, json.dumps(what).encode() + b"\n")
        except OSError:
            return


def execute(plan: Plan) -> NoReturn:
    """Have the command of the plan take the place of this process."""
    os.execve(  # noqa: S606 - no shell: the program and its arguments are ours
        plan["command"][0], plan["command"], plan["environment"]
    )


def main(arguments: list[str], program: Program = execute) -> int:
    """Read the plan, start and confine the child, and stay until it ends."""
    plan_end, lifeline, status_end = (int(each) for each in arguments)
    status = Status(status_end)
    plan = _read_plan(plan_end)
    plan["status"] = status_end
    parent = os.getppid()
    waker, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, _on_stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    supervisor = Supervisor(plan, status, program)
    try:
        supervisor.start()
        confine.close_all_but({0, 1, 2, lifeline, status_end, waker, wake, *supervisor.descriptors})
        return supervisor.stay(lifeline, waker, parent)
    except ConfinementError as error:
        status.tell(event="failed", stage=error.what, why=error.why)
        return INIT_FAILED
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        supervisor.end_all()


class Supervisor:
    """Owns what lives below this process: the child, and whatever the child starts.

    Args:
        plan: What to start and how.
        status: The line to the parent.
        program: What the child becomes.
    """

    def __init__(self, plan: Plan, status: Status, program: Program) -> None:
        self._plan = plan
        self._program = program
        self._status = status
        self._namespaces = bool(plan["layers"]["namespaces"])
        self._child = 0
        self._ended = False
        self._cgroup: Cgroup | None = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Those that are needed as long as it stays."""
        return tuple(self._cgroup.descriptors) if self._cgroup is not None else ()

    def start(self) -> None:
        """Make the child's process, with everything that holds it.

        Raises:
            ConfinementError: The level cannot be set up.
        """
        if self._namespaces and sys.platform != "linux":
            raise ConfinementError("namespaces", why="Only Linux has them.")
        if sys.platform == "linux":
            from ovagent_jupyter.execution.sandbox import linux

            # Before the namespaces: inside them the groups of the system are out of reach.
            self._cgroup = open_cgroup(self._plan["limits"])
            linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
            if self._namespaces:
                from ovagent_jupyter.execution.sandbox import namespaces

                _attempt("namespaces", namespaces.separate)
            linux.prctl(linux.PR_SET_DUMPABLE, 0)
        self._child = os.fork()
        if self._child == 0:
            # Later /proc is read-only, or shows nothing of the system's.
            confine.offer_as_victim()
            if self._cgroup is not None:
                self._cgroup.enter()
            if self._namespaces:
                _run_init(self._plan, self._status, self._program)
            _run_guest(self._plan, self._status, self._program)
        if not self._namespaces:
            # The guest is in a group of its own, so that it cannot signal ours.
            signal.signal(signal.SIGINT, lambda *_: _interrupt(self._child, self._status))

    def stay(self, lifeline: int, waker: int, parent: int) -> int:
        """Wait until the child ends; ends it when it uses too much or nobody wants it any more."""
        watchdog = Watchdog(
            self._plan["limits"],
            os.getpid(),
            exclude=(self._child,) if self._namespaces else (),
            directories=tuple(self._plan["watched"]),
        )
        poll = select.poll()
        poll.register(lifeline, select.POLLIN | select.POLLHUP)
        poll.register(waker, select.POLLIN)
        due = time.monotonic() + watchdog.pause
        while True:
            events = poll.poll(max(0, int((due - time.monotonic()) * 1000)))
            if any(descriptor == lifeline for descriptor, _ in events) or os.getppid() != parent:
                return 0
            if events:
                _drain(waker)
            code = self._reap()
            if code is not None:
                return code
            if time.monotonic() >= due:
                breach = watchdog.look(time.monotonic())
                if breach is not None:
                    self._tell_limit(breach)
                    return 0
                due = time.monotonic() + watchdog.pause

    def end_all(self) -> None:
        """End the child and all it started, by force."""
        if self._cgroup is not None:
            self._cgroup.kill()
        if not self._namespaces:
            kill_tree(os.getpid())
        elif self._child and not self._ended:
            # With number 1 of a pid namespace the kernel ends all that lives there.
            _kill(self._child)
            os.waitpid(self._child, 0)
        if self._cgroup is not None:
            self._cgroup.remove()

    def _tell_limit(self, breach: tuple[str, float, float]) -> None:
        name, cap, used = breach
        self._status.tell(event="limit", limit=name, cap=cap, used=used)

    def _reap(self) -> int | None:
        """Bury what has ended; the exit code when that was the child."""
        while True:
            try:
                pid, code = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return 0
            if pid == 0:
                return None
            if pid == self._child:
                self._ended = True
                breach = self._cgroup.breach() if self._cgroup is not None else None
                if breach is not None:
                    self._tell_limit(breach)
                if not self._namespaces:
                    _tell_end(self._status, code)
                return 0


def _run_init(plan: Plan, status: Status, program: Program) -> NoReturn:
    """Number 1 of the namespace: makes the child's world, starts it, and ends when it ends."""
    from ovagent_jupyter.execution.sandbox import linux, namespaces

    try:
        linux.die_with_parent(signal.SIGKILL)
        _attempt("root", namespaces.enter_root, plan)
        _attempt("capabilities", linux.drop_capabilities)
        _attempt("no_new_privs", linux.forbid_new_privileges)
    except ConfinementError as error:
        status.tell(event="failed", stage=error.what, why=error.why)
        os._exit(INIT_FAILED)
    guest = os.fork()
    if guest == 0:
        _run_guest(plan, status, program)
    signal.signal(signal.SIGINT, lambda *_: _interrupt(guest, status))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Its descriptor is closed next, and Python would complain of it on the child's last words.
    signal.set_wakeup_fd(-1)
    confine.close_all_but({0, 1, 2, status.descriptor})
    while True:
        try:
            pid, code = os.wait()
        except ChildProcessError:
            os._exit(0)
        if pid == guest:
            _tell_end(status, code)
            os._exit(0)


def _run_guest(plan: Plan, status: Status, program: Program) -> NoReturn:
    """The last thing that is ours in this process; then the program takes its place."""
    try:
        report = confine.become_guest(plan)
        status.tell(event="confined", protections=report)
        if not plan["command"] or any(
            report[name] != confine.ENFORCED for name in plan["required"]
        ):
            # The parent reads the report later; nothing of the guest's may run until then.
            os._exit(0)
        program(plan)
    except ConfinementError as error:
        status.tell(event="failed", stage=error.what, why=error.why)
    except BaseException as error:  # noqa: BLE001 - whatever it is, nothing may run on from here
        status.tell(event="failed", stage="start", why=f"{type(error).__name__}: {error}")
    os._exit(INIT_FAILED)


def _attempt(stage: str, action: Any, *arguments: object) -> None:
    try:
        action(*arguments)
    except OSError as error:
        raise ConfinementError(stage, why=str(error)) from error


def _tell_end(status: Status, code: int) -> None:
    if os.WIFSIGNALED(code):
        status.tell(event="ended", signal=os.WTERMSIG(code))
    else:
        status.tell(event="ended", code=os.waitstatus_to_exitcode(code))


def _interrupt(group: int, status: Status) -> None:
    """Pass an interrupt on, and say so: one that comes late would hit another cell."""
    try:
        os.killpg(group, signal.SIGINT)
    except OSError as error:
        if error.errno not in {errno.ESRCH, errno.EPERM}:
            raise
    status.tell(event="interrupted")


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _on_stop(*_: object) -> NoReturn:
    """The parent wants the child ended."""
    sys.exit(0)


def _drain(descriptor: int) -> None:
    try:
        os.read(descriptor, 4096)
    except BlockingIOError:
        return


def _read_plan(descriptor: int) -> Plan:
    chunks = []
    while chunk := os.read(descriptor, 1 << 16):
        chunks.append(chunk)
    os.close(descriptor)
    plan: Plan = json.loads(b"".join(chunks))
    return plan


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
