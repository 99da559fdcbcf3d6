"""The zygote that children are forked from now: made when needed, replaced when stale."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ovagent_jupyter.execution.freshness import Imported, imported_by
from ovagent_jupyter.execution.zygote import Zygote, modules_for

if TYPE_CHECKING:
    from ovagent_jupyter.execution.launch import LaunchOptions

Kind = tuple[Imported, bool]
"""What a zygote depends on, besides what it imports beforehand."""

OWN = Path(__file__).parents[2]
"""Where this package is imported from."""
REPLACED = 3
"""How often one that has ended by itself, or answers no more, is replaced."""


class Forking:
    """Holds at most one zygote for the executors of one event loop.

    Children of one that was replaced live on; it ends with the last of them.
    """

    def __init__(self) -> None:
        self._zygote: Zygote | None = None
        self._kind: Kind | None = None
        self._modules: tuple[str, ...] = ()
        self._why_not = "" if possible() else "this system cannot fork children safely"
        self._unsafe = False
        self._replaced = 0

    @property
    def why_not(self) -> str:
        """Why children are not forked; empty while they are, or none was wanted yet."""
        return self._why_not or (self._zygote.broken if self._zygote is not None else "")

    @property
    def pid(self) -> int | None:
        """Process id of the zygote, or None when there is none."""
        return self._zygote.pid if self._zygote is not None else None

    def zygote(self, options: LaunchOptions, warm: Sequence[str]) -> Zygote | None:
        """The one that can fork such a child now, if it is there."""
        zygote = self._zygote
        self._watch(options)
        if (
            zygote is None
            or self._unsafe
            or not zygote.usable
            or self._kind != _kind(options, warm)
        ):
            return None
        return zygote

    async def prepare(self, options: LaunchOptions, warm: Sequence[str]) -> Zygote | None:
        """The same, made if it is not there; where it is None, ``why_not`` says why."""
        self._watch(options)
        if not possible() or self._unsafe:
            return None
        kind, modules = _kind(options, warm), modules_for(warm, options.python)
        if self._ended() and self._replaced < REPLACED:
            self._replaced += 1
        elif self._tried(kind, modules):
            # One that could not be used is not tried again until something is different.
            return self.zygote(options, warm)
        self.close()
        self._kind, self._modules = kind, modules
        try:
            zygote = await asyncio.to_thread(
                Zygote, options.python, options.environment, modules, semaphores=options.semaphores
            )
        except (OSError, RuntimeError) as error:  # at its end an interpreter starts no threads
            self._why_not = str(error)
            return None
        self._zygote = zygote
        try:
            await zygote.start()
        except BaseException:
            self.close()
            raise
        if zygote.broken:
            self.spoil(zygote.broken)
            return None
        self._why_not = ""
        return zygote

    def spoil(self, why: str) -> None:
        """Fork no more children from the present one."""
        kind, modules = self._kind, self._modules
        self.close()
        self._kind, self._modules, self._why_not = kind, modules, why

    def close(self) -> None:
        """Have it end with the last of its children; safe to call twice."""
        if self._zygote is not None:
            self._zygote.retire()
        self._zygote = self._kind = None
        self._modules = ()

    def _watch(self, options: LaunchOptions) -> None:
        """Fork nothing any more once a child could put code where a zygote imports from."""
        if not self._unsafe and writes_code(options):
            self.close()
            self._unsafe = True
            self._why_not = "code may write to a folder that modules are imported from"

    def _ended(self) -> bool:
        """Whether there is one that could be used and cannot any more."""
        return self._zygote is not None and bool(self._zygote.broken)

    def _tried(self, kind: Kind, modules: tuple[str, ...]) -> bool:
        """Whether there is such a zygote, or there was one and it could not be used."""
        return (self._kind, self._modules) == (kind, modules)


def possible() -> bool:
    """Whether this system has what it takes to follow a process that somebody else has forked."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


def writes_code(options: LaunchOptions) -> bool:
    """Whether a child can write to where modules are imported from."""
    writable = {*options.spec.write, *((options.work_dir,) if options.work_dir else ())}
    if not writable:
        return False
    places = [*sys.path, *options.environment.get("PYTHONPATH", "").split(os.pathsep), str(OWN)]
    imported = {Path(place).resolve() for place in places if Path(place).is_absolute()}
    return any(
        one == other or one in other.parents or other in one.parents
        for one in (path.resolve() for path in writable)
        for other in imported
    )


def _kind(options: LaunchOptions, warm: Sequence[str]) -> Kind:
    return imported_by(options, warm), options.semaphores
