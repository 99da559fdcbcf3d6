"""What this machine supports, found without any code of ours: the suite may not skip by mistake."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from functools import lru_cache

from tests.sandbox.users import as_user, can_change_user

LANDLOCK_CREATE_RULESET = 444
"""The same number on every architecture: landlock_create_ruleset(2)."""
SPACES = ("--user", "--map-root-user", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork")


@lru_cache
def lacks(setup: str, user: int) -> str:
    """Why a way of confining cannot work here for that user; empty when it must work."""
    if sys.platform != "linux" or platform.machine() not in {"x86_64", "aarch64"}:
        return "the suite is for Linux on x86_64 and aarch64"
    if user != os.getuid() and not can_change_user():
        return "changing the user takes unshare, setpriv and mount"
    if setup.startswith(("level3", "namespaces", "kernelspec")) and not _has_namespaces(user):
        return "this user may make no namespaces here"
    needs_landlock = setup.startswith(("level", "abi", "landlock"))
    abi = ctypes.CDLL(None).syscall(LANDLOCK_CREATE_RULESET, None, 0, 1)
    if needs_landlock and abi < 1:
        return "the kernel has no Landlock"
    return ""


def _has_namespaces(user: int) -> bool:
    command = as_user(user, ["unshare", *SPACES, "true"])
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
