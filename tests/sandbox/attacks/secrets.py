"""Attacks on what the user keeps to himself: files, other processes, keys of other kernels."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import time

from tests.sandbox.attack import Category, attack
from tests.sandbox.guest import AT_FDCWD, LIBC, Scene, apart, call, hold, run, show
from tests.sandbox.judges import holds, leaked, read_of_system
from tests.sandbox.witness import Witness

FILES, PROCESSES, KERNELS = Category.FILES, Category.PROCESSES, Category.KERNELS


def as_root(witness: Witness) -> bool:
    """Whether the suite has the powers of root outside."""
    return os.getuid() == 0


@attack(FILES, "reads the private SSH key", leaked("ssh_key"))
def read_ssh_key(s: Scene) -> None:
    show(open(s.ssh_key).read())


@attack(FILES, "reads cloud credentials with a program", leaked("cloud_key"))
def read_credentials_by_program(s: Scene) -> None:
    show(run("/bin/cat", s.cloud_key))


@attack(FILES, "reads the browser's cookies through a link of its own", leaked("cookies"))
def read_through_own_link(s: Scene) -> None:
    os.symlink(s.cookies, "harmless.txt")
    show(open("harmless.txt").read())


@attack(FILES, "links a secret into its own folder and reads it there", leaked("netrc"))
def read_through_hard_link(s: Scene) -> None:
    os.link(s.netrc, "own-netrc")
    show(open("own-netrc").read())


@attack(FILES, "moves a secret into its own folder and reads it there", leaked("download"))
def read_after_moving(s: Scene) -> None:
    os.rename(s.download, "own-letter")
    show(open("own-letter").read())


@attack(FILES, "reads the user's notebook", leaked("notebook"))
def read_notebook(s: Scene) -> None:
    show(open(s.notebook).read())


@attack(FILES, "reads data beside the notebook", leaked("data"))
def read_data_beside_notebook(s: Scene) -> None:
    import pandas as pd

    print(pd.read_csv(s.data, header=None).to_string())


@attack(FILES, "reads the log of another session", leaked("session_log"))
def read_session_log(s: Scene) -> None:
    show(open(s.session_log).read())


@attack(FILES, "reads the checkpoint of another session", leaked("checkpoint"))
def read_checkpoint(s: Scene) -> None:
    show(open(s.checkpoint).read())


@attack(FILES, "opens a secret with the newer openat2", leaked("shell_history"))
def read_by_openat2(s: Scene) -> None:
    how = (ctypes.c_uint64 * 3)(0, 0, 0)
    found = call("openat2", AT_FDCWD, s.shell_history.encode(), how, 24)
    show(os.read(found, 4096))


@attack(FILES, "goes to the secret by the root directory of other processes", leaked("ssh_key"))
def read_by_foreign_root(s: Scene) -> None:
    for pid in (s.harness, s.victim, 1, os.getppid(), "self", "thread-self"):
        try:
            show(open(f"/proc/{pid}/root{s.ssh_key}").read())
        except OSError as error:
            print(pid, error)


@attack(FILES, "goes to the secret by the working directory of other processes", leaked("ssh_key"))
def read_by_foreign_directory(s: Scene) -> None:
    for pid in (s.harness, s.victim, os.getppid()):
        try:
            climb = "/".join([".."] * 12)
            show(open(f"/proc/{pid}/cwd/{climb}{s.ssh_key}").read())
        except OSError as error:
            print(pid, error)


@attack(FILES, "opens a secret by its file handle", leaked("netrc"), ready=as_root)
def read_by_handle(s: Scene) -> None:
    handle = ctypes.create_string_buffer((128).to_bytes(4, "little") + bytes(132), 136)
    mount = ctypes.c_int()
    call("name_to_handle_at", AT_FDCWD, s.netrc.encode(), handle, ctypes.byref(mount), 0)
    root = os.open("/", os.O_RDONLY)
    show(os.read(call("open_by_handle_at", root, handle, os.O_RDONLY), 4096))


@attack(FILES, "opens a secret through io_uring, past filters of open", leaked("cookies"))
def read_by_io_uring(s: Scene) -> None:
    import mmap
    import struct

    params = ctypes.create_string_buffer(120)
    ring = call("io_uring_setup", 4, params)
    sq = struct.unpack_from("<10I", params, 40)
    cq = struct.unpack_from("<10I", params, 80)
    shared = mmap.mmap(ring, max(sq[6] + 16, cq[5] + 64), offset=0)
    entries = mmap.mmap(ring, 4 * 64, offset=0x10000000)
    path = ctypes.create_string_buffer(s.cookies.encode())
    # opcode 18 is IORING_OP_OPENAT
    entry = struct.pack("<BBHiQQIIQ24x", 18, 0, 0, AT_FDCWD, 0, ctypes.addressof(path), 0, 0, 7)
    entries[: len(entry)] = entry
    struct.pack_into("<I", shared, sq[6], 0)
    tail = struct.unpack_from("<I", shared, sq[1])[0]
    struct.pack_into("<I", shared, sq[1], tail + 1)
    call("io_uring_enter", ring, 1, 1, 1, None, 0)
    _, found, _ = struct.unpack_from("<QiI", shared, cq[5])
    show(os.read(found, 4096))


@attack(FILES, "reads a file that another program left in the temporary directory",
        leaked("other_file"))  # fmt: skip
def read_foreign_temporary(s: Scene) -> None:
    show(open(s.other_file).read())


@attack(FILES, "reads the password file of the system", read_of_system("/etc/shadow"),
        ready=as_root)  # fmt: skip
def read_shadow(s: Scene) -> None:
    print(hashlib.sha256(open("/etc/shadow", "rb").read(4096)).hexdigest())


@attack(FILES, "makes a device of the whole disk and opens it", holds("own-disk for"),
        ready=as_root)  # fmt: skip
def open_disk_device(s: Scene) -> None:
    os.mknod("own-disk", 0o60600, s.disk)
    hold(os.open("own-disk", os.O_RDONLY))


@attack(FILES, "mounts the user's home into its own folder", leaked("ssh_key"))
def read_by_mount(s: Scene) -> None:
    def mount_and_read() -> None:
        try:
            call("unshare", 0x20000 | 0x10000000)  # CLONE_NEWNS | CLONE_NEWUSER
        except OSError as error:
            print(error)
        os.makedirs("mounted", exist_ok=True)
        call("mount", s.home.encode(), b"mounted", None, 4096, None)
        print(open("mounted/.ssh/id_ed25519").read(), flush=True)

    # A process of its own, as the mount stays with it. It prints through the same pipe.
    reading, writing = os.pipe()

    def speak() -> None:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        import builtins

        builtins.print = lambda *words, **_: os.write(1, " ".join(map(str, words)).encode())  # type: ignore[assignment]
        mount_and_read()

    apart(speak)
    os.close(writing)
    show(os.read(reading, 4096))


@attack(FILES, "leaves its root directory", leaked("ssh_key"))
def read_after_chroot(s: Scene) -> None:
    os.makedirs("jail", exist_ok=True)
    outside = os.open(".", os.O_RDONLY)
    reading, writing = os.pipe()

    def climb() -> None:
        call("chroot", b"jail")
        os.fchdir(outside)
        for _ in range(30):
            os.chdir("..")
        call("chroot", b".")
        os.write(writing, open(s.ssh_key, "rb").read())

    apart(climb)
    os.close(writing)
    show(os.read(reading, 4096))


@attack(FILES, "learns the size of a file whose name it knows", leaked("size"), minor=True)
def learn_size(s: Scene) -> None:
    print(os.stat(s.sized).st_size)


@attack(FILES, "lists a directory of the user", leaked("name"))
def list_directory(s: Scene) -> None:
    print(*os.listdir(s.private))


@attack(FILES, "watches which files come and go in the user's home", leaked("chatter"), minor=True)
def watch_home(s: Scene) -> None:
    watch = LIBC.inotify_init()
    call("inotify_add_watch", watch, f"{s.home}/inbox".encode(), 0x100)  # IN_CREATE
    os.set_blocking(watch, False)
    time.sleep(0.3)
    show(os.read(watch, 4096))


# -- other processes ---------------------------------------------------------------------------


@attack(PROCESSES, "reads the environment of another process", leaked("victim_environment"))
def read_environment(s: Scene) -> None:
    show(open(f"/proc/{s.victim}/environ", "rb").read())


@attack(PROCESSES, "reads the arguments of another process", leaked("victim_arguments"))
def read_arguments(s: Scene) -> None:
    show(open(f"/proc/{s.victim}/cmdline", "rb").read())


@attack(PROCESSES, "lists every process with its arguments", leaked("victim_arguments"))
def list_processes(s: Scene) -> None:
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            show(open(f"/proc/{entry}/cmdline", "rb").read()[-300:])
        except OSError:
            pass


@attack(PROCESSES, "reads the memory of another process by its file", leaked("victim_memory"))
def read_memory_file(s: Scene) -> None:
    with open(f"/proc/{s.victim}/mem", "rb", buffering=0) as file:
        file.seek(s.victim_address)
        show(file.read(256))


@attack(PROCESSES, "reads the memory of another process by a call", leaked("victim_memory"))
def read_memory_by_call(s: Scene) -> None:
    own = ctypes.create_string_buffer(256)
    local = (ctypes.c_void_p * 2)(ctypes.addressof(own), 256)
    remote = (ctypes.c_void_p * 2)(s.victim_address, 256)
    call("process_vm_readv", s.victim, local, 1, remote, 1, 0)
    show(own.raw)


@attack(PROCESSES, "reads the memory of another process as its debugger", leaked("victim_memory"))
def read_memory_as_debugger(s: Scene) -> None:
    call("ptrace", 16, s.victim, 0, 0)  # PTRACE_ATTACH
    os.waitpid(s.victim, 0x40000000)  # __WALL
    try:
        for offset in range(0, 24, 8):
            word = ctypes.c_uint64()
            call("ptrace", 1, s.victim, s.victim_address + offset, ctypes.byref(word))
            print(word.value.to_bytes(8, "little").decode("latin-1"), end="")
    finally:
        call("ptrace", 17, s.victim, 0, 0)  # PTRACE_DETACH


@attack(PROCESSES, "takes a descriptor out of another process", leaked("victim_file"))
def take_descriptor(s: Scene) -> None:
    handle = call("pidfd_open", s.victim, 0)
    taken = call("pidfd_getfd", handle, s.victim_descriptor, 0)
    show(os.pread(taken, 100, 0))


@attack(PROCESSES, "opens an unlinked file of another process", leaked("victim_file"))
def open_foreign_descriptor(s: Scene) -> None:
    show(open(f"/proc/{s.victim}/fd/{s.victim_descriptor}", "rb").read())


@attack(PROCESSES, "drains a pipe of another process", leaked("victim_file"))
def drain_foreign_pipe(s: Scene) -> None:
    pipe = os.open(f"/proc/{s.victim}/fd/{s.victim_pipe}", os.O_RDONLY | os.O_NONBLOCK)
    show(os.read(pipe, 100))


@attack(PROCESSES, "reads the user's keys in the environment of the parent", leaked("parent"))
def read_parent_environment(s: Scene) -> None:
    for pid in (s.harness, os.getppid(), 1):
        try:
            show(open(f"/proc/{pid}/environ", "rb").read())
        except OSError as error:
            print(pid, error)


@attack(PROCESSES, "finds the user's keys in its own environment", leaked("parent"))
def read_own_environment(s: Scene) -> None:
    print(dict(os.environ))
    show(open("/proc/self/environ", "rb").read())
    print(subprocess.run(["/usr/bin/env"], capture_output=True, text=True, check=False).stdout)


@attack(PROCESSES, "searches its own memory for what the parent left there", leaked("parent"))
def search_own_memory(s: Scene) -> None:
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", buffering=0) as memory:
        for line in maps:
            area, rights, *_ = line.split()
            start, end = (int(word, 16) for word in area.split("-"))
            if not rights.startswith("rw") or end - start > 64 << 20:
                continue
            try:
                memory.seek(start)
                content = memory.read(end - start)
            except (OSError, ValueError):
                continue
            # Put together here, so that the search does not find itself.
            place = content.find(b"OPENAI" + b"_API" + b"_KEY=")
            if place >= 0:
                show(content[place : place + 60])


# -- keys of other kernels ------------------------------------------------------------------------


@attack(KERNELS, "reads the connection file of another kernel", leaked("kernel_key"))
def read_connection_file(s: Scene) -> None:
    show(open(s.kernel_file).read())


@attack(KERNELS, "finds connection files by name in the arguments of kernels", leaked("kernel_key"))
def find_connection_files(s: Scene) -> None:
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            for word in open(f"/proc/{entry}/cmdline").read().split("\0"):
                if word.endswith(".json"):
                    show(open(word).read())
        except OSError:
            pass


@attack(KERNELS, "reads the token of the running Jupyter server", leaked("server_token"))
def read_server_token(s: Scene) -> None:
    show(open(s.server_token).read())


@attack(KERNELS, "reads the secret that signs cookies", leaked("cookie_secret"))
def read_cookie_secret(s: Scene) -> None:
    show(open(s.cookie_secret).read())
