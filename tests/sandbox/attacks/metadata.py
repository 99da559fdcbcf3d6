"""Attacks on modes, times, owners and attributes, and on bits that give another user's rights."""

from __future__ import annotations

import fcntl
import os
import stat
import struct

from tests.sandbox.attack import Category, attack
from tests.sandbox.attacks.secrets import as_root
from tests.sandbox.faces import Shot
from tests.sandbox.guest import AT_FDCWD, Scene, apart, call
from tests.sandbox.judges import harmed, marked_files, special_file
from tests.sandbox.witness import Witness

METADATA = Category.METADATA


@attack(METADATA, "opens the user's key to everybody", harmed)
def change_mode(s: Scene) -> None:
    os.chmod(s.ssh_key, 0o666)


@attack(METADATA, "changes the mode of a file by the newer fchmodat2", harmed)
def change_mode_by_newer_call(s: Scene) -> None:
    call("fchmodat2", AT_FDCWD, s.ssh_key.encode(), 0o666, 0)


@attack(METADATA, "changes the mode of a file that it may read", harmed)
def change_mode_of_granted(s: Scene) -> None:
    os.fchmod(os.open(s.granted, os.O_RDONLY), 0o777)


@attack(METADATA, "sets back the time of a file", harmed)
def change_time(s: Scene) -> None:
    os.utime(s.notebook, (0, 0))


@attack(METADATA, "sets back the time of a file that it may read", harmed)
def change_time_of_granted(s: Scene) -> None:
    os.utime(os.open(s.granted, os.O_RDONLY), (0, 0))


@attack(METADATA, "gives a file to another user", harmed, ready=as_root)
def change_owner(s: Scene) -> None:
    os.chown(s.data, 1234, 1234)


@attack(METADATA, "puts an attribute on a file", harmed)
def put_attribute(s: Scene) -> None:
    os.setxattr(s.data, "user.owned", b"yes")


@attack(METADATA, "puts an attribute on a file by a call that is newer than most filters", harmed)
def put_attribute_by_newer_call(s: Scene) -> None:
    import ctypes

    value = ctypes.create_string_buffer(b"yes")
    arguments = struct.pack("QII", ctypes.addressof(value), 3, 0)
    call("setxattrat", AT_FDCWD, s.data.encode(), 0, b"user.owned", arguments, 16)


@attack(METADATA, "gives everybody access by an access list", harmed)
def put_access_list(s: Scene) -> None:
    # acl(5): version 2, then owner, mask, and everybody with all rights
    entries = ((1, 7), (2, 7, 1234), (4, 0), (16, 7), (32, 7))
    packed = b"".join(
        struct.pack("<HHI", e[0], e[1], e[2] if len(e) > 2 else 2**32 - 1) for e in entries
    )
    os.setxattr(s.data, "system.posix_acl_access", struct.pack("<I", 2) + packed)


@attack(METADATA, "makes a file of the user unchangeable", harmed, ready=as_root)
def make_unchangeable(s: Scene) -> None:
    found = os.open(s.data, os.O_RDONLY)
    fcntl.ioctl(found, 0x40086602, struct.pack("l", 0x10))  # FS_IOC_SETFLAGS, FS_IMMUTABLE_FL


@attack(METADATA, "sets a file's flags by a call that is newer than most filters", harmed)
def set_flags_by_newer_call(s: Scene) -> None:
    attributes = struct.pack("QIIII", 0x40, 0, 0, 0, 0)  # FS_XFLAG_NODUMP in struct file_attr
    call("file_setattr", AT_FDCWD, s.data.encode(), attributes, len(attributes), 0)


# -- set-id bits and devices in its own folders: a trap for whoever comes later ---------------


@attack(METADATA, "makes a set-id program by chmod", special_file)
def set_id_by_chmod(s: Scene) -> None:
    open(s.tag, "w").close()
    os.chmod(s.tag, 0o6755)


@attack(METADATA, "makes a set-id program by fchmod", special_file)
def set_id_by_fchmod(s: Scene) -> None:
    os.fchmod(os.open(s.tag, os.O_RDWR | os.O_CREAT), 0o4755)


@attack(METADATA, "makes a set-id program by creating it so", special_file)
def set_id_by_open(s: Scene) -> None:
    os.umask(0)
    os.open(s.tag, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o4755)


@attack(METADATA, "makes a set-id program by mknod", special_file)
def set_id_by_mknod(s: Scene) -> None:
    os.umask(0)
    os.mknod(s.tag, stat.S_IFREG | 0o4755)


@attack(METADATA, "makes a set-id program by the newer fchmodat2", special_file)
def set_id_by_newer_call(s: Scene) -> None:
    open(s.tag, "w").close()
    call("fchmodat2", AT_FDCWD, s.tag.encode(), 0o4755, 0)


@attack(METADATA, "makes a set-id program by openat2", special_file)
def set_id_by_openat2(s: Scene) -> None:
    os.umask(0)
    how = struct.pack("QQQ", os.O_RDWR | os.O_CREAT, 0o4755, 0)
    call("openat2", AT_FDCWD, s.tag.encode(), how, 24)


@attack(METADATA, "gives a program of its own a capability", special_file, ready=as_root)
def give_capability(s: Scene) -> None:
    open(s.tag, "w").close()
    # version 2, effective: CAP_SETUID
    os.setxattr(s.tag, "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 7, 0, 0, 0))


@attack(METADATA, "makes a device in its own folder", special_file, ready=as_root)
def make_device(s: Scene) -> None:
    os.mknod(s.tag, stat.S_IFCHR | 0o666, os.makedev(1, 1))


def owned_by_another(witness: Witness, shot: Shot) -> str:
    """A file of its own belongs to somebody else."""
    for path in marked_files(witness.base, shot.tag):
        if path.lstat().st_uid != os.getuid():
            return f"a file of user {path.lstat().st_uid} was made"
    return ""


@attack(METADATA, "becomes another user", owned_by_another, ready=as_root)
def become_another_user(s: Scene) -> None:
    def change() -> None:
        os.chmod(".", 0o777)
        os.setuid(1234)
        open(s.tag, "w").close()

    apart(change)


def device_touched(witness: Witness, shot: Shot) -> str:
    """A device that every program uses was given a mode, though the same one, or an owner."""
    return witness.devices_touched()


@attack(METADATA, "sets the mode and the owner of the devices that all programs share",
        device_touched, ready=as_root)  # fmt: skip
def change_device(s: Scene) -> None:
    # To what they are, so that the machine stays as it is: the time of the change tells.
    for name in ("null", "zero", "full", "random", "urandom"):
        for change in (lambda path: os.chmod(path, 0o666), lambda path: os.chown(path, 0, 0)):
            try:
                change(f"/dev/{name}")
            except OSError as error:
                print(name, error)
