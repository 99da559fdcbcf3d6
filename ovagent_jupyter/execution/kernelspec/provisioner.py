"""The kernel ``ovagent-sandbox`` for any Jupyter client: starts it confined, or not at all."""

from __future__ import annotations

import asyncio
import os
import signal
import weakref
from collections.abc import Coroutine
from typing import Any, TypeVar

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from jupyter_client.session import Session

from ovagent_jupyter.config.schema import AgentConfig
from ovagent_jupyter.config.sources import resolve
from ovagent_jupyter.errors import ConfigError
from ovagent_jupyter.execution.child import MODULE
from ovagent_jupyter.execution.folders import make_folders
from ovagent_jupyter.execution.kernelspec.confined_kernel import ConfinedKernel
from ovagent_jupyter.execution.kernelspec.relay import PORTS
from ovagent_jupyter.loop_thread import LoopThread
from ovagent_jupyter.storage.paths import config_file

T = TypeVar("T")

OWN = ("kernel_id", "kernel_spec", "parent", "config")
"""Arguments that are the base class's; all others are settings from the kernelspec."""


class SandboxProvisioner(KernelProvisionerBase):
    """Starts a kernel in the same confinement as the agent's child.

    The settings are the user's own: file and environment. ``metadata.kernel_provisioner.config`` of
    a kernelspec may hold flat settings too, and can only tighten. The kernel gets neither the
    environment nor the working directory that the client wants for it.

    It lives on a loop of its own: that of the client may stop between two calls, and another
    client's call comes on another loop.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{name: kwargs.pop(name) for name in OWN if name in kwargs})
        self._tightened_by = kwargs
        self._loop = LoopThread("ovagent-sandbox")
        self._kernel: ConfinedKernel | None = None
        self._started = False
        self._finalizer = weakref.finalize(self, LoopThread.close, self._loop)

    @property
    def kernel(self) -> ConfinedKernel:
        """The kernel, from ``pre_launch`` on."""
        assert self._kernel is not None
        return self._kernel

    @property
    def has_process(self) -> bool:
        """Whether there is a process that was not waited for."""
        return self._started

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Settle where it will be reached and write the client's connection file.

        Raises:
            ConfigError: A setting cannot be used, or the kernelspec loosens one.
            SandboxUnavailableError: The settings ask for no confinement.
            ChildStartError: There is no place for its sockets.
        """
        if self._kernel is None:
            config = self._settings()
            folders = await asyncio.to_thread(make_folders, None, os.environ)
            try:
                self._kernel = ConfinedKernel(config, folders)
            except BaseException:
                folders.remove()
                raise
        manager: Any = self.parent
        manager.transport = "ipc"
        manager.ip = str(self.kernel.stem)
        for channel, port in PORTS.items():
            setattr(manager, f"{channel}_port", port)
        name = kwargs.get("env", {}).get("JPY_SESSION_NAME", "")
        manager.write_connection_file(jupyter_session=name)
        self.connection_info = manager.get_connection_info()
        command = manager.format_kernel_cmd(extra_arguments=kwargs.pop("extra_arguments", []))
        return await super().pre_launch(cmd=command, **kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the kernel, confined, and return where it is reached.

        Raises:
            ConfigError: The kernelspec names another program.
            SandboxUnavailableError: It cannot be confined as far as the settings want; nothing
                was run.
            ChildStartError: It was confined and did not start.
        """
        manager: Any = self.parent
        session = Session(
            key=manager.session.key,
            signature_scheme=manager.session.signature_scheme,
            username="kernel",
        )
        try:
            if MODULE not in cmd:
                raise ConfigError(
                    f"The kernelspec {self.kernel_spec.display_name!r} starts another program.",
                    why=f"The provisioner 'ovagent-sandbox' confines {MODULE} only.",
                    next_step="Use the argv of the kernelspec 'ovagent-sandbox'.",
                )
            first = self.kernel.isolation is None
            start = self.kernel.start(session, cmd[0], kwargs["env"])
            await self._on_loop(start, stop_with_caller=True)
        except BaseException:
            await self.cleanup()
            raise
        self._started = True
        if first:
            self._tell()
        return self.connection_info

    async def poll(self) -> int | None:
        """None while it runs, else its exit code."""
        process = self.kernel.process if self._kernel is not None else None
        if process is None or not self._started:
            return 0
        return None if process.running else process.exit_code

    async def wait(self) -> int | None:
        """Wait until it has ended, and give back what its process held."""
        if not self._started:
            return 0
        how = await self._on_loop(self.kernel.wait())
        code = await self.poll()
        self._started = False
        self.log.info("The kernel %s.", how)
        return code

    async def send_signal(self, signum: int) -> None:
        """Interrupt or end it; other signals do not reach it."""
        process = self.kernel.process if self._started else None
        if process is None:
            return
        if signum == signal.SIGINT:
            process.interrupt()
        elif signum in {signal.SIGTERM, signal.SIGKILL}:
            await self.kill()

    async def kill(self, restart: bool = False) -> None:  # noqa: FBT001, FBT002 - the base's
        """End it and all that it has started."""
        process = self.kernel.process if self._started else None
        if process is not None:
            await self._on_loop(process.kill())

    async def terminate(self, restart: bool = False) -> None:  # noqa: FBT001, FBT002 - the base's
        """The same: the supervisor ends by force whatever is left."""
        await self.kill()

    async def cleanup(self, restart: bool = False) -> None:  # noqa: FBT001, FBT002 - the base's
        """Give back what is held; on a restart, its address and the user's files stay."""
        self._started = False
        if self._kernel is None:
            return
        if restart:
            await self._on_loop(self._kernel.end())
            return
        await self._on_loop(self._kernel.close())
        self._kernel = None
        await asyncio.to_thread(self._loop.close)

    def _settings(self) -> AgentConfig:
        """The user's settings, tightened by the kernelspec."""
        file = config_file(os.environ)
        resolve(env=os.environ, file=file)
        try:
            return resolve(
                env=os.environ, file=file, flags=self._tightened_by, notebook=True
            ).config
        except ConfigError as error:
            raise ConfigError(
                f"The kernelspec {self.kernel_spec.display_name!r} has a setting that is refused.",
                why=f"{error.what} {error.why}".strip(),
                next_step="It may only tighten what your own settings say.",
            ) from error

    def _tell(self) -> None:
        for step in self.kernel.fallbacks:
            self.log.warning(
                "The kernel runs at level %r, not %r: %s",
                step.actual.name.lower(),
                step.requested.name.lower(),
                step.reason,
            )

    async def _on_loop(self, todo: Coroutine[Any, Any, T], *, stop_with_caller: bool = False) -> T:
        """Run something where the kernel lives.

        A caller that is cancelled leaves it to go on, or stops it and waits until it has stopped.
        """
        work = self._loop.submit(todo)
        future = asyncio.wrap_future(work.future)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if stop_with_caller:
                work.cancel()
                await asyncio.wait([future])
            raise
