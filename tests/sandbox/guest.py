"""What every attack has at hand: system calls by number; its source is run in the child first."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
LIBC.mmap.restype = ctypes.c_void_p
AT_FDCWD = -100

_X86_64 = """
shmget 29 shmat 30 shmctl 31 semget 64 semop 65 semctl 66 msgget 68 msgsnd 69 msgrcv 70 truncate 76
ptrace 101 syslog 103 rt_sigqueueinfo 129 personality 135 setpriority 141 sched_setscheduler 144
pivot_root 155 prctl 157 chroot 161 mount 165 setxattr 188 tkill 200 sched_setaffinity 203
utimensat 280 tgkill 234 mq_open 240 mq_timedsend 242 mq_timedreceive 243 add_key 248
request_key 249 keyctl 250 ioprio_set 251 inotify_add_watch 254 mknodat 259 migrate_pages 256
unshare 272 splice 275 move_pages 279 perf_event_open 298 fanotify_init 300 prlimit64 302
name_to_handle_at 303 open_by_handle_at 304 setns 308 process_vm_readv 310 process_vm_writev 311
kcmp 312 sched_setattr 314 renameat2 316 memfd_create 319 bpf 321 userfaultfd 323
"""
_AARCH64 = """
setxattr 5 ioprio_set 30 inotify_add_watch 27 mknodat 33 pivot_root 41 mount 40 truncate 45
chroot 51 splice 76 utimensat 88 personality 92 unshare 97 syslog 116 ptrace 117
sched_setscheduler 119 sched_setaffinity 122 tkill 130 tgkill 131 rt_sigqueueinfo 138
setpriority 140 prctl 167 mq_open 180 mq_timedsend 182 mq_timedreceive 183 msgget 186 msgrcv 188
msgsnd 189 semget 190 semctl 191 semop 193 shmget 194 shmctl 195 shmat 196 add_key 217
request_key 218 keyctl 219 migrate_pages 238 move_pages 239 perf_event_open 241 prlimit64 261
fanotify_init 262 name_to_handle_at 264 open_by_handle_at 265 setns 268 process_vm_readv 270
process_vm_writev 271 kcmp 272 sched_setattr 274 renameat2 276 memfd_create 279 bpf 280
userfaultfd 282
"""
_EVERYWHERE = """
pidfd_send_signal 424 io_uring_setup 425 io_uring_enter 426 open_tree 428 move_mount 429 fsopen 430
fsconfig 431 fsmount 432 pidfd_open 434 clone3 435 openat2 437 pidfd_getfd 438 mount_setattr 442
memfd_secret 447 fchmodat2 452 setxattrat 463 file_setattr 469
"""


def _numbers() -> dict[str, int]:
    own = _X86_64 if platform.machine() == "x86_64" else _AARCH64
    words = (own + _EVERYWHERE).split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


NR = _numbers()
"""System calls by name, of this architecture: the kernel's syscall tables."""


class Scene(SimpleNamespace):
    """Where everything is: an attacker who has looked around before."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def checked(value: int, what: str = "") -> int:
    """The value, or the error of a call into the C library."""
    if value == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return value


def call(name: str | int, *arguments: Any) -> int:
    """Make a system call by its name or number."""
    number = NR[name] if isinstance(name, str) else name
    plain = [a if not isinstance(a, int) else ctypes.c_long(a) for a in arguments]
    ctypes.set_errno(0)
    return checked(LIBC.syscall(ctypes.c_long(number), *plain), str(name))


def show(data: bytes | str) -> None:
    """Print loot."""
    print(data.decode("latin-1") if isinstance(data, bytes) else data)


HELD: list[Any] = []
"""What an attack got hold of and keeps, so that the witness sees that it has it."""


def hold(descriptor: int) -> int:
    """Keep a descriptor open until the next attack begins."""
    HELD.append(descriptor)
    return descriptor


def let_go() -> None:
    """Close what the attack before this one kept."""
    while HELD:
        kept = HELD.pop()
        try:
            os.close(kept) if isinstance(kept, int) else kept.close()
        except OSError:
            pass


def apart(action: Callable[[], object], *, wait: float = 3.0, stay: float = 0.0) -> int:
    """Do something in a forked process; its status, or -1 when it is still at it.

    Args:
        action: What to do; the status is 0 when it returns and 1 when it raises.
        wait: Seconds to wait for its end.
        stay: Seconds it goes on living, so that it can be seen.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(20)
            action()
            status = 0
            time.sleep(stay)
        finally:
            os._exit(status)
    until = time.monotonic() + (0.3 if stay else wait)
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.01)
    return -1


def name_process(tag: str) -> None:
    """Give the process a name that can be seen from outside: prctl(2), PR_SET_NAME."""
    call("prctl", 15, ctypes.create_string_buffer(tag[:15].encode()), 0, 0, 0)


def daemon(code: str, tag: str, *, python: str = sys.executable) -> None:
    """Leave a process behind that has left the group, the session and its parent."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            os.closerange(3, 256)
            os.execv(python, [python, "-I", "-S", "-c", code, tag])
        os._exit(0)
    os.wait()


def run(*command: str) -> str:
    """Run a program and return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=8, check=False)
    return done.stdout + done.stderr


def broker_number() -> int:
    """The descriptor by which connections are asked for; its variable is gone by now."""
    with open("/proc/self/environ", "rb") as file:
        born_with = dict(entry.split(b"=", 1) for entry in file.read().split(b"\0") if entry)
    return int(born_with[b"OVAGENT_BROKER"])


def ask_proxy(head: str, then: str) -> None:
    """Send one request to the parent's proxy, and some words after it."""
    import array
    import socket

    own, its = socket.socketpair()
    own.settimeout(0.5)
    with own, its, socket.socket(fileno=os.dup(broker_number())) as broker:
        rights = array.array("i", [its.fileno()])
        broker.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        its.close()
        try:
            own.sendall(head.encode("latin-1"))
            print(own.recv(300).decode("latin-1")[:100])
            own.sendall(then.encode())
        except OSError as error:
            print(error)


def machine_code(code: bytes) -> Any:
    """A function made of bytes."""
    import mmap

    page = mmap.mmap(-1, len(code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    HELD.append(page)
    function = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    function.page = page
    return function


def low_page(content: bytes) -> int:
    """Memory below 4 GB with this content: a 32-bit system call can only point there."""
    address = LIBC.mmap(None, 4096, 3, 0x22 | 0x40, -1, 0)  # MAP_PRIVATE|ANONYMOUS|32BIT
    ctypes.memmove(address, content, len(content))
    return int(address)
