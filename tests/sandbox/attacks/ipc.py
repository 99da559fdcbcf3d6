"""Attacks on what processes of one machine share: sockets, memory, queues, keys, terminals."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket

from tests.sandbox.attack import Category, attack
from tests.sandbox.guest import LIBC, Scene, call, checked, hold, show
from tests.sandbox.judges import harmed, heard, holds, leaked
from tests.sandbox.witness import Witness

IPC = Category.LOCAL_IPC


@attack(IPC, "speaks to a service by its socket, such as the SSH agent", heard)
def connect_path(s: Scene) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        client.connect(s.agent)
        client.sendall(s.tag.encode())


@attack(IPC, "speaks to a service through a link of its own", heard)
def connect_linked_path(s: Scene) -> None:
    os.symlink(s.agent, "agent-link")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        client.connect("agent-link")
        client.sendall(s.tag.encode())


@attack(IPC, "sends to a service by its datagram socket", heard)
def send_to_path(s: Scene) -> None:
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(s.tag.encode(), s.log)


@attack(IPC, "sends to a service from a connected pair of its own", heard)
def send_from_pair(s: Scene) -> None:
    one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.sendto(s.tag.encode(), s.log)


@attack(IPC, "connects a pair of its own anew to a service", heard)
def reconnect_pair(s: Scene) -> None:
    one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.connect(s.log)
    one.send(s.tag.encode())


@attack(IPC, "speaks to a service by its packet socket", heard)
def connect_packets(s: Scene) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(2)
        client.connect(s.packets)
        client.send(s.tag.encode())


@attack(IPC, "speaks to a service by an abstract name", heard)
def connect_abstract(s: Scene) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        client.connect(s.abstract)
        client.sendall(s.tag.encode())


@attack(IPC, "sends to a service by an abstract name", heard)
def send_to_abstract(s: Scene) -> None:
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(s.tag.encode(), s.abstract_log)


@attack(IPC, "hands a descriptor of its own to a service", heard)
def hand_over_descriptor(s: Scene) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, (0).to_bytes(4, "little"))]
        client.sendmsg([s.tag.encode()], ancillary, 0, s.log)


@attack(IPC, "runs code in another kernel of the user", harmed)
def run_in_other_kernel(s: Scene) -> None:
    import json
    import time

    import zmq
    from jupyter_client.session import Session

    about = json.load(open(s.kernel_file))
    session = Session(key=about["key"].encode())
    context = zmq.Context()
    try:
        shell = context.socket(zmq.DEALER)
        shell.linger = 0
        shell.connect(f"tcp://127.0.0.1:{about['shell_port']}")
        code = f"open({s.kernel_writes!r}, 'w').close()"
        session.send(shell, "execute_request", {"code": code, "silent": True})
        if shell.poll(4000):
            print("it answered")
        time.sleep(0.1)
    finally:
        context.destroy(linger=0)


@attack(IPC, "reads System V shared memory of another program", leaked("sysv_memory"))
def read_sysv_memory(s: Scene) -> None:
    LIBC.shmat.restype = ctypes.c_void_p
    address = LIBC.shmat(s.sysv_memory, None, 0o10000)
    if address == 2**64 - 1:
        checked(-1)
    show(ctypes.string_at(address, 100))


@attack(IPC, "writes System V shared memory of another program", harmed)
def write_sysv_memory(s: Scene) -> None:
    LIBC.shmat.restype = ctypes.c_void_p
    address = LIBC.shmat(s.sysv_memory, None, 0)
    if address == 2**64 - 1:
        checked(-1)
    ctypes.memmove(address, b"changed!", 8)


@attack(IPC, "takes a message out of another program's queue", leaked("sysv_message"))
def take_sysv_message(s: Scene) -> None:
    own = ctypes.create_string_buffer(128)
    checked(LIBC.msgrcv(s.sysv_queue, own, 100, 0, 0o4000))
    show(own.raw)


@attack(IPC, "changes another program's semaphore", harmed)
def change_sysv_semaphore(s: Scene) -> None:
    checked(LIBC.semctl(s.sysv_semaphore, 0, 16, 7))


@attack(IPC, "counts up another program's semaphore", harmed)
def count_up_sysv_semaphore(s: Scene) -> None:
    import struct

    operation = struct.pack("HhH", 0, 5, 0o4000)
    checked(LIBC.semop(s.sysv_semaphore, operation, 1))


@attack(IPC, "reads POSIX shared memory of another program", leaked("posix_memory"))
def read_posix_memory(s: Scene) -> None:
    show(open(s.posix_memory).read())


@attack(IPC, "writes POSIX shared memory of another program", harmed)
def write_posix_memory(s: Scene) -> None:
    open(s.posix_memory, "r+").write("changed")


@attack(IPC, "makes shared memory under a name that others open", harmed)
def make_posix_memory(s: Scene) -> None:
    from multiprocessing import shared_memory

    made = shared_memory.SharedMemory(s.tag, create=True, size=100)
    made.close()


def has_queue(witness: Witness) -> bool:
    """Whether the machine has POSIX message queues."""
    return witness.segments.has_queue


@attack(IPC, "takes a message out of another program's POSIX queue", leaked("posix_message"),
        ready=has_queue)  # fmt: skip
def take_posix_message(s: Scene) -> None:
    queue = call("mq_open", s.posix_queue.encode(), os.O_RDWR | os.O_NONBLOCK, 0, None)
    own = ctypes.create_string_buffer(1024)
    call("mq_timedreceive", queue, own, 1024, None, None)
    show(own.raw)


def has_keys(witness: Witness) -> bool:
    """Whether the machine lets this user keep keys."""
    return witness.segments.has_key


@attack(IPC, "reads a key of the user's keyring", leaked("user_key"), ready=has_keys)
def read_key(s: Scene) -> None:
    found = call("keyctl", 10, s.user_keyring, b"user", s.key_name.encode(), 0)
    own = ctypes.create_string_buffer(200)
    call("keyctl", 11, found, own, 200)
    show(own.raw)


@attack(IPC, "asks for a key by its name", leaked("user_key"), ready=has_keys)
def request_key(s: Scene) -> None:
    call("keyctl", 8, s.user_keyring, -2)  # LINK into the process keyring
    found = call("request_key", b"user", s.key_name.encode(), None, 0)
    own = ctypes.create_string_buffer(200)
    call("keyctl", 11, found, own, 200)
    show(own.raw)


@attack(IPC, "puts a key into the user's keyring", harmed, ready=has_keys)
def put_key(s: Scene) -> None:
    call("add_key", b"user", s.tag.encode(), b"owned", 5, s.user_keyring)


@attack(IPC, "writes into the user's terminal", harmed)
def write_terminal(s: Scene) -> None:
    found = os.open(s.terminal, os.O_WRONLY | os.O_NOCTTY)
    os.write(found, s.tag.encode())


@attack(IPC, "types into the user's terminal", harmed)
def type_into_terminal(s: Scene) -> None:
    import termios

    found = os.open(s.terminal, os.O_RDWR | os.O_NOCTTY)
    for letter in s.tag:
        for request in (termios.TIOCSTI, termios.TIOCSTI | 1 << 32):
            LIBC.ioctl(found, ctypes.c_ulong(request), ctypes.c_char_p(letter.encode()))
    # What was typed comes back as an echo or waits in line; either way it can be read there.
    os.write(found, s.tag.encode())


@attack(IPC, "makes the user's terminal its own", holds("/pts/"), fresh=True)
def take_terminal(s: Scene) -> None:
    found = hold(os.open(s.terminal, os.O_RDWR | os.O_NOCTTY))
    fcntl.ioctl(found, 0x540E, 1)  # TIOCSCTTY


@attack(IPC, "locks a file of the user against its programs", holds("patients.csv"), minor=True)
def lock_file(s: Scene) -> None:
    found = hold(os.open(s.data, os.O_RDONLY))
    fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)


@attack(IPC, "keeps a socket that others of the user can reach by name", holds("family 1 type 2"))
def make_abstract_service(s: Scene) -> None:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(f"\0{s.tag}")
    hold(server.detach())
