"""What a plan needs from outside the child, found before anything runs: objects and files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ovagent_jupyter.config.sandbox import SandboxSpec
from ovagent_jupyter.errors import DataError
from ovagent_jupyter.omics.files import LOOKED_INTO, check_file
from ovagent_jupyter.omics.step import STEPS, ParamKind

if TYPE_CHECKING:
    from ovagent_jupyter.omics import Plan
    from ovagent_jupyter.omics.planner.plan import PlannedStep


def objects_named(plan: Plan, namespace: Mapping[str, object]) -> tuple[str, ...]:
    """Names of the user's objects that steps refer to, such as a reference to map to.

    Raises:
        DataError: A step names an object that is not there.
    """
    found: list[str] = []
    for step in plan.steps:
        for _param, value in _params_of_kind(step, "name"):
            names = [value] if isinstance(value, str) else list(map(str, _items(value)))
            for name in names:
                if name not in namespace:
                    raise DataError(
                        f"{step.title} needs an object named {name!r}, which is not there.",
                        next_step="Load it in a cell above first, or name another one.",
                    )
            found += names
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A file that the code writes in its own folder, to be moved to where the user wants it."""

    name: str
    """What the code calls it."""
    target: Path
    """Where it goes in the end."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan whose code can run in a folder of its own, and the files it needs and makes."""

    plan: Plan
    read: tuple[Path, ...] = ()
    """Files and folders that the user named, resolved: all that the code must see of the disk."""
    saved: tuple[SavedFile, ...] = ()


def with_files(plan: Plan, directory: Path) -> Prepared:
    """The plan with its files as the user means them: the code runs in another folder.

    A file that is read has its resolved path: what a link leads to is what is granted. A file
    that is written has a bare name, and is moved to its place after the last step.

    Args:
        plan: The plan; it is not changed.
        directory: The user's working folder.

    Raises:
        DataError: A file to be read is not there or is not what it seems, or one to be written
            exists already.
        ConfigError: A folder to be read would show more than data, such as the user's home.
    """
    steps: list[PlannedStep] = []
    read: list[Path] = []
    saved: list[SavedFile] = []
    for step in plan.steps:
        shown: dict[str, object] = {}
        inside: dict[str, object] = {}
        for param, value in _params_of_kind(step, "path"):
            path = directory / Path(str(value)).expanduser()
            if "file" in step.writes:
                saved.append(_saved(path, saved))
                shown[param], inside[param] = str(saved[-1].target), saved[-1].name
            else:
                read.append(_readable(path))
                shown[param] = inside[param] = str(read[-1])
        steps.append(_rendered(step, plan.name, shown, inside) if shown else step)
    return Prepared(replace(plan, steps=tuple(steps)), tuple(dict.fromkeys(read)), tuple(saved))


def files_behind(objects: Mapping[str, object]) -> tuple[Path, ...]:
    """The files that objects read as needed, such as that of a backed AnnData.

    Args:
        objects: Name → object.

    Raises:
        ConfigError: One of them would show more than data, such as the user's home.
    """
    from ovagent_jupyter.execution.handover import files_of

    files = files_of(objects)
    for real in files:
        _check_shown(real)
    return files


def in_memory(prepared: Prepared, namespace: Mapping[str, object]) -> Prepared:
    """The plan on data in memory: most steps cannot work on an AnnData that is in its file."""
    plan = prepared.plan
    value = namespace.get(plan.name)
    if not plan.steps or not getattr(value, "isbacked", False) or getattr(value, "is_view", False):
        return prepared
    first = plan.steps[0]
    load = f"{plan.name} = {plan.name}.to_memory()  # it is read from its file as needed"
    steps = (replace(first, code=f"{load}\n{first.code}"), *plan.steps[1:])
    return replace(prepared, plan=replace(plan, steps=steps))


def _rendered(
    step: PlannedStep, name: str, shown: Mapping[str, object], inside: Mapping[str, object]
) -> PlannedStep:
    """The step with the paths that a reader sees, and code with those that hold where it runs."""
    code = STEPS.get(step.id).render(name, {**step.params, **inside})
    return replace(step, params={**step.params, **shown}, code=code)


def _readable(path: Path) -> Path:
    """A file or folder to be granted, links followed.

    A data file that was looked into may lie anywhere; a folder, or a file of another kind, may
    hold more than data.
    """
    check_file(path)
    real = path.resolve()
    _check_shown(real)
    return real


def _check_shown(real: Path) -> None:
    if real.is_dir() or real.suffix not in LOOKED_INTO:
        SandboxSpec(read=(real,)).check(Path.home())


def _saved(path: Path, others: Iterable[SavedFile]) -> SavedFile:
    """A file to be written, once it is sure that nothing is overwritten."""
    # Not the whole path resolved: a link that leads nowhere yet would be followed.
    target = path.parent.resolve() / path.name
    names = {other.name: other.target for other in others}
    if os.path.lexists(path) or target in names.values():
        raise DataError(
            f"{path.name} exists already; no file of yours is overwritten.",
            next_step="Name another file, or move this one away first.",
        )
    if not target.parent.is_dir():
        raise DataError(
            f"The folder {str(path.parent)!r} does not exist.",
            next_step="Make it first, or name another one.",
        )
    name = target.name
    while name in names:  # two folders get a file of the same name
        name = f"other-{name}"
    return SavedFile(name, target)


def _params_of_kind(step: PlannedStep, kind: ParamKind) -> Iterator[tuple[str, object]]:
    for param in STEPS.get(step.id).params:
        value = step.params.get(param.name)
        if param.kind == kind and value is not None:
            yield param.name, value


def _items(value: object) -> Iterable[object]:
    return value if isinstance(value, Iterable) else ()
