"""The filter of system calls that a confined child runs under.

It is an allow-list. Each call of ``syscall_numbers.py`` has its answer: allowed, refused, or
decided by its arguments; what has none (x32, numbers that were given later) does not exist
(ENOSYS). A list of refusals would be shorter, but each call forgotten there would be open; here it
shows as a program that does not work. To the kernel both are the same search tree, and what is
always allowed it answers from a bitmap, without running the filter (``seccomp_cache_check_allow``).

Imported by the supervisor: nothing but cheap modules of the standard library.
Source of what is not named otherwise: the manual page of the call, and the kernel's uapi headers.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from typing import TYPE_CHECKING

from ovagent_jupyter.execution.sandbox import syscall_classes, syscall_numbers
from ovagent_jupyter.execution.sandbox.bpf import (
    ARCHITECTURE,
    AUDIT_ARCH,
    NUMBER,
    RET_ALLOW,
    RET_KILL_PROCESS,
    Program,
    argument,
    fail,
)
from ovagent_jupyter.execution.sandbox.linux import LIBC, system_call

if TYPE_CHECKING:
    from collections.abc import Callable

    Rule = Callable[[Program], None]
    """Adds the instructions that decide a call by its arguments."""

TABLES = {"x86_64": syscall_numbers.X86_64, "aarch64": syscall_numbers.AARCH64}
DENIED = fail(errno.EPERM)
MISSING = fail(errno.ENOSYS)

# linux/seccomp.h
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_TSYNC = 1
SECCOMP_MODE_FILTER = 2
PR_SET_SECCOMP = 22

# asm-generic/fcntl.h; the same on both architectures
O_ACCMODE = 3
O_CREATES = 0o100 | 0o20000000
"""O_CREAT and __O_TMPFILE: without one of them the mode is not looked at, and may be garbage."""
O_TRUNC = 0o1000
SET_ID = stat.S_ISUID | stat.S_ISGID

# linux/sched.h
CLONE_OUT = 0x7E020000 | 0x8000
"""CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}, and CLONE_PARENT: a child of our supervisor."""

# linux/socket.h, linux/net.h
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
SOCK_STREAM = 1
SOCK_FLAGS = 0o4000 | 0o2000000
"""SOCK_NONBLOCK | SOCK_CLOEXEC."""

# asm-generic/ioctls.h, linux/fs.h, linux/fiemap.h
IOCTLS = (
    *range(0x5401, 0x5412),  # TCGETS … TIOCOUTQ; TIOCSTI follows
    *(0x5413, 0x5414),  # TIOCGWINSZ TIOCSWINSZ
    *(0x541B, 0x5420, 0x5421, 0x5422),  # FIONREAD TIOCPKT FIONBIO TIOCNOTTY
    *(0x5424, 0x5425, 0x5429),  # TIOCGETD TCSBRKP TIOCGSID
    *(0x802C542A, 0x402C542B, 0x402C542C, 0x402C542D),  # TCGETS2 TCSETS2 TCSETSW2 TCSETSF2
    *(0x80045430, 0x40045431, 0x80045438, 0x80045439),  # TIOCGPTN TIOCSPTLCK TIOCGPKT TIOCGPTLCK
    *(0x80045440, 0x5441),  # TIOCGEXCL TIOCGPTPEER
    *(0x5450, 0x5451, 0x5460),  # FIONCLEX FIOCLEX FIOQSIZE
    *(0x2, 0x40049409, 0x4020940D),  # FIGETBSZ FICLONE FICLONERANGE
    *(0x80086601, 0x80087601, 0x801C581F),  # FS_IOC_GETFLAGS FS_IOC_GETVERSION FS_IOC_FSGETXATTR
    *(0xC020660B, 0xC0606610),  # FS_IOC_FIEMAP PAGEMAP_SCAN
)
"""Not: input for a terminal (TIOCSTI, TIOCLINUX), signals to others (FIOSETOWN, SIOCSPGRP), flags
of files that are only readable (FS_IOC_SETFLAGS), subvolumes of btrfs, and what drivers have."""

# linux/fcntl.h, asm-generic/fcntl.h
FCNTLS = (
    *range(8),  # F_DUPFD … F_SETLKW
    *(9, 10, 11, 16, 17),  # F_GETOWN F_SETSIG F_GETSIG F_GETOWN_EX F_GETOWNER_UIDS
    *(36, 37, 38),  # F_OFD_GETLK F_OFD_SETLK F_OFD_SETLKW
    *(1025, 1029, 1030),  # F_GETLEASE F_CANCELLK F_DUPFD_CLOEXEC
    *(1031, 1032, 1033, 1034),  # F_SETPIPE_SZ F_GETPIPE_SZ F_ADD_SEALS F_GET_SEALS
    *(1035, 1037),  # F_GET_RW_HINT F_GET_FILE_RW_HINT
)
"""Not: signals to others (F_SETOWN, F_SETOWN_EX), making others wait (F_SETLEASE), F_NOTIFY."""

# linux/prctl.h
PR_SET_DUMPABLE = 4
PRCTLS = (
    *(2, 3, 7),  # GET_PDEATHSIG GET_DUMPABLE GET_KEEPCAPS
    *(15, 16, 21, 22, 23),  # SET_NAME GET_NAME GET_SECCOMP SET_SECCOMP CAPBSET_READ
    *(25, 27, 29, 30),  # GET_TSC GET_SECUREBITS SET_TIMERSLACK GET_TIMERSLACK
    *(36, 37, 38, 39),  # SET_CHILD_SUBREAPER GET_… SET_NO_NEW_PRIVS GET_…
    *(40, 41, 42),  # GET_TID_ADDRESS SET_THP_DISABLE GET_THP_DISABLE
    *range(50, 57),  # SVE_{SET,GET}_VL {GET,SET}_SPECULATION_CTRL PAC_RESET_KEYS {SET,GET}_TAGGED…
    *(60, 61, 63, 64, 65, 66),  # PAC_{SET,GET}_ENABLED_KEYS SME_{SET,GET}_VL {SET,GET}_MDWE
    0x53564D41,  # SET_VMA: names of memory areas
)
"""Not: the parent-death signal, SET_PTRACER, SET_MM, SCHED_CORE (of other processes)."""


class SeccompProfile:
    """What the filter depends on besides the architecture.

    Args:
        own_world: Namespaces hide all sockets, IPC and processes of others, and mounts make
            read-only what the child may only read: what is local may be used.
        own_pid: Of the process that the filter is for, as it sees it itself.
        limit_signals: Signals only to itself and its group, because nothing else stops them.
        refuse_truncate: No emptying of files by name, because nothing else stops it.
    """

    __slots__ = ("limit_signals", "own_pid", "own_world", "refuse_truncate")

    def __init__(
        self, *, own_world: bool, own_pid: int, limit_signals: bool, refuse_truncate: bool
    ) -> None:
        self.own_world = own_world
        self.own_pid = own_pid
        self.limit_signals = limit_signals
        self.refuse_truncate = refuse_truncate


SCOPED_SIGNALS = 6
TRUNCATE = 3
"""The Landlock ABI that brought it: landlock(7)."""


def profile_for(*, namespaces: bool, landlock_abi: int, own_pid: int) -> SeccompProfile:
    """The profile that closes what the other layers leave open."""
    return SeccompProfile(
        own_world=namespaces,
        own_pid=own_pid,
        limit_signals=not namespaces and landlock_abi < SCOPED_SIGNALS,
        refuse_truncate=not namespaces and landlock_abi < TRUNCATE,
    )


def build_filter(machine: str, profile: SeccompProfile) -> bytes:
    """The filter as the kernel takes it.

    Args:
        machine: As ``uname -m`` has it.
        profile: What it depends on.

    Raises:
        OSError: There is no filter for this machine.
    """
    if machine not in TABLES:
        raise OSError(errno.ENOSYS, f"there is no filter of system calls for {machine}")
    numbers = TABLES[machine]
    program = Program()
    program.load(ARCHITECTURE)
    ours = program.label()
    program.equal(AUDIT_ARCH[machine], yes=ours)
    program.give(RET_KILL_PROCESS)
    program.place(ours)
    program.load(NUMBER)
    cases: dict[int, int | str] = {
        numbers[name]: answer for name, answer in answers(profile).items() if name in numbers
    }
    present = {name: rule for name, rule in rules(profile).items() if name in numbers}
    cases |= {numbers[name]: name for name in present}
    program.choose(cases, MISSING)
    for name, rule in present.items():
        program.place(name)
        rule(program)
    return program.assemble()


def install(program: bytes) -> None:
    """Put the filter on all threads of this process, for good; needs no_new_privs.

    Raises:
        OSError: The kernel refuses.
    """
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog, linux/filter.h
    holder = _Program(len(program) // 8, ctypes.cast(code, ctypes.c_void_p))
    number = TABLES[os.uname().machine]["seccomp"]
    try:
        stuck = system_call(
            number, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, ctypes.byref(holder)
        )
    except OSError as error:
        if error.errno not in {errno.ENOSYS, errno.EINVAL}:
            raise
        if LIBC.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(holder), 0, 0) < 0:
            failure = ctypes.get_errno()
            raise OSError(failure, f"seccomp: {os.strerror(failure)}") from error
        return
    if stuck:
        raise OSError(errno.EBUSY, f"seccomp: thread {stuck} has another filter")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def answers(profile: SeccompProfile) -> dict[str, int]:
    """The answer to each call that does not depend on its arguments."""
    always = dict.fromkeys(syscall_classes.ALLOWED.split(), RET_ALLOW)
    always |= dict.fromkeys(syscall_classes.REFUSED.split(), DENIED)
    always |= dict.fromkeys(syscall_classes.ABSENT.split(), MISSING)
    always |= {name: fail(number) for name, number in syscall_classes.FEIGNED.items()}
    shared = syscall_classes.SHARED_WITH_USER
    always |= {
        name: RET_ALLOW if profile.own_world else fail(number) for name, number in shared.items()
    }
    if not profile.own_world:
        always["mq_open"] = MISSING
        # One group: a signal to it reaches all at once, however fast they fork; kill(2).
        always |= dict.fromkeys(("setsid", "setpgid"), fail(0))
    else:
        always["sched_setaffinity"] = RET_ALLOW
    if profile.limit_signals:
        always["pidfd_send_signal"] = DENIED
    else:
        always |= dict.fromkeys((*SIGNALS, "pidfd_send_signal"), RET_ALLOW)
    always["truncate"] = fail(errno.EACCES) if profile.refuse_truncate else RET_ALLOW
    return always


SIGNALS = ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")


def rules(profile: SeccompProfile) -> dict[str, Rule]:
    """The calls that are decided by their arguments."""
    own = (0, profile.own_pid)
    found: dict[str, Rule] = {
        "open": _opens(1, 2, profile),
        "openat": _opens(2, 3, profile),
        "creat": _makes(1),
        "mkdir": _makes(1),
        "mkdirat": _makes(2),
        "mknod": _makes_node(1),
        "mknodat": _makes_node(2),
        "chmod": _changes_mode(1, profile),
        "fchmod": _changes_mode(1, profile),
        "fchmodat": _changes_mode(2, profile),
        "clone": _clones,
        "socket": _makes_socket,
        "socketpair": _makes_socket,
        "ioctl": _only(1, IOCTLS, fail(errno.ENOTTY)),
        "fcntl": _only(1, FCNTLS, fail(errno.EINVAL)),
        "prctl": _sets_process,
        "personality": _only(0, (0, 0xFFFFFFFF), DENIED),
        "prlimit64": _only(0, own, DENIED),
        "get_robust_list": _only(0, own, DENIED),
        "migrate_pages": _only(0, own, DENIED),
        "move_pages": _only(0, own, DENIED),
        # Processes and groups; not those of a user. PRIO_* and IOPRIO_WHO_* differ by one.
        "setpriority": _only(0, (0, 1), DENIED, then=_only(1, own, DENIED)),
        "ioprio_set": _only(0, (1, 2), DENIED, then=_only(1, own, DENIED)),
    }
    if profile.own_world:
        found["mq_open"] = _opens(1, 2, profile)
    else:
        # Threads are set by their own numbers, which cannot be told from those of other
        # processes; a thread that is not bound to a CPU works as well.
        found["sched_setaffinity"] = _only(0, own, fail(0))
    if profile.limit_signals:
        group = -profile.own_pid & 0xFFFFFFFF
        found |= dict.fromkeys(SIGNALS, _only(0, (profile.own_pid,), DENIED))
        found["kill"] = _only(0, (*own, group), DENIED)
    return found


def _only(place: int, values: tuple[int, ...], otherwise: int, then: Rule | None = None) -> Rule:
    """Some values of an argument are fine, or go on to another rule; no others."""

    def rule(program: Program) -> None:
        on = program.label()
        program.load(argument(place))
        program.choose(dict.fromkeys(values, on if then else RET_ALLOW), otherwise)
        if then:
            program.place(on)
            then(program)

    return rule


def _opens(flags: int, mode: int, profile: SeccompProfile) -> Rule:
    def rule(program: Program) -> None:
        fine, writes, denied, set_id = (program.label() for _ in range(4))
        program.load(argument(flags))
        program.keep(O_ACCMODE)
        # open(2): a descriptor for neither reading nor writing, which Landlock takes for no access.
        program.equal(O_ACCMODE, yes=denied)
        if profile.refuse_truncate:
            program.equal(0, no=writes)
            program.load(argument(flags))
            program.any_of(O_TRUNC, yes=denied)
        program.place(writes)
        program.load(argument(flags))
        program.any_of(O_CREATES, no=fine)
        program.load(argument(mode))
        program.any_of(SET_ID, yes=set_id)
        program.place(fine)
        program.give(RET_ALLOW)
        program.place(denied)
        program.give(fail(errno.EACCES))
        program.place(set_id)
        program.give(DENIED)

    return rule


def _makes(mode: int, fine: int = RET_ALLOW) -> Rule:
    def rule(program: Program) -> None:
        set_id = program.label()
        program.load(argument(mode))
        program.any_of(SET_ID, yes=set_id)
        program.give(fine)
        program.place(set_id)
        program.give(DENIED)

    return rule


def _changes_mode(mode: int, profile: SeccompProfile) -> Rule:
    """Where other files of the user can be reached, told as done and not done.

    An error would end ``shutil.copy``, joblib's shared arrays and the unpacking of packages, which
    set modes of their own new files and do not depend on them.
    """
    return _makes(mode, RET_ALLOW if profile.own_world else fail(0))


def _makes_node(mode: int) -> Rule:
    def rule(program: Program) -> None:
        set_id = program.label()
        program.load(argument(mode))
        program.any_of(SET_ID, yes=set_id)
        program.keep(0xF000)  # S_IFMT
        program.choose({stat.S_IFCHR: DENIED, stat.S_IFBLK: DENIED}, RET_ALLOW)
        program.place(set_id)
        program.give(DENIED)

    return rule


def _clones(program: Program) -> None:
    out = program.label()
    program.load(argument(0))
    program.any_of(CLONE_OUT, yes=out)
    program.give(RET_ALLOW)
    program.place(out)
    program.give(DENIED)


def _makes_socket(program: Program) -> None:
    """Streams only: a datagram socket sends to any address without connecting."""
    unix = program.label()
    program.load(argument(0))
    refused = fail(errno.EACCES)
    program.choose(
        # libzmq ends the process when a netlink socket fails for another reason.
        {AF_UNIX: unix, AF_INET: refused, AF_INET6: refused, AF_NETLINK: fail(errno.EOPNOTSUPP)},
        fail(errno.EAFNOSUPPORT),
    )
    program.place(unix)
    program.load(argument(1))
    program.keep(~SOCK_FLAGS & 0xFFFFFFFF)
    program.choose({SOCK_STREAM: RET_ALLOW}, refused)


def _sets_process(program: Program) -> None:
    dumpable = program.label()
    program.load(argument(0))
    cases: dict[int, int | str] = dict.fromkeys(PRCTLS, RET_ALLOW)
    for option in REFUSED_PRCTLS:
        cases[option] = DENIED
    cases[PR_SET_DUMPABLE] = dumpable
    program.choose(cases, fail(errno.EINVAL))
    program.place(dumpable)
    # A process that is not dumpable hides its memory from the watchdog.
    program.load(argument(1))
    program.choose({1: RET_ALLOW}, DENIED)


REFUSED_PRCTLS = (1, 35, 62, 0x59616D61)
"""PR_SET_PDEATHSIG, PR_SET_MM, PR_SCHED_CORE, PR_SET_PTRACER; others are not known: EINVAL."""
