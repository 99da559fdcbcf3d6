"""Code that speaks for its kernel: what it forges on the wire changes its own outputs at most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ovagent_jupyter.execution.executor import ExecutionRequest, ExecutionStatus, Output
from ovagent_jupyter.execution.outputs import OutputLimits
from ovagent_jupyter.notebook.display import Card

if TYPE_CHECKING:
    from tests.execution.conftest import Kernel

FORGE = """
k = get_ipython().kernel

def say(kind, content, parent=None):
    parent = k.get_parent() if parent is None else {"header": {"msg_id": parent}}
    k.session.send(k.iopub_socket, kind, content, parent=parent, ident=b"x")

def answer(kind, content, parent=None):
    parent = k.get_parent() if parent is None else {"header": {"msg_id": parent}}
    stream = getattr(k.shell_stream, "socket", k.shell_stream)
    k.session.send(stream, kind, content, parent=parent, ident=k._parent_ident["shell"])
    if hasattr(k.shell_stream, "flush"):
        k.shell_stream.flush()

def show(kind, name, data):
    say(kind, {"data": data, "metadata": {}, "transient": {"display_id": name}})
"""


@pytest.fixture
async def forger(kernel: Kernel) -> Kernel:
    """A child whose code can say anything on its kernel's sockets."""
    assert (await kernel.run(FORGE)).ok
    return kernel


async def still_works(kernel: Kernel) -> None:
    assert await kernel.value("6 * 7") == "42"


async def test_outputs_with_another_parent_are_nobodys(forger: Kernel) -> None:
    earlier = await forger.value("k.get_parent()['header']['msg_id']")
    result = await forger.run(
        f"for other in ({earlier}, '', 5, [], {{}}, 'unknown'):\n"
        "    say('stream', {'name': 'stdout', 'text': 'not mine'}, other)\n"
        "    say('status', {'execution_state': 'idle'}, other)\n"
        "print('mine')"
    )
    assert result.stdout == "mine\n"
    await still_works(forger)


async def test_a_reply_of_another_kind_or_parent_ends_nothing(forger: Kernel) -> None:
    result = await forger.run(
        "answer('execute_reply', {'status': 'ok'}, 'unknown')\n"
        "answer('kernel_info_reply', {'status': 'ok'})\n"
        "answer('input_request', {'prompt': 'Password: ', 'password': True})\n"
        "raise KeyError('the real end')"
    )
    assert result.status is ExecutionStatus.ERROR
    assert result.error is not None
    assert result.error.name == "KeyError"
    await still_works(forger)


async def test_the_first_reply_counts_and_the_cell_runs_once(forger: Kernel) -> None:
    result = await forger.run(
        "runs = globals().get('runs', 0) + 1\n"
        "answer('execute_reply', {'status': 'ok'})\n"
        "for _ in range(5):\n"
        "    answer('execute_reply', {'status': 'error', 'ename': 'Forged', 'evalue': ''})\n"
        "print('on')"
    )
    assert result.ok
    assert result.stdout == "on\n"
    assert await forger.value("runs") == "1"


async def test_an_early_idle_only_costs_its_own_output(forger: Kernel) -> None:
    result = await forger.run(
        "import time\n"
        "say('status', {'execution_state': 'idle'})\n"
        "answer('execute_reply', {'status': 'ok'})\n"
        "time.sleep(0.5)\n"
        "print('late')"
    )
    assert result.ok
    assert result.stdout == ""  # the forged end was believed
    assert (await forger.run("print('next')")).stdout == "next\n"


async def test_ok_and_an_error_is_an_error(forger: Kernel) -> None:
    result = await forger.run(
        "say('error', {'ename': 'Odd\\x1b[2J', 'evalue': '\\x1b]0;t\\x07', 'traceback': 5})"
    )
    assert result.status is ExecutionStatus.ERROR
    assert result.error is not None
    assert (result.error.name, result.error.message) == ("Odd", "")
    await still_works(forger)


async def test_widgets_prompts_payloads_and_unknown_kinds_are_dropped(forger: Kernel) -> None:
    seen: list[Output] = []
    code = (
        "kinds = ('comm_open comm_msg comm_close input_request debug_event shutdown_reply '\n"
        "         'execute_input execute_reply kernel_info_reply').split()\n"
        "for kind in [*kinds, '', 'x' * 999]:\n"
        "    say(kind, {'comm_id': '1', 'target_name': 'jupyter.widget', 'data': {},\n"
        "               'status': 'ok', 'prompt': 'Password: ', 'password': True, 'code': 'x'})\n"
        "get_ipython().set_next_input('import os', replace=True)\n"
        "payload = {'source': 'page', 'data': {'text/plain': 'x'}}\n"
        "get_ipython().payload_manager.write_payload(payload)\n"
        "show('display_data', 'x', {'application/javascript': 'alert(1)',\n"
        "     'application/vnd.jupyter.widget-view+json': {'model_id': 'x'}})\n"
        "input('Password: ')"
    )
    result = await forger.execute(ExecutionRequest(code), seen.append)
    assert result.error is not None
    assert result.error.name == "StdinNotImplementedError"
    assert [output.kind for output in result.outputs] == ["error"]
    assert [output.kind for output in seen] == ["error"]


async def test_contents_of_every_wrong_shape(forger: Kernel) -> None:
    result = await forger.run(
        "odd = [None, 5, 'x', [], {}, [1], {'a': {}}, 'x' * 10**6, {'x' * 999: 'y' * 999}]\n"
        "keys = 'name text data metadata transient wait ename evalue traceback x'\n"
        "for kind in ('stream display_data update_display_data execute_result error status '\n"
        "             'clear_output').split():\n"
        "    for value in odd:\n"
        "        say(kind, dict.fromkeys(keys.split(), value))\n"
        "print('end')"
    )
    assert result.stdout.endswith("end\n")
    await still_works(forger)


async def test_frames_that_are_no_message(forger: Kernel) -> None:
    result = await forger.run(
        "raw = k.iopub_socket\n"
        "message = k.session.msg('stream', {'name': 'stdout', 'text': 'x'}, k.get_parent())\n"
        "frames = k.session.serialize(message)\n"
        "deep = b'[' * 100_000\n"
        "for parts in ([b''], [b'x', b''], frames[:3], frames[::-1], [b'x'] * 60, [b''],\n"
        "              [*frames[:2], deep, deep, deep], [*frames, b'y' * 10**6], frames[1:]):\n"
        "    raw.send_multipart(parts)\n"
        "signed = [deep] * 4\n"
        "raw.send_multipart([frames[0], k.session.sign(signed), *signed])\n"
        "raw.send_multipart(frames); raw.send_multipart(frames)\n"
        "print('end')"
    )
    assert result.ok
    assert result.stdout.endswith("end\n")
    assert result.stdout.count("x") <= 2
    await still_works(forger)


async def test_floods_are_bounded_and_the_cell_ends(forger: Kernel) -> None:
    result = await forger.run(
        (
            "data = {'text/plain': 'x', 'text/html': '<b>x</b>' * 100}\n"
            "for n in range(5_000):\n"
            "    say('clear_output', {'wait': n % 2 == 0})\n"
            "    show('update_display_data', str(n % 50), data)\n"
            "    say('stream', {'name': ('stdout', 'stderr')[n % 2], 'text': 'x'})"
        ),
        timeout=120,
    )
    assert result.status is ExecutionStatus.OK
    assert len(result.outputs) <= OutputLimits().pieces + OutputLimits().count
    await still_works(forger)


class Screen:
    """A front end that keeps displays by identity."""

    def __init__(self) -> None:
        self.shown: dict[str, object] = {}

    def publish(self, data: dict[str, object], metadata: object, **kwargs: object) -> None:
        """Show a display, or put it in the place of the one with its identity."""
        transient = kwargs.get("transient")
        assert isinstance(transient, dict)
        identity = str(transient.get("display_id", len(self.shown)))
        if not kwargs.get("update") or identity in self.shown:
            self.shown[identity] = data


async def test_no_display_identity_reaches_the_card(forger: Kernel) -> None:
    """The child guesses the identities of the card's header and of other turns' displays."""
    screen = Screen()
    cards = [Card(screen, key) for key in ("1-1", "1-2", "1-11")]  # type: ignore[arg-type]
    for card in cards:
        card._paint()
    before = dict(screen.shown)
    guesses = ["ovagent-1-1", "1-1", "", "../ovagent-1-2", "ovagent-1-11", "1-2-d", "-1", "1-d"]
    seen: list[Output] = []
    code = (
        f"for name in {guesses!r} + ['ovagent-' + 'x' * 500]:\n"
        "    for kind in ('display_data', 'update_display_data'):\n"
        "        show(kind, name, {'text/plain': 'forged'})"
    )
    await forger.execute(ExecutionRequest(code), seen.append)
    assert len(seen) >= len(guesses)
    for output in seen:
        cards[0]._relay(output)
    assert {name: screen.shown[name] for name in before} == before
    assert all(name.startswith("1-1-") or name.isdecimal() for name in screen.shown.keys() - before)
