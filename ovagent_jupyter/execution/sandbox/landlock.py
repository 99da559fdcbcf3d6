"""Landlock: the files a process may reach, given up for good by the process itself.

Source: Documentation/userspace-api/landlock.rst and include/uapi/linux/landlock.h of the kernel.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct

from ovagent_jupyter.execution.sandbox.linux import open_real, system_call

SYS_CREATE_RULESET = 444
SYS_ADD_RULE = 445
SYS_RESTRICT_SELF = 446
CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1

EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
REMOVE_DIR = 1 << 4
REMOVE_FILE = 1 << 5
MAKE_CHAR = 1 << 6
MAKE_DIR = 1 << 7
MAKE_REG = 1 << 8
MAKE_SOCK = 1 << 9
MAKE_FIFO = 1 << 10
MAKE_BLOCK = 1 << 11
MAKE_SYM = 1 << 12
REFER = 1 << 13
TRUNCATE = 1 << 14
IOCTL_DEV = 1 << 15

SINCE_ABI = {
    1: (1 << 13) - 1,
    2: REFER,
    3: TRUNCATE,
    5: IOCTL_DEV,
}
"""Rights on files by the ABI that brought them."""
NET_ABI = 4
NET_TCP = 0b11
"""Binding and connecting of TCP."""
SCOPE_ABI = 6
SCOPES = 0b11
"""Abstract UNIX sockets and signals stay among the confined."""
NEWEST = 7
"""The last ABI this module was written for; what a later one adds is not used."""

ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""What a rule on a single file may hold."""
RIGHTS = {
    "read": EXECUTE | READ_FILE | READ_DIR,
    "list": READ_DIR,
    "device": READ_FILE | WRITE_FILE | IOCTL_DEV,
    "write": (1 << 16) - 1 & ~(MAKE_CHAR | MAKE_BLOCK | IOCTL_DEV),
}
"""What each kind of grant gives."""


def abi() -> int:
    """The Landlock ABI of this kernel; 0 when it has none or it is switched off."""
    try:
        return system_call(SYS_CREATE_RULESET, 0, 0, CREATE_RULESET_VERSION)
    except OSError:
        return 0


def restrict(grants: list[list[str]], version: int) -> None:
    """Confine this process and its future children to the files of the grants.

    Args:
        grants: Pairs of a path and a kind of ``RIGHTS``; paths that do not exist give nothing.
        version: The ABI to use, at most that of the kernel.

    Raises:
        OSError: The kernel refuses.
    """
    handled = sum(rights for since, rights in SINCE_ABI.items() if since <= version)
    attributes = [handled]
    if version >= NET_ABI:
        attributes.append(NET_TCP)
    if version >= SCOPE_ABI:
        attributes.append(SCOPES)
    packed = struct.pack(f"={len(attributes)}Q", *attributes)
    ruleset = system_call(
        SYS_CREATE_RULESET, ctypes.create_string_buffer(packed, len(packed)), len(packed), 0
    )
    try:
        for path, kind in grants:
            _add(ruleset, path, RIGHTS[kind] & handled)
        system_call(SYS_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _add(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = open_real(path)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= ON_FILES
        if not rights:
            return
        rule = struct.pack("=Qi", rights, descriptor)
        system_call(
            SYS_ADD_RULE,
            ruleset,
            RULE_PATH_BENEATH,
            ctypes.create_string_buffer(rule, len(rule)),
            0,
        )
    finally:
        os.close(descriptor)
