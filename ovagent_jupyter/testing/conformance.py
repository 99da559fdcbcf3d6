"""What every executor must do, as checks that a plugin can run on its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from ovagent_jupyter.errors import ExecutionError
from ovagent_jupyter.execution.executor import (
    ExecutionRequest,
    ExecutionResult,
    ExecutionStatus,
    Executor,
    Output,
)

ExecutorFactory = Callable[[], Executor]

FAILURES = {
    "1 / 0": "ZeroDivisionError",
    "import sys; sys.exit(3)": "SystemExit",
    "raise SystemExit": "SystemExit",
    "raise KeyboardInterrupt": "KeyboardInterrupt",
    "raise GeneratorExit('odd')": "GeneratorExit",
    "class Odd(BaseException): pass\nraise Odd('x')": "Odd",
    "def broken(:": "SyntaxError",
    "no_such_name": "NameError",
}
"""Code, and the name of the exception that its result must report."""


async def check_executor(factory: ExecutorFactory) -> None:
    """Run all checks; each gets an executor of its own.

    Args:
        factory: Makes an executor that is not started.

    Raises:
        AssertionError: A promise of the protocol is broken; the text says which.
    """
    for check in (check_lifecycle, check_code, check_handover, check_files):
        await check(factory)


async def check_lifecycle(factory: ExecutorFactory) -> None:
    """Starting, restarting and shutting down, each also when there is nothing to do."""
    executor = factory()
    _expect(not executor.alive, "an executor that was not started is not alive")
    await executor.shutdown()
    try:
        await executor.execute(ExecutionRequest("1"))
    except ExecutionError:
        pass
    else:
        _expect(False, "a cell without a start raises ExecutionError")
    try:
        await executor.start()
        await executor.start()
        _expect(executor.alive, "a started executor is alive")
        _expect((await executor.execute(ExecutionRequest("1"))).ok, "a cell runs after the start")
        _expect(await executor.interrupt(), "an interrupt of nothing keeps the variables")
        await executor.restart()
        _expect(executor.alive, "a restarted executor is alive")
    finally:
        await executor.shutdown()
        await executor.shutdown()
    _expect(not executor.alive, "an executor that was shut down is not alive")


async def check_code(factory: ExecutorFactory) -> None:
    """Cells: their outputs, their failures, their variables, and that each runs once."""
    executor = factory()
    await executor.start()
    try:
        await _check_outputs(executor)
        await _check_failures(executor)
        await executor.execute(ExecutionRequest("kept = 1"))
        await executor.restart()
        result = await executor.execute(ExecutionRequest("kept"))
        _expect(_name(result) == "NameError", "a restart begins with no variables")
    finally:
        await executor.shutdown()


async def check_handover(factory: ExecutorFactory) -> None:
    """Objects go there as copies, and what changed comes back."""
    executor = factory()
    await executor.start()
    try:
        numbers = [1, 2, 3]
        report = await executor.put({"numbers": numbers, "other": {"a": 1}})
        _expect(set(report.names) == {"numbers", "other"}, "put names what was handed over")
        code = "numbers.append(4)\nmade = sum(numbers)"
        _expect((await executor.execute(ExecutionRequest(code))).ok, "code sees what was put")
        _expect(numbers == [1, 2, 3], "code works on a copy")
        changes = await executor.changes(("made",))
        _expect(changes.objects.get("numbers") == [1, 2, 3, 4], "a changed object comes back")
        _expect(changes.objects.get("made") == sum([1, 2, 3, 4]), "an output comes back")
        _expect("other" not in changes.objects, "an unchanged object does not come back")
        kinds = {diff.name: diff.kind for diff in changes.diffs}
        _expect(kinds.get("numbers") == "changed", "the change is named")
    finally:
        await executor.shutdown()


async def check_files(factory: ExecutorFactory) -> None:
    """Code runs in a folder of its own, and reads a file once that is granted."""
    executor = factory()
    with tempfile.TemporaryDirectory() as place:
        file = _file(Path(place), "granted")
        _expect(not await executor.grant([file]), "a grant before the start begins nothing anew")
        await executor.start()
        try:
            await _expect_written(executor)
            result = await executor.execute(_reading(file))
            _expect(result.stdout == "granted\n", "a file that is granted can be read")
            _expect(not await executor.grant([file]), "what is granted already changes nothing")
            other = _file(Path(place), "later")
            await executor.grant([other])
            _expect(executor.alive, "an executor is alive after a grant")
            result = await executor.execute(_reading(other))
            _expect(result.stdout == "later\n", "a file that is granted later can be read")
        finally:
            await executor.shutdown()


def _reading(file: Path) -> ExecutionRequest:
    return ExecutionRequest(f"import pathlib\nprint(pathlib.Path({str(file)!r}).read_text())")


def _file(folder: Path, word: str) -> Path:
    """A file that holds a word; its path is resolved, as grants are."""
    path = folder.resolve() / f"{word}.txt"
    path.write_text(word)
    return path


async def _expect_written(executor: Executor) -> None:
    before = Path.cwd()
    code = "import pathlib\npathlib.Path('made.txt').write_text('here')"
    await executor.execute(ExecutionRequest(code))
    made = executor.work_dir / "made.txt"
    _expect(made.read_text() == "here", "a bare name is a file in the executor's own folder")
    _expect(Path.cwd() == before, "the user's own folder stays what it was")


async def _check_outputs(executor: Executor) -> None:
    seen: list[Output] = []
    code = "import sys\nprint('one')\nprint('two', file=sys.stderr)\nprint('three')\n6 * 7"
    result = await executor.execute(ExecutionRequest(code), seen.append)
    _expect(result.ok, "code that ends is OK")
    _expect(result.stdout == "one\nthree\n", "what is printed is in the result")
    _expect("two\n" in result.stderr, "standard error is in the result")
    _expect(result.outputs[-1].kind == "result", "the last expression is shown")
    _expect(result.outputs[-1].data.get("text/plain") == "42", "the last expression has a text")
    live = "".join(output.text for output in seen if output.stream == "stdout")
    _expect(live == result.stdout, "outputs are passed on live")
    silent = await executor.execute(ExecutionRequest("print(1)\nx = 5", silent=True), seen.append)
    _expect(silent.ok and not silent.outputs, "a silent cell shows nothing")
    result = await executor.execute(ExecutionRequest("x"))
    _expect(result.outputs[-1].data.get("text/plain") == "5", "variables are kept between cells")


async def _check_failures(executor: Executor) -> None:
    await executor.execute(ExecutionRequest("runs = []"))
    for number, (code, name) in enumerate(FAILURES.items(), 1):
        body = code if name == "SyntaxError" else f"runs.append({number})\n{code}"
        result = await executor.execute(ExecutionRequest(body))
        _expect(not result.ok, f"{code!r} fails")
        _expect(_name(result) == name, f"{code!r} reports {name}, not {_name(result)}")
        _expect(result.status is not ExecutionStatus.DEAD, f"{code!r} does not end the executor")
    result = await executor.execute(ExecutionRequest("runs == sorted(set(runs)) and len(runs)"))
    shown = result.outputs[-1].data.get("text/plain")
    _expect(shown == str(len(FAILURES) - 1), "each failing cell ran exactly once")


def _name(result: ExecutionResult) -> str:
    return result.error.name if result.error is not None else ""


def _expect(holds: bool, promise: str) -> None:  # noqa: FBT001 - reads like an assert
    if not holds:
        raise AssertionError(f"An executor keeps this promise: {promise}.")
