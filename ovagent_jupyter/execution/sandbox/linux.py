"""Calls of the Linux kernel for which the standard library has no function, through ctypes.

Imported by the supervisor, which starts with nothing but the standard library: it must stay
cheap to import.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)

# prctl(2), linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
LAST_CAPABILITY = 63
"""linux/capability.h has 41 of them; a number that the kernel does not know is refused."""

# capset(2), linux/capability.h
CAPABILITY_VERSION_3 = 0x20080522

# clone(2), linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# Numbers that all architectures share since Linux 5.1: asm-generic/unistd.h
SYS_OPENAT2 = 437
SYS_MOUNT_SETATTR = 442
AT_FDCWD = -100
RESOLVE_NO_SYMLINKS = 4
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}


def call(name: str, *arguments: object) -> int:
    """Call a function of the C library; its failure is an ``OSError``."""
    result: int = getattr(LIBC, name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def system_call(number: int, *arguments: object) -> int:
    """Make a system call by its number; its failure is an ``OSError``.

    Plain integers are passed as 64 bits: ctypes would cut them to 32.
    """
    passed = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result: int = LIBC.syscall(ctypes.c_long(number), *passed)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"system call {number}: {os.strerror(error)}")
    return result


def open_real(path: str) -> int:
    """A descriptor for a path that holds no link, only to name the file; links are refused.

    Raises:
        OSError: It is not there, or a link is on the way (ELOOP): openat2(2).
    """
    how = struct.pack("=3Q", os.O_PATH | os.O_CLOEXEC, 0, RESOLVE_NO_SYMLINKS)
    buffer = ctypes.create_string_buffer(how, len(how))
    try:
        return system_call(SYS_OPENAT2, AT_FDCWD, os.fsencode(path), buffer, len(how))
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        return os.open(path, os.O_PATH | os.O_CLOEXEC)  # before Linux 5.6


def prctl(option: int, argument: int = 0, second: int = 0) -> int:
    """Ask for an operation on this process."""
    return call("prctl", *(ctypes.c_ulong(each) for each in (option, argument, second, 0, 0)))


def die_with_parent(signal_number: int) -> None:
    """Have the kernel send a signal when the thread that made this process ends."""
    prctl(PR_SET_PDEATHSIG, signal_number)


def drop_capabilities() -> None:
    """Give up every capability of this process and of all it will ever start."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(LAST_CAPABILITY + 1):
        try:
            prctl(PR_CAPBSET_DROP, number)
        except OSError:
            # Unknown to this kernel, or this process has no privilege to begin with.
            continue
    header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
    nothing = bytes(24)
    system_call(
        SYS_CAPSET[os.uname().machine],
        ctypes.create_string_buffer(header, len(header)),
        ctypes.create_string_buffer(nothing, len(nothing)),
    )


def forbid_new_privileges() -> None:
    """Make set-id bits and file capabilities without effect from here on."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def machine() -> str:
    """The architecture as system-call tables name it."""
    return os.uname().machine if sys.platform == "linux" else ""
