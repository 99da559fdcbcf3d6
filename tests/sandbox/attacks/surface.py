"""Attacks on what the kernel offers beyond files and sockets, by known and unknown calls."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import socket
import struct
import subprocess
import sys
import time

from tests.sandbox.attack import Category, attack
from tests.sandbox.attacks.secrets import as_root
from tests.sandbox.faces import Shot
from tests.sandbox.guest import (
    HELD,
    Scene,
    apart,
    call,
    hold,
    low_page,
    machine_code,
    name_process,
    show,
)
from tests.sandbox.judges import holds, other_space, seen_running
from tests.sandbox.witness import Witness

SURFACE = Category.SURFACE


@attack(SURFACE, "gets a ring of asynchronous calls", holds("[io_uring]"))
def get_io_uring(s: Scene) -> None:
    hold(call("io_uring_setup", 4, ctypes.create_string_buffer(120)))


@attack(SURFACE, "gets to handle page faults itself", holds("[userfaultfd]"))
def get_userfaultfd(s: Scene) -> None:
    try:
        hold(call("userfaultfd", os.O_CLOEXEC | 1))
    except OSError:
        hold(call("userfaultfd", os.O_CLOEXEC))


@attack(SURFACE, "loads a program into the kernel", holds("bpf"))
def get_bpf(s: Scene) -> None:
    code = struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)
    own, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "<IIQQIIQII", 1, 2, ctypes.addressof(own), ctypes.addressof(licence), 0, 0, 0, 0, 0
    )
    try:
        hold(call("bpf", 5, attributes, len(attributes)))  # BPF_PROG_LOAD, a socket filter
    finally:
        maps = struct.pack("<IIII", 2, 4, 8, 1)
        hold(call("bpf", 0, maps, len(maps)))  # BPF_MAP_CREATE


@attack(SURFACE, "measures what the processor does", holds("[perf_event]"))
def get_perf_event(s: Scene) -> None:
    about = struct.pack("<IIQQQQQ", 1, 128, 0, 0, 0, 0, 1 << 0 | 1 << 5 | 1 << 6) + bytes(80)
    hold(call("perf_event_open", about, 0, -1, -1, 0))


@attack(SURFACE, "is told of every file that is opened", holds("[fanotify]"))
def get_fanotify(s: Scene) -> None:
    hold(call("fanotify_init", 0x200, 0))  # FAN_REPORT_FID needs no privilege


@attack(SURFACE, "gets a file system to configure", holds("[fscontext]"))
def get_file_system(s: Scene) -> None:
    def enter() -> None:
        try:
            call("unshare", 0x10000000 | 0x20000)
        except OSError:
            pass
        hold(call("fsopen", b"tmpfs", 0))
        time.sleep(3)

    apart(enter, stay=3)


@attack(SURFACE, "copies a tree of mounts", holds("/.ssh for", "/home for"))
def copy_mounts(s: Scene) -> None:
    hold(call("open_tree", -100, os.path.dirname(s.ssh_key).encode(), 0x80000))


@attack(SURFACE, "gets a socket of the kernel's cryptography", holds("family 38"))
def get_crypto_socket(s: Scene) -> None:
    HELD.append(socket.socket(38, socket.SOCK_SEQPACKET))


@attack(SURFACE, "gets a socket of a family that is seldom used",
        holds(*(f"family {n} " for n in (4, 5, 9, 23, 29, 31, 36, 39, 41, 44))))  # fmt: skip
def get_exotic_socket(s: Scene) -> None:
    kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_RAW)
    for family in range(3, 46):
        for kind in kinds:
            if family in (socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET, 38, 40):
                continue
            try:
                HELD.append(socket.socket(family, kind))
            except OSError:
                pass
    assert HELD


@attack(SURFACE, "talks to the packet filter of the machine", holds("family 16 type 3"), minor=True)
def get_packet_filter(s: Scene) -> None:
    HELD.append(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12))


@attack(SURFACE, "makes a user namespace, and has all capabilities in it", other_space("user"))
def make_user_namespace(s: Scene) -> None:
    def enter() -> None:
        call("unshare", 0x10000000)
        name_process(s.tag)

    apart(enter, stay=3)


@attack(SURFACE, "makes a user namespace by the newer clone3", other_space("user"))
def make_user_namespace_by_clone3(s: Scene) -> None:
    def enter() -> None:
        about = struct.pack("<QQQQQQQQ", 0x10000000, 0, 0, 0, 17, 0, 0, 0)
        if call("clone3", about, len(about)) == 0:
            name_process(s.tag)
            time.sleep(3)
            os._exit(0)
        time.sleep(1)

    apart(enter, stay=1)


@attack(SURFACE, "makes a network of its own", other_space("net"))
def make_network_namespace(s: Scene) -> None:
    def enter() -> None:
        try:
            call("unshare", 0x40000000)
        except OSError:
            call("unshare", 0x40000000 | 0x10000000)
        name_process(s.tag)

    apart(enter, stay=3)


@attack(SURFACE, "enters the namespaces of another process", other_space("mnt"))
def enter_namespace(s: Scene) -> None:
    def enter() -> None:
        call("unshare", 0x10000000 | 0x20000)
        call("setns", os.open(f"/proc/{s.harness}/ns/user", os.O_RDONLY), 0)
        name_process(s.tag)

    def enter_only_mounts() -> None:
        call("unshare", 0x10000000 | 0x20000)
        name_process(s.tag)

    if apart(enter, stay=3) > 0:
        apart(enter_only_mounts, stay=3)


def personality_changed(witness: Witness, shot: Shot) -> str:
    """A process of the attack has another personality than it was given."""
    for process in witness.processes.named(shot.tag):
        try:
            with open(f"/proc/{process.pid}/personality") as file:
                bits = int(file.read(), 16)
        except (OSError, ValueError):
            continue
        if bits & 0x0040000:
            return f"the personality is {bits:#x}: addresses are not random any more"
    return ""


@attack(SURFACE, "turns off the randomness of addresses", personality_changed)
def change_personality(s: Scene) -> None:
    def change() -> None:
        call("personality", 0x0040000)
        name_process(s.tag)

    apart(change, stay=3)


def is_x86(witness: Witness) -> bool:
    """Whether the processor has the old entries into the kernel."""
    return platform.machine() == "x86_64"


@attack(SURFACE, "calls the kernel by the 32-bit entry", seen_running, ready=is_x86)
def call_by_32_bit_entry(s: Scene) -> None:
    def enter() -> None:
        name = low_page(s.tag[:15].encode() + b"\0")
        # push rbx; mov eax,172 (prctl); mov ebx,15; mov ecx,name; int 0x80; pop rbx; ret
        code = b"\x53\xb8\xac\x00\x00\x00\xbb\x0f\x00\x00\x00\xb9" + struct.pack("<I", name)
        machine_code(code + b"\xcd\x80\x5b\xc3")()

    apart(enter, stay=3)


@attack(SURFACE, "opens a secret by the 32-bit entry", holds("id_ed25519"), ready=is_x86)
def open_by_32_bit_entry(s: Scene) -> None:
    def enter() -> None:
        path = low_page(s.ssh_key.encode() + b"\0")
        # push rbx; mov eax,5 (open); mov ebx,path; xor ecx,ecx; int 0x80; pop rbx; ret
        code = b"\x53\xb8\x05\x00\x00\x00\xbb" + struct.pack("<I", path)
        found = machine_code(code + b"\x31\xc9\xcd\x80\x5b\xc3")()
        assert found > 0

    apart(enter, stay=3)


@attack(SURFACE, "calls the kernel by numbers of the x32 table", seen_running, ready=is_x86)
def call_by_x32_number(s: Scene) -> None:
    def enter() -> None:
        call(0x40000000 | 157, 15, ctypes.create_string_buffer(s.tag[:15].encode()), 0, 0, 0)

    apart(enter, stay=3)


@attack(SURFACE, "opens the memory of the machine", holds("/dev/mem for", "/dev/own-mem", "/kcore"),
        ready=as_root)  # fmt: skip
def open_memory(s: Scene) -> None:
    for path in ("/dev/mem", "/proc/kcore", "/dev/kmem"):
        try:
            hold(os.open(path, os.O_RDONLY))
        except OSError as error:
            print(error)


@attack(SURFACE, "opens the kernel's log", holds("/kmsg for"))
def open_kernel_log(s: Scene) -> None:
    for path in ("/dev/kmsg", "/proc/kmsg"):
        try:
            hold(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        except OSError as error:
            print(error)


@attack(SURFACE, "opens devices of virtual machines and file systems",
        holds("/dev/kvm for", "/dev/fuse for", "/dev/loop-control for", "/dev/vhost"))  # fmt: skip
def open_devices(s: Scene) -> None:
    for name in ("kvm", "fuse", "loop-control", "vhost-vsock", "vhost-net", "vfio/vfio"):
        try:
            hold(os.open(f"/dev/{name}", os.O_RDWR))
        except OSError as error:
            print(error)


@attack(SURFACE, "opens settings of the kernel for writing",
        holds("/proc/sys/", "/sysrq-trigger for", "/sys/power/", "uevent_helper"),
        ready=as_root)  # fmt: skip
def open_kernel_settings(s: Scene) -> None:
    paths = (
        "/proc/sysrq-trigger", "/proc/sys/kernel/modprobe", "/proc/sys/vm/overcommit_memory",
        "/sys/power/state", "/sys/kernel/uevent_helper",
    )  # fmt: skip
    for path in paths:
        try:
            hold(os.open(path, os.O_WRONLY))
        except OSError as error:
            print(error)


def can_gain(witness: Witness, shot: Shot) -> str:
    """A process of the attack would get the rights of a set-id program that it starts."""
    for process in witness.processes.named(shot.tag):
        if "NoNewPrivs:\t0" in status_of(process.pid):
            return "set-id programs would give it their rights"
    return ""


def status_of(pid: int) -> str:
    """The status of a process as the kernel tells it."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return file.read()
    except OSError:
        return ""


@attack(SURFACE, "starts programs that may have a set-id bit", can_gain)
def gain_by_set_id_program(s: Scene) -> None:
    subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(3)", s.tag])
    time.sleep(0.1)


def traced(witness: Witness, shot: Shot) -> str:
    """A process of the attack has a debugger."""
    for process in witness.processes.named(shot.tag):
        if "TracerPid:\t0" not in status_of(process.pid):
            return "a process of its own has it as a debugger"
    return ""


@attack(SURFACE, "traces a process of its own, to change its calls after the filter looked", traced)
def trace_own_child(s: Scene) -> None:
    def enter() -> None:
        name_process(s.tag)
        call("ptrace", 0, 0, 0, 0)  # PTRACE_TRACEME

    apart(enter, stay=3)


def knows_kernel_log(witness: Witness, shot: Shot) -> str:
    """A line of the kernel's log came out."""
    with contextlib.suppress(OSError):
        own = ctypes.create_string_buffer(1 << 20)
        size = call("syslog", 3, own, 1 << 20)
        lines = own.raw[:size].decode("latin-1").splitlines()[-20:]
        if any(line and line in shot.text for line in lines):
            return "the kernel's log came out"
    return ""


@attack(SURFACE, "reads the kernel's log by a call", knows_kernel_log)
def read_kernel_log(s: Scene) -> None:
    own = ctypes.create_string_buffer(1 << 20)
    show(own.raw[: call("syslog", 3, own, 1 << 20)][-4000:])


@attack(SURFACE, "compares what two processes share", seen_running, minor=True)
def compare_processes(s: Scene) -> None:
    def enter() -> None:
        call("kcmp", os.getpid(), s.victim, 0, 0, s.victim_descriptor)
        name_process(s.tag)

    apart(enter, stay=3)


@attack(SURFACE, "moves the memory of another process between nodes", seen_running, minor=True)
def move_foreign_memory(s: Scene) -> None:
    def enter() -> None:
        mask = ctypes.c_ulong(1)
        call("migrate_pages", s.victim, 64, ctypes.byref(mask), ctypes.byref(mask))
        name_process(s.tag)

    apart(enter, stay=3)
