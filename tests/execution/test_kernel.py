"""Cells in a real child kernel: what they show, and every way in which they can end."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import psutil
import pytest

from ovagent_jupyter.errors import ExecutionError
from ovagent_jupyter.execution.executor import ExecutionRequest, ExecutionStatus, Output
from ovagent_jupyter.execution.outputs import OutputLimits
from tests.execution.conftest import Kernel

HELD = "sum(range(10**13))"
"""Native code that holds the interpreter: no signal handler of Python runs."""


async def test_outputs_come_live_in_order(kernel: Kernel) -> None:
    seen: list[Output] = []
    code = (
        "import sys\nfrom IPython.display import display, Markdown\nprint('a')\n"
        "display(Markdown('*b*'))\nprint('c', file=sys.stderr)\n!echo d\n'e'"
    )
    result = await kernel.execute(ExecutionRequest(code), seen.append)
    kinds = [
        (o.kind, o.text.strip() or o.data.get("text/html", "").strip()) for o in result.outputs
    ]
    assert kinds[:4] == [
        ("stream", "a"),
        ("display", "<p><em>b</em></p>"),
        ("stream", "c"),
        ("stream", "d"),
    ]
    assert result.outputs[-1].data == {"text/plain": "'e'"}
    assert [o.kind for o in seen] == [o.kind for o in result.outputs]


async def test_first_output_comes_before_the_end(kernel: Kernel) -> None:
    first = asyncio.Event()
    request = ExecutionRequest("print('now', flush=True)\nimport time\ntime.sleep(30)")
    running = asyncio.create_task(kernel.execute(request, lambda _: first.set()))
    await asyncio.wait_for(first.wait(), 20)
    assert not running.done()
    assert await kernel.interrupt()
    assert (await running).stdout == "now\n"


async def test_figures_updates_and_clears(kernel: Kernel) -> None:
    figure = await kernel.run("import matplotlib.pyplot as plt\nplt.plot([1, 2]);")
    assert [sorted(o.data) for o in figure.outputs] == [["image/png", "text/plain"]]
    shown = await kernel.run(
        "from IPython.display import *\nprint('gone')\nclear_output()\n"
        "h = display('1', display_id=True)\nh.update('2')"
    )
    assert [o.data["text/plain"] for o in shown.outputs] == ["'2'"]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("quit()", "SystemExit"),
        ("exit", "SystemExit"),
        ("input('?')", "StdinNotImplementedError"),
        ("import getpass; getpass.getpass()", "StdinNotImplementedError"),
        ("%no_such_magic", "UsageError"),
        ("def f(): f()\nf()", "RecursionError"),
        ("await undefined", "NameError"),
    ],
)
async def test_code_that_fails_is_a_result(kernel: Kernel, code: str, name: str) -> None:
    result = await kernel.run(code)
    assert result.status is ExecutionStatus.ERROR
    assert result.error is not None
    assert result.error.name == name
    assert await kernel.value("1") == "1"


async def test_odd_text_arrives(kernel: Kernel) -> None:
    result = await kernel.run(r"print('\ud800 \x00 é 😀 \x1b[2J')")
    assert result.ok
    assert "é 😀" in result.stdout
    assert "\x1b" not in result.stdout


async def test_payloads_and_widgets_are_dropped(kernel: Kernel) -> None:
    code = "get_ipython().set_next_input('evil()')\nfrom comm import create_comm\n"
    result = await kernel.run(code + "create_comm(target_name='x')\nprint('done')")
    assert [o.text for o in result.outputs] == ["done\n"]


async def test_a_loop_is_stopped_and_variables_are_kept(kernel: Kernel) -> None:
    await kernel.run("x = 7")
    result = await kernel.run("while True: pass", timeout=0.3)
    assert result.status is ExecutionStatus.TIMEOUT
    assert result.error is not None
    assert "variables are kept" in result.error.message
    assert await kernel.value("x") == "7"


IGNORED = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"


@pytest.mark.parametrize("code", [HELD, IGNORED])
async def test_code_that_ignores_the_interrupt_is_killed(kernel: Kernel, code: str) -> None:
    result = await kernel.run(code, timeout=0.3)
    assert result.status is ExecutionStatus.TIMEOUT
    assert result.error is not None
    assert "killed" in result.error.message
    assert not kernel.alive
    with pytest.raises(ExecutionError, match="not running"):
        await kernel.run("1")
    await kernel.start()
    assert await kernel.value("1") == "1"


async def test_interrupt_returns_a_result(kernel: Kernel) -> None:
    running = asyncio.create_task(kernel.run("x = 1\nimport time\ntime.sleep(30)"))
    await asyncio.sleep(0.2)
    assert await kernel.interrupt()
    assert (await running).status is ExecutionStatus.INTERRUPTED
    assert await kernel.value("x") == "1"


async def test_interrupt_right_after_sending_stops_the_cell(kernel: Kernel) -> None:
    for _ in range(5):
        running = asyncio.create_task(kernel.run("while True: pass"))
        await asyncio.sleep(0)
        assert await kernel.interrupt() or not kernel.alive
        assert (await running).status is ExecutionStatus.INTERRUPTED
        await kernel.start()


async def test_cancelling_stops_the_code(kernel: Kernel) -> None:
    running = asyncio.create_task(kernel.run("x = 2\nwhile True: pass"))
    await asyncio.sleep(0.3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await kernel.value("x") == "2"


async def test_cancelling_native_code_kills_and_the_executor_goes_on(kernel: Kernel) -> None:
    running = asyncio.create_task(kernel.run(HELD))
    await asyncio.sleep(0.3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not kernel.alive
    await kernel.start()
    assert await kernel.value("1") == "1"


async def test_a_second_cancellation_kills_at_once(kernel: Kernel) -> None:
    slow = Kernel(grace=60)
    await slow.start()
    running = asyncio.create_task(slow.run(HELD))
    await asyncio.sleep(0.3)
    running.cancel()
    await asyncio.sleep(0.1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 20)
    assert not slow.alive
    await slow.shutdown()


async def test_a_listener_that_fails_stops_the_code(kernel: Kernel) -> None:
    def fail(_: Output) -> None:
        raise LookupError("listener")

    with pytest.raises(LookupError, match="listener"):
        await kernel.execute(ExecutionRequest("print(1, flush=True)\nwhile True: pass"), fail)
    assert await kernel.value("1") == "1"


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
        ("import os; os._exit(3)", "exit code 3"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("import os; os.abort()", "SIGABRT"),
    ],
)
async def test_a_death_names_its_cause(kernel: Kernel, code: str, cause: str) -> None:
    result = await kernel.run(f"import time\nprint('before', flush=True)\ntime.sleep(0.1)\n{code}")
    assert result.status is ExecutionStatus.DEAD
    assert result.error is not None
    assert cause in result.error.message
    assert result.stdout == "before\n"
    assert not kernel.alive
    await kernel.start()
    assert await kernel.value("1") == "1"


async def test_a_death_between_cells_is_noticed(kernel: Kernel) -> None:
    assert kernel.pid is not None
    os.kill(kernel.pid, 9)
    while kernel.alive:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.01)
    with pytest.raises(ExecutionError, match="not running"):
        await kernel.run("1")
    with pytest.raises(ExecutionError, match="not running"):
        await kernel.put({"x": 1})
    await kernel.start()
    assert await kernel.value("1") == "1"


async def test_death_takes_what_the_cell_started_along(kernel: Kernel) -> None:
    mark = f"61.{os.getpid()}"
    await kernel.run(f"import subprocess\np = subprocess.Popen(['sleep', '{mark}'])")
    assert named(mark)
    await kernel.run("import os; os._exit(0)")
    for _ in range(100):
        if not named(mark):
            break
        await asyncio.sleep(0.02)
    else:
        pytest.fail("a process of the dead child lives on")


def named(argument: str) -> list[int]:
    """The processes that were started with that argument."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if argument in process.cmdline():
                found.append(process.pid)
    return found


@pytest.mark.parametrize(
    "end",
    ["pass", "1 / 0", "while True: pass", HELD, "import os; os._exit(1)", "import sys; sys.exit()"],
)
async def test_a_cell_runs_at_most_once(kernel: Kernel, tmp_path: Path, end: str) -> None:
    counter = tmp_path / "counter"
    await kernel.run(f"with open({str(counter)!r}, 'a') as f: f.write('x')\n{end}", timeout=0.5)
    await kernel.start()
    await kernel.run("1")
    assert counter.read_text() == "x"


async def test_a_flood_is_bounded(kernel: Kernel) -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = await kernel.run("import sys\nfor _ in range(10_000): print('line\\n' * 1_000)")
    assert lines.ok
    assert lines.truncated
    assert len(lines.stdout) <= OutputLimits().stream_chars
    wide = await kernel.run("print('x' * 200_000_000)")
    assert wide.truncated
    large = await kernel.run("from IPython.display import HTML\nHTML('x' * 100_000_000)")
    assert large.ok
    assert large.truncated
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 200, f"the parent grew by {grown:.0f} MB"
    assert await kernel.value("1") == "1"


async def test_many_flushed_lines_all_arrive(kernel: Kernel) -> None:
    result = await kernel.run("for i in range(4000): print(i, flush=True)")
    assert result.stdout.split() == [str(i) for i in range(4000)]
    assert not result.truncated


async def test_endless_output_can_be_stopped(kernel: Kernel) -> None:
    result = await kernel.run("while True: print('x' * 1000)", timeout=0.5)
    assert result.status is ExecutionStatus.TIMEOUT
    await kernel.start()
    assert await kernel.value("1") == "1"


async def test_forged_messages_do_no_harm(kernel: Kernel) -> None:
    forge = (
        "from itertools import product\n"
        "ip = get_ipython().kernel\ns, pub = ip.session, ip.iopub_socket\n"
        "parent = s.pack(ip.get_parent()['header'])\n"
        "pub.send_multipart([b'stream', b'<IDS|MSG>', b'bad', b'{}', b'{}', b'{}', b'{}'])\n"
        "pub.send_multipart([b'junk'])\n"
        "kinds = 'stream', 'display_data', 'error', 'status', 'update_display_data', 5, None\n"
        "contents = {}, {'name': [], 'text': 3, 'data': 'x', 'ename': 1}, [], 'x', 7\n"
        "for kind, content in product(kinds, contents):\n"
        "    header = s.pack({**s.msg('x')['header'], 'msg_type': kind})\n"
        "    frames = [header, parent, b'{}', s.pack(content)]\n"
        "    pub.send_multipart([b'x', b'<IDS|MSG>', s.sign(frames), *frames])\n"
        "pub.send_multipart([b'x', b'<IDS|MSG>', s.sign([b'[]'] * 4), *[b'[]'] * 4])\n"
        "print('end')"
    )
    result = await kernel.run(forge)
    assert result.stdout == "end\n", result
    assert await kernel.value("1") == "1"


async def test_cells_wait_for_each_other(kernel: Kernel) -> None:
    first = kernel.run("import time\ntime.sleep(0.3)\nx = 1")
    second = kernel.run("x")
    results = await asyncio.gather(first, second)
    assert results[1].outputs[-1].data["text/plain"] == "1"


async def test_two_children_do_not_see_each_other(kernel: Kernel) -> None:
    other = Kernel()
    await other.start()
    await asyncio.gather(kernel.run("x = 1"), other.run("x = 2"))
    assert [await kernel.value("x"), await other.value("x")] == ["1", "2"]
    assert kernel.pid != other.pid
    await other.shutdown()


async def test_modules_are_warmed_in_the_background() -> None:
    executor = Kernel(warm=("wave", "no_such_module"))
    await executor.start()
    assert await executor.value("'wave' in __import__('sys').modules") == "True"
    await executor.restart()
    await executor.shutdown()


OVERLOOKS = """
import time, zmq

class Raw:
    def __init__(self, socket):
        self.socket = socket

    def send_multipart(self, message):
        self.socket.send_multipart(message)
        time.sleep(0.3)
        self.socket.getsockopt(zmq.EVENTS)

manager = get_ipython().kernel.shell_channel_thread.manager
manager._shell_stream = Raw(manager._shell_stream.socket)
"""
"""What ipykernel 7.0 to 7.3 do by chance: a request that comes during a reply is not noticed."""


async def test_a_request_that_the_child_overlooks_is_read_at_last(kernel: Kernel) -> None:
    result = await kernel.run(OVERLOOKS)
    if not result.ok:
        pytest.skip("another ipykernel")
    assert await kernel.value("6 * 7") == "42"
    assert await kernel.value("6 * 8") == "48"
