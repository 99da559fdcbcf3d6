"""Attacks that use up the machine. Each is bounded by itself, and runs with small caps."""

from __future__ import annotations

import ctypes
import os
import signal
import time

from tests.sandbox.attack import Category, Judge, attack
from tests.sandbox.faces import Shot
from tests.sandbox.guest import HELD, LIBC, Scene, apart, call, name_process
from tests.sandbox.judges import any_of, flagged, unfinished
from tests.sandbox.rituals import measured
from tests.sandbox.witness import Witness

EXHAUSTION = Category.EXHAUSTION
MIB = 1 << 20
MEMORY = 512 * MIB
DISK = 64 * MIB
SLACK = 700 * MIB
"""Bytes that fast code can take between two looks of the supervisor, and some more."""


def over(name: str, most: float) -> Judge:
    """The child had more of it than its cap and a margin."""

    def judge(witness: Witness, shot: Shot) -> str:
        peak = (shot.note("peak") or {}).get(name, 0)
        shown = f"{peak / MIB:.0f} MiB" if most > MIB else f"{peak:.0f}"
        return f"it had {shown} of {name}" if peak > most else ""

    return any_of(judge, unfinished, flagged("left"))


def using(text: str, judge: Judge, caps: dict[str, object], **traits: object):
    """An attack on the machine's supplies."""
    traits = {"timeout": 12.0, **traits}
    return attack(EXHAUSTION, text, judge, caps=caps, ritual=measured, **traits)


CAPS: dict[str, object] = {"memory": MEMORY, "disk": DISK, "processes": 24}


@using("forks without end", over("processes", 120), CAPS)
def fork_bomb(s: Scene) -> None:
    until = time.monotonic() + 5
    started = 0
    while time.monotonic() < until and started < 400:
        try:
            pid = os.fork()
        except OSError:
            time.sleep(0.05)
            continue
        if pid == 0:
            time.sleep(4)
            os._exit(0)
        started += 1
    time.sleep(0.5)
    print("started", started)


@using("forks without end, each in a session of its own", over("processes", 120), CAPS)
def fork_bomb_apart(s: Scene) -> None:
    until = time.monotonic() + 5
    for _ in range(300):
        try:
            pid = os.fork()
        except OSError:
            time.sleep(0.05)
            continue
        if pid == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            time.sleep(4)
            os._exit(0)
        os.waitpid(pid, 0)
        if time.monotonic() > until:
            break
    time.sleep(0.5)


@using("starts processes that nobody buries", over("processes", 120), CAPS)
def zombie_bomb(s: Scene) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for _ in range(400):
        try:
            if os.fork() == 0:
                os._exit(0)
        except OSError:
            time.sleep(0.01)
    time.sleep(1)


@using("starts threads without end", over("threads", 2500), CAPS)
def thread_bomb(s: Scene) -> None:
    import threading

    threading.stack_size(1 << 16)
    stop = threading.Event()
    try:
        for _ in range(3000):
            threading.Thread(target=stop.wait, args=(6,), daemon=True).start()
    except RuntimeError as error:
        print(error)
    time.sleep(1)
    stop.set()


@using("takes memory without end", over("memory", MEMORY + SLACK), CAPS)
def memory_bomb(s: Scene) -> None:
    taken = []
    for _ in range(40):
        taken.append(b"x" * (64 << 20))
        time.sleep(0.01)
    time.sleep(1)


@using("takes memory in many processes, a little in each", over("memory", MEMORY + SLACK), CAPS)
def memory_bomb_in_parts(s: Scene) -> None:
    for _ in range(16):
        if os.fork() == 0:
            signal.alarm(6)
            kept = [b"x" * (16 << 20) for _ in range(9)]
            time.sleep(4 + len(kept) * 0)
            os._exit(0)
    time.sleep(4)


@using("takes memory in files that have no name", over("shared", MEMORY + 900 * MIB), CAPS)
def memory_bomb_in_files(s: Scene) -> None:
    for number in range(5):
        found = call("memfd_create", b"bomb%d" % number, 0)
        HELD.append(found)
        for _ in range(5):
            os.write(found, b"x" * (64 << 20))
    time.sleep(1)


@using("takes memory in files of shared memory", over("shared", MEMORY + 900 * MIB), CAPS)
def memory_bomb_in_shared_memory(s: Scene) -> None:
    names = [f"/dev/shm/{s.tag}-{number}" for number in range(5)]
    try:
        for name in names:
            with open(name, "wb") as file:
                for _ in range(5):
                    file.write(b"x" * (64 << 20))
        time.sleep(1)
    finally:
        for name in names:
            if os.path.exists(name):
                os.unlink(name)


@using("takes memory in segments that nobody has mapped", over("shared", MEMORY + 900 * MIB), CAPS)
def memory_bomb_in_segments(s: Scene) -> None:
    LIBC.shmat.restype = ctypes.c_void_p
    LIBC.shmdt.argtypes = (ctypes.c_void_p,)
    segments = []
    try:
        for _ in range(24):
            segment = LIBC.shmget(0, 64 << 20, 0o600)
            if segment < 0:
                break
            segments.append(segment)
            address = LIBC.shmat(segment, None, 0)
            ctypes.memset(address, 1, 64 << 20)
            LIBC.shmdt(address)
        time.sleep(1)
    finally:
        for segment in segments:
            LIBC.shmctl(segment, 0, None)


@using("fills the disk with one file", over("disk", 300 * MIB), CAPS)
def disk_bomb(s: Scene) -> None:
    with open("bomb", "wb", buffering=0) as file:
        for _ in range(75):
            file.write(b"x" * (8 << 20))
            time.sleep(0.005)
    time.sleep(1)


@using("fills the disk with many files", over("disk", 300 * MIB), CAPS)
def disk_bomb_in_parts(s: Scene) -> None:
    places = [os.environ.get("TMPDIR", "/tmp"), os.environ["HOME"], "."]
    for number in range(75):
        with open(f"{places[number % 3]}/bomb{number}", "wb", buffering=0) as file:
            file.write(b"x" * (8 << 20))
        time.sleep(0.005)
    time.sleep(1)


@using("fills the disk with files that have no name any more", over("disk", 300 * MIB), CAPS)
def disk_bomb_unlinked(s: Scene) -> None:
    for number in range(15):
        found = os.open(f"bomb{number}", os.O_RDWR | os.O_CREAT)
        os.unlink(f"bomb{number}")
        HELD.append(found)
        for _ in range(5):
            os.write(found, b"x" * (8 << 20))
        time.sleep(0.005)
    time.sleep(1)


@using("makes files without content, without end", over("files", 20_000), CAPS)
def file_bomb(s: Scene) -> None:
    until = time.monotonic() + 6
    for number in range(30_000):
        os.makedirs(f"bomb/{number // 1000}", exist_ok=True)
        os.close(os.open(f"bomb/{number // 1000}/{number}", os.O_CREAT))
        if time.monotonic() > until:
            break
    time.sleep(2)


@using("opens descriptors without end", over("descriptors", 150_000), CAPS)
def descriptor_bomb(s: Scene) -> None:
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20))
    except (OSError, ValueError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    own = []
    try:
        for _ in range(200_000):
            own.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        print(error)
    time.sleep(0.5)
    for found in own:
        os.close(found)


@using("computes without end, in several processes", over("cpu", 28), {"cpu_time": 20.0},
       timeout=40.0, slow=True)  # fmt: skip
def cpu_bomb(s: Scene) -> None:
    for _ in range(3):
        if os.fork() == 0:
            signal.alarm(18)
            while True:
                pass
    time.sleep(18)


def limits_raised(witness: Witness, shot: Shot) -> str:
    """A process of the attack has a limit of its own making."""
    for process in witness.processes.named(shot.tag):
        with open(f"/proc/{process.pid}/limits") as file:
            for line in file:
                if line.startswith("Max core file size") and line.split()[5] != "0":
                    return "it lifted a limit that was put on it"
                if line.startswith("Max file size") and line.split()[4] == "unlimited":
                    return "it lifted a limit that was put on it"
    return ""


@attack(EXHAUSTION, "lifts the limits that were put on it", limits_raised, caps=CAPS)
def lift_own_limits(s: Scene) -> None:
    import resource

    def lift() -> None:
        for name in ("RLIMIT_FSIZE", "RLIMIT_NPROC", "RLIMIT_DATA", "RLIMIT_CORE"):
            try:
                resource.setrlimit(getattr(resource, name), (resource.RLIM_INFINITY,) * 2)
            except (OSError, ValueError):
                pass
        name_process(s.tag)

    apart(lift, stay=3)
