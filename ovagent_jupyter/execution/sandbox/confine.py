"""What the process of a child kernel does to itself before it becomes the guest's.

The order matters: what a later step takes away, an earlier one still needs. All of it comes before
the guest's interpreter is loaded, because Landlock binds one thread and what it starts later.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING

from ovagent_jupyter.errors import ConfinementError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Plan = dict[str, Any]
    """See ``confinement.py``, which makes it."""

ENFORCED = "enforced"
MISSING = "missing"
NOT_APPLICABLE = "not applicable"

UNGRANTED = "/.ungranted"
"""A file of the child's own root that any user may read; only Landlock closes it."""
VICTIM_FIRST = "500"
"""When memory runs out for the whole machine, the kernel takes the child before the notebook."""


def reset_signals() -> None:
    """Undo what is inherited: a notebook kernel ignores SIGINT between its cells."""
    for number in range(1, signal.NSIG):
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            continue  # SIGKILL and SIGSTOP, and what the C library keeps for itself
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def become_guest(plan: Plan) -> dict[str, str]:
    """Confine this process as planned and report what holds, tried from inside.

    Raises:
        ConfinementError: A step could not be done; names it.
    """
    layers = plan["layers"]
    reset_signals()
    os.setsid()
    os.chdir(plan["directory"])
    for number, soft, hard in plan["rlimits"]:
        _limit(number, soft, hard)
    if sys.platform == "linux":
        _confine_linux(plan, layers)
    elif plan["seatbelt"]:
        _confine_macos(plan["seatbelt"])
    close_all_but({0, 1, 2, plan["status"], *plan["keep"]})
    os.set_inheritable(plan["status"], False)
    for descriptor in plan["keep"]:
        os.set_inheritable(descriptor, True)
    return self_test(plan)


def _confine_linux(plan: Plan, layers: dict[str, Any]) -> None:
    from ovagent_jupyter.execution.sandbox import landlock, linux

    linux.die_with_parent(signal.SIGKILL)
    if not any(layers.values()):
        return
    _step("capabilities", linux.drop_capabilities)
    _step("no_new_privs", linux.forbid_new_privileges)
    if layers["landlock"]:
        grants = plan["grants"] + _own_view(namespaces=layers["namespaces"])
        _step("landlock", landlock.restrict, grants, layers["landlock"])
    if layers["seccomp"]:
        from ovagent_jupyter.execution.sandbox import seccomp

        profile = seccomp.profile_for(
            namespaces=layers["namespaces"], landlock_abi=layers["landlock"], own_pid=os.getpid()
        )
        try:
            program = seccomp.build_filter(linux.machine(), profile)
        except OSError as error:
            raise ConfinementError("seccomp", why=str(error)) from error
        _step("seccomp", seccomp.install, program)


def _confine_macos(profile: str) -> None:
    from ovagent_jupyter.execution.sandbox import macos

    _step("seatbelt", macos.apply, profile)


def _own_view(*, namespaces: bool) -> list[list[str]]:
    """What is the child's own besides its grants: much, where it shows nobody else."""
    if not namespaces:
        return [[f"/proc/{os.getpid()}", "read"]]
    return [
        ["/", "list"],
        ["/proc", "read"],
        ["/dev/shm", "write"],
        ["/dev/pts", "device"],
    ]


def _step(stage: str, action: Any, *arguments: object) -> None:
    try:
        action(*arguments)
    except OSError as error:
        raise ConfinementError(stage, why=str(error)) from error


def _limit(number: int, soft: int, hard: int) -> None:
    """Set a limit, no higher than it is already."""
    present_soft, present_hard = resource.getrlimit(number)
    hard = _lower(hard, present_hard)
    soft = _lower(_lower(soft, hard), present_soft) if soft != -1 else _lower(present_soft, hard)
    try:
        resource.setrlimit(number, (soft, hard))
    except (OSError, ValueError) as error:
        raise ConfinementError(f"limit {number}", why=str(error)) from error


def _lower(one: int, other: int) -> int:
    infinite = resource.RLIM_INFINITY
    if one == infinite:
        return other
    return one if other == infinite else min(one, other)


def offer_as_victim() -> None:
    """Have the system take this process first when memory runs out: proc(5)."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(VICTIM_FIRST)
    except OSError:
        return  # not Linux, or already higher


def close_all_but(kept: Iterable[int]) -> None:
    """Close every descriptor that is not named."""
    directory = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    try:
        there = [int(name) for name in os.listdir(directory)]
    except OSError:
        there = list(range(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
    for descriptor in set(there) - set(kept):
        try:
            os.close(descriptor)
        except OSError:
            continue


def self_test(plan: Plan) -> dict[str, str]:
    """Each protection as it shows from inside: enforced, missing, or not applicable here."""
    layers = plan["layers"]
    planned_files = bool(layers["namespaces"] or layers["landlock"] or plan["seatbelt"])
    report = {
        "files": _verdict(planned=planned_files, holds=_cannot_read(plan["canary"])),
        "network": _verdict(
            planned=layers["seccomp"] or bool(plan["seatbelt"]),
            holds=_cannot_connect() if plan["seatbelt"] else _cannot_call_out(),
        ),
        "namespaces": _verdict(planned=layers["namespaces"], holds=os.getpid() == FIRST_GUEST),
        "landlock": _verdict(
            planned=bool(layers["landlock"]),
            holds=_cannot_read(UNGRANTED) if layers["namespaces"] else _cannot_list("/"),
        ),
    }
    if sys.platform == "linux":
        report |= _kernel_says(confined=any(layers.values()), seccomp=layers["seccomp"])
    return report


FIRST_GUEST = 2
"""The guest's pid in a namespace of its own; number 1 is ours."""
AF_INET = 2
SOCK_STREAM = 1
"""socket(2), the same on Linux and macOS; the module ``socket`` is dear to import."""


def _verdict(*, planned: bool, holds: bool) -> str:
    if not planned:
        return NOT_APPLICABLE
    return ENFORCED if holds else MISSING


def _kernel_says(*, confined: bool, seccomp: bool) -> dict[str, str]:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        lines = dict(line.split(":", 1) for line in file if ":" in line)
    facts = {name: value.strip() for name, value in lines.items()}
    capable = int(facts["CapEff"], 16) | int(facts["CapPrm"], 16) | int(facts["CapBnd"], 16)
    # An unprivileged user cannot empty the bounding set, and need not: nothing brings it back.
    if not int(facts["CapEff"], 16) | int(facts["CapPrm"], 16) and os.geteuid():
        capable = 0
    return {
        "no_new_privs": _verdict(planned=confined, holds=facts["NoNewPrivs"] == "1"),
        "capabilities": _verdict(planned=confined, holds=capable == 0),
        "seccomp": _verdict(planned=seccomp, holds=facts["Seccomp"] == "2" and _cannot_unshare()),
    }


def _cannot_read(canary: str) -> bool:
    try:
        os.close(os.open(canary, os.O_RDONLY))
    except OSError:
        return True
    return False


def _cannot_list(directory: str) -> bool:
    """Whether a directory that anyone may list is closed: only Landlock closes this one."""
    try:
        os.listdir(directory)
    except OSError:
        return True
    return False


def _cannot_call_out() -> bool:
    from ovagent_jupyter.execution.sandbox.linux import call

    try:
        os.close(call("socket", AF_INET, SOCK_STREAM, 0))
    except OSError as error:
        return error.errno in {errno.EACCES, errno.EPERM, errno.EAFNOSUPPORT}
    return False


def _cannot_connect() -> bool:
    from ovagent_jupyter.execution.sandbox import macos

    return macos.cannot_connect()


def _cannot_unshare() -> bool:
    from ovagent_jupyter.execution.sandbox.linux import CLONE_NEWUSER, call

    try:
        call("unshare", CLONE_NEWUSER)
    except OSError as error:
        return error.errno == errno.EPERM
    return False
