"""What a plan needs from outside the child, found before anything runs: objects and files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ovagent_jupyter.errors import DataError
from ovagent_jupyter.omics.files import check_file
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


def with_absolute_paths(plan: Plan, directory: Path) -> Plan:
    """The plan with its files as the user means them: the child works in another folder.

    Args:
        plan: The plan; it is not changed.
        directory: The user's working folder.

    Raises:
        DataError: A file to be read is not there or is not what it seems, or one to be written
            exists already.
    """
    return replace(plan, steps=tuple(_located(step, plan.name, directory) for step in plan.steps))


def _located(step: PlannedStep, name: str, directory: Path) -> PlannedStep:
    paths = {}
    for param, value in _params_of_kind(step, "path"):
        path = directory / Path(str(value)).expanduser()
        if "file" in step.writes:
            _check_free(path)
        else:
            check_file(path)
        paths[param] = str(path)
    if not paths:
        return step
    params = {**step.params, **paths}
    return replace(step, params=params, code=STEPS.get(step.id).render(name, params))


def _check_free(path: Path) -> None:
    if path.exists():
        raise DataError(
            f"{path.name} exists already; no file of yours is overwritten.",
            next_step="Name another file, or move this one away first.",
        )
    if not path.parent.is_dir():
        raise DataError(
            f"The folder {str(path.parent)!r} does not exist.",
            next_step="Make it first, or name another one.",
        )


def _params_of_kind(step: PlannedStep, kind: ParamKind) -> Iterator[tuple[str, object]]:
    for param in STEPS.get(step.id).params:
        value = step.params.get(param.name)
        if param.kind == kind and value is not None:
            yield param.name, value


def _items(value: object) -> Iterable[object]:
    return value if isinstance(value, Iterable) else ()
