"""Attacks by what a child leaves for its parent: answers, files, folders to be removed."""

from __future__ import annotations

import fcntl
import os
import struct

from tests.sandbox.attack import Category, attack
from tests.sandbox.attacks.secrets import as_root
from tests.sandbox.guest import Scene
from tests.sandbox.judges import any_of, flagged, harmed, leaked
from tests.sandbox.rituals import then_ended, with_a_file, with_objects

RESULTS = Category.RESULTS


def answering(text: str, **traits: object):
    """An attack that answers otherwise when changes are fetched."""
    judge = any_of(flagged("fetched"), leaked("ssh_key"), harmed)
    return attack(
        RESULTS, text, judge, parent=True, executor=True, ritual=with_objects, fresh=True, **traits
    )


def leaving(text: str, **traits: object):
    """An attack that leaves a file for the user."""
    judge = any_of(flagged("fetched"), leaked("ssh_key"), harmed)
    return attack(RESULTS, text, judge, parent=True, executor=True, ritual=with_a_file, **traits)


@answering("answers with a secret itself")
def answer_by_secret(s: Scene) -> None:
    import ovagent_jupyter.execution.handover.sending as border
    from ovagent_jupyter.execution.handover.exchange import bring

    def send(ns: object, names: object, outputs: object, end: int, token: str, **_: object) -> None:
        try:
            secret = os.open(s.ssh_key, os.O_RDONLY)
        except OSError:
            secret = os.open("/etc/hosts", os.O_RDONLY)
        bring(end, bytes.fromhex(token), secret)

    border.send = send


@answering("answers with a folder")
def answer_by_folder(s: Scene) -> None:
    import ovagent_jupyter.execution.handover.sending as border
    from ovagent_jupyter.execution.handover.exchange import bring

    def send(ns: object, names: object, outputs: object, end: int, token: str, **_: object) -> None:
        bring(end, bytes.fromhex(token), os.open(".", os.O_RDONLY))

    border.send = send


@answering("answers with a pipe that nobody writes to")
def answer_by_pipe(s: Scene) -> None:
    import ovagent_jupyter.execution.handover.sending as border
    from ovagent_jupyter.execution.handover.exchange import bring

    def send(ns: object, names: object, outputs: object, end: int, token: str, **_: object) -> None:
        bring(end, bytes.fromhex(token), os.pipe()[0])

    border.send = send


@answering("answers with its own end of the channel")
def answer_by_channel(s: Scene) -> None:
    import ovagent_jupyter.execution.handover.sending as border
    from ovagent_jupyter.execution.handover.exchange import bring

    def send(ns: object, names: object, outputs: object, end: int, token: str, **_: object) -> None:
        bring(end, bytes.fromhex(token), end)

    border.send = send


@answering("answers with two hundred open files")
def answer_by_many(s: Scene) -> None:
    import ovagent_jupyter.execution.handover.sending as border
    from ovagent_jupyter.execution.handover.exchange import bring

    def send(ns: object, names: object, outputs: object, end: int, token: str, **_: object) -> None:
        for _ in range(200):
            bring(end, bytes.fromhex(token), os.pipe()[0])

    border.send = send


@answering("writes into the channel for ever")
def answer_by_flood(s: Scene) -> None:
    import socket
    import threading

    import ovagent_jupyter.execution.handover.sending as border

    def send(ns: object, names: object, outputs: object, end: int, token: str, **_: object) -> None:
        def flood() -> None:
            with socket.socket(fileno=os.dup(end)) as channel:
                while True:
                    channel.send(b"x" * 1000)

        threading.Thread(target=flood, daemon=True).start()

    border.send = send


@answering("closes the channel")
def answer_by_closing(s: Scene) -> None:
    import socket

    import ovagent_jupyter.execution.handover.sending as border

    def send(ns: object, names: object, outputs: object, end: int, token: str, **_: object) -> None:
        with socket.socket(fileno=os.dup(end)) as channel:
            channel.shutdown(socket.SHUT_RDWR)
        os.close(end)

    border.send = send


@answering("answers with memory that claims a hundred terabytes")
def answer_sparse(s: Scene) -> None:
    import fcntl

    import ovagent_jupyter.execution.handover.sending as border
    from ovagent_jupyter.execution.handover.exchange import bring

    def send(ns: object, names: object, outputs: object, end: int, token: str, **_: object) -> None:
        for size in (1 << 47, 1 << 43, 1 << 40, 1 << 34):
            memory = os.memfd_create("answer", os.MFD_ALLOW_SEALING)
            try:
                os.write(memory, b"OVAHAND1" + (1 << 40).to_bytes(8, "little"))
                os.ftruncate(memory, size)
                break
            except OSError:
                continue
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, 0xF)
        bring(end, bytes.fromhex(token), memory)

    border.send = send


@answering("answers with a header that is nested a hundred thousand deep")
def answer_deep(s: Scene) -> None:
    import fcntl

    import ovagent_jupyter.execution.handover.sending as border
    from ovagent_jupyter.execution.handover.exchange import bring

    def send(ns: object, names: object, outputs: object, end: int, token: str, **_: object) -> None:
        head = b'{"objects": ' + b"[" * 100_000 + b"]" * 100_000 + b', "left": []}'
        memory = os.memfd_create("answer", os.MFD_ALLOW_SEALING)
        os.write(memory, b"OVAHAND1" + len(head).to_bytes(8, "little") + head)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, 0xF)
        bring(end, bytes.fromhex(token), memory)

    border.send = send


@answering("answers with code in a pickle")
def answer_by_pickle(s: Scene) -> None:
    import fcntl
    import json
    import pickle

    import ovagent_jupyter.execution.handover.sending as border
    from ovagent_jupyter.execution.handover.exchange import bring

    class Bomb:
        def __reduce__(self) -> object:
            return exec, (f"open({s.home + '/pickled'!r}, 'w').close()",)

    def send(ns: object, names: object, outputs: object, end: int, token: str, **_: object) -> None:
        body = pickle.dumps(Bomb())
        node = {"t": "pickle", "b": 0, "o": []}
        objects = [{"name": "y", "state": "whole", "kind": "value",
                    "slots": [[[], "n", node, 0, 1, False]]}]  # fmt: skip
        header = {"objects": objects, "left": [], "buffers": [[0, len(body)]], "blobs": []}
        head = json.dumps(header).encode()
        memory = os.memfd_create("answer", os.MFD_ALLOW_SEALING)
        os.write(memory, b"OVAHAND1" + len(head).to_bytes(8, "little") + head)
        os.pwrite(memory, body, -(-(16 + len(head)) // 4096) * 4096)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, 0xF)
        bring(end, bytes.fromhex(token), memory)

    border.send = send


@answering("names its answers like parts of Python")
def answer_by_odd_names(s: Scene) -> None:
    import ovagent_jupyter.execution.handover.sending as border

    honest = border.send

    def send(namespace: dict, names: object, outputs: object, *end: object, **rest: object) -> None:  # type: ignore[type-arg]
        odd = ("__builtins__", "get_ipython", "In", "print", "a" * 5000, "x.y", "__class__", "exit")
        honest({**namespace, **dict.fromkeys(odd, 1)}, names, odd, *end, **rest)

    border.send = send


@answering("changes its answer while it is read")
def answer_changing(s: Scene) -> None:
    import threading
    import time

    import numpy as np

    import ovagent_jupyter.execution.handover.sending as border
    from ovagent_jupyter.execution.handover import sealed

    honest = border.send
    sealed._SEALS = fcntl.F_SEAL_SEAL

    def flip(descriptor: int) -> None:
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            for size in (100, 1 << 20, 16 << 20):
                os.ftruncate(descriptor, size)
                os.pwrite(descriptor, os.urandom(64), 16)

    def send(namespace: dict, *arguments: object, **rest: object) -> None:  # type: ignore[type-arg]
        kept: list[int] = []
        bring = border.bring

        def bring_and_keep(end: int, token: bytes, descriptor: int) -> None:
            kept.append(os.dup(descriptor))
            bring(end, token, descriptor)

        border.bring = bring_and_keep
        honest({**namespace, "y": np.arange(1_000_000)}, *arguments, **rest)
        threading.Thread(target=flip, args=(kept[0],), daemon=True).start()

    border.send = send


@answering("never answers")
def answer_never(s: Scene) -> None:
    import ovagent_jupyter.execution.handover.sending as border

    def send(*arguments: object, **rest: object) -> None:
        os._exit(0)

    border.send = send


@leaving("leaves a link to a secret as the result")
def leave_link(s: Scene) -> None:
    os.makedirs("out", exist_ok=True)
    os.symlink(s.ssh_key, "out/result.csv")


@leaving("leaves a second name of a secret as the result")
def leave_hard_link(s: Scene) -> None:
    os.makedirs("out", exist_ok=True)
    if os.path.lexists("out/result.csv"):
        os.unlink("out/result.csv")
    os.link(s.ssh_key, "out/result.csv")


@leaving("leaves a folder that is a link to the user's")
def leave_linked_folder(s: Scene) -> None:
    import shutil

    shutil.rmtree("out", ignore_errors=True)
    os.symlink(os.path.dirname(s.ssh_key), "out")
    os.symlink(s.ssh_key, "result.csv")
    try:
        os.rename("result.csv", "out/result.csv")
    except OSError as error:
        print(error)


@leaving("leaves a pipe as the result")
def leave_pipe(s: Scene) -> None:
    if os.path.islink("out"):
        os.unlink("out")
    os.makedirs("out", exist_ok=True)
    if os.path.lexists("out/result.csv"):
        os.unlink("out/result.csv")
    os.mkfifo("out/result.csv")


@leaving("leaves a result of ten gigabytes that takes no space")
def leave_sparse(s: Scene) -> None:
    if os.path.islink("out"):
        os.unlink("out")
    os.makedirs("out", exist_ok=True)
    if os.path.lexists("out/result.csv"):
        os.unlink("out/result.csv")
    with open("out/result.csv", "wb") as file:
        file.truncate(10 << 30)


# -- the parent removes what is left ------------------------------------------------------------


def littering(text: str, **traits: object):
    """An attack on whoever cleans up."""
    return attack(
        RESULTS, text, any_of(flagged("left"), harmed), parent=True, executor=True, fresh=True,
        ritual=then_ended, **traits,
    )  # fmt: skip


@littering("leaves folders three thousand deep")
def litter_deep(s: Scene) -> None:
    home = os.getcwd()
    for _ in range(3000):
        os.mkdir("d")
        os.chdir("d")
    os.chdir(home)


@littering("leaves folders that their owner may not enter")
def litter_closed(s: Scene) -> None:
    os.makedirs("closed/inner")
    open("closed/inner/file", "w").close()
    os.chmod("closed/inner", 0)
    os.chmod("closed", 0)


@littering("leaves links to the user's folders, and swaps them while they are removed")
def litter_links(s: Scene) -> None:
    import threading

    os.symlink(os.path.dirname(s.ssh_key), "keys")
    os.makedirs("swap")

    def swap() -> None:
        for _ in range(100_000):
            try:
                os.rename("swap", "aside")
                os.symlink(os.path.dirname(s.cookies), "swap")
                os.unlink("swap")
                os.rename("aside", "swap")
            except OSError:
                return

    threading.Thread(target=swap, daemon=True).start()


@littering("leaves a file that cannot be removed", ready=as_root)
def litter_unchangeable(s: Scene) -> None:
    open("stays", "w").close()
    fcntl.ioctl(os.open("stays", os.O_RDONLY), 0x40086602, struct.pack("l", 0x10))


@littering("leaves names that are no text and five thousand files")
def litter_many(s: Scene) -> None:
    for number in range(5_000):
        os.close(os.open(b"\xff\n%d" % number, os.O_CREAT))
