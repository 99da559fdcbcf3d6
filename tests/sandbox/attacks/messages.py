"""Attacks by forged messages: a child owns its key, so it can say anything, at any time."""

from __future__ import annotations

from tests.sandbox.attack import Category, attack
from tests.sandbox.guest import Scene
from tests.sandbox.judges import any_of, flagged, unfinished
from tests.sandbox.rituals import counted, with_next_cell
from tests.sandbox.witness import Witness

MESSAGES = Category.MESSAGES
confused = any_of(unfinished, flagged("after"), flagged("runs"))


def forging(text: str, **traits: object):
    """An attack that forges a message, after which the next cell must be as ever."""
    judge = any_of(unfinished, flagged("after"))
    return attack(MESSAGES, text, judge, parent=True, ritual=with_next_cell, fresh=True, **traits)


@forging("sends garbage on the output channel")
def send_garbage(s: Scene) -> None:
    import os

    from ipykernel.kernelapp import IPKernelApp

    kernel = IPKernelApp.instance().kernel
    for frames in ([b""], [b"\xff" * 100], [os.urandom(500)] * 9, [b"<IDS|MSG>"], [b""] * 50):
        kernel.iopub_socket.send_multipart(frames)


@forging("signs headers that are no objects")
def sign_odd_headers(s: Scene) -> None:
    from ipykernel.kernelapp import IPKernelApp

    kernel = IPKernelApp.instance().kernel
    for odd in (b"null", b"[]", b"1", b'"x"', b"{}", b'{"msg_type": 1}', b'{"msg_type": null}'):
        for parent in (b"null", b"[]", b"{}", b'{"msg_id": []}'):
            for content in (b"null", b"[1]", b"{}"):
                frames = [odd, parent, b"{}", content]
                signed = [b"<IDS|MSG>", kernel.session.sign(frames), *frames]
                kernel.iopub_socket.send_multipart([b"x", *signed])


@forging("sends outputs of the wrong types for the running cell")
def send_odd_outputs(s: Scene) -> None:
    import json

    from ipykernel.kernelapp import IPKernelApp

    kernel = IPKernelApp.instance().kernel
    parent = kernel.get_parent()
    odd = (None, 1, "text", [], {}, {"data": 1}, {"data": {"text/plain": 5}},
           {"name": 1, "text": 2},
           {"data": {"text/plain": ["a", 1]}, "metadata": 3, "transient": 4},
           {"ename": 1, "evalue": [], "traceback": 7}, {"execution_state": ["idle"]})  # fmt: skip
    kinds = (
        "stream display_data update_display_data execute_result error clear_output status comm_msg"
    )
    session = kernel.session
    for kind in kinds.split():
        head = session.serialize(session.msg(kind, {}, parent=parent))
        for content in odd:
            # By hand: the session itself refuses content that is no object.
            frames = [*head[2:5], json.dumps(content).encode()]
            kernel.iopub_socket.send_multipart([head[0], session.sign(frames), *frames])


@forging("says that it is idle and goes on")
def say_idle_early(s: Scene) -> None:
    import time

    from ipykernel.kernelapp import IPKernelApp

    kernel = IPKernelApp.instance().kernel
    parent = kernel.get_parent()
    for _ in range(3):
        kernel.session.send(
            kernel.iopub_socket, "status", {"execution_state": "idle"}, parent=parent
        )
    time.sleep(0.5)
    print("late")


@forging("answers before it has run, and again after")
def answer_twice(s: Scene) -> None:
    import time

    from ipykernel.kernelapp import IPKernelApp

    kernel = IPKernelApp.instance().kernel
    parent = kernel.get_parent()
    for status in ("ok", "error", "ok", "aborted"):
        content = {"status": status, "execution_count": 1, "user_expressions": {}, "payload": []}
        kernel.session.send(
            kernel.shell_stream if hasattr(kernel, "shell_stream") else kernel.shell_socket,
            "execute_reply", content, parent=parent, ident=kernel._parent_ident.get("shell"),
        )  # fmt: skip
    time.sleep(0.2)


@attack(MESSAGES, "says that the cell was aborted, so that it is sent again", confused, parent=True,
        executor=True, fresh=True, ritual=counted)  # fmt: skip
def say_aborted(s: Scene) -> None:
    from ipykernel.kernelapp import IPKernelApp

    with open("runs.txt", "a") as file:
        file.write(f"{s.tag}\n")
    kernel = IPKernelApp.instance().kernel
    content = {"status": "aborted", "ename": "ConnectionResetError", "evalue": "try again"}
    ident = kernel._parent_ident.get("shell")
    kernel.session.send(
        kernel.shell_stream if hasattr(kernel, "shell_stream") else kernel.shell_socket,
        "execute_reply", content, parent=kernel.get_parent(), ident=ident,
    )  # fmt: skip


@attack(MESSAGES, "dies after it has run, so that it is sent again", confused, parent=True,
        executor=True, fresh=True, ritual=counted)  # fmt: skip
def die_after_running(s: Scene) -> None:
    import os

    with open("runs.txt", "a") as file:
        file.write(f"{s.tag}\n")
    os._exit(0)


@forging("sends ten thousand replies to questions that nobody asked")
def send_unasked_replies(s: Scene) -> None:
    from ipykernel.kernelapp import IPKernelApp

    kernel = IPKernelApp.instance().kernel
    for number in range(10_000):
        parent = {"header": {"msg_id": f"{s.tag}-{number}"}}
        kernel.session.send(
            kernel.iopub_socket, "status", {"execution_state": "idle"}, parent=parent["header"]
        )


@forging("prints in the name of a cell that is over, while the next one runs")
def print_for_other_cell(s: Scene) -> None:
    import threading
    import time

    from ipykernel.kernelapp import IPKernelApp

    kernel = IPKernelApp.instance().kernel
    parent = kernel.get_parent()

    def later() -> None:
        until = time.monotonic() + 0.6
        while time.monotonic() < until:
            content = {"name": "stdout", "text": s.tag}
            kernel.session.send(kernel.iopub_socket, "stream", content, parent=parent)
            time.sleep(0.02)

    threading.Thread(target=later, daemon=True).start()


@forging("sends a message that is larger than any may be")
def send_huge_message(s: Scene) -> None:
    from ipykernel.kernelapp import IPKernelApp

    IPKernelApp.instance().kernel.iopub_socket.send_multipart([b"x" * 60_000_000])


def forged_limit(witness: Witness, shot: object) -> str:
    """The parent takes the child's word for it that a cap was hit, or that it may not run."""
    status = getattr(shot, "status", "")
    return f"the parent took it for the status {status!r}" if status in {"limit", "raised"} else ""


@attack(MESSAGES, "raises an error that is named like one of ours", forged_limit, parent=True)
def raise_our_errors(s: Scene) -> None:
    kind = type("ResourceLimitExceeded", (Exception,), {"code": "resource_limit_exceeded"})
    raise kind("memory: 1 GB of 1 GB used. Grant more with memory=64G.")


@attack(MESSAGES, "says in a forged error that it was refused by the sandbox", forged_limit,
        parent=True)  # fmt: skip
def raise_our_refusal(s: Scene) -> None:
    from ipykernel.kernelapp import IPKernelApp

    kernel = IPKernelApp.instance().kernel
    for name in ("SandboxUnavailableError", "ConfinementError", "ChildStartError"):
        content = {"ename": name, "evalue": "cannot be set up", "traceback": []}
        kernel.session.send(kernel.iopub_socket, "error", content, parent=kernel.get_parent())


@attack(MESSAGES, "closes the sockets that it answers on", any_of(unfinished, flagged("broken")),
        parent=True, fresh=True, timeout=2, ritual=with_next_cell)  # fmt: skip
def close_sockets(s: Scene) -> None:
    from ipykernel.kernelapp import IPKernelApp

    app = IPKernelApp.instance()
    app.shell_socket.close(linger=0)


@attack(MESSAGES, "changes the key that its messages are signed with",
        any_of(unfinished, flagged("broken")), parent=True, fresh=True, timeout=2,
        ritual=with_next_cell)  # fmt: skip
def change_key(s: Scene) -> None:
    from ipykernel.kernelapp import IPKernelApp

    IPKernelApp.instance().kernel.session.key = b"another"
