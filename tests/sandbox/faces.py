"""The ways to a child: our executor, and a notebook client with a kernel by name."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ovagent_jupyter.execution.executor import ExecutionRequest, ExecutionResult, Output
from ovagent_jupyter.execution.kernel import KernelExecutor
from ovagent_jupyter.execution.launch import LaunchOptions
from ovagent_jupyter.execution.supervised import Forked
from ovagent_jupyter.execution.warm import Keeper

PATIENCE = 30.0
"""Seconds beyond a cell's own limit after which the parent counts as hung."""


@dataclass(slots=True)
class Shot:
    """One attack, and what the parent was told of it."""

    tag: str
    status: str
    """The result's status; "raised" when the parent got an exception, "hung" when nothing."""
    text: str = ""
    """Everything the child printed, showed and raised."""
    outputs: tuple[Output, ...] = ()
    error: str = ""
    seconds: float = 0.0
    truncated: bool = False
    notes: dict[str, Any] | None = None
    """What a ritual saw besides."""

    def note(self, name: str) -> Any:
        """One thing that a ritual saw."""
        return (self.notes or {}).get(name)


class Face(Protocol):
    """A way to run cells in a child."""

    pid: int | None

    async def start(self) -> None:
        """Start a child unless one runs."""

    async def run(self, code: str, timeout: float, tag: str = "") -> Shot:
        """Run one cell."""

    async def stop(self) -> None:
        """End the child."""

    @property
    def alive(self) -> bool:
        """Whether the child runs."""

    def taken(self) -> str:
        """What the client took from the child besides outputs, as one text."""


class ExecutorFace:
    """Our executor.

    Args:
        options: How its child is started.
        arguments: Further arguments of the executor.
    """

    def __init__(self, options: LaunchOptions, **arguments: Any) -> None:
        self.options = options
        self.executor = KernelExecutor(options=options, **arguments)

    @property
    def alive(self) -> bool:
        """Whether the child runs."""
        return self.executor.alive

    @property
    def pid(self) -> int | None:
        """The process that the parent started."""
        return self.executor.pid

    def taken(self) -> str:
        """What the client took from the child besides outputs: a result has nothing else."""
        return ""

    @property
    def protections(self) -> Mapping[str, str]:
        """What was measured inside; nothing for a plain child."""
        return getattr(self.executor, "protections", {})

    async def start(self) -> None:
        """Start a child unless one runs."""
        await self.executor.start()

    async def stop(self) -> None:
        """End the child."""
        await asyncio.wait_for(self.executor.shutdown(), PATIENCE)

    async def run(self, code: str, timeout: float, tag: str = "") -> Shot:
        """Run one cell."""
        return await watched(
            tag, self.executor.execute(ExecutionRequest(code, timeout=timeout)), timeout
        )


class ForkedFace(ExecutorFace):
    """Our executor, with a child that a zygote forked.

    Args:
        options: How its child is made.
        arguments: Further arguments of the executor.
    """

    def __init__(self, options: LaunchOptions, **arguments: Any) -> None:
        # None besides the one that is asked for: the witness counts processes.
        self._keeper = Keeper(pause=1e9)
        super().__init__(options, keeper=self._keeper, **arguments)

    async def start(self) -> None:
        """Start a child unless one runs; it must be a forked one."""
        options = replace(self.options, isolation=self.executor.isolation)
        zygote = await self._keeper.forking.prepare(options, ())
        await super().start()
        child = self.executor._child
        if zygote is None or child is None or not isinstance(child.process._supervisor, Forked):
            raise AssertionError(f"not forked: {self._keeper.forking.why_not}")

    async def stop(self) -> None:
        """End the child and the zygote."""
        await super().stop()
        await self._keeper.close()


async def watched(tag: str, work: Any, timeout: float) -> Shot:
    """Wait for a result with our own patience, and tell how it went."""
    begun = time.monotonic()
    try:
        result = await asyncio.wait_for(work, timeout + PATIENCE)
    except TimeoutError:
        shot = Shot(tag, "hung")
    except Exception as error:
        shot = Shot(tag, "raised", error=f"{type(error).__name__}: {error}")
    else:
        shot = told(tag, result)
    shot.seconds = time.monotonic() - begun
    return shot


def told(tag: str, result: ExecutionResult) -> Shot:
    """A result as a shot."""
    error = result.error
    words = [output.text for output in result.outputs]
    words += [text for output in result.outputs for text in output.data.values()]
    words += [error.name, error.message, *error.traceback] if error else []
    return Shot(
        tag,
        result.status.value,
        "\n".join(words),
        result.outputs,
        f"{error.name}: {error.message}" if error else "",
        truncated=result.truncated,
    )


class NotebookFace:
    """A notebook client, as papermill and nbconvert use it.

    Args:
        kernel: The name of the kernelspec.
        settings: Variables of this process while it is started.
    """

    def __init__(self, kernel: str, settings: Mapping[str, str]) -> None:
        self._kernel = kernel
        self._settings = dict(settings)
        self._client: Any = None
        self._entered: Any = None
        self.protections: Mapping[str, str] = {}
        self._replies: list[object] = []

    def taken(self) -> str:
        """Widgets and replies, payloads included."""
        return repr((getattr(self._client, "widget_state", ""), self._replies[-1:]))

    @property
    def alive(self) -> bool:
        """Whether it was started and not stopped or found dead."""
        return self._client is not None

    @property
    def pid(self) -> int | None:
        """The process that the client started."""
        provisioner = getattr(getattr(self._client, "km", None), "provisioner", None)
        return getattr(provisioner, "pid", None)

    async def start(self) -> None:
        """Start a kernel unless one runs."""
        if self._client is not None:
            return
        import nbformat
        from nbclient import NotebookClient

        notebook = nbformat.v4.new_notebook()
        self._client = NotebookClient(
            notebook,
            kernel_name=self._kernel,
            allow_errors=True,
            interrupt_on_timeout=True,
            on_cell_executed=lambda execute_reply, **_: self._replies.append(execute_reply),
        )
        self._entered = self._client.async_setup_kernel()
        os.environ.update(self._settings)
        try:
            await self._entered.__aenter__()
        except BaseException:
            self._client = None
            raise
        finally:
            for name in self._settings:
                os.environ.pop(name, None)

    async def stop(self) -> None:
        """End the kernel."""
        if self._client is None:
            return
        self._client = None
        entered, self._entered = self._entered, None
        with contextlib.suppress(Exception):  # a client whose kernel is dead complains
            await asyncio.wait_for(entered.__aexit__(None, None, None), PATIENCE)

    async def run(self, code: str, timeout: float, tag: str = "") -> Shot:
        """Run one cell."""
        import nbformat

        client = self._client
        client.timeout = timeout
        client.nb.cells.append(nbformat.v4.new_code_cell(code))
        number = len(client.nb.cells) - 1
        cell = client.nb.cells[number]
        begun = time.monotonic()
        try:
            await asyncio.wait_for(client.async_execute_cell(cell, number), timeout + PATIENCE)
            shot = Shot(tag, "ok")
        except TimeoutError:
            shot = Shot(tag, "hung")
        except Exception as error:
            shot = Shot(tag, "raised", error=f"{type(error).__name__}: {error}"[:300])
            if "DeadKernel" in type(error).__name__:
                shot.status = "dead"
                await self.stop()
            elif "Timeout" in type(error).__name__:
                shot.status = "timeout"
        shot.seconds = time.monotonic() - begun
        shot.outputs = tuple(_output(output) for output in cell.outputs)
        shot.text = "\n".join(
            [o.text for o in shot.outputs] + [t for o in shot.outputs for t in o.data.values()]
        )
        failed = [output for output in cell.outputs if output.output_type == "error"]
        if failed and shot.status == "ok":
            shot.status = "error"
            shot.error = f"{failed[0].ename}: {failed[0].evalue}"
        return shot


def _output(raw: Any) -> Output:
    """An output of a notebook as one of ours."""
    if raw.output_type == "stream":
        return Output("stream", stream=raw.name, text=str(raw.text))
    if raw.output_type == "error":
        return Output("error", text="\n".join([raw.ename, raw.evalue, *raw.traceback]))
    data = {
        mime: value if isinstance(value, str) else str(value) for mime, value in raw.data.items()
    }
    return Output("display", data=data, metadata=dict(raw.metadata))
