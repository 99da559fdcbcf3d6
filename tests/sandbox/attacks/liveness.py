"""Attacks that do not end: interrupts that are ignored, processes that stay behind, crashes."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

from tests.sandbox.attack import Category, attack
from tests.sandbox.faces import Shot
from tests.sandbox.guest import LIBC, Scene, daemon
from tests.sandbox.judges import any_of, flagged, harmed, unfinished
from tests.sandbox.rituals import parent_killed, then_ended, with_next_cell
from tests.sandbox.witness import Witness

LIVENESS = Category.LIVENESS
FOREVER = """
import signal, time
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
time.sleep(60)
"""
SLACK = 20.0
"""Seconds beyond a cell's limit after which it has not been stopped in time."""


def not_stopped(witness: Witness, shot: Shot) -> str:
    """The cell went on long after its time, or ended the parent's wait in no known way."""
    if shot.seconds > SLACK:
        return f"the cell took {shot.seconds:.0f} s of its 1"
    return ""


endless = any_of(unfinished, not_stopped, flagged("after"))


def hanging(text: str, **traits: object):
    """An attack that hangs; after it the next cell must run, in a new child if need be."""
    traits = {
        "timeout": 1.0, "fresh": True, "ritual": with_next_cell, "parent": True, **traits,
    }  # fmt: skip
    return attack(LIVENESS, text, endless, **traits)


@hanging("catches every interrupt")
def catch_interrupts(s: Scene) -> None:
    while True:
        try:
            time.sleep(30)
        except KeyboardInterrupt:
            pass


@hanging("ignores interrupts and requests to end")
def ignore_signals(s: Scene) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(30)


@hanging("blocks every signal in all its threads")
def block_signals(s: Scene) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(30)


@hanging("hangs in native code that holds the interpreter")
def hang_in_native_code(s: Scene) -> None:
    ctypes.PyDLL(None).sleep(30)


@hanging("computes in native code that holds the interpreter")
def compute_in_native_code(s: Scene) -> None:
    print(sum(range(10**12)))


@hanging("stops itself")
def stop_itself(s: Scene) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@hanging("replaces itself by another program")
def replace_itself(s: Scene) -> None:
    os.execv("/bin/sleep", ["sleep", "30"])


@hanging("leaves at once with a code of success")
def leave_at_once(s: Scene) -> None:
    os._exit(0)


@hanging("crashes")
def crash(s: Scene) -> None:
    ctypes.string_at(0)


@hanging("overflows its stack")
def overflow_stack(s: Scene) -> None:
    sys.setrecursionlimit(10**9)

    def deeper() -> None:
        "%r" % [deeper()]

    import threading

    threading.stack_size(1 << 16)
    thread = threading.Thread(target=deeper)
    thread.start()
    thread.join()


@hanging("kills itself, as the system does when memory is short")
def kill_itself(s: Scene) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@hanging("raises what ends programs", timeout=5.0)
def raise_exit(s: Scene) -> None:
    raise SystemExit(3)


@hanging("answers nothing more, while its process lives on")
def end_kernel_loop(s: Scene) -> None:
    for number in range(3, 400):
        try:
            os.close(number)
        except OSError:
            pass
    time.sleep(30)


# -- processes that stay behind ----------------------------------------------------------------


def staying(text: str, **traits: object):
    """An attack that leaves a process behind."""
    judge = any_of(unfinished, flagged("left"))
    return attack(LIVENESS, text, judge, fresh=True, ritual=then_ended, **traits)


@staying("leaves a daemon that ignores every signal")
def leave_daemon(s: Scene) -> None:
    daemon(FOREVER, s.tag)


@staying("leaves a daemon, started by a thread that ends")
def leave_daemon_from_thread(s: Scene) -> None:
    import threading

    thread = threading.Thread(target=daemon, args=(FOREVER, s.tag))
    thread.start()
    thread.join()


@staying("leaves fifty processes in sessions of their own")
def leave_many(s: Scene) -> None:
    for _ in range(50):
        daemon(FOREVER, s.tag)


@staying("leaves a process that is its parent's child, not its own")
def leave_sibling(s: Scene) -> None:
    number = 56 if os.uname().machine == "x86_64" else 220
    pid = LIBC.syscall(number, 0x8000 | signal.SIGCHLD, 0, 0, 0, 0)  # clone, CLONE_PARENT
    if pid == 0:
        os.setsid()
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", FOREVER, s.tag])


@staying("leaves a chain of processes, each of which starts the next and ends")
def leave_chain(s: Scene) -> None:
    code = (
        "import os, sys, time\n"
        "until = time.monotonic() + 15\n"
        "while time.monotonic() < until:\n"
        "    if os.fork(): os._exit(0)\n"
        "    os.setsid(); time.sleep(0.02)\n"
    )
    daemon(code, s.tag)


@staying("does not end when it is told to")
def refuse_to_end(s: Scene) -> None:
    import atexit
    import threading

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    atexit.register(time.sleep, 60)
    threading.Thread(target=time.sleep, args=(60,)).start()
    sys.stdout.write(s.tag)


# -- the parent's own end -------------------------------------------------------------------------


def outliving(text: str, **traits: object):
    """An attack that outlives its parent."""
    judge = any_of(flagged("left"), harmed)
    return attack(LIVENESS, text, judge, fresh=True, ritual=parent_killed, **traits)


@outliving("lives on when the parent is killed")
def outlive_parent(s: Scene) -> None:
    daemon(FOREVER, s.tag)


@outliving("computes on in native code when the parent is killed")
def outlive_parent_computing(s: Scene) -> None:
    import threading

    threading.Thread(target=ctypes.PyDLL(None).sleep, args=(60,), daemon=True).start()


@outliving("closes all its descriptors, the lifeline with them, before the parent is killed")
def outlive_parent_without_lifeline(s: Scene) -> None:
    if os.fork() == 0:
        os.setsid()
        os.closerange(0, 400)
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", FOREVER, s.tag])


@outliving("stops those that keep it, before the parent is killed")
def outlive_parent_with_stopped_keepers(s: Scene) -> None:
    daemon(FOREVER, s.tag)
    if os.getppid() not in (s.harness, 1):
        os.kill(os.getppid(), signal.SIGSTOP)
