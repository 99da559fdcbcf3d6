"""The highest level: namespaces of its own, and a root directory that holds only the grants.

Source: user_namespaces(7), mount_namespaces(7), pivot_root(2), mount_setattr(2) and
Documentation/filesystems/sharedsubtree.rst of the kernel.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from typing import TYPE_CHECKING

from ovagent_jupyter.execution.sandbox.linux import (
    AT_FDCWD,
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    SYS_MOUNT_SETATTR,
    SYS_PIVOT_ROOT,
    call,
    machine,
    open_real,
    system_call,
)

if TYPE_CHECKING:
    from ovagent_jupyter.execution.sandbox.confine import Plan

# mount(2), linux/mount.h
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
AT_RECURSIVE = 0x8000
MOUNT_ATTR_RDONLY = 1
MOUNT_ATTR_NOSUID = 2
MOUNT_ATTR_NODEV = 4

DEVICES = ("null", "zero", "full", "random", "urandom")
DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
OWN_PID_MAX_SINCE = (6, 14)
"""Linux from which ``pid_max`` belongs to a pid namespace; before, it is the machine's."""
LEAST_PID_MAX = 1024
PAGE = 4096
"""Bytes; where pages are larger, the bound on System V memory is looser by as much."""


def separate() -> None:
    """Move this process into namespaces of its own; its children also into a pid namespace.

    Inside, the user is who it was, alone; files of others belong to nobody.

    Raises:
        OSError: The system does not allow it.
    """
    user, group = os.geteuid(), os.getegid()
    apart = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
    call("unshare", CLONE_NEWUSER | apart)
    _tell("/proc/self/setgroups", "deny")
    _tell("/proc/self/uid_map", f"{user} {user} 1")
    _tell("/proc/self/gid_map", f"{group} {group} 1")
    call("sethostname", b"sandbox", 7)


def enter_root(plan: Plan) -> None:
    """Make a root directory that holds the grants and nothing else, and move into it.

    Args:
        plan: ``base``, an empty directory that becomes the root; ``grants``, pairs of a path and
            a kind; ``links``, pairs of a path and what the symbolic link there says; ``texts``,
            small files; ``temp``, the directory that is ``/tmp`` inside; ``shared_memory``, bytes
            that ``/dev/shm`` may hold.

    Raises:
        OSError: The system does not allow one of the mounts.
    """
    base, texts = plan["base"], plan["texts"]
    call("unshare", CLONE_NEWNS)
    _mount("none", "/", "", MS_REC | MS_PRIVATE)
    _mount("tmpfs", base, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=4m,nr_inodes=8192")
    _make_devices(base, plan["shared_memory"])
    os.makedirs(base + "/tmp", exist_ok=True)
    _mount(plan["temp"], base + "/tmp", "", MS_BIND)
    _set_attributes(base + "/tmp", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
    for path, target in plan["links"]:
        _link(base + path, target)
    # A directory before what lies in it, whatever kind of grant each has.
    for path, kind in sorted(plan["grants"]):
        if path not in texts and kind != "device":
            _bring(base, path, kind)
    for path, text in texts.items():
        _write(base + path, text)
    os.makedirs(base + "/proc", exist_ok=True)
    _mount("proc", base + "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _bound_processes(base + "/proc/sys", int(plan["limits"]["processes"]))
    _try_to_tell(base + "/proc/sys/kernel/shmall", str(plan["shared_memory"] // PAGE))
    _read_only(base + "/proc")
    os.chdir(base)
    system_call(SYS_PIVOT_ROOT[machine()], b".", b".")
    call("umount2", b".", MNT_DETACH)
    os.chdir("/")
    _set_attributes("/", MOUNT_ATTR_RDONLY, recursive=False)


def _bring(base: str, path: str, kind: str) -> None:
    """Show a path of the outer world at the same place below ``base``."""
    try:
        source = open_real(path)
    except OSError:
        return
    try:
        _show(source, base + path, kind)
    finally:
        os.close(source)


def _show(source: int, place: str, kind: str) -> None:
    """Mount what a descriptor names, so that no link can take its place meanwhile."""
    directory = stat.S_ISDIR(os.fstat(source).st_mode)
    if kind == "list":
        os.makedirs(place, exist_ok=True)
        return
    if directory:
        os.makedirs(place, exist_ok=True)
    elif not os.path.lexists(place):
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.close(os.open(place, os.O_CREAT | os.O_CLOEXEC, 0o644))
    _mount(f"/proc/self/fd/{source}", place, "", MS_BIND | MS_REC)
    if kind == "read":
        _read_only(place)
    elif kind == "device":
        # A device on it can still be written to; its mode and times cannot be changed.
        _set_attributes(place, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID)
    elif kind == "write":
        _set_attributes(place, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)


def _make_devices(base: str, shared_memory: int) -> None:
    os.makedirs(base + "/dev/shm", exist_ok=True)
    os.makedirs(base + "/dev/pts", exist_ok=True)
    for name in DEVICES:
        _bring(base, "/dev/" + name, "device")
    for name, target in DEVICE_LINKS.items():
        _link(f"{base}/dev/{name}", target)
    room = f"mode=1777,size={shared_memory}"
    _mount("tmpfs", base + "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, room)
    _mount(
        "devpts",
        base + "/dev/pts",
        "devpts",
        MS_NOSUID | MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=0620",
    )


def _bound_processes(settings: str, processes: int) -> None:
    """Limit what the kernel counts by namespace, as far as it does."""
    _try_to_tell(f"{settings}/user/max_user_namespaces", "0")
    release = os.uname().release.split(".")
    if tuple(int(each) for each in release[:2]) >= OWN_PID_MAX_SINCE:
        # Threads have numbers too.
        _try_to_tell(f"{settings}/kernel/pid_max", str(max(LEAST_PID_MAX, 8 * processes)))


def _read_only(place: str) -> None:
    _set_attributes(place, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)


def _set_attributes(place: str, attributes: int, *, recursive: bool = True) -> None:
    packed = struct.pack("=4Q", attributes, 0, 0, 0)
    system_call(
        SYS_MOUNT_SETATTR,
        AT_FDCWD,
        os.fsencode(place),
        AT_RECURSIVE if recursive else 0,
        ctypes.create_string_buffer(packed, len(packed)),
        len(packed),
    )


def _mount(source: str, place: str, kind: str, flags: int, options: str = "") -> None:
    try:
        call(
            "mount",
            os.fsencode(source),
            os.fsencode(place),
            kind.encode() or None,
            ctypes.c_ulong(flags),
            options.encode() or None,
        )
    except OSError as error:
        raise OSError(error.errno, f"mounting {source} at {place}: {error.strerror}") from None


def _link(place: str, target: str) -> None:
    if not os.path.lexists(place):
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.symlink(target, place)


def _write(place: str, text: str) -> None:
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with open(place, "w", encoding="utf-8") as file:
        file.write(text)


def _tell(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _try_to_tell(path: str, text: str) -> None:
    try:
        _tell(path, text)
    except OSError:
        return
