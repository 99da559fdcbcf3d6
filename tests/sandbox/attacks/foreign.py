"""Attacks on processes of the user that are not the child's: signals, debugging, limits."""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import struct
import time

from tests.sandbox.attack import Category, attack
from tests.sandbox.attacks.secrets import as_root
from tests.sandbox.faces import Shot
from tests.sandbox.guest import Scene, apart, call, name_process
from tests.sandbox.judges import victim_harmed
from tests.sandbox.witness import Witness

FOREIGN = Category.FOREIGN


@attack(FOREIGN, "kills another process", victim_harmed)
def kill_process(s: Scene) -> None:
    os.kill(s.victim, signal.SIGKILL)


@attack(FOREIGN, "stops another process", victim_harmed)
def stop_process(s: Scene) -> None:
    os.kill(s.victim, signal.SIGSTOP)


@attack(FOREIGN, "signals the group of another process", victim_harmed)
def signal_group(s: Scene) -> None:
    os.killpg(s.victim, signal.SIGUSR1)


@attack(FOREIGN, "signals a thread of another process", victim_harmed)
def signal_thread(s: Scene) -> None:
    call("tgkill", s.victim, s.victim, signal.SIGUSR1)


@attack(FOREIGN, "signals another process by the oldest thread call", victim_harmed)
def signal_by_tkill(s: Scene) -> None:
    call("tkill", s.victim, signal.SIGUSR1)


@attack(FOREIGN, "queues a signal with a value to another process", victim_harmed)
def queue_signal(s: Scene) -> None:
    about = struct.pack("iiiiii", signal.SIGUSR1, 0, -1, 0, os.getpid(), os.getuid()) + bytes(104)
    call("rt_sigqueueinfo", s.victim, signal.SIGUSR1, about)


@attack(FOREIGN, "signals another process by its descriptor", victim_harmed)
def signal_by_descriptor(s: Scene) -> None:
    call("pidfd_send_signal", call("pidfd_open", s.victim, 0), signal.SIGUSR1, None, 0)


@attack(FOREIGN, "has the kernel signal another process when a pipe is written", victim_harmed)
def signal_by_pipe(s: Scene) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(reading, fcntl.F_SETSIG, signal.SIGUSR1)
    fcntl.fcntl(reading, fcntl.F_SETOWN, s.victim)
    fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC)
    os.write(writing, b"x")


@attack(FOREIGN, "has the kernel signal another process, named by a structure", victim_harmed)
def signal_by_pipe_extended(s: Scene) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(reading, fcntl.F_SETSIG, signal.SIGUSR1)
    fcntl.fcntl(reading, 15, struct.pack("ii", 1, s.victim))  # F_SETOWN_EX, F_OWNER_PID
    fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC)
    os.write(writing, b"x")


@attack(FOREIGN, "has a socket signal another process", victim_harmed)
def signal_by_socket(s: Scene) -> None:
    import socket

    one, other = socket.socketpair()
    fcntl.ioctl(one, 0x8902, struct.pack("i", s.victim))  # SIOCSPGRP
    fcntl.fcntl(one, fcntl.F_SETSIG, signal.SIGUSR1)
    fcntl.fcntl(one, fcntl.F_SETFL, os.O_ASYNC)
    other.send(b"x")


@attack(FOREIGN, "attaches to another process as its debugger", victim_harmed, fresh=True)
def debug_process(s: Scene) -> None:
    call("ptrace", 0x4206, s.victim, 0, 0)  # PTRACE_SEIZE
    call("ptrace", 0x4207, s.victim, 0, 0)  # PTRACE_INTERRUPT
    time.sleep(0.05)


@attack(FOREIGN, "writes the memory of another process", victim_harmed)
def write_foreign_memory(s: Scene) -> None:
    own = ctypes.create_string_buffer(b"changed!")
    local = (ctypes.c_void_p * 2)(ctypes.addressof(own), 8)
    remote = (ctypes.c_void_p * 2)(s.victim_address, 8)
    call("process_vm_writev", s.victim, local, 1, remote, 1, 0)


@attack(FOREIGN, "writes the memory of another process by its file", victim_harmed)
def write_foreign_memory_file(s: Scene) -> None:
    with open(f"/proc/{s.victim}/mem", "r+b", buffering=0) as file:
        file.seek(s.victim_address)
        file.write(b"changed!")


@attack(FOREIGN, "writes to a file that another process has open", victim_harmed)
def write_foreign_descriptor(s: Scene) -> None:
    open(f"/proc/{s.victim}/fd/{s.victim_descriptor}", "r+").write("changed")


@attack(FOREIGN, "lowers a limit of another process", victim_harmed)
def limit_process(s: Scene) -> None:
    resource.prlimit(s.victim, resource.RLIMIT_NOFILE, (64, 64))


@attack(FOREIGN, "gives another process less of the processor", victim_harmed)
def renice_process(s: Scene) -> None:
    os.setpriority(os.PRIO_PROCESS, s.victim, 15)


@attack(FOREIGN, "gives the group of another process less of the processor", victim_harmed)
def renice_group(s: Scene) -> None:
    os.setpriority(os.PRIO_PGRP, s.victim, 15)


@attack(FOREIGN, "binds another process to one processor", victim_harmed,
        ready=lambda _: len(os.sched_getaffinity(0)) > 1)  # fmt: skip
def bind_process(s: Scene) -> None:
    os.sched_setaffinity(s.victim, {min(os.sched_getaffinity(0))})


@attack(FOREIGN, "makes another process wait for idle time", victim_harmed)
def idle_process(s: Scene) -> None:
    os.sched_setscheduler(s.victim, os.SCHED_IDLE, os.sched_param(0))


@attack(FOREIGN, "makes another process wait for idle time by the newer call", victim_harmed)
def idle_process_by_newer_call(s: Scene) -> None:
    call("sched_setattr", s.victim, struct.pack("IIQiIQQQ", 48, 5, 0, 0, 0, 0, 0, 0), 0)


@attack(FOREIGN, "makes the disk slow for another process", victim_harmed)
def slow_disk_of_process(s: Scene) -> None:
    call("ioprio_set", 1, s.victim, 3 << 13)


@attack(FOREIGN, "makes another process the first to die when memory is short", victim_harmed)
def offer_process_to_killer(s: Scene) -> None:
    open(f"/proc/{s.victim}/oom_score_adj", "w").write("900")


def keepers_harmed(witness: Witness, shot: Shot) -> str:
    """A process that keeps the child in its place was stopped or ended, or the parent signalled."""
    for process in witness.tree():
        if process.pid in (shot.note("keepers") or ()) and process.status() == "stopped":
            return "the process that keeps the child was stopped"
    if witness.signalled():
        return "the parent was signalled"
    return ""


@attack(FOREIGN, "signals the processes that keep it", keepers_harmed, fresh=True)
def signal_keepers(s: Scene) -> None:
    for pid in {os.getppid(), s.harness, *s.keepers}:
        harmless = pid in (s.harness, 0)
        try:
            os.kill(pid, signal.SIGUSR2 if harmless else signal.SIGSTOP)
        except OSError as error:
            print(pid, error)


def preferred(witness: Witness, shot: Shot) -> str:
    """A process of the attack comes before all others, or is spared when memory is short."""
    for process in witness.processes.named(shot.tag):
        if os.sched_getscheduler(process.pid) in (os.SCHED_FIFO, os.SCHED_RR):
            return "it runs in real time, before every other program"
        if int(open(f"/proc/{process.pid}/oom_score_adj").read()) < 0:
            return "others are ended before it when memory is short"
    return ""


@attack(FOREIGN, "puts itself before every other program", preferred, ready=as_root)
def run_in_real_time(s: Scene) -> None:
    def prefer() -> None:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        name_process(s.tag)

    apart(prefer, stay=3)


@attack(FOREIGN, "has others ended before it when memory is short", preferred, ready=as_root)
def spare_itself(s: Scene) -> None:
    def prefer() -> None:
        open("/proc/self/oom_score_adj", "w").write("-1000")
        name_process(s.tag)

    apart(prefer, stay=3)
